"""Settings and counters that the tests of the experiment share."""

from __future__ import annotations

from hypothesis import strategies as st

from jettison.experiment.counters import WHOLE, Counters, CounterSet
from jettison.experiment.settings import Rules, Settings
from jettison.experiment.tally import Arms, Tally, fractional_bins

BASELINE, CANDIDATE = "a" * 64, "b" * 64
KEY = b"0123456789abcdef0123456789abcdef"


def rules(**changed) -> Rules:
    given = {"margin": 0.01, "planned_disagreement": 0.04, "guard_errors": False} | changed
    return Rules.model_validate(given)


def settings(**changed) -> Settings:
    given = {
        "name": "gate",
        "baseline": BASELINE,
        "candidate": CANDIDATE,
        "data_source": "shadow:gate-cameras",
        "unit": "clip",
        "margin": 0.01,
        "planned_disagreement": 0.04,
    } | changed
    return Settings.model_validate(given)


def counted(tally=None, *, experiment="", node="node", **slices) -> CounterSet:
    """One node's counters: all units, and slices by name."""
    tallies = {WHOLE: tally or Tally()} | slices
    state = Counters(experiment, node, sequence=1, slices=tuple(sorted(tallies.items())))
    return CounterSet(experiment, (state,))


def totals(better=0, same=0, worse=0) -> CounterSet:
    return counted(Tally(better=better, same=same, worse=worse))


small = st.integers(0, 50)
bins = st.sampled_from([place for place in fractional_bins() if place != 0])
arms = st.builds(Arms, small, small, small, small)
tallies = st.builds(
    Tally,
    better=small,
    same=small,
    worse=small,
    scores=st.dictionaries(bins, st.integers(1, 9), max_size=3).map(
        lambda found: tuple(sorted(found.items()))
    ),
    agree=small,
    disagree=small,
    offered=st.integers(100, 200),
    baseline_lost=small,
    candidate_lost=small,
    within_limit=small,
    over_limit=small,
    arms=st.dictionaries(st.integers(1, 9999), arms, max_size=2).map(
        lambda found: tuple(sorted(found.items()))
    ),
)
