"""A model as one message, weights behind the rest: what a parser reads is the whole model."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from jettison.graph.message import message_of
from jettison.graph.save import model_bytes
from zoo.builder import Net
from zoo.session import cleaned, run
from zoo.table import ZOO


def parts(message: bytes) -> tuple[bytes, list[bytes]]:
    """The model without its weights, and these by name.

    Shapes of weights, which stand with them anyway, and whether a text is empty or not there are left out.
    """
    proto = onnx.ModelProto.FromString(message)
    weights = sorted(proto.graph.initializer, key=lambda tensor: tensor.name)
    names = {tensor.name for tensor in weights}
    known = [info for info in proto.graph.value_info if info.name not in names]
    for part in (*weights, *known):
        part.ClearField("doc_string")
    found = [tensor.SerializeToString(deterministic=True) for tensor in weights]
    infos = [info.SerializeToString(deterministic=True) for info in known]
    del proto.graph.initializer[:]
    del proto.graph.value_info[:]
    return proto.SerializeToString(deterministic=True) + b"".join(infos), found


@pytest.mark.parametrize("name", ZOO)
def test_a_parser_reads_the_same_model_as_from_its_file(name: str) -> None:
    model = cleaned(name)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    message = message_of(model)
    assert parts(message) == parts(model_bytes(model))
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before, "the model given stays"


def weighted(size: int) -> ir.Model:
    """A product whose weight of `size` squared is an output and a sum's operand as well."""
    net = Net("weighted")
    x = net.input("x", ["batch", size])
    weight = net.const(net.he((size, size), size), "weight")
    net.named("MatMul", x, weight, to="y")
    net.output("y", ["batch", size])
    net.output(weight, [size, size])
    return ir.from_proto(net.model())


@pytest.mark.parametrize("size", [4, 64])
def test_a_weight_that_is_an_output_stays_one(size: int) -> None:
    model = weighted(size)
    x = np.ones((2, size), np.float32)
    found, expected = (run(make(model), {"x": x}) for make in (message_of, model_bytes))
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


def test_large_weights_stand_behind_the_rest() -> None:
    """The message ends with the weight's own bytes: it was not serialized inside the graph."""
    model = cleaned("conv_relu_chain")
    large = [
        value.const_value.numpy().tobytes()
        for value in model.graph.initializers.values()
        if value.const_value is not None and value.const_value.nbytes >= 1024
    ]
    message = message_of(model)
    rest = message.index(large[0])
    assert len(large) > 1
    assert all(content not in message[:rest] for content in large)
    assert len(message) - rest < sum(map(len, large)) + 200 * len(large)
