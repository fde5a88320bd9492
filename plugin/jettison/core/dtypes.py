"""THE table of element types: numpy, ONNX, Triton and TensorRT names of one type in one row.

Sources: onnx.proto `TensorProto.DataType`; Triton `model_config.proto` `DataType` and the KServe v2
protocol's tensor data types; TensorRT `DataType`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np


@dataclass(frozen=True)
class ElementType:
    """One element type under all its names; None where a system lacks it.

    `triton` is the name in requests (`FP32`); `triton_config` the one in config.pbtxt (`TYPE_FP32`).
    """

    name: str
    numpy: np.dtype[Any]
    onnx: int
    bits: int
    triton: str | None
    tensorrt: str | None

    @property
    def triton_config(self) -> str | None:
        """The name in config.pbtxt, where text is called a string."""
        if self.triton is None:
            return None
        return "TYPE_STRING" if self.triton == "BYTES" else f"TYPE_{self.triton}"

    @property
    def is_float(self) -> bool:
        """Whether values are floating point numbers."""
        return "float" in self.name


TABLE: tuple[ElementType, ...] = (
    ElementType("float32", np.dtype(np.float32), 1, 32, "FP32", "FLOAT"),
    ElementType("uint8", np.dtype(np.uint8), 2, 8, "UINT8", "UINT8"),
    ElementType("int8", np.dtype(np.int8), 3, 8, "INT8", "INT8"),
    ElementType("uint16", np.dtype(np.uint16), 4, 16, "UINT16", None),
    ElementType("int16", np.dtype(np.int16), 5, 16, "INT16", None),
    ElementType("int32", np.dtype(np.int32), 6, 32, "INT32", "INT32"),
    ElementType("int64", np.dtype(np.int64), 7, 64, "INT64", "INT64"),
    ElementType("string", np.dtype(np.object_), 8, 0, "BYTES", None),
    ElementType("bool", np.dtype(np.bool_), 9, 8, "BOOL", "BOOL"),
    ElementType("float16", np.dtype(np.float16), 10, 16, "FP16", "HALF"),
    ElementType("float64", np.dtype(np.float64), 11, 64, "FP64", None),
    ElementType("uint32", np.dtype(np.uint32), 12, 32, "UINT32", None),
    ElementType("uint64", np.dtype(np.uint64), 13, 64, "UINT64", None),
    ElementType("bfloat16", np.dtype(ml_dtypes.bfloat16), 16, 16, "BF16", "BF16"),
    ElementType("float8_e4m3fn", np.dtype(ml_dtypes.float8_e4m3fn), 17, 8, None, "FP8"),
    ElementType("uint4", np.dtype(ml_dtypes.uint4), 21, 4, None, None),
    ElementType("int4", np.dtype(ml_dtypes.int4), 22, 4, None, "INT4"),
    ElementType("float4_e2m1fn", np.dtype(ml_dtypes.float4_e2m1fn), 23, 4, None, "FP4"),
)

_BY_NAME = {row.name: row for row in TABLE}
_BY_ONNX = {row.onnx: row for row in TABLE}
_BY_TRITON = {row.triton: row for row in TABLE if row.triton}
_BY_NUMPY = {row.numpy: row for row in TABLE}


def of_name(name: str) -> ElementType | None:
    """The row of that name (`float32`), or None."""
    return _BY_NAME.get(name)


def of_onnx(value: int) -> ElementType | None:
    """The row of an ONNX `TensorProto.DataType` value, or None."""
    return _BY_ONNX.get(value)


def of_triton(name: str) -> ElementType | None:
    """The row of a Triton type, in either spelling (`FP32` or `TYPE_FP32`), or None."""
    bare = name.removeprefix("TYPE_")
    return _BY_TRITON.get("BYTES" if bare == "STRING" else bare)


def of_numpy(dtype: np.dtype[Any]) -> ElementType | None:
    """The row of a numpy dtype, or None; any text dtype is `string`."""
    if dtype.kind in "USO":
        return _BY_NAME["string"]
    return _BY_NUMPY.get(dtype.newbyteorder("="))
