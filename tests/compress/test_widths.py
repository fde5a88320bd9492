"""Narrower forms of a graph: which channels go together, which stay, and what has no narrower form."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from small_models import feature_net, image, model_of, run
from zoo_cases import zoo_case

from jettison.compress.distillation.channel_groups import WidthError
from jettison.compress.distillation.shrink import narrower, shrunk
from jettison.compress.distillation.widths import widths_of
from jettison.compress.passes import Refusal
from jettison.graph.clean import clean
from jettison.graph.model import input_specs, output_specs
from jettison.graph.save import model_bytes
from zoo.builder import image_net
from zoo.table import ZOO

UNKNOWN = "no narrower form can be derived: "
NONE = UNKNOWN + "it has no layer between input and output whose channels can be followed"
MIXES = "mixes channels in a way that is not known here"
FORM = "has a weight that is computed, or a form that is not known here"
GROUPS = "has several groups of channels, or a weight that is computed"
ROWS = ("attention_layernorm", "attention_decomposed", "embedding", "lstm", "gru", "matmul_bias")
REFUSED = {
    "grouped_conv": f"{UNKNOWN}node 'node_conv_3' (Conv) has 4 groups of channels",
    "pools_and_shapes": f"{UNKNOWN}node 'node_split_9' (Split) {MIXES}",
    "nhwc_input": f"{UNKNOWN}node 'node_transpose_1' (Transpose) {MIXES}",
    "output_consumed_inside": NONE,
    "batchnorm_transpose_gemm": f"{UNKNOWN}node 'node_convtranspose_2' (ConvTranspose) {GROUPS}",
    "shared_weight": f"{UNKNOWN}node 'node_conv_2' (Conv) shares 'weight_1' with 'node_conv_4'",
    "if_on_data": f"{UNKNOWN}node 'node_reducemean_4' (ReduceMean) takes the mean over channels or samples",
    "gemm_forms": f"{UNKNOWN}node 'node_gemm_7' (Gemm) {FORM}",
    "opset_11": f"{UNKNOWN}node 'node_split_7' (Split) {MIXES}",
    "dynamic_weights": f"{UNKNOWN}node 'node_conv_7' (Conv) has a weight that is computed",
    "data_dependent_shape": f"{UNKNOWN}node 'node_nonzero_6' (NonZero) {MIXES}",
    "no_weighted_op": NONE,
    **dict.fromkeys(ROWS, NONE),
}


def weights(model):
    return sum(
        value.const_value.size
        for value in model.graph.initializers.values()
        if value.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16)
    )


def narrow(net_or_model, width=0.5):
    model = net_or_model if isinstance(net_or_model, ir.Model) else model_of(net_or_model)
    found = shrunk(model, width)
    assert not isinstance(found, Refusal), found
    return found


def shape(model, place):
    """The shape of the weight of the node of that place."""
    return tuple(list(model.graph)[place].inputs[1].const_value.shape.numpy())


@pytest.mark.parametrize("name", ZOO)
def test_every_model_of_the_zoo_gets_narrower_or_is_refused_with_a_reason(name):
    case = zoo_case(name)
    before, found = model_bytes(case.model), shrunk(case.model, 0.5)
    assert model_bytes(case.model) == before
    if name in REFUSED or isinstance(found, Refusal):
        assert found.reasons == (REFUSED.get(name),)
        assert found.instead == "Give a student of your own: {distill: {student: package.module:function}}"
        return
    assert weights(found) < 0.9 * weights(case.model)
    assert input_specs(found) == input_specs(case.model)
    assert output_specs(found) == output_specs(case.model)
    answers = run(found, case.inputs, optimize=False)
    assert {key: (a.shape, a.dtype) for key, a in answers.items()} == {
        key: (a.shape, a.dtype) for key, a in case.outputs.items()
    }
    assert model_bytes(clean(found)) == model_bytes(clean(clean(found))), "it stays clean"


def test_widths_are_multiples_of_eight_and_narrow_layers_keep_what_they_have():
    assert [narrower(size, 0.5) for size in (64, 32, 24, 16, 10, 8, 3)] == [32, 16, 16, 8, 8, 8, 3]
    assert narrower(64, 0.01) == 8
    assert narrower(64, 0.99) == 64


def test_the_strongest_channels_stay_and_a_dead_half_changes_nothing():
    net, x = image_net("half dead", 8)
    net.head(net.op("Relu", net.conv(x, (8, 32))), 32)
    model = model_of(net)
    conv = next(iter(model.graph))
    alive = np.arange(32) % 2 == 1
    for value in conv.inputs[1:]:
        array = value.const_value.numpy() * alive.reshape(-1, *[1] * (value.const_value.shape.rank() - 1))
        value.const_value = ir.tensor(array.astype(np.float32), name=value.name)
    found = narrow(model)
    assert shape(found, 0) == (16, 8, 3, 3)
    for name, answer in run(found, image(8)).items():
        np.testing.assert_allclose(answer, run(model, image(8))[name], atol=1e-5)


def test_a_residual_sum_ties_all_that_it_joins():
    net, x = image_net("residual", 8)
    stem = net.op("Relu", net.conv(x, (8, 32)))
    inner = net.op("Relu", net.conv(stem, (32, 64)))
    x = net.op("Relu", net.op("Add", net.conv(inner, (64, 32)), stem))
    x = net.op("Add", net.conv(x, (32, 32)), x)
    net.head(x, 32)
    model = model_of(net)
    assert sorted(widths_of(model.graph).open_groups().values()) == [32, 64]
    found = narrow(model)
    assert [shape(found, place) for place, node in enumerate(found.graph) if node.op_type == "Conv"] == [
        (16, 8, 3, 3), (32, 16, 3, 3), (16, 32, 3, 3), (16, 16, 3, 3),
    ]  # fmt: skip


def test_a_sum_with_the_input_or_into_an_output_keeps_its_width():
    net, x = image_net("tied to the border", 16)
    y = net.op("Relu", net.op("Add", net.conv(x, (16, 16)), x))
    y = net.op("Relu", net.conv(y, (16, 64)))
    net.output(net.conv(y, (64, 24)), ["batch", 24, 16, 16])
    found = narrow(net)
    convs = [shape(found, place) for place, node in enumerate(found.graph) if node.op_type == "Conv"]
    assert convs == [(16, 16, 3, 3), (32, 16, 3, 3), (24, 32, 3, 3)]


def test_a_map_laid_flat_keeps_the_places_of_each_channel():
    net, x = image_net("flat", 8)
    x = net.op("MaxPool", net.op("Relu", net.conv(x, (8, 16))), kernel_shape=[4, 4], strides=[4, 4])
    x = net.op("Reshape", x, net.const(np.array([-1, 16 * 16])), allowzero=1)
    net.gemm(net.op("Relu", net.gemm(x, (256, 32))), (32, 4), to="scores")
    net.output("scores", ["batch", 4])
    model = model_of(net)
    conv = next(iter(model.graph))
    weight = conv.inputs[1].const_value.numpy().copy()
    weight[:8] = 0
    conv.inputs[1].const_value = ir.tensor(weight, name=conv.inputs[1].name)
    found = narrow(model)
    gemm = next(node for node in found.graph if node.op_type == "Gemm")
    kept = gemm.inputs[1].const_value.numpy()
    assert kept.shape == (16, 128)
    rows = np.isin(
        next(node for node in model.graph if node.op_type == "Gemm").inputs[1].const_value.numpy()[:, 128:],
        kept,
    )
    assert rows.all(axis=1).sum() == 16, "the columns of channels 8 to 15"
    assert run(found, image(8, count=5))["scores"].shape == (5, 4)


def test_a_depthwise_convolution_follows_the_layer_before_it():
    net, x = image_net("depthwise", 8)
    x = net.op("Relu", net.conv(x, (8, 32)))
    x = net.op("Relu", net.conv(x, (32, 32), groups=32))
    net.head(x, 32)
    found = narrow(net)
    depthwise = [node for node in found.graph if node.op_type == "Conv"][1]
    assert depthwise.attributes["group"].as_int() == 16
    assert depthwise.inputs[1].const_value.shape.numpy() == (16, 1, 3, 3)


def test_nothing_that_would_be_narrower_is_a_refusal():
    net, x = feature_net(16)
    net.gemm(net.op("Relu", net.gemm(x, (16, 8))), (8, 4), to="scores")
    net.output("scores", ["batch", 4])
    assert str(shrunk(model_of(net), 0.5)) == (
        "at width 0.5 no layer would be narrower. Give a smaller width; layers keep 8 channels at least"
    )


def test_a_map_of_open_size_cannot_be_laid_flat():
    net, x = feature_net(16)
    net.inputs.clear()
    x = net.input("image", ["batch", 8, "height", 16])
    x = net.op("Flatten", net.op("Relu", net.conv(x, (8, 16))), axis=1)
    net.output(x, ["batch", "features"])
    with pytest.raises(WidthError, match="lays flat a map of open size"):
        widths_of(model_of(net).graph)
