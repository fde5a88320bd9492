"""What a search judges by: scores on its own samples, and an equal share of the time that is left."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from jettison.core.artifacts import Store
from jettison.core.batching import one_batch
from jettison.core.progress import silent
from jettison.core.samples import samples_of
from jettison.core.targets import parse_target
from jettison.evaluate.gate import Gate
from jettison.evaluate.metrics import resolve_metric
from jettison.graph.model import input_specs, open_model
from jettison.pipeline import measure as module
from jettison.pipeline.measure import TimeBudget, bench_of
from jettison.pipeline.proof import Court
from jettison.pipeline.steps import LazyReference, Steps
from zoo.builder import image_net

CPU, GPU = parse_target("cpu"), parse_target("sm89")


class Clock:
    def __init__(self, left_s):
        self.left_s = left_s

    def __call__(self):
        return self.left_s


@pytest.fixture
def court(tmp_path):
    net, x = image_net("small", 8)
    net.head(net.op("Relu", net.conv(x, (8, 8))), 8)
    onnx.save(net.model(), tmp_path / "model.onnx")
    steps = Steps(Store(tmp_path / "steps"), silent, "a machine", 1)
    source = steps.clean(tmp_path / "model.onnx")
    specs = input_specs(open_model(source.path))
    array = np.random.default_rng(0).normal(size=(40, 8, 16, 16)).astype(np.float32)
    samples = samples_of({"image": array}, specs=specs)
    return Court(
        steps=steps,
        baseline=source,
        samples=samples,
        metric=resolve_metric("agreement"),
        gate=Gate(tolerance=0.01),
        reference=LazyReference(source, samples, steps),
        inputs=one_batch(samples, specs),
        seed=0,
    )


def test_time_is_shared_and_what_is_left_over_falls_to_those_behind():
    clock = Clock(90.0)
    whole = TimeBudget(clock)
    first = whole.share(3)
    assert first.left_s() == pytest.approx(30)
    clock.left_s = 80.0
    assert first.left_s() == pytest.approx(20)
    second = whole.share(2)
    assert second.left_s() == pytest.approx(40)
    clock.left_s = 35.0
    assert second.left_s() == pytest.approx(-5)
    assert whole.share(1).left_s() == 35.0


def test_time_is_no_part_of_what_identifies_a_bench(court):
    with_time = bench_of(court, CPU, TimeBudget(Clock(5.0)))
    assert with_time.digest == bench_of(court, CPU).digest
    assert with_time.time_left_s() == 5.0
    assert bench_of(court, CPU).time_left_s is None
    other = dataclasses.replace(court, seed=1)
    assert bench_of(other, CPU).digest != with_time.digest


def test_a_model_is_judged_against_the_baseline_and_against_what_could_be_proven(court):
    """40 equal answers prove no loss below 3/40 or so: best_low is far below the tolerance of 0.01."""
    model = open_model(court.baseline.path)
    found = bench_of(court, CPU).measure(model)
    assert found.score_delta == 0
    assert found.score_delta_low == found.best_low < -0.05
    bias = next(value for name, value in model.graph.initializers.items() if value.shape == [16])
    bias.const_value = ir.tensor(np.linspace(0, 100, 16, dtype=np.float32))
    worse = bench_of(court, CPU).measure(model)
    assert worse.score_delta < -0.5
    assert worse.best_low == found.best_low


@pytest.mark.parametrize(("target", "optimized"), [(CPU, True), (GPU, False)])
def test_a_gpu_is_judged_by_exact_arithmetic_and_nothing_is_timed(court, monkeypatch, target, optimized):
    seen = []

    def recorded(model, **settings):
        seen.append(settings)
        return real(model, **settings)

    real = module.runner_of
    monkeypatch.setattr(module, "runner_of", recorded)
    bench_of(court, target).measure(open_model(court.baseline.path))
    assert seen == [{"threads": 1, "optimize": optimized}]
