"""The `cpu` dialect: which values share one scale, and that moves and joints run on integers."""

import numpy as np
import onnx_ir as ir
import pytest
from small_models import (
    MAP,
    clip,
    conv,
    float_kernels,
    image,
    model_of,
    quality_db,
    quantized,
    real_operators,
    sites,
    ties,
)

from zoo.builder import image_net


def concat_of(*activations: str) -> ir.Model:
    """A concatenation of one convolution for each activation, read by another convolution."""
    net, x = image_net("concat", 16)
    branches = []
    for index, kind in enumerate(activations):
        y, name = conv(net, x, f"conv{index}"), f"branch{index}"
        if kind == "Relu":
            y = net.named(kind, y, to=name)
        elif kind:
            y = clip(net, y, 0, float(kind), to=name)
        branches.append(y)
    joined = net.named("Concat", *branches, to="joined", axis=1)
    net.conv(joined, (16 * len(branches), 16), to="out")
    net.output("out", MAP)
    return model_of(net)


@pytest.mark.parametrize(
    ("activations", "tied"),
    [
        (("Relu", "Relu"), ("branch0", "branch1", "joined")),
        (("6", "6"), ("branch0", "branch1", "joined")),
        (("", ""), ("conv0", "conv1", "joined")),
        (("Relu", ""), None),
        (("Relu", "6"), None),
        (("0.5", "6"), None),
    ],
    ids=str,
)
def test_a_concatenation_shares_one_scale_where_no_clamp_forbids(
    activations: tuple[str, ...], tied: tuple[str, ...] | None
) -> None:
    """A range beyond its clamp's would keep the clamp, and the convolution before it, in float."""
    model = concat_of(*activations)
    assert ties(model) == ((tied,) if tied else ())
    found = quantized(model, image()).model
    scales = {node.inputs[1].const_value.numpy().item() for node in pairs_of(found, tied or ())}  # type: ignore[union-attr]
    assert len(scales) == (1 if tied else 0)
    operators = real_operators(found)
    assert (operators["QLinearConcat"], operators["QLinearConv"]) == (1, 3)
    assert not float_kernels(found)
    assert quality_db(model, found, image(seed=1))[0] > 30


def pairs_of(model: ir.Model, names: tuple[str, ...]) -> list[ir.Node]:
    wanted = {f"{name}_QuantizeLinear" for name in names}
    return [node for node in model.graph if node.name in wanted]


def test_a_concatenation_with_the_image_leaves_a_relus_range_alone() -> None:
    """As a dense block has it: the image is negative too."""
    net, x = image_net("dense", 16)
    y = net.named("Relu", conv(net, x, "a"), to="relu")
    net.conv(net.named("Concat", x, y, to="joined", axis=1), (32, 16), to="out")
    net.output("out", MAP)
    model = model_of(net)
    assert ties(model) == ()
    assert not float_kernels(quantized(model, image()).model)


def test_a_clamp_is_remembered_through_a_move() -> None:
    net, x = image_net("moved", 16)
    y = net.named("Relu", conv(net, x, "a"), to="relu")
    y = net.named("MaxPool", y, to="pool", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    net.conv(net.named("Concat", x, y, to="joined", axis=1), (32, 16), to="out")
    net.output("out", MAP)
    model = model_of(net)
    assert ties(model) == (("pool", "relu"),)
    assert not float_kernels(quantized(model, image()).model)


MOVES = {
    "MaxPool": lambda net, x: net.named("MaxPool", x, to="moved", kernel_shape=[2, 2], strides=[2, 2]),
    "Reshape": lambda net, x: net.named("Reshape", x, net.const(np.array([0, 16, 8, 32])), to="moved"),
    "Transpose": lambda net, x: net.named("Transpose", x, to="moved", perm=[0, 1, 3, 2]),
    "Slice": lambda net, x: net.named(
        "Slice", x, *(net.const(np.array(v)) for v in ([1], [9], [2])), to="moved"
    ),
}


@pytest.mark.parametrize("kind", MOVES)
def test_a_move_shares_the_scale_of_what_it_moves_and_runs_on_integers(kind: str) -> None:
    net, x = image_net("move", 16)
    conv(net, MOVES[kind](net, net.named("Relu", conv(net, x, "a"), to="relu")), "b")
    net.output("b", ["batch", 16, None, None])
    model = model_of(net)
    assert sites(model) == {
        "image": ["node_a:0"], "relu": ["node_moved:0"], "moved": ["node_b:0"], "b": ["->"],
    }  # fmt: skip
    assert ties(model) == (("moved", "relu"),)
    operators = real_operators(quantized(model, image()).model)
    assert (operators["QuantizeLinear"], operators["DequantizeLinear"], operators["QLinearConv"]) == (1, 1, 2)


def test_a_pool_has_a_scale_of_its_own_and_an_integer_kernel() -> None:
    net, x = image_net("pool", 16)
    net.head(net.named("Relu", conv(net, x, "a"), to="relu"), 16)
    model = model_of(net)
    pool, flat = (
        next(node for node in model.graph if node.op_type == kind)
        for kind in ("GlobalAveragePool", "Flatten")
    )
    assert ties(model) == (tuple(sorted([pool.outputs[0].name, flat.outputs[0].name])),)  # type: ignore[type-var]
    assert sites(model)["relu"] == [f"{pool.name}:0"]
    operators = real_operators(quantized(model, image()).model)
    assert (operators["QLinearGlobalAveragePool"], operators["QGemm"], operators["DequantizeLinear"]) == (
        1,
        1,
        0,
    )
