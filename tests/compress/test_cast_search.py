"""The search for islands, against a made-up damage whose culprits are known."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jettison.compress.quantization.islands import LARGEST_SEARCH, search

NAMES = [f"n{index}" for index in range(100)]


@dataclass
class Damage:
    """Noise that is gone only where all nodes of a culprit stay in float32, over a floor that none causes."""

    culprits: dict[tuple[str, ...], float]
    floor: float = 1e-6
    trials: int = 0

    def noise(self, keep_float):
        self.trials += 1
        left = sum(noise for nodes, noise in self.culprits.items() if not set(nodes) <= keep_float)
        return left + self.floor


@settings(max_examples=50, deadline=None)
@given(culprit=st.integers(0, 99))
def test_search_finds_the_one_culprit_wherever_it_is(culprit):
    found = search(Damage({(NAMES[culprit],): 1e-2}), NAMES, frozenset(), least_db=40)
    assert found.islands == (NAMES[culprit],)
    assert found.before_db == pytest.approx(20, abs=0.01)
    assert found.after_db == pytest.approx(60, abs=0.01)
    assert found.trials <= 24


@settings(max_examples=50, deadline=None)
@given(first=st.integers(0, 98))
def test_search_finds_a_pair_that_must_return_together(first):
    pair = (NAMES[first], NAMES[first + 1])
    found = search(Damage({pair: 1e-2}), NAMES, frozenset(), least_db=40)
    assert set(pair) <= set(found.islands)
    assert len(found.islands) <= 8
    assert found.after_db == pytest.approx(60, abs=0.01)


def test_search_finds_several_culprits_the_worst_first():
    found = search(Damage({("n10",): 2e-3, ("n80",): 1e-2}), NAMES, frozenset(), least_db=40)
    assert found.islands == ("n80", "n10")


def test_search_leaves_a_good_model_alone():
    found = search(Damage({("n10",): 1e-5}), NAMES, frozenset(), least_db=40)
    assert found.islands == ()
    assert found.trials == 1


def test_search_gives_up_where_the_loss_is_spread_evenly():
    damage = Damage({(name,): 1e-4 for name in NAMES})
    found = search(damage, NAMES, frozenset(), least_db=40)
    assert found.islands == ()
    assert damage.trials < LARGEST_SEARCH
    assert found.notes(40)[1] == "below the 40 dB asked for, and no small island would mend it"


def test_search_ends_with_its_budget():
    damage = Damage({(NAMES[index],): 3.0**-index for index in range(0, 100, 9)})
    search(damage, NAMES, frozenset(), least_db=100)
    assert damage.trials <= LARGEST_SEARCH + 3


def test_search_tells_where_no_output_is_a_number():
    class Silent:
        trials = 0

        def noise(self, _keep_float):
            return None

    found = search(Silent(), NAMES, frozenset(), least_db=40)
    assert found.notes(40) == (
        "no output is a floating point number with a signal: only ranges were checked",
    )


def test_search_never_returns_most_of_a_model():
    damage = Damage({tuple(NAMES[:80]): 1e-2})
    found = search(damage, NAMES, frozenset(), least_db=40)
    assert found.islands == ()
    assert found.after_db == found.before_db
