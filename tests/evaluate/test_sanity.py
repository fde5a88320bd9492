from __future__ import annotations

import numpy as np
import pytest
from evaluate_fakes import echo, some_samples

from jettison.evaluate.metrics import resolve_metric
from jettison.evaluate.reference import reference_of
from jettison.evaluate.sanity import STRONG_NOISE_DB, doubt
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
