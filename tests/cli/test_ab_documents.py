"""docs/ab-testing.md names every field of every document of `ab`, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jettison.cli.ab_promote import EndedDocument
from jettison.cli.ab_replay import ReplayDocument
from jettison.cli.ab_start import StartedDocument
from jettison.cli.ab_status import StatusDocument
from jettison.cli.ab_wait import CODES, FAILED, WaitDocument
from jettison.experiment.labels import LabelReport
from jettison.experiment.replay import LatencyDifference

TEXT = (Path(__file__).parents[2] / "docs" / "ab-testing.md").read_text()


def row(start):
    return next(line for line in TEXT.splitlines() if line.startswith(start))


@pytest.mark.parametrize(
    ("verb", "documents"),
    [
        ("`start`", [StartedDocument]),
        ("`status`", [StatusDocument]),
        ("`label`", [LabelReport]),
        ("`wait`", [WaitDocument]),
        ("`promote`, `rollback`", [EndedDocument]),
        ("`replay`", [ReplayDocument, LatencyDifference]),
    ],
)
def test_document_of_a_verb(verb, documents):
    fields = {name for document in documents for name in document.model_fields}
    assert set(re.findall(r'"(\w+)"', row(f"| {verb} |"))) == fields


@pytest.mark.parametrize(
    ("words", "decision"),
    [("promote", "promote"), ("rollback", "rollback"), ("exhausted", "exhausted"), ("invalid", "invalid")],
)
def test_exit_codes_of_wait(words, decision):
    assert row(f"| {words} |").endswith(f"| {CODES[decision]} |")


def test_exit_codes_of_wait_without_a_verdict():
    assert row("| no verdict: ").endswith(f"| {CODES['continue']} |")
    assert row("| the command failed ").endswith(f"| {FAILED} |")
