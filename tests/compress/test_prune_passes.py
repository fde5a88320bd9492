"""The passes of pruning: what they remove and tell, what they refuse, what they leave dense."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from layer_cases import LAYERS, inputs_for
from onnx import TensorProto
from pydantic import BaseModel, ValidationError
from small_models import (
    MAP,
    conv,
    feature_net,
    features,
    image,
    model_of,
    piece_of,
    residual_network,
    run,
    samples_for,
)

from jettison.compress.passes import PassResult, Refusal
from jettison.compress.pruning import feedback
from jettison.compress.pruning.finished import finished
from jettison.compress.pruning.removed import PrunedLayer, compressed_bytes
from jettison.compress.pruning.two_to_four import PruneTwoToFour, speed_note
from jettison.compress.pruning.unstructured import PruneDynamic, PruneFixed, PruneSparsity
from jettison.compress.quantization import refine
from jettison.compress.quantization.layers import find_layers
from jettison.compress.quantization.quantize import QuantizeFull
from jettison.core.targets import parse_target
from jettison.evaluate.sqnr import sqnr_db
from jettison.graph.edit import float_constant
from jettison.graph.two_to_four import valid_groups
from zoo.builder import Net, image_net
from zoo.session import cleaned, relative_difference

GROUPED = [name for name in LAYERS if name not in {"transposed", "depthwise"}]
HALF = PruneSparsity(sparsity=0.5)
EVERY = [PruneFixed(value=0.05), PruneDynamic(deviations=0.5), HALF, PruneTwoToFour(method="magnitude")]


def pruned(model: ir.Model, step: Any, arrays: dict[str, np.ndarray] | None = None) -> PassResult:
    piece = piece_of(model)
    assert step.check(piece) is None
    arrays = image(model.graph.inputs[0].shape[1]) if arrays is None else arrays
    found: PassResult = step(piece, samples_for(model, arrays))
    return found


def refused(model: ir.Model, step: Any) -> Refusal:
    found = step.check(piece_of(model))
    assert found is not None
    return found


def weights(model: ir.Model) -> dict[str, np.ndarray]:
    return {layer.name: layer.weight.const_value.numpy() for layer in find_layers(model.graph)}


def told(result: PassResult) -> dict[str, PrunedLayer]:
    return {layer.node: layer for layer in result.pruned}


@pytest.mark.parametrize("step", EVERY, ids=lambda step: step.prune)
def test_what_was_pruned_is_what_was_there_less_what_was_removed(step: Any) -> None:
    """W_pruned = W - W_removed: every weight is as it was, or zero; the report counts them."""
    model = residual_network()
    result = pruned(model, step)
    before, after = weights(model), weights(result.model)
    assert any((after[name] == 0).any() for name in after)
    for name, layer in told(result).items():
        gone = (after[name] == 0) & (before[name] != 0)
        np.testing.assert_array_equal(after[name], np.where(gone, 0, before[name]))
        assert layer.removed == np.count_nonzero(gone)
        assert layer.zeros == np.count_nonzero(after[name] == 0)
        assert layer.weights == after[name].size
        assert layer.removed_share == layer.removed / layer.weights
        energy = np.square(before[name], dtype=np.float64)
        assert layer.energy_share == pytest.approx(energy[gone].sum() / energy.sum())


@pytest.mark.parametrize("step", EVERY, ids=lambda step: step.prune)
def test_a_pass_is_its_configuration(step: BaseModel) -> None:
    assert type(step).model_validate(step.model_dump()) == step
    with pytest.raises(ValidationError, match="Extra inputs"):
        type(step).model_validate({**step.model_dump(), "keep_float": ()})


@pytest.mark.parametrize(
    ("step", "settings"),
    [
        (PruneFixed, {}), (PruneFixed, {"value": 0}), (PruneFixed, {"value": float("nan")}),
        (PruneDynamic, {}), (PruneDynamic, {"deviations": -1}),
        (PruneSparsity, {}), (PruneSparsity, {"sparsity": 1}), (PruneSparsity, {"sparsity": 0}),
        (PruneSparsity, {"sparsity": 0.5, "scope": "net"}),
        (PruneSparsity, {"sparsity": 0.5, "criterion": "x"}),
        (PruneTwoToFour, {"method": "wanda"}),
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(step: type[BaseModel], settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        step(**settings)


def test_a_fixed_threshold_is_one_for_all_layers() -> None:
    result = pruned(residual_network(), PruneFixed(value=0.05))
    for name, weight in weights(result.model).items():
        assert np.abs(weight[weight != 0]).min() >= 0.05, name
        assert told(result)[name].reason == "|w| below 0.05"


def test_a_dynamic_threshold_follows_each_layers_deviation() -> None:
    model = residual_network()
    result = pruned(model, PruneDynamic(deviations=0.5))
    for name, weight in weights(model).items():
        edge = 0.5 * weight.std(dtype=np.float64)
        np.testing.assert_array_equal(weights(result.model)[name] == 0, np.abs(weight) < edge)
        assert told(result)[name].reason == f"|w| below {edge:.4g}, 0.5 standard deviations"


def test_sparsity_by_layer_is_the_same_in_each() -> None:
    for layer in pruned(residual_network(), PruneSparsity(sparsity=0.7)).pruned:
        assert layer.removed == round(0.7 * layer.weights)


def test_global_sparsity_is_reached_over_all_and_differs_by_layer() -> None:
    layers = pruned(residual_network(), PruneSparsity(sparsity=0.7, scope="global")).pruned
    total = sum(layer.weights for layer in layers)
    assert sum(layer.removed for layer in layers) == round(0.7 * total)
    assert len({round(layer.removed_share, 2) for layer in layers}) > 3


def test_layers_kept_dense_do_not_count_in_a_global_sparsity() -> None:
    model = residual_network()
    kept = next(find_layers(model.graph)).name
    result = pruned(model, PruneSparsity(sparsity=0.5, scope="global", keep_dense=(kept,)))
    others = [layer for layer in result.pruned if layer.node != kept]
    assert told(result)[kept].reason == "kept dense as asked"
    assert not told(result)[kept].pruned
    assert sum(x.removed for x in others) == round(0.5 * sum(x.weights for x in others))


@pytest.mark.parametrize("step", EVERY, ids=lambda step: step.prune)
def test_patterns_that_match_nothing_are_refused_with_the_names_that_there_are(step: Any) -> None:
    refusal = refused(residual_network(), step.model_copy(update={"keep_dense": ("node_conv*", "head*")}))
    assert refusal.reasons == ("keep_dense: 'head*' matches no weighted layer",)
    assert refusal.instead.startswith("Layers are node_conv")


@pytest.mark.parametrize("step", EVERY, ids=lambda step: step.prune)
def test_a_quantized_model_is_refused(step: Any) -> None:
    model = cleaned("gemm_only")
    quantized = QuantizeFull()(piece_of(model), samples_for(model, features(32)))
    assert "quantized already" in refused(quantized.model, step).reasons[0]


def test_a_model_without_layers_is_refused() -> None:
    refusal = refused(cleaned("no_weighted_op"), HALF)
    assert refusal.reasons == ("the model has no layer with constant weights",)


def test_half_precision_is_refused_with_its_reason() -> None:
    refusal = refused(cleaned("half_precision"), HALF)
    assert refusal.reasons == (
        "Conv: its weight is FLOAT16, expected float32",
        "Gemm: its weight is FLOAT16, expected float32",
    )
    assert refusal.instead == "Leave the pass out, or give the float32 model"


def test_layers_of_other_shapes_stay_dense_and_are_told() -> None:
    result = pruned(cleaned("depthwise_clip"), PruneTwoToFour(method="magnitude"))
    reasons = {layer.reason for layer in result.pruned if not layer.pruned}
    assert "its 1 input channels in each group are no multiple of 4" in reasons
    assert any(note.startswith("left dense, its 1 input channels in each group") for note in result.notes)
    assert all(layer.groups is None for layer in result.pruned if not layer.pruned)


def embedded() -> ir.Model:
    """A table that a Gather reads and, as the last layer's weight, a Gemm."""
    net = Net("tied")
    net.input("ids", ["batch"], TensorProto.INT64)
    table = net.const(net.he((16, 8), 8))
    x = net.op("Gather", table, "ids")
    net.named("Gemm", x, table, to="y", transB=1)
    net.output("y", ["batch", 16])
    return model_of(net)


@pytest.mark.parametrize("step", [HALF, PruneTwoToFour(method="magnitude")], ids=lambda step: step.prune)
def test_a_weight_that_others_read_whole_stays_dense(step: Any) -> None:
    refusal = refused(embedded(), step)
    (reason,) = refusal.reasons
    assert reason.startswith("Gemm: Gather")
    assert reason.endswith("reads its weight too, and whole")


def shared(second: str, **attributes: int) -> ir.Model:
    """Two products that share one square weight."""
    net, x = feature_net(8)
    weight = net.const(net.he((8, 8), 8), "weight")
    x = net.op("Relu", net.op("MatMul", x, weight, name="first"))
    net.named(second, x, weight, to="y", **attributes)
    net.output("y", ["batch", 8])
    return model_of(net)


def test_layers_that_share_a_weight_share_its_zeros() -> None:
    model = shared("MatMul")
    for step in (HALF, PruneTwoToFour(method="magnitude"), PruneTwoToFour()):
        result = pruned(model, step, features(8))
        first, second = find_layers(result.model.graph)
        assert first.weight is second.weight
        assert [layer.removed for layer in result.pruned] == [32, 32]
        assert "32 of 64 weights removed (50.0%)" in result.notes[0], "a shared weight is counted once"


def test_layers_that_group_a_shared_weight_differently_stay_dense() -> None:
    refusal = refused(shared("Gemm", transB=1), PruneTwoToFour(method="magnitude"))
    assert "a layer that shares its weight groups it along another axis" in refusal.reasons[0]
    assert HALF.check(piece_of(shared("Gemm", transB=1))) is None


def test_keeping_one_of_two_layers_that_share_a_weight_keeps_both() -> None:
    refusal = refused(shared("MatMul"), PruneSparsity(sparsity=0.5, keep_dense=("first",)))
    assert refusal.reasons == (
        "MatMul: MatMul 'first' reads its weight too, and whole",
        "MatMul: kept dense as asked",
    )


def test_dead_channels_are_counted_on_both_sides() -> None:
    net, x = image_net("dying", 4)
    weight = net.rng.uniform(1, 2, (6, 4, 3, 3)).astype(np.float32)
    weight[1] = weight[4] = weight[:, 2] = 0.01
    net.named("Conv", x, net.const(weight), to="y", pads=[1] * 4)
    net.output("y", ["batch", 6, 16, 16])
    result = pruned(model_of(net), PruneFixed(value=0.1))
    (layer,) = result.pruned
    assert (layer.dead_inputs, layer.dead_outputs) == (1, 2)
    assert result.notes[1] == "1 input channels and 2 output channels have no weight left"


@pytest.mark.parametrize(
    ("name", "outputs", "inputs"),
    [
        ("Gemm", 24, 20),
        ("Gemm transB", 24, 20),
        ("MatMul", 24, 20),
        ("transposed", 16, 16),
        ("grouped", 16, 16),
    ],
)
def test_channels_are_counted_along_the_right_axes(name: str, outputs: int, inputs: int) -> None:
    model = LAYERS[name]()
    result = pruned(model, PruneFixed(value=1e9), inputs_for(model))
    assert (result.pruned[0].dead_outputs, result.pruned[0].dead_inputs) == (outputs, inputs)


@pytest.mark.parametrize("name", GROUPED)
@pytest.mark.parametrize("method", ["magnitude", "sparsegpt"])
def test_every_kind_of_layer_gets_valid_groups(name: str, method: Any) -> None:
    model = LAYERS[name]()
    result = pruned(model, PruneTwoToFour(method=method), inputs_for(model))
    (groups,) = valid_groups(result.model).values()
    assert groups.hold
    (layer,) = result.pruned
    assert (layer.groups, layer.valid_groups) == (groups.eligible, groups.eligible)
    assert layer.reason.endswith("by SparseGPT" if method == "sparsegpt" else "by magnitude")


@pytest.mark.parametrize("name", GROUPED)
def test_feedback_brings_every_kind_of_layer_nearer_to_its_outputs(name: str) -> None:
    """Inputs that are never negative and share a mean: the bias takes it, the kept weights the rest."""
    model = LAYERS[name]()
    rng = np.random.default_rng(8)
    shape = [size if isinstance(size, int) else 24 for size in model.graph.inputs[0].shape or ()]
    causes = rng.normal(0, 1, (shape[0], *[1] * (len(shape) - 1)))
    arrays = {"x": np.abs(causes + 0.5 * rng.normal(0, 1, shape)).astype(np.float32)}
    expected = run(model, arrays)
    found = {
        method: sqnr_db(expected, run(pruned(model, PruneTwoToFour(method=method), arrays).model, arrays))
        for method in ("magnitude", "sparsegpt")
    }
    assert found["sparsegpt"] > found["magnitude"] + 3, found


@pytest.mark.parametrize("low", [0.5, -3.0], ids=["positive", "of both signs"])
def test_a_mean_error_is_left_to_the_bias(low: float) -> None:
    """A constant input has no variance at all: whatever goes, the bias gives it back but for 8 bits of x."""
    net, x = feature_net(16)
    constants = net.const(net.he((16, 16), 16)), net.const(np.zeros(16))
    net.named("Gemm", x, *constants, to="y", alpha=0.5, beta=2.0)
    net.output("y", ["batch", 16])
    model = model_of(net)
    arrays = {"features": np.tile(np.linspace(low, 3, 16, dtype=np.float32), (20, 1))}
    found = pruned(model, PruneTwoToFour(), arrays)
    assert relative_difference(run(model, arrays), run(found.model, arrays)) < 0.02


def test_a_layer_without_bias_gets_one() -> None:
    model = LAYERS["without bias"]()
    result = pruned(model, PruneTwoToFour(), inputs_for(model))
    (layer,) = find_layers(result.model.graph)
    assert layer.bias is not None


def test_layers_whose_inputs_are_not_known_go_by_magnitude() -> None:
    net, x = feature_net(8)
    weight = net.const(net.he((8, 8), 8))
    net.named("Gemm", x, weight, net.op("ReduceMax", x, keepdims=0), to="y")
    net.output("y", ["batch", 8])
    (layer,) = pruned(model_of(net), PruneTwoToFour(), features(8)).pruned
    assert layer.reason == "two of each four input channels, by magnitude"


def test_covariances_that_do_not_fit_at_once_give_valid_groups_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refine, "_MOST_BYTES", 8 * 100 * 144)
    result = pruned(residual_network(), PruneTwoToFour())
    assert all(groups.hold for groups in valid_groups(result.model).values())


def test_few_samples_are_drawn_for_feedback(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    known = feedback.moments
    monkeypatch.setattr(
        feedback,
        "moments",
        lambda model, samples, *a, **k: counts.append(samples.count) or known(model, samples, *a, **k),
    )
    pruned(residual_network(), PruneTwoToFour(), image(count=100))
    assert counts == [64]


@pytest.mark.parametrize("method", ["magnitude", "sparsegpt"])
def test_another_order_of_channels_is_told_and_keeps_more(method: Any) -> None:
    model = residual_network()
    plain, permuted = (
        pruned(model, PruneTwoToFour(method="magnitude", permute=permute)) for permute in (False, True)
    )
    share = [sum(layer.energy_share for layer in result.pruned) for result in (plain, permuted)]
    assert share[1] < share[0]
    (note,) = (note for note in permuted.notes if note.startswith("channels in another order at"))
    assert "the outputs are the same" in note
    assert any(layer.reordered for layer in permuted.pruned)
    assert not any(layer.reordered for layer in plain.pruned)
    assert not told(permuted)["node_logits"].reordered
    both = pruned(model, PruneTwoToFour(method=method, permute=True))
    assert all(groups.hold for groups in valid_groups(both.model).values())


def test_no_order_that_keeps_more_is_told() -> None:
    net, x = image_net("single", 16)
    conv(net, x, "y")
    net.output("y", MAP)
    result = pruned(model_of(net), PruneTwoToFour(method="magnitude", permute=True))
    assert "channels keep their order: no other one was found that keeps more" in result.notes


def test_zeros_without_a_pattern_are_honest_about_speed() -> None:
    notes = pruned(residual_network(), HALF).notes
    assert any("make nothing faster in ONNX Runtime or TensorRT" in note for note in notes)
    assert any(note.startswith("the numbers stored take") for note in notes)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("cpu", "ONNX Runtime has no kernels for 2:4 on a CPU"),
        ("sm75", "sm75 has no sparse tensor cores"),
        ("sm80", "TensorRT may use sparse kernels"),
        ("tensorrt", "TensorRT may use sparse kernels"),
    ],
)
def test_what_two_to_four_is_worth_depends_on_the_target(target: str, words: str) -> None:
    assert words in speed_note(parse_target(target))


def test_compressed_bytes_are_those_of_deflate_and_fall_with_zeros() -> None:
    model = residual_network()
    stored = [value.const_value.tobytes() for value in model.graph.initializers.values()]
    assert compressed_bytes(model) == sum(len(zlib.compress(content, 6)) for content in stored)
    sizes = [compressed_bytes(pruned(model, PruneSparsity(sparsity=share)).model) for share in (0.5, 0.9)]
    assert compressed_bytes(model) > 1.5 * sizes[0] > 3 * sizes[1]


def test_what_is_left_of_groups_is_checked_in_the_finished_model() -> None:
    result = pruned(residual_network(), PruneTwoToFour(method="magnitude"))
    layers, notes = finished(result.pruned, result.model)
    assert layers == result.pruned
    assert notes == (f"2:4 holds in {len(layers)} of {len(layers)} layers of the finished model",)
    dense, *others = find_layers(result.model.graph)
    dense.weight.const_value = ir.tensor(np.ones(dense.weight_shape, np.float32), name=dense.weight.name)
    others[0].node.name = "renamed"
    layers, notes = finished(result.pruned, result.model)
    assert layers[0].valid_groups == 0
    assert notes == (
        f"2:4 holds in {len(layers) - 2} of {len(layers)} layers of the finished model",
        f"2:4 was lost after pruning in {layers[0].node}",
        f"2:4 cannot be told from how weights are stored in {layers[1].node}",
    )


def test_nothing_is_said_of_groups_where_none_were_asked_for() -> None:
    result = pruned(residual_network(), HALF)
    assert finished(result.pruned, result.model) == (result.pruned, ())


@pytest.mark.parametrize("step", [HALF, PruneTwoToFour(method="magnitude")], ids=lambda step: step.prune)
def test_weights_that_are_no_numbers_are_not_ranked(step: Any) -> None:
    model = shared("MatMul")
    (weight,) = {layer.weight for layer in find_layers(model.graph)}
    array = np.array(float_constant(weight))
    array[0, 0] = np.nan
    weight.const_value = ir.tensor(array, name=weight.name)
    refusal = refused(model, step)
    assert refusal.reasons == ("MatMul: its weight holds NaN or infinity, which no rule can rank",)
