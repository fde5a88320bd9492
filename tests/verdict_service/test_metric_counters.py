"""Counters in a scrape: whole states only, and nothing that no node can have counted."""

from __future__ import annotations

import pytest

from jettison.core.errors import InputError
from jettison.experiment.tally import Arms, Tally
from jettison.verdict_service.metric_counters import counters_shown

NODE = 'model="r",experiment="e1",node="n1",epoch="7"'
SHOWN = f"""
jettison_router_counted{{{NODE},slice="all",count="offered"}} 12
jettison_router_counted{{{NODE},slice="all",count="agree"}} 12
jettison_router_counted{{{NODE},slice="all",count="arms.5000.candidate_errors"}} 2
jettison_router_counted{{{NODE},slice="all",count="arms.5000.baseline_errors"}} 0
jettison_router_counted_sequence{{{NODE}}} 3
jettison_router_counted_check{{{NODE}}} 1693281824
"""
"""The check is zlib.crc32 of the text "3", then the counts that are not 0, sorted, a line each."""


def test_a_whole_state_is_that_of_the_file():
    (found,) = counters_shown(SHOWN, {"e1"}, what="it").states
    assert (found.experiment, found.node, found.epoch, found.sequence) == ("e1", "n1", 7, 3)
    arms = ((5000, Arms(candidate_errors=2)),)
    assert found.slices == (("all", Tally(offered=12, agree=12, arms=arms)),)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"agree"} 12', '"agree"} 13'),
        ("_sequence{", "_other{"),
        (f"jettison_router_counted_sequence{{{NODE}}} 3", f"jettison_router_counted_sequence{{{NODE}}} 4"),
        ("_check{", "_other{"),
    ],
)
def test_half_a_state_is_told_and_not_taken(old, new):
    assert old in SHOWN
    assert counters_shown(SHOWN.replace(old, new), {"e1"}, what="it") == ((), ("e1 of node 'n1'",))


def test_other_experiments_and_metrics_are_passed_over():
    assert counters_shown(SHOWN, {"e2"}, what="it") == ((), ())
    assert counters_shown("nv_inference_count 5\njettison_router_counted 3\n", {""}, what="it") == ((), ())


@pytest.mark.parametrize("value", ["1.5", "many", "Nan"])
def test_a_count_that_is_none_is_told(value):
    text = SHOWN.replace('"agree"} 12', f'"agree"}} {value}')
    with pytest.raises(InputError, match=f"it, jettison_router_counted: expected a count, found '{value}'"):
        counters_shown(text, {"e1"}, what="it")
