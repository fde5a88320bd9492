"""Merging: no order, repetition or delay changes what is known, and contradictions are told."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ab_cases import rules, tallies
from hypothesis import given, settings
from hypothesis import strategies as st

from jettison.core.errors import InputError
from jettison.experiment.counters import WHOLE, Counters, CounterSet, counter_set, merge
from jettison.experiment.tally import Tally
from jettison.experiment.verdict import decide


@st.composite
def histories(draw):
    """What three nodes handed on over time, every state of them, epochs in between."""
    states = []
    for node in ("a", "b", "c"):
        for epoch in range(draw(st.integers(1, 2))):
            state = Counters("", node, epoch)
            for more in draw(st.lists(tallies, min_size=1, max_size=3)):
                state = state.counting({WHOLE: more, "night": more} if draw(st.booleans()) else {WHOLE: more})
                states.append(state)
    return states


def as_set(*states):
    return counter_set(states, experiment="")


@settings(max_examples=60)
@given(histories(), st.randoms(use_true_random=False))
def test_order_repetition_and_grouping_give_one_set_and_one_verdict(states, random):
    shuffled = [*states, *random.choices(states, k=3)]
    random.shuffle(shuffled)
    cut = random.randrange(len(shuffled) + 1)
    whole = as_set(*states)
    assert as_set(*shuffled) == whole
    assert merge(as_set(*shuffled[cut:]), as_set(*shuffled[:cut]), whole) == whole
    asked = rules(latency={"limit_ms": 50, "quantile": 0.99}, guard_errors=True)
    assert decide(asked, as_set(*shuffled)) == decide(asked, whole)


@settings(max_examples=60)
@given(histories())
def test_merging_is_commutative_associative_and_idempotent(states):
    third = len(states) // 3
    one, two, three = (
        as_set(*states[:third]),
        as_set(*states[third : 2 * third]),
        as_set(*states[2 * third :]),
    )
    assert merge(one, two) == merge(two, one)
    assert merge(merge(one, two), three) == merge(one, merge(two, three))
    assert merge(one, one) == one


@given(st.lists(tallies, min_size=1, max_size=6))
def test_a_total_does_not_depend_on_which_node_counted(parts):
    apart = as_set(*(Counters("", f"n{i}").counting({WHOLE: part}) for i, part in enumerate(parts)))
    state = Counters("", "n")
    for part in parts:
        state = state.counting({WHOLE: part})
    assert apart.tally() == as_set(state).tally()


def test_an_older_state_that_comes_late_changes_nothing():
    early = Counters("", "a").counting({WHOLE: Tally(same=5)})
    late = early.counting({WHOLE: Tally(worse=1)})
    assert merge(as_set(late), as_set(early)) == as_set(late)


def test_what_a_node_counted_before_it_lost_its_counts_stays():
    before = Counters("", "a", epoch=0).counting({WHOLE: Tally(same=5)})
    after = Counters("", "a", epoch=1).counting({WHOLE: Tally(same=2)})
    both = as_set(before, after)
    assert both.tally().same == 7
    assert both.nodes == 1


def test_a_signed_state_is_preferred_to_the_same_without_a_signature():
    bare = Counters("", "a").counting({WHOLE: Tally(same=5)})
    signed = replace(bare, signature="f" * 64)
    assert as_set(bare, signed) == as_set(signed, bare) == as_set(signed)


def test_a_counted_state_is_no_longer_signed():
    assert replace(Counters("", "a"), signature="f").counting({WHOLE: Tally(same=1)}).signature == ""


def test_two_nodes_of_one_name_are_told():
    one, other = (Counters("", "a").counting({WHOLE: tally}) for tally in (Tally(same=5), Tally(worse=5)))
    with pytest.raises(InputError, match="a count fell, or differs at the same number") as caught:
        as_set(one, other)
    assert caught.value.what == "counters of node 'a'"
    assert "Give every node a name of its own" in caught.value.fix


def test_a_node_whose_counts_fell_is_told():
    one = Counters("", "a").counting({WHOLE: Tally(same=5)}).counting({WHOLE: Tally(same=5)})
    other = Counters("", "a", sequence=9).counting({WHOLE: Tally(same=3)})
    with pytest.raises(InputError, match="states 2 and 10 of epoch 0 contradict each other"):
        as_set(one, other)


def test_another_experiment_is_refused():
    with pytest.raises(InputError, match="expected experiment one, found two"):
        merge(CounterSet("one"), CounterSet("two", (Counters("two", "a"),)))


def test_a_slice_that_no_node_has_seen_is_empty():
    assert as_set(Counters("", "a")).tally("night") == Tally()
