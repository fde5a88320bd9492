"""The registry: nobody begins again until chance is kind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from ab_cases import BASELINE, settings

from jettison.core.errors import InputError
from jettison.experiment.registry import begin, end, is_ending, read_registry

MORNING, NOON, EVENING = (f"2026-03-01T{hour:02}:00:00+00:00" for hour in (8, 12, 18))


@pytest.fixture
def registry(tmp_path):
    return tmp_path / "experiments.json"


def test_an_experiment_begins_and_ends(registry):
    begin(registry, settings(), now=MORNING)
    end(registry, settings().id, "promote", now=EVENING)
    (entry,) = read_registry(registry)
    assert (entry.started, entry.ended, entry.ending) == (MORNING, EVENING, "promote")


def test_a_running_one_goes_on(registry):
    first = begin(registry, settings(), now=MORNING)
    assert begin(registry, settings(), now=NOON) == first
    assert len(read_registry(registry)) == 1


@pytest.mark.parametrize("ending", ["rollback", "exhausted", "withdrawn"])
def test_other_settings_for_the_same_models_and_data_are_refused(registry, ending):
    begin(registry, settings(), now=MORNING)
    with pytest.raises(
        InputError, match=f"which runs since {MORNING.replace('+', '[+]')}, under other settings"
    ):
        begin(registry, settings(margin=0.02), now=NOON)
    end(registry, settings().id, ending, now=NOON)
    with pytest.raises(InputError, match=f"which ended with {ending} on .*, under other settings") as caught:
        begin(registry, settings(margin=0.02), now=EVENING)
    assert "bring another candidate, or give a reason to repeat it" in caught.value.fix


@pytest.mark.parametrize("ending", ["promote", "rollback", "exhausted", "withdrawn"])
def test_an_ended_one_is_not_begun_again(registry, ending):
    begin(registry, settings(), now=MORNING)
    end(registry, settings().id, ending, now=NOON)
    with pytest.raises(
        InputError, match=f"expected one that has not ended, found that it ended with {ending}"
    ):
        begin(registry, settings(), now=EVENING)


def test_of_several_processes_one_begins(registry):
    """Each under another margin: a second one would be another draw of the same lot."""
    code = (
        "import pathlib, sys; sys.path[:0] = ['tests/experiment']; from ab_cases import settings; "
        "from jettison.experiment.registry import begin; "
        "begin(pathlib.Path(sys.argv[1]), settings(margin=float(sys.argv[2])), now='2026-03-01')"
    )
    begun = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(registry), str(margin)],
            stderr=subprocess.DEVNULL,
            cwd=Path(__file__).parents[2],
        )
        for margin in (0.01, 0.02, 0.03, 0.04)
    ]
    assert sorted(process.wait() for process in begun) == [0, 1, 1, 1]
    assert len(read_registry(registry)) == 1


def test_an_invalid_one_is_begun_again(registry):
    begin(registry, settings(), now=MORNING)
    end(registry, settings().id, "invalid", now=NOON)
    assert begin(registry, settings(), now=EVENING).because == ""
    assert len(read_registry(registry)) == 2


@pytest.mark.parametrize(
    "other", [{"candidate": "c" * 64}, {"baseline": "c" * 64}, {"data_source": "replay:march"}]
)
def test_another_model_or_other_data_is_another_question(registry, other):
    begin(registry, settings(), now=MORNING)
    end(registry, settings().id, "rollback", now=NOON)
    begin(registry, settings(**other), now=EVENING)


def test_a_reason_is_kept(registry):
    begin(registry, settings(), now=MORNING, because="not needed, not kept")
    end(registry, settings().id, "exhausted", now=NOON)
    with pytest.raises(InputError, match="give a reason to repeat it"):
        begin(registry, settings(alpha=0.1), now=EVENING, because="  ")
    begin(registry, settings(alpha=0.1), now=EVENING, because="the labels were wrong")
    assert [entry.because for entry in read_registry(registry)] == ["", "the labels were wrong"]


def test_an_a_a_experiment_may_be_repeated(registry):
    both = {"is_aa": True, "candidate": BASELINE}
    begin(registry, settings(**both), now=MORNING)
    end(registry, settings(**both).id, "exhausted", now=NOON)
    begin(registry, settings(**both, max_units=5000), now=EVENING)


def test_only_a_running_one_ends(registry):
    with pytest.raises(InputError, match="expected one that runs, found none"):
        end(registry, settings().id, "promote", now=NOON)
    begin(registry, settings(), now=MORNING)
    end(registry, settings().id, "rollback", now=NOON)
    with pytest.raises(InputError, match="a verdict that has ended an experiment stands"):
        end(registry, settings().id, "promote", now=EVENING)


def test_a_broken_registry_is_told(registry):
    registry.write_text("[{}]")
    with pytest.raises(InputError, match="Restore it from a backup") as caught:
        begin(registry, settings(), now=MORNING)
    assert "is missing" in caught.value.detail


def test_all_but_continue_ends_an_experiment():
    decisions = ("continue", "promote", "rollback", "exhausted", "invalid")
    assert [some for some in decisions if not is_ending(some)] == ["continue"]
