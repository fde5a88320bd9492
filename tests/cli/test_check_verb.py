"""`jettison check`: a table or a document, and an exit code that scripts can trust."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import onnx
import pytest

from zoo.builder import image_net

SAMPLE = Path(__file__).parents[2] / "model_repository"


@pytest.fixture
def repository(tmp_path):
    return Path(shutil.copytree(SAMPLE, tmp_path / "repository"))


def test_a_good_repository_ends_with_0(jettison, repository):
    done = jettison("check", repository, "--no-load", "--json")
    assert (done.code, json.loads(done.out)) == (
        0,
        {"findings": [], "models": 2, "loaded": 0, "verified": None},
    )


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


def test_signed_and_verified_from_keys_to_findings(jettison, tmp_path):
    pytest.importorskip("cryptography")
    net, x = image_net("small", 4)
    net.head(x, 4)
    onnx.save(net.model(), tmp_path / "model.onnx")
    root, key = tmp_path / "signed", tmp_path / "key"
    made = jettison("keys", key, "--json").document
    assert (made["private"], made["public"]) == (str(key), f"{key}.pub")
    publishing = ("publish", tmp_path / "model.onnx", "--repository", root, "--name", "one")
    assert jettison(*publishing, "--sign", key).code == 0
    checking = ("check", root, "--no-load", "--verify", f"{key}.pub")
    good = jettison(*checking)
    assert (good.code, "1 version with a signature of the key" in good.out) == (0, True)
    assert "version 1 is signed, and this one is not" in jettison(*publishing).out
    bad = jettison(*checking, "--json")
    assert (bad.code, bad.document["verified"]) == (1, 1)
    assert [(each["code"], each["where"]) for each in bad.document["findings"]] == [("V701", "one/2")]


def test_a_private_key_is_none_to_verify_with(jettison, repository, tmp_path):
    pytest.importorskip("cryptography")
    jettison("keys", tmp_path / "key")
    done = jettison("check", repository, "--no-load", "--verify", tmp_path / "key")
    assert done.code == 2
    assert "found a private key: give its public half" in done.err
