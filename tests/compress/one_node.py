"""A model of one node: arrays are constants, strings are inputs; run by ONNX Runtime and as a module."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from zoo.session import run

OPSET = 21


def one_node(
    kind: str,
    *inputs: str | np.ndarray | np.generic | None,
    feeds: dict[str, np.ndarray],
    outputs: int = 1,
    **attributes: Any,
) -> ir.Model:
    """The model; open dimensions are those of the arrays that are fed."""
    constants, names = [], []
    for index, value in enumerate(inputs):
        if isinstance(value, np.ndarray | np.generic):
            constants.append(numpy_helper.from_array(np.asarray(value), f"constant_{index}"))
            names.append(f"constant_{index}")
        else:
            names.append(value or "")
    made = [f"y_{index}" for index in range(outputs)]
    node = helper.make_node(kind, names, made, name="the_node", **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in feeds.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in made],
        constants,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True))
    for value in model.graph.outputs:
        if value.type is None:  # inference knows nothing of operators that are functions
            value.type, value.shape = (
                ir.TensorType(ir.DataType.FLOAT),
                ir.Shape(next(iter(feeds.values())).shape),
            )
    return model


def answers(model: ir.Model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """What ONNX Runtime says, graph optimizations off."""
    return list(run(ir.to_proto(model).SerializeToString(), feeds).values())
