"""The folder of an experiment: whole or not there, and all that is counted is every file of its id."""

from __future__ import annotations

import pytest
from ab_cases import counted, settings

from jettison.core.errors import InputError
from jettison.experiment.counter_file import write_counters
from jettison.experiment.folder import Act, Setup, Side, find_folder, folders, make_folder
from jettison.experiment.tally import Tally
from jettison.experiment.verdict import decide

SETUP = Setup(
    router="fashion",
    repository="/models",
    baseline=Side(model="fp32", version=1, sha256="a" * 64),
    candidate=Side(model="int8", version=2, sha256="b" * 64),
    mode="shadow",
    task="classification",
    node="edge-1",
    salt="s1",
    started="2026-03-01T08:00:00+00:00",
)


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "home", settings(), SETUP)


def test_settings_and_setup_come_back(folder):
    assert folder.settings() == settings()
    assert folder.settings().id == settings().id
    assert folder.setup() == SETUP
    assert folder.act() is None
    assert folder.verdict() is None


def test_counters_are_of_every_node_and_of_no_other_experiment(folder):
    experiment = settings().id
    assert folder.counters().tally() == Tally()
    for node, tally in (("edge-1", Tally(same=5)), ("edge-1.labels", Tally(better=2)), ("b", Tally(same=1))):
        write_counters(
            folder.counter_folder / f"{experiment}.{node}.json",
            counted(tally, experiment=experiment, node=node),
        )
    write_counters(folder.counter_folder / f"promoted-{experiment}.edge-1.json", counted(Tally(same=9)))
    (folder.counter_folder / f"{experiment}.edge-1.disagreements.jsonl").write_text("{}\n")
    (folder.counter_folder / f".{experiment}.edge-1.json.77").write_text("torn")
    assert folder.counters().tally() == Tally(same=6, better=2)


def test_verdict_and_act_are_kept(folder):
    verdict = decide(settings(), folder.counters())
    folder.keep_verdict(verdict)
    assert folder.verdict() == verdict
    act = Act(act="rollback", ending="withdrawn", decision="continue", at="2026-03-01T08:00:00+00:00")
    folder.keep_act(act)
    assert folder.act() == act


def test_a_second_folder_of_the_name_is_refused_and_nothing_is_left(folder):
    with pytest.raises(OSError, match="not empty"):
        make_folder(folder.path.parent, settings(margin=0.02), SETUP)
    assert folder.settings() == settings()
    assert [path.name for path in folder.path.parent.iterdir()] == ["gate"]


def test_experiments_of_a_home(folder, tmp_path):
    home = folder.path.parent
    (home / ".hidden").mkdir()
    (home / "empty").mkdir()
    assert list(folders(home)) == [folder]
    assert find_folder(home, "gate") == folder
    with pytest.raises(InputError, match=r"there is none in .*home\. Known are gate"):
        find_folder(home, "gates")
    with pytest.raises(InputError, match="Begin one: jettison ab start"):
        find_folder(tmp_path / "nowhere", "gate")


def test_a_torn_setup_says_where(folder):
    (folder.path / "setup.json").write_text('{"router": ')
    with pytest.raises(InputError, match=r"setup .*gate/setup\.json: .*Restore it"):
        folder.setup()
