"""`jettison report` by the command line: after a real run, with two variants, with what live traffic said."""

from __future__ import annotations

from jettison.experiment.history import remember, snapshot_of
from jettison.experiment.verdict_file import read_verdict

PROVEN = ("--better", 60, "--same", 2900, "--worse", 55, "--margin", 0.01, "--planned-disagreement", 0.02)


def test_a_run_writes_its_page_with_histograms_latencies_and_its_command(jettison, recipe, workspace):
    document = jettison("run", recipe, "--json").document
    page = (workspace / "runs" / "small" / "report.html").read_text(encoding="utf-8")
    variant = document["variants"][0]
    assert f"<title>{document['model']} " in page
    assert 'class="spark"' in page
    assert 'class="band"' in page
    assert f"{variant['latency_quantiles_ms'][4]:.3g}" in page
    assert variant["latency_quantiles_ms"] == sorted(variant["latency_quantiles_ms"])
    assert variant["latency_quantiles_ms"][4] == variant["latency_ms"]
    assert f"jettison run {recipe} --json" in page
    assert not (workspace / "runs" / "small" / "pictures").exists(), "16 channels are no picture"
    assert document["origin"]["command"] == ["jettison", "run", str(recipe), "--json"]


def test_what_changed_decisions_look_at_is_kept_for_the_chosen_variant(jettison, recipe):
    told = jettison("run", recipe, "--json").document["variants"][0]["explanation"]
    changed = [change["sample"] for change in told["decisions"]["decisions"][:8]]
    assert (told["changed_saliency"] is None) == (changed == [])
    if changed:
        assert [look["sample"] for look in told["changed_saliency"]["samples"]] == sorted(changed)


def test_the_verb_writes_it_again_with_two_side_by_side(jettison, recipe, workspace):
    jettison("run", recipe)
    run, page = workspace / "runs" / "small", workspace / "new" / "page.html"
    answer = jettison("report", run, "--compare", "int8", "baseline", "-o", page, "--json")
    assert answer.code == 0
    assert answer.document == {"run": str(run), "path": str(page), "size_bytes": page.stat().st_size}
    assert 'data-compare="int8" data-with="baseline"' in page.read_text(encoding="utf-8")
    assert jettison("report", run).out == f"report: {run / 'report.html'}\n"


def test_a_verdict_and_its_looks_get_a_part(jettison, recipe, workspace):
    jettison("run", recipe)
    verdict = workspace / "experiment" / "verdict.json"
    verdict.parent.mkdir()
    jettison("ab", "decide", *PROVEN, "-o", verdict)
    seen = snapshot_of(read_verdict(verdict), "2026-11-24T10:00:00Z")
    for units in (100, 200):
        remember(verdict.with_name("history.jsonl"), seen.model_copy(update={"units": units}))
    pages = []
    for given in (verdict, verdict.parent):
        page = workspace / "page.html"
        assert jettison("report", workspace / "runs" / "small", "--experiment", given, "-o", page).code == 0
        pages.append(page.read_text(encoding="utf-8"))
    assert pages[0] == pages[1]
    assert 'id="experiment"' in pages[0]
    assert 'class="line c0"' in pages[0].partition('id="experiment"')[2]


def test_what_is_no_run_or_no_verdict_is_told(jettison, recipe, workspace):
    answer = jettison("report", workspace)
    assert answer.code == 2
    assert f"run {workspace}: expected a finished run with report.json, found none" in answer.err
    jettison("run", recipe)
    run = workspace / "runs" / "small"
    answer = jettison("report", run, "--experiment", workspace)
    assert answer.code == 2
    assert f"verdict {workspace / 'verdict.json'}: there is no such file" in answer.err
    answer = jettison("report", run, "-o", workspace)
    assert answer.code == 2
    assert f"-o {workspace}: expected a file, found a folder" in answer.err
