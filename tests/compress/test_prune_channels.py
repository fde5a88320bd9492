"""Whole channels cut out: what goes and what hangs on it, what is told, and what is proven or rolled back."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from layer_cases import LAYERS
from small_models import image, model_of, piece_of, residual_network, run, samples_for
from zoo_cases import zoo_case

from jettison.compress.passes import PassResult, Refusal
from jettison.compress.pruning.channel_choice import kept_of
from jettison.compress.pruning.channels import PruneChannels
from jettison.compress.pruning.removed import PrunedLayer
from jettison.compress.quantization.layers import find_layers
from jettison.compress.quantization.quantize import QuantizeFull
from jettison.core.errors import MissingError
from jettison.core.samples import Samples
from jettison.engines.onnxruntime import shapes_of
from jettison.graph.macs import macs_by_node, total_macs
from jettison.graph.model import input_specs, output_specs
from jettison.graph.save import model_bytes
from zoo.builder import Net, image_net
from zoo.session import relative_difference
from zoo.table import ZOO

pytestmark = pytest.mark.torch
pytest.importorskip("torch")
pytest.importorskip("torch_pruning")

HALF = PruneChannels(channels=0.5)
UNTRAINABLE = {"lstm", "gru", "if_on_data", "data_dependent_shape", "half_precision", "no_weighted_op"}


def chain(channels: int = 32) -> ir.Model:
    """Convolutions a and b, an average, a dense layer."""
    net, x = image_net("chain", 16)
    x = net.op("Relu", net.conv(x, (16, channels), to="a"))
    x = net.op("Relu", net.conv(x, (channels, 16), to="b"))
    net.head(x, 16)
    return model_of(net)


def pruned(model: ir.Model, step: PruneChannels = HALF, samples: Samples | None = None) -> PassResult:
    piece = piece_of(model)
    assert step.check(piece) is None
    return step(piece, samples or samples_for(model, image(model.graph.inputs[0].shape[1])))


def refused(model: ir.Model, step: PruneChannels = HALF) -> Refusal:
    found = step.check(piece_of(model))
    assert found is not None
    return found


def told(result: PassResult) -> dict[str, PrunedLayer]:
    return {layer.node: layer for layer in result.pruned}


def weights(model: ir.Model) -> dict[str, np.ndarray]:
    return {layer.name: layer.weight.const_value.numpy() for layer in find_layers(model.graph)}


def shapes(model: ir.Model) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in weights(model).items()}


def is_sound(model: ir.Model, whole: ir.Model) -> bool:
    """Whether ONNX takes the model, and it has the whole one's inputs and outputs."""
    onnx.checker.check_model(model_bytes(model), full_check=True)
    outputs = [[(spec.name, spec.dtype, spec.shape) for spec in output_specs(m)] for m in (model, whole)]
    return input_specs(model) == input_specs(whole) and outputs[0] == outputs[1]


def least(arrays: dict[str, np.ndarray]) -> list[int]:
    """The eight channels of a chain's first layer with the least energy in rows and columns together."""
    rows, columns = arrays["node_a"].astype(np.float64) ** 2, arrays["node_b"].astype(np.float64) ** 2
    energy = rows.sum(axis=(1, 2, 3)) / rows.sum() + columns.sum(axis=(0, 2, 3)) / columns.sum()
    return sorted(np.argsort(energy)[:8].tolist())


def test_the_channels_with_the_least_energy_go_from_maker_bias_and_reader() -> None:
    model = chain()
    result = pruned(model, PruneChannels(channels=0.25, keep_dense=("node_logits",)))
    before, after = weights(model), weights(result.model)
    gone = least(before)
    np.testing.assert_array_equal(after["node_a"], np.delete(before["node_a"], gone, axis=0))
    np.testing.assert_array_equal(after["node_b"], np.delete(before["node_b"], gone, axis=1))
    np.testing.assert_array_equal(after["node_logits"], before["node_logits"])
    (a,) = (layer for layer in find_layers(result.model.graph) if layer.name == "node_a")
    assert a.bias.const_value.numpy().shape == (24,)
    assert is_sound(result.model, model)


def test_what_was_removed_is_told_as_counted_by_hand() -> None:
    """A 16 x 16 image; 32 x 16 x 3 x 3 weights in a, 16 x 32 x 3 x 3 in b, 16 x 16 in the dense layer."""
    model = chain()
    result = pruned(model, PruneChannels(channels=0.25, keep_dense=("node_logits",)))
    layers, before, after = told(result), weights(model), weights(result.model)
    a, b, dense = layers["node_a"], layers["node_b"], layers["node_logits"]
    assert (a.weights, a.removed, a.removed_share) == (4608, 8 * 16 * 9, 0.25)
    assert (a.removed_outputs, a.removed_inputs) == (8, 0)
    assert (b.removed, b.removed_outputs, b.removed_inputs) == (16 * 8 * 9, 0, 8)
    assert (a.macs, a.macs_left) == (32 * 16 * 9 * 256, 24 * 16 * 9 * 256)
    assert (dense.pruned, dense.removed, dense.macs_left) == (False, 0, 256)
    for name in ("node_a", "node_b"):
        kept = (
            np.square(after[name], dtype=np.float64).sum() / np.square(before[name], dtype=np.float64).sum()
        )
        assert layers[name].energy_share == pytest.approx(1 - kept, abs=1e-9)
    total = 2 * 32 * 16 * 9 * 256 + 256
    note = f"{(total - 256) * 3 // 4 + 256:,} multiply-accumulates for a sample, {total:,} before: 25.0% less"
    assert note in result.notes
    assert a.reason == "least by magnitude, 8 of 32 removed"
    assert dense.reason == "its channels are an output of the model"


def test_what_the_report_says_it_costs_is_what_the_graph_costs() -> None:
    model = residual_network()
    result = pruned(model, PruneChannels(macs=0.5))
    costs = macs_by_node(result.model, shapes_of(result.model))
    assert {layer.node: layer.macs_left for layer in result.pruned} == costs
    whole = total_macs(model, shapes_of(model))
    assert 0.40 * whole < sum(costs.values()) <= 0.5 * whole, "half, and at most one step of 8 channels more"
    assert is_sound(result.model, model)


def test_branches_that_are_added_lose_the_same_channels() -> None:
    model = residual_network()
    result = pruned(model)
    first, *_ = (layer.name for layer in find_layers(model.graph))
    found = shapes(result.model)
    assert found[first][0] == found["node_conv_11"][0] == found["node_conv_16"][1] == 16
    assert found["node_conv_20"][0] == found["node_conv_23"][0] == found["node_conv_28"][1] == 32
    assert is_sound(result.model, model)


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("inception_concat", set()),
        ("dense_concat", {"joined with an input"}),
        ("depthwise_clip", set()),
        ("squeeze_excite", set()),
        ("conv_transpose", set()),
        ("batchnorm_after_conv", set()),
        ("leaky_and_prelu", set()),
        ("residual_add", set()),
        ("grouped_conv", {"the grouped Conv 'node_conv_3' has its channels by place"}),
    ],
)
def test_graphs_of_all_kinds_lose_channels_and_say_which_stay(name: str, whole: set[str]) -> None:
    case = zoo_case(name)
    result = pruned(case.model, samples=case.samples)
    assert is_sound(result.model, case.model)
    assert sum(layer.pruned for layer in result.pruned) >= 2
    reasons = {layer.reason for layer in result.pruned if not layer.pruned}
    expected = whole | {"its channels are an output of the model"}
    assert all(any(part in reason for part in expected) for reason in reasons)


def test_a_depthwise_convolution_loses_its_groups() -> None:
    case = zoo_case("depthwise_clip")
    result = pruned(case.model, samples=case.samples)
    found = {node.name: node for node in result.model.graph if node.op_type == "Conv"}
    for layer in find_layers(result.model.graph):
        if layer.is_depthwise:
            assert layer.group == layer.weight_shape[0] < 64
            assert found[layer.name].outputs[0].shape[1] == layer.group


@pytest.mark.parametrize("name", [name for name in ZOO if name not in UNTRAINABLE])
def test_the_contract_holds_over_the_zoo(name: str) -> None:
    """Refused, or a valid model of the same signature that computes numbers; the given one stays."""
    case = zoo_case(name)
    piece, before = piece_of(case.model), model_bytes(case.model)
    if HALF.check(piece) is None:
        result = HALF(piece, case.samples)
        assert is_sound(result.model, case.model)
        assert all(np.isfinite(array).all() for array in run(result.model, case.inputs).values())
        assert model_bytes(result.model) == model_bytes(HALF(piece, case.samples).model)
    assert model_bytes(case.model) == before


def test_the_smaller_graph_answers_as_the_whole_one_where_nothing_reads_the_channels() -> None:
    model = residual_network()
    result, emptied = pruned(model), model.clone()
    arrays = image(16, 4, seed=9)
    after = weights(result.model)
    for layer in find_layers(emptied.graph):
        columns = kept_columns(weights(model)[layer.name], after[layer.name], layer)
        layer.weight.const_value = ir.tensor(columns, name=layer.weight.name)
    # Sums over fewer numbers run in another order: 1e-5 of the largest output.
    assert relative_difference(run(emptied, arrays), run(result.model, arrays)) < 1e-5


def kept_columns(whole: np.ndarray, cut: np.ndarray, layer: Any) -> np.ndarray:
    """The whole weight with zeros in the input channels that the cut one lacks, found by their values."""
    rows = [row for row in range(len(whole)) if any(cut_row_in(whole[row], kept) for kept in cut)]
    assert len(rows) == len(cut), layer.name
    kept = [
        channel
        for channel in range(whole.shape[1])
        if any(np.array_equal(whole[rows, channel], cut[:, other]) for other in range(cut.shape[1]))
    ]
    found = np.zeros_like(whole)
    found[:, kept] = whole[:, kept]
    return found


def cut_row_in(row: np.ndarray, kept: np.ndarray) -> bool:
    return all(any(np.array_equal(part, other) for other in row) for part in kept)


def flattened(target: list[int] | None) -> ir.Model:
    """A convolution whose 16 channels of 16 x 16 are flattened before the dense layer."""
    net, x = image_net("flat", 16)
    x = net.op("Relu", net.conv(x, (16, 16), to="a"))
    shape = net.const(np.array(target, np.int64), "target") if target else ""
    flat = net.op("Reshape", x, shape) if target else net.op("Flatten", x, axis=1)
    net.gemm(flat, (4096, 8), to="logits")
    net.output("logits", ["batch", 8])
    return model_of(net)


@pytest.mark.parametrize("target", [None, [-1, 4096], [0, -1]])
def test_flattened_channels_take_their_columns_along(target: list[int] | None) -> None:
    model = flattened(target)
    result = pruned(model)
    assert shapes(result.model) == {"node_a": (8, 16, 3, 3), "node_logits": (8, 2048)}
    assert is_sound(result.model, model)


def test_what_breaks_the_graph_is_rolled_back_and_says_why() -> None:
    """Sizes of a Split are written down in the graph; the convolution behind it can still lose channels."""
    net, x = image_net("split", 16)
    x = net.conv(x, (16, 32), to="a")
    parts = net.op("Split", x, net.const(np.array([16, 16], np.int64), "sizes"), outputs=2, axis=1)
    x = net.op("Relu", net.conv(net.op("Mul", *parts), (16, 32), to="b"))
    net.head(x, 32)
    model = model_of(net)
    result = pruned(model)
    layers = told(result)
    assert not layers["node_a"].pruned
    assert layers["node_a"].reason.startswith("the graph breaks without them: ")
    assert layers["node_b"].removed_outputs == 16
    assert is_sound(result.model, model)


def test_what_mixes_channels_is_found_by_running_it() -> None:
    """A mean over channels: fewer channels have another mean than channels that nobody reads."""
    net, x = image_net("mean", 16)
    x = net.op("Relu", net.conv(x, (16, 16), to="a"))
    centred = net.op(
        "Sub", x, net.op("ReduceMean", x, net.const(np.array([1], np.int64), "axes"), keepdims=1)
    )
    x = net.op("Relu", net.conv(centred, (16, 16), to="b"))
    net.head(x, 16)
    result = pruned(model_of(net))
    assert told(result)["node_a"].reason == (
        "without them 'logits' is not what it is where nothing reads them: something mixes channels"
    )
    assert told(result)["node_b"].removed_outputs == 8


def test_where_nothing_can_be_cut_the_model_stays_and_a_warning_says_so() -> None:
    net, x = image_net("split", 16)
    x = net.conv(x, (16, 32), to="a")
    parts = net.op("Split", x, net.const(np.array([16, 16], np.int64), "sizes"), outputs=2, axis=1)
    net.head(net.op("Mul", *parts), 16)
    model = model_of(net)
    result = pruned(model)
    assert result.warnings == ("no channels were cut: the model is as it was",)
    assert model_bytes(result.model) == model_bytes(model)


@pytest.mark.parametrize(
    ("channels", "share", "round_to", "kept"),
    [
        (64, 0.3, 8, 48), (64, 0.3, 16, 48), (64, 0.3, 32, 32), (64, 0.9, 8, 8), (64, 0.99, 32, 32),
        (20, 0.5, 8, 8), (20, 0.01, 8, 16), (24, 0.01, 8, 24), (8, 0.9, 8, 8), (4, 0.5, 8, 4),
    ],
)  # fmt: skip
def test_channels_are_kept_in_multiples(channels: int, share: float, round_to: int, kept: int) -> None:
    assert kept_of(channels, share, round_to) == kept


@pytest.mark.parametrize("round_to", [8, 16, 32])
def test_every_layer_makes_a_multiple(round_to: int) -> None:
    result = pruned(residual_network(), PruneChannels(channels=0.4, round_to=round_to))
    made = [shape[0] for name, shape in shapes(result.model).items() if name != "node_logits"]
    assert all(count % round_to == 0 for count in made)
    assert any(count < 64 for count in made)


def test_more_than_there_is_to_cut_is_told() -> None:
    result = pruned(chain(), PruneChannels(macs=0.99))
    (warning,) = result.warnings
    assert warning.endswith(
        "% of the multiply-accumulates are cut, 99.0% were asked for: no group has 8 channels more to lose"
    )
    assert shapes(result.model)["node_a"][0] == 8


def test_channels_of_a_layer_that_is_kept_dense_stay() -> None:
    result = pruned(residual_network(), PruneChannels(channels=0.5, keep_dense=("node_conv_16",)))
    assert shapes(result.model)["node_conv_16"] == (64, 32, 3, 3)
    assert told(result)["node_conv_16"].reason == "kept dense as asked, or with a layer that is"
    assert shapes(result.model)["node_conv_7"] == (16, 32, 3, 3), "its own channels go; those of the sum stay"


def test_what_has_no_channels_to_spare_is_refused() -> None:
    assert str(refused(LAYERS["padded"]())) == (
        "its channels are an output of the model. Leave the pass out, or prune single weights: "
        "{prune: {sparsity: 0.5}}"
    )
    small = refused(chain(8), PruneChannels(channels=0.5, round_to=16))
    assert "it has 8 channels, and 16 is the least that is kept" in small.reasons
    assert refused(chain(), PruneChannels(channels=0.5, keep_dense=("nothing",))).reasons == (
        "keep_dense: 'nothing' matches no weighted layer",
    )


def test_a_quantized_and_a_recurrent_model_are_refused() -> None:
    model = chain()
    quantized = QuantizeFull()(piece_of(model), samples_for(model, image())).model
    assert "the model is quantized already" in refused(quantized).reasons[0]
    assert refused(zoo_case("lstm").model).reasons == ("LSTM 'node_lstm_5' has no gradient here",)


@pytest.mark.parametrize("library", ["torch", "torch_pruning"])
def test_what_is_missing_is_named_with_the_extra(library: str, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingError) as caught:
        HALF.check(piece_of(chain()))
    assert "pip install -e '.[train]'" in caught.value.fix


def test_integers_may_follow() -> None:
    model = residual_network()
    small = pruned(model)
    result = QuantizeFull()(piece_of(small.model), samples_for(model, image()))
    assert sum(layer.quantized for layer in result.layers) == 8
    assert small.counterpart is small.model


def test_a_linear_layer_with_its_bias_added_loses_features() -> None:
    net = Net("sequence")
    x = net.input("tokens", ["batch", 6, 16])
    y = net.op("Relu", net.linear(x, (16, 64)))
    net.output(net.linear(y, (64, 16)), ["batch", 6, 16])
    model = model_of(net)
    arrays = {"tokens": np.random.default_rng(0).normal(size=(8, 6, 16)).astype(np.float32)}
    result = pruned(model, samples=samples_for(model, arrays))
    assert sorted(shapes(result.model).values()) == [(16, 32), (32, 16)]
    assert is_sound(result.model, model)
