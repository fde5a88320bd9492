"""The README's section for scripts names every field of every document, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jettison.cli.check import CheckDocument
from jettison.cli.doctor import Ability, Diagnosis
from jettison.cli.keys import KeysDocument
from jettison.cli.publish import PublishedDocument
from jettison.cli.report import ReportDocument
from jettison.cli.rollback import RolledBackDocument
from jettison.cli.serve import Endpoints
from jettison.compress.quantization.layer_report import LayerReport
from jettison.compress.quantization.placement import LayerDecision
from jettison.engines.tensorrt.build_report import BuildReport
from jettison.engines.tensorrt.lint.finding import Finding as LintFinding
from jettison.engines.tensorrt.report import AuditedLayer, Bisection, PreflightReport
from jettison.pipeline.explain_log import Cause, LogExplanation
from jettison.pipeline.linting import LintReport
from jettison.pipeline.results import BaselineResult, Explanation, Origin, RunResult, VariantResult
from jettison.triton.check.finding import Finding

README = Path(__file__).parents[2] / "README.md"
SECTION = README.read_text().partition("## For scripts")[2].partition("\n## ")[0]


def named(text):
    return set(re.findall(r'"(\w+)"', text))


def fields(*documents):
    return {name for found in documents for name in (*found.model_fields, *found.model_computed_fields)}


def test_document_of_run_and_compress():
    block = SECTION.partition("```\n")[2].partition("```")[0]
    results = (RunResult, Origin, BaselineResult, VariantResult, Explanation)
    every = fields(*results, LayerReport, LayerDecision)
    assert named(block) == every | {"version", "retired", "is_new"}


@pytest.mark.parametrize(
    ("verb", "documents"),
    [
        ("publish", [PublishedDocument]),
        ("report", [ReportDocument]),
        ("rollback", [RolledBackDocument]),
        ("check", [CheckDocument, Finding]),
        ("lint", [LintReport, LintFinding]),
        ("preflight", [PreflightReport, AuditedLayer, Bisection]),
        ("keys", [KeysDocument]),
        ("build", [BuildReport]),
        ("serve", [Endpoints]),
        ("explain", [LogExplanation, Cause]),
        ("doctor", [Diagnosis, Ability]),
    ],
)
def test_document_of_a_verb(verb, documents):
    row = next(line for line in SECTION.splitlines() if line.startswith(f"| `{verb}` |"))
    assert named(row) == fields(*documents)


@pytest.mark.parametrize(
    ("begins", "ends", "document"),
    [('"baseline": {', "}", BaselineResult), ('"variants": [{', "}}],", VariantResult)],
)
def test_what_belongs_to_a_baseline_and_to_a_variant_stands_there(begins, ends, document):
    assert fields(document) <= named(SECTION.partition(begins)[2].partition(ends)[0])
