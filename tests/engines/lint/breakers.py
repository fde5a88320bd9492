"""One small model for each check: what breaks it, at which node, and what TensorRT's compiler says to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray
FLOAT32 = np.float32
IMAGE = ("N", 16, 8, 8)
ROWS = ("N", 32)


def node(kind: str, inputs: Sequence[str], output: str, **attributes: object) -> onnx.NodeProto:
    """A node of the name of its output."""
    return helper.make_node(kind, list(inputs), [output], name=output, **attributes)


def quantize(
    source: str, name: str, scale: str = "s", zero: str = "z", **attributes: object
) -> onnx.NodeProto:
    return node("QuantizeLinear", [source, scale, zero], name, **attributes)


def dequantize(
    source: str, name: str, scale: str = "s", zero: str = "z", **attributes: object
) -> onnx.NodeProto:
    return node("DequantizeLinear", [source, scale, zero], name, **attributes)


def pair(source: str, scale: str = "s", zero: str = "z", **attributes: object) -> list[onnx.NodeProto]:
    """`source_q` and `source_dq`."""
    return [
        quantize(source, f"{source}_q", scale, zero, **attributes),
        dequantize(f"{source}_q", f"{source}_dq", scale, zero, **attributes),
    ]


def normal(*shape: int, seed: int = 0, deviation: float = 1.0) -> Array:
    return np.random.default_rng(seed).normal(0, deviation, shape).astype(FLOAT32)


def integers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(-127, 128, shape).astype(np.int8)


def model(
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, Array | onnx.TensorProto],
    *,
    shape: Sequence[int | str] = IMAGE,
    opset: int = 21,
    dtype: int = TensorProto.FLOAT,
    outputs: Sequence[str] = ("y",),
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    """A model from `x` to the outputs."""
    tensors = [
        value if isinstance(value, onnx.TensorProto) else numpy_helper.from_array(np.asarray(value), name)
        for name, value in constants.items()
    ]
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info(name, dtype, None) for name in outputs],
        tensors,
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    made = helper.make_model(graph, opset_imports=imports, ir_version=10)
    inferred = {value.name: value for value in onnx.shape_inference.infer_shapes(made).graph.output}
    for value in made.graph.output:
        value.CopyFrom(inferred[value.name])
    return made


SCALES: dict[str, Array] = {"s": FLOAT32(0.03), "z": np.int8(0)}
WEIGHT: dict[str, Array] = {
    "w": integers(16, 16, 3, 3),
    "sw": np.full(16, 0.001, FLOAT32),
    "zw": np.zeros(16, np.int8),
}
WIDE: dict[str, Array] = {
    "w": integers(32, 32),
    "sw": np.full(32, 0.001, FLOAT32),
    "zw": np.zeros(32, np.int8),
}
LAYER = [dequantize("w", "w_dq", "sw", "zw", axis=0)]


def conv(source: str, output: str, *, weight: str = "w_dq", more: Sequence[str] = ()) -> onnx.NodeProto:
    return node("Conv", [source, weight, *more], output, pads=[1, 1, 1, 1])


def good(**changes: object) -> onnx.ModelProto:
    """A quantized convolution with its activation, as TensorRT wants it; constants can be changed."""
    nodes = [*pair("x"), *LAYER, conv("x_dq", "c"), node("Relu", ["c"], "y")]
    return model(nodes, {**SCALES, **WEIGHT, **changes})


def _dynamic() -> onnx.ModelProto:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"], name="dynamic"),
        node("MatMulInteger", ["xq", "w", "xz"], "product"),
        node("Cast", ["product"], "y", to=TensorProto.FLOAT),
    ]
    return model(nodes, {"w": integers(32, 32)}, shape=ROWS)


def _integer_form() -> onnx.ModelProto:
    nodes = [
        quantize("x", "x_q"),
        node("QLinearMatMul", ["x_q", "s", "z", "w", "s", "z", "s", "z"], "product"),
        dequantize("product", "y"),
    ]
    return model(nodes, {**SCALES, "w": integers(32, 32)}, shape=ROWS)


def _unknown() -> onnx.ModelProto:
    nodes = [node("FusedThing", ["x"], "thing", domain="com.microsoft"), node("Relu", ["thing"], "y")]
    return model(nodes, {}, domains=["com.microsoft"])


def _unsure() -> onnx.ModelProto:
    nodes = [node("NonZero", ["x"], "nonzero"), node("Cast", ["nonzero"], "y", to=TensorProto.FLOAT)]
    return model(nodes, {}, shape=ROWS)


def _new_opset() -> onnx.ModelProto:
    return model([node("Relu", ["x"], "y")], {}, opset=26)


def _question_marks() -> onnx.ModelProto:
    return model([node("Relu", ["x"], "y")], {}, shape=("?", 16, "?", 8))


def _bias() -> onnx.ModelProto:
    bias = {
        "b": integers(16).astype(np.int32),
        "sb": np.full(16, 3e-4, FLOAT32),
        "zb": np.zeros(16, np.int32),
    }
    nodes = [
        *pair("x"),
        *LAYER,
        dequantize("b", "b_dq", "sb", "zb", axis=0),
        conv("x_dq", "y", more=["b_dq"]),
    ]
    return model(nodes, {**SCALES, **WEIGHT, **bias})


def _int16() -> onnx.ModelProto:
    return good(s=FLOAT32(1e-4), z=np.int16(0))


def _single() -> onnx.ModelProto:
    nodes = [*pair("x"), *LAYER, conv("x_dq", "c"), dequantize("k", "k_dq"), node("Mul", ["c", "k_dq"], "y")]
    return model(nodes, {**SCALES, **WEIGHT, "k": np.int8(30)})


def _shifted() -> onnx.ModelProto:
    return good(s=FLOAT32(0.0323), z=np.uint8(113))


def _unsigned() -> onnx.ModelProto:
    first = [*pair("x"), *LAYER, conv("x_dq", "c"), node("Relu", ["c"], "r")]
    nodes = [*first, *pair("r", "u", "uz"), conv("r_dq", "y")]
    return model(nodes, {**SCALES, **WEIGHT, "u": FLOAT32(0.03), "uz": np.uint8(0)})


def _dead() -> onnx.ModelProto:
    scale = WEIGHT["sw"].copy()
    scale[3] = 0
    return good(sw=scale)


def _computed() -> onnx.ModelProto:
    nodes = [
        node("ReduceMax", ["x"], "largest", keepdims=0),
        node("Div", ["largest", "range"], "s"),
        *pair("x"), *LAYER, conv("x_dq", "y"),
    ]  # fmt: skip
    return model(nodes, {**WEIGHT, "z": np.int8(0), "range": FLOAT32(127)})


def _mixed_types() -> onnx.ModelProto:
    """Float16 values with scales of float32, which ONNX allows from opset 23."""
    weight = {"w": WEIGHT["w"], "sw": WEIGHT["sw"].astype(np.float16), "zw": WEIGHT["zw"]}
    nodes = [
        quantize("x", "x_q"),
        dequantize("x_q", "x_dq", output_dtype=TensorProto.FLOAT16),
        *LAYER, conv("x_dq", "y"),
    ]  # fmt: skip
    return model(nodes, {**SCALES, **weight}, opset=23, dtype=TensorProto.FLOAT16)


def _channels() -> onnx.ModelProto:
    scales = {"s": np.linspace(0.02, 0.03, 16, dtype=FLOAT32), "z": np.zeros(16, np.int8)}
    nodes = [*pair("x", axis=1), *LAYER, conv("x_dq", "y")]
    return model(nodes, {**scales, **WEIGHT})


def _axis() -> onnx.ModelProto:
    nodes = [*pair("x"), dequantize("w", "w_dq", "sw", "zw", axis=0), node("MatMul", ["x_dq", "w_dq"], "y")]
    return model(nodes, {**SCALES, **WIDE, "sw": np.linspace(0.001, 0.002, 32, dtype=FLOAT32)}, shape=ROWS)


def _block() -> onnx.ModelProto:
    stored = helper.make_tensor("w", TensorProto.INT4, [48, 32], [1] * (48 * 32))
    zero = helper.make_tensor("zw", TensorProto.INT4, [2, 32], [0] * 64)
    nodes = [
        dequantize("w", "w_dq", "sw", "zw", axis=0, block_size=32),
        node("MatMul", ["x", "w_dq"], "y"),
    ]
    return model(nodes, {"w": stored, "sw": np.full((2, 32), 0.01, FLOAT32), "zw": zero}, shape=("N", 48))


def _float8() -> onnx.ModelProto:
    zero = helper.make_tensor("z", TensorProto.FLOAT8E4M3FN, [], [0.0])
    nodes = [*pair("x"), *pair("w"), node("MatMul", ["x_dq", "w_dq"], "y")]
    return model(nodes, {"s": FLOAT32(0.01), "z": zero, "w": normal(32, 32, deviation=0.2)}, shape=ROWS)


def _twice() -> onnx.ModelProto:
    second = [quantize("x", "again_q"), dequantize("again_q", "again_dq"), conv("again_dq", "d")]
    nodes = [
        *pair("x"),
        *LAYER,
        conv("x_dq", "c"),
        *second,
        node("Sub", ["c", "d"], "e"),
        node("Relu", ["d"], "f"),
    ]
    return model([*nodes, node("Add", ["e", "f"], "y")], {**SCALES, **WEIGHT})


def _branch() -> onnx.ModelProto:
    nodes = [*pair("x"), *LAYER, conv("x_dq", "c"), *pair("c"), node("Add", ["c_dq", "x_dq"], "y")]
    return model(nodes, {**SCALES, **WEIGHT})


def _unfused() -> onnx.ModelProto:
    nodes = [*pair("x"), *LAYER, conv("x_dq", "c"), *pair("c"), node("Relu", ["c_dq"], "y")]
    return model(nodes, {**SCALES, **WEIGHT})


def _output() -> onnx.ModelProto:
    nodes = [*pair("x"), *LAYER, conv("x_dq", "c"), quantize("c", "c_q"), dequantize("c_q", "y")]
    return model(nodes, {**SCALES, **WEIGHT})


def _float_reader() -> onnx.ModelProto:
    nodes = [*pair("x"), *LAYER, conv("x_dq", "c"), *pair("c"), node("Softmax", ["c_dq"], "y", axis=1)]
    return model(nodes, {**SCALES, **WEIGHT})


def _concat() -> onnx.ModelProto:
    branches = [conv("x_dq", "c"), *pair("c"), conv("x_dq", "d"), *pair("d", "s2")]
    nodes = [*pair("x"), *LAYER, *branches, node("Concat", ["c_dq", "d_dq"], "y", axis=1)]
    return model(nodes, {**SCALES, **WEIGHT, "s2": FLOAT32(0.04)})


def _norm() -> onnx.ModelProto:
    norm = {name: np.abs(normal(16, seed=place)) + 0.5 for place, name in enumerate(("g", "h", "m", "v"))}
    nodes = [conv("x", "c", weight="w"), node("BatchNormalization", ["c", "g", "h", "m", "v"], "y")]
    return model(nodes, {"w": normal(16, 16, 3, 3, deviation=0.1), **norm})


def _half_quantized() -> onnx.ModelProto:
    return model([*LAYER, conv("x", "y")], WEIGHT)


def _narrow() -> onnx.ModelProto:
    narrow = {"w": integers(32, 4), "sw": np.full(4, 0.001, FLOAT32), "zw": np.zeros(4, np.int8)}
    nodes = [*pair("x"), dequantize("w", "w_dq", "sw", "zw", axis=1), node("MatMul", ["x_dq", "w_dq"], "y")]
    return model(nodes, {**SCALES, **narrow}, shape=ROWS)


def _lone() -> onnx.ModelProto:
    nodes = [conv("x", "a", weight="f"), *pair("a"), *LAYER, conv("a_dq", "b"), conv("b", "y", weight="f")]
    return model(nodes, {**SCALES, **WEIGHT, "f": normal(16, 16, 3, 3, deviation=0.1)})


def _block_conv() -> onnx.ModelProto:
    stored = helper.make_tensor("w", TensorProto.INT4, [16, 16, 2, 2], [1] * 1024)
    zero = helper.make_tensor("zw", TensorProto.INT4, [16], [0] * 16)
    nodes = [dequantize("w", "w_dq", "sw", "zw", axis=0), node("Conv", ["x", "w_dq"], "y")]
    return model(nodes, {"w": stored, "sw": np.full(16, 0.01, FLOAT32), "zw": zero})


@dataclass(frozen=True)
class Breaker:
    """A model that breaks one rule.

    Args:
        build: Makes it.
        node: Where the check must point; None for the model as a whole.
        refused: Whether TensorRT's compiler refuses it, which is known of this very model.
        least_db: Where the check mends: the answers after against those before. 25 dB is what two roundings
            to 8 bits differ by at most.
    """

    build: Callable[[], onnx.ModelProto]
    node: str | None
    refused: bool
    least_db: float = 0.0


EXACT = 120.0
"""The same values, but for the rounding of float32."""

BREAKERS: dict[str, Breaker] = {
    "T101": Breaker(_dynamic, "dynamic", refused=True),
    "T102": Breaker(_integer_form, "product", refused=True),
    "T103": Breaker(_unknown, "thing", refused=True),
    "T104": Breaker(_unsure, "nonzero", refused=True),
    "T105": Breaker(_new_opset, None, refused=False, least_db=EXACT),
    "T106": Breaker(_question_marks, None, refused=False, least_db=EXACT),
    "T110": Breaker(_bias, "b_dq", refused=True, least_db=EXACT),
    "T111": Breaker(
        _int16, "x_q", refused=True, least_db=45
    ),  # values beyond the range of the pair are cut off no more
    "T112": Breaker(_single, "k_dq", refused=True, least_db=EXACT),
    "T113": Breaker(_shifted, "x_q", refused=True, least_db=25),
    "T114": Breaker(_unsigned, "r_q", refused=False, least_db=25),
    "T115": Breaker(_dead, "w_dq", refused=True, least_db=90),
    "T116": Breaker(_computed, "x_q", refused=True),
    "T117": Breaker(
        _mixed_types, "x_q", refused=False, least_db=40
    ),  # the scale itself is rounded to float16
    "T118": Breaker(_channels, "x_q", refused=False, least_db=25),
    "T119": Breaker(_axis, "w_dq", refused=False, least_db=35),
    "T120": Breaker(_block, "w_dq", refused=False),
    "T121": Breaker(_float8, "x_q", refused=True),
    "T201": Breaker(_twice, "again_q", refused=False, least_db=EXACT),
    "T202": Breaker(_branch, "c_q", refused=False, least_db=25),
    "T203": Breaker(_unfused, "c_q", refused=False, least_db=25),
    "T204": Breaker(_output, "c_q", refused=False, least_db=25),
    "T205": Breaker(_float_reader, "c_q", refused=False, least_db=25),
    "T206": Breaker(_concat, "y", refused=False, least_db=25),
    "T207": Breaker(_norm, "y", refused=False, least_db=EXACT),
    "T208": Breaker(_half_quantized, "y", refused=False),
    "T209": Breaker(_narrow, "y", refused=False),
    "T210": Breaker(_lone, "b", refused=False),
    "T211": Breaker(_block_conv, "w_dq", refused=False),
}
