"""The criterion `taylor`: its scores against numeric gradients, what it keeps, and what it refuses."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from small_models import feature_net, image, model_of, piece_of, residual_network, run, samples_for
from zoo_cases import zoo_case

from jettison.compress.pruning.channels import PruneChannels
from jettison.compress.pruning.unstructured import PruneSparsity
from jettison.compress.quantization.layers import find_layers
from jettison.core.errors import MissingError, SamplesError
from jettison.core.samples import Samples, samples_of
from jettison.graph.model import input_specs
from zoo.builder import Net

pytestmark = pytest.mark.torch
pytest.importorskip("torch")

TAYLOR = PruneSparsity(sparsity=0.5, scope="global", criterion="taylor")


def network(width: int = 12) -> ir.Model:
    net, x = feature_net(width)
    x = net.op("Relu", net.gemm(x, (width, 16), to="hidden"))
    net.gemm(x, (16, 4), to="scores")
    net.output("scores", ["batch", 4])
    return model_of(net)


def labelled(model: ir.Model, count: int = 8, seed: int = 1) -> Samples:
    rng = np.random.default_rng(seed)
    arrays = {"features": rng.normal(size=(count, 12)).astype(np.float32)}
    return samples_of(arrays, labels=rng.integers(0, 4, count), specs=input_specs(model))


def cross_entropy(model: ir.Model, samples: Samples) -> float:
    """The mean over the samples, in float64 from the scores that ONNX Runtime gives."""
    (batch,) = samples.batches(samples.count)
    scores = run(model, batch.inputs)["scores"].astype(np.float64)
    shares = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    return float(-shares[np.arange(len(scores)), batch.labels].mean())


def moved(model: ir.Model, name: str, change: np.ndarray) -> ir.Model:
    copy = model.clone()
    value = copy.graph.initializers[name]
    value.const_value = ir.tensor((value.const_value.numpy() + change).astype(np.float32), name=name)
    return copy


@pytest.mark.parametrize("node", ["node_hidden", "node_scores"])
def test_scores_are_the_weight_times_the_numeric_gradient_of_the_labels_loss(node: str) -> None:
    """Central differences of 1e-2: float32 sums leave 1e-7 / 1e-2 of noise, the third derivative 1e-4."""
    from jettison.compress.pruning.taylor import weight_scores

    model = network()
    samples = labelled(model)
    weight = next(layer.weight for layer in find_layers(model.graph) if layer.name == node)
    scores, told = weight_scores(model, samples)
    assert told == "by labels, on 8 calibration samples"
    array, step = weight.const_value.numpy(), 1e-2
    for place in [(0, 0), (1, 3), (3, 7)]:
        change = np.zeros_like(array)
        change[place] = step
        rise = cross_entropy(moved(model, weight.name, change), samples)
        fall = cross_entropy(moved(model, weight.name, -change), samples)
        expected = abs(array[place] * (rise - fall) / (2 * step))
        assert scores[weight.name][place] == pytest.approx(expected, abs=2e-4)


def test_scores_of_several_batches_are_a_root_mean_square() -> None:
    from jettison.compress.pruning.taylor import weight_scores

    model = network()
    whole = labelled(model, 16)
    (batch,) = whole.batches(16)
    halves = [
        samples_of(
            {"features": batch.inputs["features"][rows]}, labels=batch.labels[rows], specs=input_specs(model)
        )
        for rows in (slice(0, 8), slice(8, 16))
    ]
    both = weight_scores(model, whole)[0]
    first, second = (weight_scores(model, half)[0] for half in halves)
    for name, found in both.items():
        np.testing.assert_allclose(
            found, np.sqrt((first[name] ** 2 + second[name] ** 2) / 2), rtol=1e-4, atol=1e-7
        )


def test_scores_of_channels_are_what_moving_all_their_rows_changes() -> None:
    """The sum of w dL/dw over a channel's rows and biases is dL/dt of scaling them all by (1 + t)."""
    from jettison.compress.pruning.channel_groups import ChannelGroup, Place
    from jettison.compress.pruning.taylor import channel_scores

    model = network()
    samples = labelled(model)
    hidden = next(layer for layer in find_layers(model.graph) if layer.name == "node_hidden")
    names = [hidden.weight.name, hidden.bias.name]
    group = ChannelGroup(16, tuple(Place(name, 0, "makes", np.arange(16)) for name in names))
    scores, _ = channel_scores(model, samples, [group])
    step = 1e-2
    for channel in (0, 5, 11):
        losses = []
        for sign in (1, -1):
            model_ = model
            for name in names:
                array = model.graph.initializers[name].const_value.numpy()
                change = np.zeros_like(array)
                change[channel] = sign * step * array[channel]
                model_ = moved(model_, name, change)
            losses.append(cross_entropy(model_, samples))
        assert scores[0][channel] == pytest.approx(abs(losses[0] - losses[1]) / (2 * step), abs=2e-4)


def test_weights_that_no_output_sees_go_before_larger_ones_that_count() -> None:
    """Half of the hidden features are multiplied by zero afterwards: large weights that mean nothing."""
    model = network()
    second = next(layer.weight for layer in find_layers(model.graph) if layer.name == "node_scores")
    array = second.const_value.numpy().copy()
    array[:, :8] = 0
    second.const_value = ir.tensor(array, name=second.name)
    samples = labelled(model, 32)
    found = {}
    for criterion in ("taylor", "magnitude"):
        step = PruneSparsity(sparsity=0.5, scope="global", criterion=criterion)
        assert step.check(piece_of(model)) is None
        (before,), (after,) = (run(m, {"features": np.ones((1, 12), np.float32)}).values()
                               for m in (model, step(piece_of(model), samples).model))  # fmt: skip
        found[criterion] = float(np.abs(before - after).max())
    assert found["taylor"] == pytest.approx(0, abs=1e-5)
    assert found["magnitude"] > 0.05


def test_a_sparsity_is_reached_exactly_and_what_was_judged_is_told() -> None:
    model = network()
    result = TAYLOR(piece_of(model), labelled(model))
    zeros = sum(layer.zeros for layer in result.pruned)
    assert zeros == round(0.5 * sum(layer.weights for layer in result.pruned))
    assert "|w dL/dw| by labels, on 8 calibration samples" in result.notes
    assert result.pruned[0].reason == "among the 50.0% of all weights with the least taylor"


def test_without_labels_the_models_own_answers_judge_by_a_gradient_that_is_not_zero() -> None:
    from jettison.compress.pruning.taylor import weight_scores

    for model, samples in (
        (network(), samples_for(network(), {"features": image(12)["image"][:, :, 0, 0]})),
        (zoo_case("conv_transpose").model, zoo_case("conv_transpose").samples),
    ):
        scores, told = weight_scores(model, samples)
        assert told.startswith("by the model's own answers, on ")
        again, _ = weight_scores(model, samples)
        for name, found in scores.items():
            assert (found > 1e-6).mean() > 0.5, name
            np.testing.assert_array_equal(found, again[name])


def test_without_labels_scores_are_the_curvature_of_the_distance_from_the_own_answers() -> None:
    """One linear layer of regression: E (w r.x / |y|)^2 is w^2 x^2 / |y|^2 for every sample and output."""
    from jettison.compress.pruning.taylor import weight_scores

    net = Net("line")
    x = net.input("features", ["batch", 3, 6])
    net.output(net.linear(x, (6, 2), bias=False), ["batch", 3, 2])
    model = model_of(net)
    arrays = {"features": np.random.default_rng(2).normal(size=(4096, 3, 6)).astype(np.float32)}
    (layer,) = find_layers(model.graph)
    weight = layer.weight.const_value.numpy().astype(np.float64)
    found, _ = weight_scores(model, samples_for(model, arrays))
    rows = arrays["features"].astype(np.float64)
    energy = ((rows @ weight) ** 2).sum(axis=(1, 2))
    # Eight samples a batch, each with its own signs: the squared mean is an eighth of the mean square.
    expected = np.abs(weight) * np.sqrt(((rows**2).sum(1) / energy[:, None]).mean(0) / 8)[:, None]
    np.testing.assert_allclose(found[layer.weight.name], expected, rtol=0.15)


def test_channels_by_taylor_are_cut_and_told() -> None:
    pytest.importorskip("torch_pruning")
    model = residual_network()
    step = PruneChannels(channels=0.5, criterion="taylor")
    assert step.check(piece_of(model)) is None
    result = step(piece_of(model), samples_for(model, image(16)))
    assert "|w dL/dw| of channels by the model's own answers, on 16 calibration samples" in result.notes
    assert result.pruned[0].reason == "least by taylor, 16 of 32 removed"


def test_what_no_gradient_passes_through_is_refused() -> None:
    found = TAYLOR.check(piece_of(zoo_case("lstm").model))
    assert str(found) == (
        "criterion taylor: LSTM 'node_lstm_5' has no gradient here. Use criterion: magnitude, which needs no "
        "gradient"
    )
    net, x = feature_net(12)
    net.output(net.op("ArgMax", net.gemm(x, (12, 4)), axis=1), ["batch", 1], ir.DataType.INT64)
    found = TAYLOR.check(piece_of(model_of(net)))
    assert "criterion taylor: none of its outputs is a floating point number" in str(found)


def test_labels_beyond_the_classes_are_told() -> None:
    model = network()
    arrays = {"features": np.zeros((4, 12), np.float32)}
    samples = samples_of(arrays, labels=np.full(4, 9), specs=input_specs(model))
    with pytest.raises(SamplesError, match="expected a class from 0 to 3, found 9"):
        TAYLOR(piece_of(model), samples)


def test_without_torch_the_extra_is_named(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingError) as caught:
        TAYLOR.check(piece_of(network()))
    assert "pip install -e '.[train]'" in caught.value.fix
    assert PruneSparsity(sparsity=0.5).check(piece_of(network())) is None
