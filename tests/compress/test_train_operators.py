"""Each operator computes in torch what it computes in ONNX Runtime, and has a gradient or is refused."""

from __future__ import annotations

import numpy as np
import pytest
from one_node import answers, one_node

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from jettison.compress.distillation.graph_module import GraphModule, graph_module  # noqa: E402
from jettison.compress.distillation.operators.node import NoGradientError  # noqa: E402
from jettison.compress.distillation.operators.table import TABLE  # noqa: E402

TOLERANCE = 2e-5
"""Both sum float32 in an order of their own: seen are differences of 3e-6 of the largest output."""


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def ints(*values):
    return np.array(values, np.int64)


X = normal(2, 4, 6, 8)
POSITIVE = np.abs(X) + np.float32(0.1)
VECTOR = normal(4, seed=1)
FLAT = normal(3, 5)
TRUTH = X > 0
SCALES = np.array([1, 1, 2, 1.5], np.float32)
W = normal(6, 4, 3, 3, seed=2) / 6
UP = normal(4, 2, 3, 3, seed=3) / 6
GROUPED = normal(8, 2, 3, 3, seed=4) / 4


ACTIVATIONS = [
    (kind, kind, ("x",), {})
    for kind in (
        "Abs", "Cos", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu",
        "LogSoftmax", "Mish", "Neg", "Relu", "Sigmoid", "Sin", "Softmax", "Softplus", "Softsign", "Tanh",
    )
]  # fmt: skip
SETTINGS = [
    ("elu alpha", "Elu", ("x",), {"alpha": 0.3}),
    ("gelu tanh", "Gelu", ("x",), {"approximate": "tanh"}),
    ("hard sigmoid", "HardSigmoid", ("x",), {"alpha": 0.3, "beta": 0.4}),
    ("leaky", "LeakyRelu", ("x",), {"alpha": 0.2}),
    ("softmax axis", "Softmax", ("x",), {"axis": 1}),
    ("prelu", "PRelu", ("x", VECTOR[:, None, None]), {}),
    ("clip both", "Clip", ("x", np.float32(-0.5), np.float32(0.7)), {}),
    ("clip low", "Clip", ("x", np.float32(-0.5)), {}),
    ("clip high", "Clip", ("x", None, np.float32(0.5)), {}),
    ("clip nothing", "Clip", ("x",), {}),
]
ARITHMETIC = [
    ("add", "Add", ("x", VECTOR[:, None, None]), {}),
    ("sub", "Sub", (VECTOR[:, None, None], "x"), {}),
    ("mul", "Mul", ("x", "x"), {}),
    ("div", "Div", ("x", POSITIVE), {}),
    ("square", "Pow", ("x", np.float32(2)), {}),
    ("whole exponent", "Pow", ("x", np.int64(3)), {}),
    ("max", "Max", ("x", VECTOR[:, None, None], np.zeros((), np.float32)), {}),
    ("min", "Min", ("x", VECTOR[:, None, None]), {}),
    ("sum", "Sum", ("x", "x", VECTOR[:, None, None]), {}),
    ("mean", "Mean", ("x", VECTOR[:, None, None]), {}),
    ("where", "Where", (TRUTH, "x", np.float32(0)), {}),
    ("cast down and up", "Cast", ("x",), {"to": 11}),
    ("cast like", "CastLike", ("x", np.zeros(1, np.float64)), {}),
]
POSITIVES = [
    ("log", "Log", ("p",), {}),
    ("sqrt", "Sqrt", ("p",), {}),
    ("reciprocal", "Reciprocal", ("p",), {}),
]
DECISIONS = [
    (kind, kind, ("x", np.float32(0.1)), {})
    for kind in ("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal")
] + [
    ("is nan", "IsNaN", ("x",), {}),
    ("not", "Not", ("t",), {}),
    ("and", "And", ("t", ~TRUTH), {}),
    ("or", "Or", ("t", TRUTH[:1]), {}),
    ("xor", "Xor", ("t", TRUTH[:1]), {}),
    ("argmax", "ArgMax", ("x",), {"axis": 2, "keepdims": 0}),
    ("argmin", "ArgMin", ("x",), {"axis": 1}),
    ("whole division", "Div", ("i", np.int64(3)), {}),
    ("modulo", "Mod", ("i", np.int64(3)), {}),
    ("shape", "Shape", ("x",), {}),
    ("part of shape", "Shape", ("x",), {"start": 1, "end": -1}),
    ("size", "Size", ("x",), {}),
]
MOVES = [
    ("reshape", "Reshape", ("x", ints(0, -1, 4)), {}),
    ("flatten", "Flatten", ("x",), {"axis": 2}),
    ("flatten from behind", "Flatten", ("x",), {"axis": -1}),
    ("transpose", "Transpose", ("x",), {"perm": [2, 0, 3, 1]}),
    ("reverse", "Transpose", ("x",), {}),
    ("unsqueeze", "Unsqueeze", ("x", ints(0, -1)), {}),
    ("slice", "Slice", ("x", ints(1, 2), ints(100, -1), ints(2, 3)), {}),
    ("slice with steps", "Slice", ("x", ints(0), ints(8), ints(3), ints(3)), {}),
    ("slice backwards", "Slice", ("x", ints(-1), ints(-(2**62)), ints(2), ints(-2)), {}),
    ("gather", "Gather", ("x", np.array([[0, -1], [2, 0]])), {"axis": 1}),
    ("gather one", "Gather", ("x", np.int64(1)), {"axis": 2}),
    ("gather rows of a table", "Gather", (FLAT, "i"), {}),
    ("gather elements", "GatherElements", ("x", np.tile(ints(1, -1), (2, 4, 6, 1))), {"axis": 3}),
    ("concat", "Concat", ("x", X, "x"), {"axis": 1}),
    ("expand", "Expand", ("f", ints(2, 1, 5)), {}),
    ("tile", "Tile", ("f", ints(2, 3)), {}),
    ("depth to space", "DepthToSpace", ("x",), {"blocksize": 2}),
    ("depth to space crd", "DepthToSpace", ("x",), {"blocksize": 2, "mode": "CRD"}),
    ("space to depth", "SpaceToDepth", ("x",), {"blocksize": 2}),
    ("cumsum", "CumSum", ("x", np.int64(1)), {}),
    ("upper", "Trilu", ("x",), {}),
    ("lower", "Trilu", ("x", np.int64(1)), {"upper": 0}),
    ("pad", "Pad", ("x", ints(0, 0, 1, 2, 0, 0, 3, 0), np.float32(0.5)), {}),
    ("pad and cut", "Pad", ("x", ints(0, 0, -1, 2, 0, 0, 3, -1)), {}),
    ("pad some axes", "Pad", ("x", ints(1, 2, 3, 0), None, ints(-1, 2)), {}),
    ("reflect", "Pad", ("x", ints(0, 0, 1, 2, 0, 0, 3, 0)), {"mode": "reflect"}),
    ("edge", "Pad", ("x", ints(0, 1, 1, 2, 0, 0, 3, 0)), {"mode": "edge"}),
]
REDUCTIONS = [
    (kind, kind, ("x", ints(1, -1)), {})
    for kind in (
        "ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum",
        "ReduceSumSquare",
    )
] + [
    ("all axes", "ReduceSum", ("x",), {"keepdims": 0}),
    ("no axes", "ReduceSum", ("x",), {"noop_with_empty_axes": 1}),
]  # fmt: skip
POOLS = [
    ("max pool", "MaxPool", ("x",), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("max pool padded", "MaxPool", ("x",), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ("max pool uneven", "MaxPool", ("x",), {"kernel_shape": [3, 3], "pads": [0, 0, 1, 2], "strides": [2, 2]}),
    ("max pool dilated", "MaxPool", ("x",), {"kernel_shape": [2, 3], "dilations": [2, 1]}),
    ("max pool ceil", "MaxPool", ("x",), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    (
        "max pool same",
        "MaxPool",
        ("x",),
        {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"},
    ),
    ("average pool", "AveragePool", ("x",), {"kernel_shape": [3, 2], "strides": [2, 1]}),
    ("average without pads", "AveragePool", ("x",), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    (
        "average with pads",
        "AveragePool",
        ("x",),
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
    ),
    ("average uneven", "AveragePool", ("x",), {"kernel_shape": [3, 3], "pads": [0, 1, 1, 1]}),
    (
        "average uneven with pads",
        "AveragePool",
        ("x",),
        {"kernel_shape": [3, 3], "pads": [0, 1, 1, 1], "count_include_pad": 1},
    ),
    ("global average", "GlobalAveragePool", ("x",), {}),
    ("global max", "GlobalMaxPool", ("x",), {}),
]
RESIZES = [
    (f"{mode} {how}", "Resize", ("x", None, SCALES), {"mode": mode, "coordinate_transformation_mode": how})
    for mode in ("nearest", "linear")
    for how in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
] + [
    (f"nearest {how}", "Resize", ("x", None, SCALES), {"mode": "nearest", "nearest_mode": how})
    for how in ("floor", "ceil", "round_prefer_ceil")
] + [
    (f"nearest {how} by {scale:.2f}", "Resize", ("x", None, np.array([1, 1, scale, scale], np.float32)),
     {"mode": "nearest", "nearest_mode": rounded, "coordinate_transformation_mode": how})
    for scale in (1 / 3, 0.6, 1.7)
    for how in ("half_pixel", "asymmetric")
    for rounded in ("round_prefer_floor", "floor")
] + [
    ("to a size", "Resize", ("x", None, None, ints(2, 4, 3, 5)), {"mode": "linear"}),
    ("some axes", "Resize", ("x", None, SCALES[2:]), {"mode": "linear", "axes": [2, 3]}),
]  # fmt: skip
PRODUCTS = [
    ("conv", "Conv", ("x", W, VECTOR.repeat(2)[:6].copy()), {"pads": [1, 1, 1, 1]}),
    ("conv uneven", "Conv", ("x", W), {"pads": [0, 1, 2, 1], "strides": [2, 1]}),
    ("conv dilated", "Conv", ("x", W), {"dilations": [2, 3], "pads": [2, 3, 2, 3]}),
    ("conv same", "Conv", ("x", W), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ("conv valid", "Conv", ("x", W), {"auto_pad": "VALID"}),
    ("conv grouped", "Conv", ("x", GROUPED), {"group": 2}),
    ("conv of computed weights", "Conv", (X, "w"), {}),
    ("transposed", "ConvTranspose", ("x", UP, VECTOR[:2].copy()), {"strides": [2, 2]}),
    ("transposed uneven", "ConvTranspose", ("x", UP), {"strides": [2, 2], "pads": [1, 0, 0, 2]}),
    (
        "transposed longer",
        "ConvTranspose",
        ("x", UP),
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
    ),
    ("transposed grouped", "ConvTranspose", ("x", UP), {"group": 2, "dilations": [2, 1]}),
    ("gemm", "Gemm", ("f", normal(5, 7), normal(7)), {}),
    ("gemm turned", "Gemm", ("f", normal(7, 5), normal(1, 7)), {"transB": 1}),
    ("gemm bias of rows", "Gemm", ("f", normal(5, 7), normal(3, 1)), {}),
    ("gemm bias of a table", "Gemm", ("f", normal(5, 7), normal(3, 7)), {}),
    ("gemm bias of rows to one", "Gemm", ("f", normal(5, 1), normal(3, 1)), {}),
    ("gemm scaled", "Gemm", ("f", normal(5, 7), normal(7)), {"alpha": 0.5, "beta": 2.0}),
    ("gemm turned activation", "Gemm", ("f", normal(3, 7)), {"transA": 1}),
    ("matmul", "MatMul", ("x", normal(8, 3)), {}),
    ("matmul of a constant", "MatMul", (normal(3, 6), "x"), {}),
    ("matmul of activations", "MatMul", ("x", normal(2, 4, 8, 3)), {}),
    ("einsum", "Einsum", ("x", normal(8, 3)), {"equation": "bchw,wd->bhcd"}),
    ("batchnorm", "BatchNormalization", ("x", VECTOR, VECTOR, VECTOR, np.abs(VECTOR)), {"epsilon": 1e-3}),
    ("layernorm", "LayerNormalization", ("x", normal(8), normal(8, seed=5)), {"epsilon": 1e-3}),
    ("layernorm without bias", "LayerNormalization", ("x", normal(8)), {}),
    ("layernorm of two axes", "LayerNormalization", ("x", normal(6, 8), normal(6, 8)), {"axis": 2}),
    ("instancenorm", "InstanceNormalization", ("x", VECTOR, VECTOR), {}),
    ("groupnorm", "GroupNormalization", ("x", VECTOR, VECTOR), {"num_groups": 2}),
]  # fmt: skip
EVERY = [
    *ACTIVATIONS, *SETTINGS, *ARITHMETIC, *POSITIVES, *DECISIONS, *MOVES, *REDUCTIONS, *POOLS, *RESIZES,
    *PRODUCTS,
]  # fmt: skip
FEEDS = {"x": X, "p": POSITIVE, "f": FLAT, "t": TRUTH, "i": np.array([[0, 2], [1, -1]]), "w": W}


def module_answers(model, feeds):
    module = GraphModule(model)
    tensors = {name: torch.from_numpy(feeds[name].copy()) for name in module.input_names}
    for tensor in tensors.values():
        tensor.requires_grad_(tensor.is_floating_point())
    return module, tensors, module(*tensors.values())


@pytest.mark.parametrize(
    ("kind", "inputs", "attributes"), [case[1:] for case in EVERY], ids=[c[0] for c in EVERY]
)
def test_an_operator_computes_what_onnx_runtime_does_and_passes_a_gradient(kind, inputs, attributes):
    fed = [value for value in inputs if isinstance(value, str)]
    feeds = {name: FEEDS[name] for name in FEEDS if name in fed}
    if kind == "Gather" and "i" in feeds:
        feeds["i"] = np.abs(feeds["i"])
    model = one_node(kind, *inputs, feeds=feeds, **attributes)
    expected = answers(model, feeds)
    module, tensors, found = module_answers(model, feeds)
    for one, other in zip(expected, found, strict=True):
        assert one.shape == tuple(other.shape)
        assert one.dtype == other.detach().numpy().dtype
        largest = max(float(np.abs(one.astype(np.float64)).max()), 1.0)
        np.testing.assert_allclose(other.detach().numpy(), one, rtol=0, atol=TOLERANCE * largest)
    if found[0].requires_grad:
        found[0].sum().backward()
        learned = [*module.parameters(), *(t for t in tensors.values() if t.requires_grad)]
        assert all(torch.isfinite(value.grad).all() for value in learned)
    else:
        assert kind in {case[1] for case in DECISIONS}


def test_split_and_squeeze_give_what_onnx_runtime_does():
    for inputs, settings in (
        (("x", ints(1, 3)), {"axis": 1}),
        (("x",), {"axis": 3, "num_outputs": 3}),
    ):
        count = settings.get("num_outputs", 2)
        model = one_node("Split", *inputs, feeds={"x": X}, outputs=count, **settings)
        for one, other in zip(answers(model, {"x": X}), module_answers(model, {"x": X})[2], strict=True):
            np.testing.assert_array_equal(one, other.detach().numpy())
    narrow = X[:, :1, :, :1].copy()
    for axes in ((), (ints(1),), (ints(1, -1),)):
        model = one_node("Squeeze", "x", *axes, feeds={"x": narrow})
        assert answers(model, {"x": narrow})[0].shape == module_answers(model, {"x": narrow})[2][0].shape


def test_shape_arithmetic_runs_on_whole_numbers():
    feeds = {"a": np.array(1), "b": np.array(9), "c": np.array(3)}
    model = one_node("Range", "a", "b", "c", feeds=feeds)
    assert module_answers(model, feeds)[2][0].tolist() == [1, 4, 7]
    model = one_node("ConstantOfShape", "s", feeds={"s": ints(2, 3)})
    assert module_answers(model, {"s": ints(2, 3)})[2][0].shape == (2, 3)


REFUSED = [
    (
        "LSTM",
        ("x", normal(1, 16, 8), normal(1, 16, 4)),
        {"hidden_size": 4},
        "LSTM 'the_node' has no gradient here",
    ),
    ("Resize", ("x", None, SCALES), {"mode": "cubic"}, "resizes by 'cubic', expected nearest or linear"),
    ("AveragePool", ("x",), {"kernel_shape": [2, 2], "dilations": [2, 2]}, "has dilations"),
    ("MaxPool", ("x",), {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1], "ceil_mode": 1}, "has ceil_mode with"),
    ("CumSum", ("x", np.int64(1)), {"reverse": 1}, "sums exclusively or in reverse"),
    ("Cast", ("x",), {"to": 10}, "casts to FLOAT16"),
    ("QuantizeLinear", ("x", np.float32(0.1)), {"output_dtype": 17}, "makes FLOAT8E4M3FN"),
]


@pytest.mark.parametrize(("kind", "inputs", "attributes", "why"), REFUSED, ids=[case[0] for case in REFUSED])
def test_what_cannot_be_trained_through_is_refused_by_node_with_a_way_out(kind, inputs, attributes, why):
    x = X[:, :, 0] if kind == "LSTM" else X
    model = one_node(kind, *inputs, feeds={"x": x.copy()}, **attributes)
    with pytest.raises(NoGradientError) as caught:
        GraphModule(model)
    assert caught.value.reason.startswith(f"{kind} 'the_node' ")
    assert why in caught.value.reason
    refusal = graph_module(model)
    assert refusal.reasons == (caught.value.reason,)
    assert refusal.instead.startswith("Train ")


def test_a_custom_operator_is_refused_by_its_domain():
    model = one_node("Relu", "x", feeds={"x": X})
    model.graph[0].domain = "com.example"
    assert graph_module(model).reasons == ("com.example.Relu 'the_node' has no gradient here",)


def test_every_operator_of_the_table_is_compared_here():
    there = {case[1] for case in EVERY} | {"Split", "Squeeze", "Range", "ConstantOfShape"}
    newer = {"RMSNormalization", "Swish"}  # since opset 23 and 24, after the one of this file
    assert set(TABLE) - there - newer == {"Constant"}
