from __future__ import annotations

import math

import numpy as np
import pytest
from evaluate_fakes import FakeRunner, echo, some_samples, spec
from hypothesis import given, settings
from hypothesis import strategies as st

from jettison.core.errors import ModelError, RecipeError, SamplesError
from jettison.evaluate.answers import DEFAULT_BATCH_SIZE, answers_of
from jettison.evaluate.metrics import resolve_metric
from jettison.evaluate.reference import reference_of
from jettison.evaluate.scoring import score, score_reference
from jettison.evaluate.sqnr import CAP_DB, SqnrMeter, row_energies, sqnr_db


def test_scores_are_one_per_sample_in_order():
    labels = np.full(20, 3)
    samples = some_samples(labels=labels)
    found = score(echo(), samples, metric=resolve_metric("top1"), batch_size=7)
    x = np.concatenate([batch.inputs["x"] for batch in samples.batches(7)])
    assert found.values.tolist() == (x.argmax(axis=1) == 3).astype(float).tolist()
    assert found.predictions.tolist() == x.argmax(axis=1).tolist()
    assert found.predictions.dtype == np.int32
    assert found.mean == found.values.mean()
    assert found.sqnr_db is None


@pytest.mark.parametrize("fixed", [1, 8, 32])
def test_a_fixed_batch_is_filled_up_and_cut(fixed):
    samples = some_samples(20)
    runner, free = echo(batch=fixed), echo()
    found = score(runner, samples, metric=resolve_metric("top1"), batch_size=5)
    assert set(runner.sizes) == {fixed}
    assert found.values.tolist() == score(free, samples, metric=resolve_metric("top1")).values.tolist()


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_any_batch_size_gives_the_same_scores(one, other, count):
    samples = some_samples(count, labels=False)
    reference = reference_of(echo(), samples, batch_size=one)
    runner = FakeRunner(lambda x: {"scores": np.round(x, 1)})
    first = score(runner, samples, metric=resolve_metric("sqnr"), reference=reference, batch_size=one)
    second = score(runner, samples, metric=resolve_metric("sqnr"), reference=reference, batch_size=other)
    np.testing.assert_allclose(first.values, second.values, rtol=1e-12)
    assert first.sqnr_db == pytest.approx(second.sqnr_db, abs=1e-9)


@pytest.mark.parametrize("fixed", ["batch", 4])
def test_samples_that_would_change_each_other_in_a_batch_are_scored_one_at_a_time(fixed):
    def largest(x):
        return {"scores": np.round(x / np.abs(x).max() * 127).astype(np.float32)}

    mixing, samples = FakeRunner(largest, batch=fixed), some_samples(6)
    mixing.mixes_samples = True
    sqnr = resolve_metric("sqnr")
    together = score(mixing, samples, metric=sqnr, reference=reference_of(mixing, samples), batch_size=8)
    assert list(together.values) == [1.0] * 6
    assert set(mixing.sizes) == ({1} if fixed == "batch" else {4})
    alone = [largest(batch.inputs["x"])["scores"] for batch in samples.batches(1)]
    answers = [some.outputs["scores"] for some in answers_of(mixing, samples)]
    np.testing.assert_array_equal(np.concatenate(answers), np.concatenate(alone))
    mixing.mixes_samples = False
    answers = [some.outputs["scores"] for some in answers_of(mixing, samples)]
    assert (np.concatenate(answers) != np.concatenate(alone)).any()


@pytest.mark.parametrize("memory_bytes", [0, 1 << 20])
def test_a_reference_in_memory_or_in_a_file_is_the_same(memory_bytes):
    samples = some_samples(33, labels=False)
    runner = FakeRunner(
        lambda x: {"scores": x, "half": x[:, :3].astype(np.float16), "text": np.full(len(x), "a", object)},
        outputs=(
            spec("scores", ("b", 10)),
            spec("half", ("b", 3), "float16"),
            spec("text", ("b",), "string"),
        ),
    )
    reference = reference_of(runner, samples, batch_size=8, memory_bytes=memory_bytes)
    x = np.concatenate([batch.inputs["x"] for batch in samples.batches(8)])
    found = reference.read(5, 19)
    assert found["scores"].tolist() == x[5:19].tolist()
    assert found["half"].dtype == np.float16
    assert found["half"].tolist() == x[5:19, :3].astype(np.float16).tolist()
    assert not found["scores"].flags.writeable
    assert score(runner, samples, metric=resolve_metric("agreement"), reference=reference).values.all()


def test_the_baselines_own_scores_need_no_second_run():
    samples = some_samples(20, labels=np.full(20, 3))
    runner = echo()
    reference = reference_of(runner, samples)
    runs = len(runner.sizes)
    own = score_reference(reference, samples, metric=resolve_metric("top1"))
    assert len(runner.sizes) == runs
    assert own.values.tolist() == score(runner, samples, metric=resolve_metric("top1")).values.tolist()
    assert own.sqnr_db == CAP_DB
    assert score_reference(reference, samples, metric=resolve_metric("mae")).mean == 0.0


def test_a_model_without_classes_has_no_predictions():
    runner = FakeRunner(lambda x: {"masks": np.stack([x, x], axis=1)}, outputs=(spec("masks", ("b", 2, 10)),))
    samples = some_samples(20)
    reference = reference_of(runner, samples)
    found = score(runner, samples, metric=resolve_metric("sqnr"), reference=reference)
    assert found.predictions is None
    assert found.mean == 1.0


def test_progress_counts_samples_up_to_their_number():
    seen = []
    samples = some_samples(20)
    reference = reference_of(
        echo(), samples, batch_size=8, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(8, 20), (16, 20), (20, 20)]
    seen.clear()
    score(
        echo(),
        samples,
        metric=resolve_metric("top1"),
        reference=reference,
        batch_size=16,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(16, 20), (20, 20)]


def test_outputs_that_are_not_numbers_are_counted():
    def broken(x):
        y = x.copy()
        y[3:5, 2] = np.inf
        y[4, 1] = np.nan
        return {"scores": y}

    samples = some_samples(20)
    reference = reference_of(echo(), samples)
    sqnr = resolve_metric("sqnr")
    found = score(FakeRunner(broken), samples, metric=sqnr, reference=reference, batch_size=20)
    assert found.broken == 2
    assert np.flatnonzero(found.values == 0).tolist() == [3, 4]
    x = next(iter(samples.batches(20))).inputs["x"].astype(np.float64)
    expected = 10 * math.log10((x**2).sum() / (x[3:5] ** 2).sum())
    assert found.sqnr_db == pytest.approx(expected, abs=1e-9)


def test_a_baseline_with_nan_is_refused_by_sample():
    def broken(x):
        return {"scores": np.where(x == x[-1, -1], np.nan, x)}

    with pytest.raises(ModelError, match=r"found NaN for sample 7\."):
        reference_of(FakeRunner(broken), some_samples(16), batch_size=8)


def test_few_samples_are_run_at_once_since_memory_grows_with_them():
    runner = echo()
    score(runner, some_samples(10), metric=resolve_metric("top1"))
    assert runner.sizes == [4, 4, 2]


def test_answers_that_do_not_fit_are_refused():
    samples = some_samples(20)
    top1, reference = resolve_metric("top1"), reference_of(echo(), samples)
    with pytest.raises(
        ModelError,
        match=rf"'scores': expected one row for each of {DEFAULT_BATCH_SIZE} samples, found shape \(3, 10\)",
    ):
        score(FakeRunner(lambda x: {"scores": x[:3]}), samples, metric=top1)
    with pytest.raises(
        ModelError, match=r"'scores': expected the baseline's shape \(\d, 10\), found shape \(\d, 9\)"
    ):
        score(FakeRunner(lambda x: {"scores": x[:, 1:]}), samples, metric=top1, reference=reference)
    other = FakeRunner(lambda x: {"other": x}, outputs=(spec("other", ("b", 10)),))
    with pytest.raises(ModelError, match=r"found no such output"):
        score(other, samples, metric=top1, reference=reference)
    with pytest.raises(SamplesError, match=r"expected the samples that the baseline answered, found others"):
        score(echo(), some_samples(20, seed=1), metric=top1, reference=reference)
    with pytest.raises(SamplesError, match=r"expected the samples that the baseline answered, found others"):
        score_reference(reference, some_samples(20, seed=1), metric=top1)


def test_inputs_fixed_to_different_batches_are_refused():
    class Two(FakeRunner):
        @property
        def inputs(self):
            return (spec("x", (1, 10)), spec("z", (2, 10)))

    with pytest.raises(ModelError, match=r"expected one batch size .*found \{'x': 1, 'z': 2\}"):
        score(Two(lambda x: {"scores": x}), some_samples(4), metric=resolve_metric("top1"))


def test_rows_of_changing_shape_are_refused():
    runner = FakeRunner(lambda x: {"scores": x[:, : len(x)]})
    with pytest.raises(ModelError, match=r"expected rows of shape \(8,\) for all samples, found \(4,\)"):
        reference_of(runner, some_samples(12), batch_size=8)


def test_without_a_baseline_a_comparing_metric_is_refused_before_any_run():
    runner = echo()
    with pytest.raises(RecipeError, match=r"no baseline was given"):
        score(runner, some_samples(), metric=resolve_metric("sqnr"))
    assert runner.sizes == []


def test_sqnr_in_db_of_known_noise():
    base = np.ones((10, 100), np.float32)
    assert sqnr_db({"y": base}, {"y": base * 1.1}) == pytest.approx(20.0, abs=1e-4)
    assert sqnr_db({"y": base}, {"y": base}) == CAP_DB
    assert sqnr_db({"y": base * 0}, {"y": base}) is None
    assert sqnr_db({"y": np.ones(3, np.int64)}, {"y": np.ones(3, np.int64)}) is None
    both = {"y": base * 1000, "z": base}
    assert sqnr_db(both, both | {"z": base * 1.1}) == pytest.approx(20.0, abs=1e-4)


@given(st.integers(0, 10**6), st.floats(-6, 6))
@settings(max_examples=30, deadline=None)
def test_sqnr_does_not_depend_on_scale_or_split(seed, exponent):
    generator = np.random.default_rng(seed)
    base = generator.normal(size=(20, 5))
    noisy = base + generator.normal(0, 0.1, (20, 5))
    cut = int(generator.integers(1, 20))
    meter = SqnrMeter()
    meter.add({"y": base[:cut] * 10**exponent}, {"y": noisy[:cut] * 10**exponent})
    meter.add({"y": base[cut:] * 10**exponent}, {"y": noisy[cut:] * 10**exponent})
    assert meter.db == pytest.approx(sqnr_db({"y": base}, {"y": noisy}), abs=1e-6)


def test_large_rows_are_summed_in_pieces_to_the_same_energies():
    base = np.random.default_rng(0).normal(size=(3, 700_000)).astype(np.float32)
    found = row_energies(base, base * np.float32(1.01))
    assert found.signal == pytest.approx(np.square(base.astype(np.float64)).sum(axis=1))
    assert found.noise / found.signal == pytest.approx([1e-4] * 3, rel=1e-3)
