"""`jettison check`: a table or a document, and an exit code that scripts can trust."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

SAMPLE = Path(__file__).parents[2] / "model_repository"


@pytest.fixture
def repository(tmp_path):
    return Path(shutil.copytree(SAMPLE, tmp_path / "repository"))


def test_a_good_repository_ends_with_0(jettison, repository):
    done = jettison("check", repository, "--no-load", "--json")
    assert (done.code, json.loads(done.out)) == (0, {"findings": [], "models": 2, "loaded": 0})


def test_findings_end_with_1_and_are_a_document(jettison, repository):
    (repository / "fashion-int8/3.tmp").mkdir()
    done = jettison("check", repository, "--no-load", "--json")
    found = json.loads(done.out)["findings"]
    assert done.code == 1
    assert [(finding["code"], finding["where"]) for finding in found] == [("R002", "fashion-int8/3.tmp")]
    assert set(found[0]) == {"code", "where", "message", "fix"}


def test_findings_are_a_table_for_people(jettison, repository):
    (repository / ".git").mkdir()
    done = jettison("check", repository, "--no-load")
    assert done.code == 1
    assert "R001" in done.out
    assert "1 finding in 2 models" in done.out


@pytest.mark.server
def test_a_server_loads_it_by_default(jettison, repository):
    done = jettison("check", repository, "--json")
    assert (done.code, json.loads(done.out)["loaded"]) == (0, 2)


def test_wrong_input_ends_with_2(jettison, tmp_path):
    done = jettison("check", tmp_path / "nowhere")
    assert done.code == 2
    assert "there is no such folder" in done.err
