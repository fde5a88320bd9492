"""The table of element types: one row a type, and each system's own library agrees with it."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from jettison.core import dtypes
from jettison.core.dtypes import TABLE

NAMES = [row.name for row in TABLE]


@pytest.mark.parametrize("column", ["name", "numpy", "onnx", "triton", "triton_config", "tensorrt"])
def test_no_two_types_share_a_name_in_any_system(column: str) -> None:
    values = [getattr(row, column) for row in TABLE if getattr(row, column) is not None]
    assert len(set(values)) == len(values)


@pytest.mark.parametrize("row", TABLE, ids=NAMES)
def test_onnx_agrees_with_the_row(row: dtypes.ElementType) -> None:
    assert onnx.helper.tensor_dtype_to_np_dtype(row.onnx) == row.numpy
    spelled = TensorProto.DataType.Name(row.onnx).lower()
    renamed = {
        "float": "float32",
        "double": "float64",
        "float8e4m3fn": "float8_e4m3fn",
        "float4e2m1": "float4_e2m1fn",
    }
    assert renamed.get(spelled, spelled) == row.name


@pytest.mark.parametrize("row", [row for row in TABLE if row.triton], ids=lambda row: row.triton)
def test_tritons_client_agrees_with_the_row(row: dtypes.ElementType) -> None:
    utils = pytest.importorskip("tritonclient.utils", reason="the extra 'triton' is not installed")
    widened = {np.dtype(np.float32)} if row.name == "bfloat16" else set()  # by clients without ml_dtypes
    assert np.dtype(utils.triton_to_np_dtype(row.triton)) in {row.numpy} | widened
    spelled = bool if row.name == "bool" else row.numpy.type
    assert row.name == "bfloat16" or utils.np_to_triton_dtype(spelled) == row.triton


@pytest.mark.rtx
@pytest.mark.parametrize("row", [row for row in TABLE if row.tensorrt], ids=lambda row: row.tensorrt)
def test_tensorrt_knows_the_rows_name(row: dtypes.ElementType) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="the extra 'rtx' is not installed")
    assert hasattr(trt.DataType, str(row.tensorrt))


@pytest.mark.parametrize("row", TABLE, ids=NAMES)
def test_bits_are_those_of_the_values(row: dtypes.ElementType) -> None:
    packed = {"string": 0, "uint4": 4, "int4": 4, "float4_e2m1fn": 4}
    assert row.bits == packed.get(row.name, row.numpy.itemsize * 8)


@pytest.mark.parametrize("row", TABLE, ids=NAMES)
def test_a_row_is_found_by_each_of_its_names(row: dtypes.ElementType) -> None:
    assert dtypes.of_name(row.name) is row
    assert dtypes.of_onnx(row.onnx) is row
    assert dtypes.of_numpy(row.numpy) is row
    if row.triton is not None and row.triton_config is not None:
        assert dtypes.of_triton(row.triton) is row
        assert dtypes.of_triton(row.triton_config) is row


def test_text_is_called_bytes_in_requests_and_a_string_in_configurations() -> None:
    row = dtypes.of_triton("BYTES")
    assert row is not None
    assert (row.name, row.triton_config) == ("string", "TYPE_STRING")
    assert dtypes.of_triton("TYPE_STRING") is row
    assert dtypes.of_numpy(np.dtype("<U7")) is dtypes.of_numpy(np.dtype("S3")) is row


def test_byte_order_does_not_change_the_type() -> None:
    assert dtypes.of_numpy(np.dtype(">f4")) is dtypes.of_name("float32")


def test_what_no_system_knows_has_no_row() -> None:
    assert dtypes.of_name("float31") is None
    assert dtypes.of_onnx(TensorProto.COMPLEX64) is None
    assert dtypes.of_triton("FP31") is None
    assert dtypes.of_numpy(np.dtype(np.complex64)) is None


def test_floating_point_types_are_told_from_the_rest() -> None:
    assert {row.name for row in TABLE if row.is_float} == {
        "float32", "float16", "float64", "bfloat16", "float8_e4m3fn", "float4_e2m1fn",
    }  # fmt: skip
