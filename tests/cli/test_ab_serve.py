"""`jettison ab serve`: everything that is wrong is told before it listens."""

from __future__ import annotations

import socket
import sys

import pytest

SETTINGS = f"""
name: gate
baseline: {"a" * 64}
candidate: {"b" * 64}
data_source: shadow:gate-cameras
unit: clip
margin: 0.01
planned_disagreement: 0.04
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ab.yaml").write_text(SETTINGS)
    (tmp_path / "wrong.yaml").write_text(SETTINGS + "marginn: 0.1\n")
    (tmp_path / "counters").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "short").write_text("secret\n")
    (tmp_path / "odd").write_text("a token of several words\n")
    (tmp_path / "key").write_text("0" * 32)
    return tmp_path


GOOD = ("--experiment", "ab.yaml", "--counters", "counters")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--counters", "counters"), "ab serve: expected an experiment, found none"),
        (("--experiment", "ab.yaml"), "ab serve: expected a source of counters, found none"),
        (("--experiment", "none.yaml", *GOOD[2:]), "experiment none.yaml: there is no such file"),
        (("--experiment", "wrong.yaml", *GOOD[2:]), "experiment wrong.yaml: unknown key"),
        ((*GOOD[:2], "--counters", "none"), "--counters none: there is no such folder"),
        ((*GOOD[:2], "--scrape", "node:8002"), "--scrape node:8002: expected a URL of http or https"),
        ((*GOOD[:2], "--scrape", "file:///etc/passwd"), "expected a URL of http or https"),
        ((*GOOD, "--host", "0.0.0.0"), "--host 0.0.0.0: expected a token where others can reach the service"),  # noqa: S104
        ((*GOOD, "--token", "none"), "token none: there is no such file"),
        ((*GOOD, "--token", "short"), "token short: expected 16 to 4096 bytes, found 6"),
        ((*GOOD, "--token", "odd"), "token odd: expected letters, digits and signs, found other bytes"),
        ((*GOOD, "--key", "short"), "key short: expected at least 16 bytes, found 6"),
        ((*GOOD, "--key", "key", "--scrape", "http://n:8002/metrics"), "metrics bear no signature"),
        ((*GOOD, "--poll", "0"), "--poll"),
        ((*GOOD, "--host", "no.such.host.invalid", "--token", "key"), "cannot be listened on"),
        ((*GOOD, "--state", "file"), "File exists"),
    ],
)
def test_wrong_settings_are_told_before_it_listens(jettison, folder, options, words):
    given = options if "--state" in options else (*options, "--state", "verdicts")
    answer = jettison("ab", "serve", *given, "--json")
    assert answer.code == 2
    error = answer.document["error"]
    assert words in f"{error['what']}: {error['detail']}"
    assert error["fix"]


def test_a_port_that_another_has_is_told(jettison, folder):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        answer = jettison("ab", "serve", *GOOD, "--state", "verdicts", "--port", port)
    assert answer.code == 2
    assert (
        f"127.0.0.1:{port}: cannot be listened on: Address already in use. Give another --port" in answer.err
    )


def test_without_the_extra_it_says_what_brings_it(jettison, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    answer = jettison("ab", "serve", *GOOD, "--state", "verdicts")
    assert answer.code == 3
    assert "Run: pip install 'jettison[verdict]'" in answer.err
