"""Which decisions a variant changes, with the margins of both models."""

from __future__ import annotations

import json

import numpy as np
import pytest
from evaluate_fakes import FakeRunner, echo, some_samples, spec
from hypothesis import given
from hypothesis import strategies as st

from jettison.core.errors import ModelError, SamplesError
from jettison.core.samples import Samples, samples_of
from jettison.evaluate.answers import DEFAULT_BATCH_SIZE
from jettison.evaluate.decisions import DecisionPlan, DecisionReport, explain_decisions
from jettison.evaluate.explanation import NotApplicable
from jettison.evaluate.reference import reference_of


def scored(rows: list[list[float]], labels: list[int] | np.ndarray | None = None) -> Samples:
    """Samples that the model `echo` answers with these scores, filled up with low ones to ten classes."""
    x = np.full((len(rows), 10), -9.0, np.float32)
    for index, row in enumerate(rows):
        x[index, : len(row)] = row
    chosen = None if labels is None else np.asarray(labels)
    return samples_of({"x": x}, labels=chosen, specs=[spec("x", ("batch", 10))])


def adding(rows: list[list[float]], **options) -> FakeRunner:
    """A variant that adds these numbers to the scores of the samples, one row each, in their order."""
    shift = np.zeros((len(rows), 10), np.float32)
    for index, row in enumerate(rows):
        shift[index, : len(row)] = row
    return FakeRunner(lambda x: {"scores": x + shift}, **options)


def explained(variant: FakeRunner, samples: Samples, **options) -> DecisionReport:
    found = explain_decisions(variant, samples, reference=reference_of(echo(), samples), **options)
    assert isinstance(found, DecisionReport)
    return found


def test_identical_models_change_no_decision():
    found = explained(echo(), some_samples(40))
    assert (found.samples, found.changed, found.changed_share) == (40, 0, 0.0)
    assert (found.worse, found.better) == (0, 0)
    assert found.decisions == ()
    assert found.pairs == ()
    assert found.changed_baseline_margin_median is None


def test_a_changed_decision_tells_both_classes_both_margins_and_its_effect():
    samples = scored([[3, 1, 0], [2, 1, 0], [0, 1, 5]], labels=[0, 1, 2])
    found = explained(adding([[0], [0, 4], [0]]), samples)
    assert (found.changed, found.worse, found.better) == (1, 0, 1)
    (change,) = found.decisions
    assert (change.sample, change.from_class, change.to_class, change.label) == (1, 0, 1, 1)
    assert (change.baseline_margin, change.variant_margin, change.effect) == (1.0, 3.0, "better")
    assert found.baseline_margin_median == 2.0
    assert found.changed_baseline_margin_median == 1.0


def test_with_five_that_count_the_effect_is_whether_the_label_is_among_them():
    """All are decided otherwise; of the labels, one leaves the five, one enters, one stays, one stays out."""
    samples = scored([[9, 8, 7, 6, 5, 4, 3, 2, 1]] * 4, labels=[4, 5, 0, 8])
    leaves, enters = [0, 9, 0, 0, -9], [0, 9, 0, 0, 0, 3]
    found = explained(adding([leaves, enters, [0, 9], [0, 9]]), samples, plan=DecisionPlan(top=5))
    assert found.changed == 4
    effects = {change.sample: change.effect for change in found.decisions}
    assert effects == {0: "worse", 1: "better", 2: "same", 3: "same"}
    assert (found.worse, found.better) == (1, 1)
    by_one = explained(adding([leaves, enters, [0, 9], [0, 9]]), samples)
    assert (by_one.worse, by_one.better) == (1, 0)


def test_effects_are_worse_better_and_same():
    samples = scored([[2, 1, 0]] * 3, labels=[0, 1, 2])
    found = explained(adding([[0, 5]] * 3), samples)
    assert [change.effect for change in found.decisions] == ["worse", "better", "same"]
    assert (found.worse, found.better) == (1, 1)


def test_decisions_of_which_the_baseline_was_surest_come_first_and_only_some_are_kept():
    samples = scored([[1, 0], [3, 0], [2, 0], [0, 0, 4]])
    found = explained(adding([[0, 9], [0, 9], [0, 9], [0, 9]]), samples, plan=DecisionPlan(most=2))
    assert found.changed == 4
    assert [(change.sample, change.baseline_margin) for change in found.decisions] == [(3, 4.0), (1, 3.0)]
    assert [(pair.from_class, pair.to_class, pair.count) for pair in found.pairs] == [(0, 1, 3), (2, 1, 1)]
    assert len(explained(adding([[0, 9]] * 4), samples, plan=DecisionPlan(most=1)).pairs) == 1


def test_a_tie_has_the_margin_zero_and_goes_to_the_first_class():
    samples = scored([[1, 1, 0]])
    (change,) = explained(adding([[0, 0.5]]), samples).decisions
    assert (change.from_class, change.to_class) == (0, 1)
    assert (change.baseline_margin, change.variant_margin) == (0.0, 0.5)
    assert explained(adding([[0, 0]]), samples).changed == 0


@pytest.mark.parametrize("labels", [None, np.zeros((2, 3), np.float32), np.array([0.5, 1.5])])
def test_labels_that_name_no_class_leave_the_effect_open(labels):
    samples = scored([[1, 0], [0, 1]], labels=labels)
    found = explained(adding([[0, 5], [0]]), samples)
    assert (found.worse, found.better) == (None, None)
    assert (found.decisions[0].label, found.decisions[0].effect) == (None, None)


def test_shares_of_classes_serve_as_labels():
    shares = np.zeros((1, 10), np.float32)
    shares[0, 1] = 1
    (change,) = explained(adding([[0, 5]]), scored([[1, 0]], labels=shares)).decisions
    assert (change.label, change.effect) == (1, "better")


def test_scores_that_are_not_numbers_are_no_class_and_have_no_margin_even_where_labels_say_minus_one():
    samples = scored([[1, 0]], labels=[-1])
    found = explained(adding([[np.nan]]), samples)
    (change,) = found.decisions
    assert (change.to_class, change.variant_margin, change.effect) == (-1, None, "same")
    assert found.better == 0
    json.loads(found.model_dump_json(), parse_constant=pytest.fail)


def test_infinite_margins_are_left_out_of_the_report():
    samples = scored([[1, 0]])
    (change,) = explained(adding([[-np.inf]]), samples).decisions
    assert (change.from_class, change.to_class, change.variant_margin) == (0, 1, 9.0)
    (change,) = explained(adding([[-np.inf, 0, *[-np.inf] * 8]]), samples).decisions
    assert change.variant_margin is None


def test_decisions_without_scores_have_no_margins():
    def deciding(shift: int) -> FakeRunner:
        return FakeRunner(
            lambda x: {"class": (x.argmax(axis=1) + shift) % 10}, outputs=[spec("class", ("batch",), "int64")]
        )

    samples = some_samples(12)
    found = explain_decisions(deciding(1), samples, reference=reference_of(deciding(0), samples))
    assert isinstance(found, DecisionReport)
    assert (found.changed, found.worse) == (12, 12)
    assert found.baseline_margin_median is None
    assert [change.sample for change in found.decisions] == list(range(12))
    assert {change.baseline_margin for change in found.decisions} == {None}


@pytest.mark.parametrize(
    "outputs",
    [[spec("embedding", ("batch", 10))], [spec("scores", ("batch", 1))], [spec("map", ("batch", 4, 4))], []],
)
def test_a_model_without_class_decisions_is_told_so(outputs):
    samples = some_samples()
    runner = echo(outputs=outputs)
    found = explain_decisions(runner, samples, reference=reference_of(echo(), samples))
    assert isinstance(found, NotApplicable)
    assert "the model decides no classes: expected a first output of class scores" in found.reason
    assert (outputs[0].name if outputs else "none") in found.reason


def test_who_knows_that_an_output_holds_classes_can_say_so():
    samples = some_samples()
    runner = FakeRunner(lambda x: {"pose": x}, outputs=[spec("pose", ("batch", 10))])
    reference = reference_of(runner, samples)
    assert isinstance(explain_decisions(runner, samples, reference=reference), NotApplicable)
    found = explain_decisions(runner, samples, reference=reference, decides_classes=True)
    assert isinstance(found, DecisionReport)


def test_one_class_is_no_decision_even_where_someone_says_so():
    samples = some_samples()
    runner = FakeRunner(lambda x: {"scores": x[:, :1]}, outputs=[spec("scores", ("batch", 1))])
    found = explain_decisions(runner, samples, reference=reference_of(runner, samples), decides_classes=True)
    assert isinstance(found, NotApplicable)
    assert "its outputs are {'scores': ('batch', 1)}" in found.reason


def test_a_reference_for_other_samples_is_refused():
    reference = reference_of(echo(), some_samples(seed=1))
    with pytest.raises(SamplesError, match="expected the samples that the baseline answered, found others"):
        explain_decisions(echo(), some_samples(seed=2), reference=reference)


def test_a_variant_with_other_classes_is_refused():
    samples = some_samples()
    variant = FakeRunner(lambda x: {"scores": x[:, :7]}, outputs=[spec("scores", ("batch", 7))])
    with pytest.raises(ModelError, match=r"expected the baseline's shape \(\d, 10\), found shape \(\d, 7\)"):
        explain_decisions(variant, samples, reference=reference_of(echo(), samples))


def test_sample_numbers_count_over_all_batches_and_progress_ends_at_the_count():
    samples, told = some_samples(75, labels=False), []
    variant = FakeRunner(lambda x: {"scores": -x})
    found = explain_decisions(
        variant,
        samples,
        reference=reference_of(echo(), samples),
        progress=lambda done, total: told.append((done, total)),
    )
    assert isinstance(found, DecisionReport)
    assert sorted(change.sample for change in found.decisions) == list(range(75))
    assert told[0] == (DEFAULT_BATCH_SIZE, 75)
    assert told[-1] == (75, 75)
    assert told == sorted(told)


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.floats(0.01, 2.0))
def test_counts_add_up_and_margins_are_never_negative(seed, count, noise):
    samples = some_samples(count, labels=False, seed=seed)
    shift = np.random.default_rng(seed + 1).normal(0, noise, (count, 10)).astype(np.float32)
    x = next(samples.batches(count)).inputs["x"]
    by_row = {row.tobytes(): extra for row, extra in zip(x, shift, strict=True)}
    variant = FakeRunner(lambda rows: {"scores": rows + np.stack([by_row[row.tobytes()] for row in rows])})
    found = explained(variant, samples)
    assert found.changed == int((x.argmax(axis=1) != (x + shift).argmax(axis=1)).sum())
    assert sum(pair.count for pair in found.pairs) == found.changed == len(found.decisions)
    margins = [change.baseline_margin for change in found.decisions]
    assert margins == sorted(margins, reverse=True)
    assert all(margin >= 0 for margin in margins)
