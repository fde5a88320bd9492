from __future__ import annotations

import numpy as np
import pytest
from evaluate_fakes import echo, some_samples

from jettison.evaluate.metrics import resolve_metric
from jettison.evaluate.reference import reference_of
from jettison.evaluate.sanity import STRONG_NOISE_DB, doubt, one_class
from jettison.evaluate.scoring import score


def test_outputs_that_moved_as_a_whole_are_doubted_though_every_decision_holds():
    samples = some_samples(50)
    reference = reference_of(echo(), samples)
    moved = score(echo(shift=2.0), samples, metric=resolve_metric("agreement"), reference=reference)
    assert moved.mean == 1.0
    text = doubt(moved.sqnr_db, metric="agreement")
    assert text is not None
    assert text.startswith("outputs differ strongly (-")
    assert "although the score holds" in text
    assert text.endswith("times the energy of the baseline's outputs, and agreement does not see it")


@pytest.mark.parametrize(
    ("sqnr_db", "energy"), [(0.4, "0.91"), (-6.02, "4"), (np.nextafter(STRONG_NOISE_DB, 0), "0.25")]
)
def test_the_energy_of_the_error_is_told(sqnr_db, energy):
    assert f"the error has {energy} times the energy" in (doubt(sqnr_db, metric="top1") or "")


@pytest.mark.parametrize("sqnr_db", [STRONG_NOISE_DB, 30.0, None])
def test_near_outputs_and_outputs_without_numbers_are_not_doubted(sqnr_db):
    assert doubt(sqnr_db, metric="top1") is None


@pytest.mark.parametrize("metric", ["sqnr", "mae", "own:metric"])
def test_a_metric_that_reads_all_of_the_outputs_is_not_said_to_be_blind(metric):
    assert (doubt(0.0, metric=metric) or "").endswith(f", and the tolerance for {metric} allows it")


def test_a_baseline_that_decides_one_class_for_all_samples_is_told():
    text = one_class(np.full(800, 4), metric="agreement")
    assert text == "the baseline decides class 4 for all 800 samples: agreement proves little"


@pytest.mark.parametrize(
    ("decided", "metric"),
    [([4, 4, 5], "agreement"), ([4], "agreement"), ([-1, -1], "top1"), ([4, 4], "sqnr"), (None, "top1")],
)
def test_decisions_that_differ_or_do_not_count_are_not_told(decided, metric):
    assert one_class(None if decided is None else np.array(decided), metric=metric) is None
