"""Damage of single layers: on which outputs, samples and arithmetic it is measured, and what it is."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto
from small_models import (
    conv,
    feature_net,
    features,
    model_of,
    normal,
    piece_of,
    quantized,
    run,
    samples_for,
)

from jettison.compress.quantization import damage as module
from jettison.compress.quantization.damage import (
    DAMAGE_SAMPLES,
    NoiseJudge,
    layer_damages,
    noise_to_signal,
    outputs_of,
)
from jettison.compress.quantization.layers import find_layers
from jettison.compress.quantization.quantize import place
from jettison.compress.quantization.static import quantize_static
from jettison.core.progress import silent
from zoo.builder import image_net

WIDTH = 32


def names_of(model):
    return [layer.name for layer in find_layers(model.graph)]


def damages(model, arrays, *, target="cpu"):
    """The damage of each layer, with ranges of all samples."""
    piece, samples, names = piece_of(model, target), samples_for(model, arrays), frozenset(names_of(model))
    calibration, dialect = piece.calibration(samples), piece.target.dialect

    def quantize(layers):
        return quantize_static(model, calibration, place(model.graph, dialect, names - layers))

    return layer_damages(
        model,
        names_of(model),
        samples,
        quantize=quantize,
        exact=piece.target.is_gpu,
        progress=silent(""),
    )


def segmentation(*, softmax=True):
    net, x = image_net("segmentation", 16)
    scores = conv(net, net.named("Relu", conv(net, x, "a"), to="act"), "scores")
    net.output(net.named("Softmax", scores, to="y", axis=1) if softmax else scores, ["batch", 16, 16, 16])
    return model_of(net)


def chain(end):
    """Three layers, the second of which `end` makes an output of."""
    net, x = feature_net(WIDTH)
    hidden = net.op("Relu", net.gemm(x, (WIDTH, 64)))
    end(net, net.gemm(hidden, (64, 16), to="scores"))
    return model_of(net)


def plain(net, scores):
    net.output(scores, ["batch", 16])


def number_of_class(net, scores):
    net.output(net.named("ArgMax", scores, to="class", axis=1, keepdims=0), ["batch"], TensorProto.INT64)


def mean_beside_scores(net, scores):
    net.output(scores, ["batch", 16])
    net.output(net.named("ReduceMean", scores, to="mean", keepdims=0), [])


@pytest.mark.parametrize("target", ["cpu", "sm89"])
def test_a_convolution_before_a_softmax_is_measured_before_it(target):
    arrays = {"image": normal(40, 16, 16, 16)}
    found = damages(segmentation(), arrays, target=target)
    behind = damages(segmentation(softmax=False), arrays, target=target)
    assert found == pytest.approx(behind, rel=1e-6), "the same sums, in another graph"
    assert all(share > 0 for share in found.values())


def test_a_repaired_segmentation_model_is_made_for_the_cpu():
    notes = quantized(segmentation(), {"image": normal(40, 16, 16, 16)}, repair="measure").notes
    assert notes[1].startswith("SQNR there, in dB: max ")


def test_damage_of_a_layer_is_the_energy_of_its_error_over_that_of_the_output():
    model, arrays = chain(plain), features(WIDTH, DAMAGE_SAMPLES)
    found = damages(model, arrays)
    samples, names = samples_for(model, arrays), frozenset(names_of(model))
    calibration = piece_of(model).calibration(samples)
    for name in names:
        alone = quantize_static(model, calibration, place(model.graph, "cpu", names - {name}))
        expected, got = run(model, arrays)["scores"], run(alone, arrays)["scores"]
        share = np.square(got.astype(np.float64) - expected).sum() / np.square(expected, dtype=float).sum()
        assert found[name] == pytest.approx(share, rel=1e-4), "sums of batches of 4 in float32"


def test_a_model_that_gives_only_class_numbers_is_measured_on_its_scores():
    arrays = features(WIDTH, 40)
    assert damages(chain(number_of_class), arrays) == pytest.approx(damages(chain(plain), arrays), rel=1e-6)


def test_an_output_without_dimensions_is_measured_too():
    found = damages(chain(mean_beside_scores), features(WIDTH, 40))
    assert all(0 < share < 1 for share in found.values())


def test_an_output_that_has_changed_its_shape_is_all_noise():
    assert noise_to_signal([{"y": np.ones((2, 3), np.float32)}], [{"y": np.ones((2, 4), np.float32)}]) == 1.0


def test_a_layer_for_the_last_half_of_a_sorted_set_is_not_taken_for_harmless():
    """Two experts, each for one half of the features, of which a sample has only one."""
    net, x = feature_net(WIDTH)
    halves = net.op("Split", x, outputs=2, axis=1, num_outputs=2)
    experts = [
        net.op("Relu", net.op("MatMul", half, net.const(normal(16, WIDTH, seed=seed))))
        for seed, half in enumerate(halves)
    ]
    net.output(net.gemm(net.op("Add", *experts), (WIDTH, 16), to="y"), ["batch", 16])
    net.opset = 18
    rows = normal(96, WIDTH, seed=4)
    rows[:48, 16:], rows[48:, :16] = 0, 0
    found = damages(model_of(net), {"features": rows})
    assert all(share > 0 for share in found.values()), found


@pytest.mark.parametrize("exact", [False, True])
def test_only_quantized_models_are_run_in_exact_arithmetic_and_only_where_asked(exact, monkeypatch):
    model, optimized = chain(plain), []

    def recorded(found, *, optimize):
        optimized.append((found is model, optimize))
        return real(found, threads=1, optimize=optimize)

    real = module.runner_of
    monkeypatch.setattr(module, "runner_of", recorded)
    NoiseJudge(model, samples_for(model, features(WIDTH, 8)), exact=exact).noise(model.clone())
    assert optimized == [(True, True), (False, not exact)]


def test_outputs_own_their_memory():
    model = chain(plain)
    batches = [features(WIDTH, 4, seed) for seed in range(2)]
    for outputs in outputs_of(model, batches, exact=False):
        assert all(array.flags.owndata and array.base is None for array in outputs.values())


def test_progress_counts_layers():
    model, told = chain(plain), []
    layer_damages(
        model,
        names_of(model),
        samples_for(model, features(WIDTH, 8)),
        quantize=lambda _: ir.Model.clone(model),
        exact=False,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(1, 2), (2, 2)]
