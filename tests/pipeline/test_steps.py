"""Steps: read back from disk where nothing that they depend on changed, done again where anything did."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper
from pydantic import BaseModel, ConfigDict

from jettison.compress.passes import PassResult, Refusal
from jettison.compress.quantization.partial import QuantizePartial
from jettison.compress.quantization.quantize import QuantizeFull
from jettison.core.artifacts import Store
from jettison.core.progress import silent
from jettison.core.samples import samples_of
from jettison.core.targets import parse_target
from jettison.engines import onnxruntime as engine
from jettison.evaluate.latency import LatencyPlan, compare_latency
from jettison.evaluate.metrics import resolve_metric
from jettison.graph.model import input_specs, open_model
from jettison.pipeline import steps as module
from jettison.pipeline.records import VariantRecord
from jettison.pipeline.steps import Bench, LazyReference, Steps
from jettison.recipe import Variant
from jettison.recipe_text import parse_variant
from zoo.builder import image_net

CPU, GPU = parse_target("cpu"), parse_target("sm89")


def write_model(path):
    net, x = image_net("small", 8)
    net.head(net.op("Relu", net.conv(x, (8, 8))), 8)
    onnx.save(net.model(), path)
    return path


@pytest.fixture
def steps(tmp_path):
    return Steps(Store(tmp_path / "steps"), silent, "a machine", 1)


@pytest.fixture
def source(steps, tmp_path):
    return steps.clean(write_model(tmp_path / "model.onnx"))


def images(source, seed=0, count=8):
    specs = input_specs(open_model(source.path))
    shape = (count, *specs[0].shape[1:])
    array = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    return samples_of({specs[0].name: array}, specs=specs)


def kinds(steps, name):
    return len(list(steps.store.root.glob(f"{name}-*")))


def refuse(model):
    raise ValueError("not to be measured here")


@pytest.mark.parametrize(
    ("passes", "times"), [("{quantize: full}", 1), ("{quantize: partial}", 3)], ids=["fixed", "searching"]
)
def test_only_a_searching_variant_follows_the_tolerance_and_the_search_samples(
    steps, source, monkeypatch, passes, times
):
    made = []
    monkeypatch.setattr(Steps, "_apply", lambda _, making, stage: made.append(making) or write_record(stage))
    variant = parse_variant(f"it=[{passes}]")
    samples = images(source)
    for bench in (Bench(refuse, 0.01, "these"), Bench(refuse, 0.02, "these"), Bench(refuse, 0.02, "others")):
        for _ in range(2):
            steps.variant(source, variant, CPU, samples, bench=bench)
    assert len(made) == times


def test_what_a_search_out_of_time_left_is_made_again_and_a_finished_answer_is_not(
    steps, source, monkeypatch
):
    """The first two runs are cut short, the third is not; time is no part of what identifies an answer."""
    made, cut = [], iter((True, True, False))

    def apply(_, making, stage):
        made.append(making)
        record = VariantRecord(
            refusal=Refusal(reasons=("a fake",), instead="nothing"), is_cut_short=next(cut)
        )
        (stage / "record.json").write_text(record.model_dump_json())

    monkeypatch.setattr(Steps, "_apply", apply)
    variant, samples = parse_variant("it=[{quantize: partial}]"), images(source)
    for left_s in (0.0, 1.0, 0.0, 2.0):
        bench = Bench(refuse, 0.01, "these", lambda left_s=left_s: left_s)
        found = steps.variant(source, variant, CPU, samples, bench=bench)
    assert len(made) == 3
    assert not found.record.is_cut_short


@pytest.mark.parametrize(("passes", "is_timed"), [("{quantize: full}", False), ("{quantize: partial}", True)])
def test_only_variants_that_search_are_short_of_time(steps, source, monkeypatch, passes, is_timed):
    pieces = []

    def check(_, piece):
        pieces.append(piece)
        return Refusal(reasons=("a fake",), instead="nothing")

    for kind in (QuantizeFull, QuantizePartial):
        monkeypatch.setattr(kind, "check", check)
    bench = Bench(refuse, 0.01, "these", lambda: 5.0)
    steps.variant(source, parse_variant(f"it=[{passes}]"), CPU, images(source), bench=bench)
    assert [piece.time_left_s is not None for piece in pieces] == [is_timed]


def test_warnings_of_passes_and_that_one_was_cut_short_stand_in_the_record(steps, source, monkeypatch):
    def applied(_, piece, samples):
        return PassResult(piece.model.clone(), notes=("told",), warnings=("beware",), is_cut_short=True)

    monkeypatch.setattr(QuantizeFull, "__call__", applied)
    variant = parse_variant("it=[{quantize: full}]")
    record = steps.variant(source, variant, CPU, images(source), bench=Bench(refuse, 0.01, "")).record
    assert record.warnings == ("beware",)
    assert record.notes == ("told", "beware")
    assert record.is_cut_short


def test_the_float_model_that_layers_stand_for_is_kept_beside_the_variant(steps, source, monkeypatch):
    def applied(_, piece, samples):
        return PassResult(piece.model.clone(), counterpart=piece.model.clone())

    bench, variant = Bench(refuse, 0.01, ""), parse_variant("it=[{quantize: full}]")
    assert steps.variant(source, variant, CPU, images(source), bench=bench).file.counterpart is None
    monkeypatch.setattr(QuantizeFull, "__call__", applied)
    file = steps.variant(source, variant, CPU, images(source, seed=1), bench=bench).file
    assert file.counterpart == file.path.parent / "counterpart.onnx"
    assert open_model(file.counterpart).graph.num_nodes() == open_model(source.path).graph.num_nodes()


def write_record(stage):
    (stage / "record.json").write_text('{"refusal": {"reasons": ["a fake"], "instead": "nothing"}}')


class Calibrates(BaseModel):
    """A pass that asks for the calibration of the model as it came, or of a copy with other weights."""

    model_config = ConfigDict(frozen=True)

    factor: float = 1.0

    def check(self, _):
        return None

    def __call__(self, piece, samples):
        if self.factor != 1.0:
            piece = dataclasses.replace(piece, model=scaled(piece.model, self.factor))
        found = piece.calibration(samples)
        return PassResult(piece.model, notes=(f"{found.histogram('relu_4').high:.6g}",))


def scaled(model, factor):
    copy = model.clone()
    weight = next(value for value in copy.graph.initializers.values() if len(value.shape) == 4)
    weight.const_value = ir.tensor(weight.const_value.numpy() * np.float32(factor))
    return copy


def test_calibration_is_shared_by_variants_but_not_with_a_model_that_a_pass_changed(steps, source):
    samples, bench = images(source), Bench(refuse, 0.01, "")
    largest = [
        float(
            steps.variant(source, Variant(name=name, passes=(made,)), CPU, samples, bench=bench).record.notes[
                0
            ]
        )
        for name, made in (("a", Calibrates()), ("b", Calibrates(factor=3.0)))
    ]
    assert largest[1] > 1.5 * largest[0]
    assert kinds(steps, "calibrate") == 1


def test_latency_is_measured_again_for_other_inputs(steps, source, monkeypatch):
    asked = []
    once = LatencyPlan(warm_up_rounds=1, max_rounds=2, max_seconds=0.1)

    def quickly(*arguments, **options):
        asked.append(arguments)
        return compare_latency(*arguments, **options, plan=once)

    monkeypatch.setattr(module, "compare_latency", quickly)
    first, second = (next(images(source, seed=seed).batches(1)).inputs for seed in (0, 1))
    for inputs in (first, first, second):
        steps.latency({"baseline": source, "same": source}, inputs, baseline="baseline")
    assert len(asked) == 2


def test_latency_is_of_sessions_as_a_server_runs_them_and_scores_of_thrifty_ones(steps, source, monkeypatch):
    """Thrift changes no result, but it does change times."""
    opened = []

    def recorded(*arguments, **settings):
        opened.append(settings["thrift"])
        return real(*arguments, **settings)

    real = engine.session_of
    monkeypatch.setattr(engine, "session_of", recorded)
    once = LatencyPlan(warm_up_rounds=1, max_rounds=2, max_seconds=0.1)
    monkeypatch.setattr(module, "compare_latency", functools.partial(compare_latency, plan=once))
    samples = images(source)
    steps.latency({"baseline": source}, next(samples.batches(1)).inputs, baseline="baseline")
    assert opened == ["none"]
    opened.clear()
    reference = LazyReference(source, samples, steps)
    for optimize in (True, False):
        steps.scores(source, samples, resolve_metric("sqnr"), reference=reference, optimize=optimize)
    assert opened == ["unplanned"] * 3


def test_an_edited_metric_scores_again(steps, source, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_metric_of_steps.py").write_text(
        "def always(outputs):\n    return [0.25] * len(outputs['logits'])"
    )
    samples = images(source)
    reference = LazyReference(source, samples, steps)
    before = resolve_metric("own_metric_of_steps:always")
    assert steps.baseline_scores(samples, before, reference=reference).mean == 0.25
    after = dataclasses.replace(
        before, function=lambda some: np.full(len(some), 0.75), source_sha256="edited"
    )
    assert steps.baseline_scores(samples, after, reference=reference).mean == 0.75
    assert steps.baseline_scores(samples, before, reference=reference).mean == 0.25


@pytest.mark.parametrize(
    ("outcome", "asked"), [("timeout", 2), ("crashed", 2), ("refused", 1), ("compiles", 1)]
)
def test_a_preflight_without_an_answer_is_asked_again(steps, source, monkeypatch, outcome, asked):
    calls = []

    def answer(path, target, **_):
        calls.append(path)
        return module.PreflightReport(
            target=target.name,
            compiled_for="sm89",
            nearest=False,
            module="tensorrt_rtx",
            version="1",
            outcome=outcome,
        )

    monkeypatch.setattr(module, "preflight", answer)
    found = [steps.preflight(source, GPU).outcome for _ in range(2)]
    assert found == [outcome, outcome]
    assert len(calls) == asked


def test_a_model_that_only_tensorrt_may_take_has_no_counts_and_no_error(tmp_path):
    net, x = image_net("plugin", 8)
    net.head(net.op("Plugin", net.conv(x, (8, 8)), domain="com.example"), 8)
    model = net.model()
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    onnx.save(model, tmp_path / "model.onnx")
    assert module.macs_of(tmp_path / "model.onnx") == {}
    assert module.macs_of(write_model(tmp_path / "plain.onnx"))


def test_a_wide_sample_does_not_change_the_scores_of_those_beside_it_in_a_dynamic_model(steps, tmp_path):
    """DynamicQuantizeLinear takes one scale from a whole batch, so a wide sample flattens its neighbours."""
    rng = np.random.default_rng(0)
    weight = numpy_helper.from_array(rng.standard_normal((16, 4)).astype(np.float32), "weight")
    sides = [helper.make_tensor_value_info(name, 1, ["batch", size]) for name, size in (("x", 16), ("y", 4))]
    node = helper.make_node("MatMul", ["x", "weight"], ["y"])
    graph = helper.make_graph([node], "one_layer", sides[:1], sides[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "model.onnx")
    source = steps.clean(tmp_path / "model.onnx")
    specs = input_specs(open_model(source.path))
    x = rng.standard_normal((8, 16)).astype(np.float32)
    wide = x.copy()
    wide[0] *= 1000
    variant = parse_variant("d=[{quantize: dynamic}]")
    found = []
    for rows in (x, wide):
        samples = samples_of({"x": rows}, specs=specs)
        made = steps.variant(source, variant, CPU, samples, bench=Bench(refuse, 0.01, "")).file
        reference = LazyReference(source, samples, steps)
        scores = steps.scores(made, samples, resolve_metric("sqnr"), reference=reference, optimize=True)
        found.append(scores.values)
    np.testing.assert_array_equal(found[0][1:], found[1][1:])
    assert found[0].min() > 0.99
