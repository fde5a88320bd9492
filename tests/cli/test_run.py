"""The whole road by the command line: what it writes, what it skips, what it answers."""

from __future__ import annotations

import json

import pytest

CONTRACT = {"model", "target", "baseline", "variants", "chosen", "evaluations", "seconds", "peak_rss_bytes"}
BASELINE = {"path", "size_bytes", "score", "latency_ms"}
VARIANT = {
    "name", "path", "size_bytes", "score", "score_delta", "score_delta_low", "sqnr_db", "latency_ms",
    "speedup", "accepted", "reasons", "compiles", "layers_kept_in_float",
}  # fmt: skip


def steps_of(folder, name):
    return sorted(path.name for path in (folder / "steps").glob(f"{name}-*"))


def test_run_walks_the_whole_road(jettison, recipe, workspace):
    answer = jettison("run", recipe, "--json")
    document = answer.document
    variant = document["variants"][0]
    assert answer.code == 0
    assert set(document) >= CONTRACT
    assert set(document["baseline"]) >= BASELINE
    assert set(variant) >= VARIANT
    assert variant["accepted"]
    assert document["chosen"] == "int8"
    assert variant["size_bytes"] < 0.35 * document["baseline"]["size_bytes"]
    assert document["targets"][0]["target"] == "cpu"
    assert [entry["model"] for entry in document["published"]] == ["small-fp32", "small-int8"]
    assert (workspace / "models" / "small-int8" / "1" / "model.onnx").is_file()
    assert json.loads((workspace / "runs" / "small" / "report.json").read_text()) == document


def test_second_run_skips_what_stands_and_publishes_nothing_twice(jettison, recipe, workspace):
    jettison("run", recipe)
    steps = workspace / "runs" / "small" / "steps"
    before = {path: path.stat().st_mtime_ns for path in steps.rglob("*")}
    answer = jettison("run", recipe, "--json")
    assert {path: path.stat().st_mtime_ns for path in steps.rglob("*")} == before
    assert [entry["version"] for entry in answer.document["published"]] == [1, 1]


def test_changed_setting_redoes_only_what_depends_on_it(jettison, recipe, workspace):
    jettison("run", recipe)
    folder = workspace / "runs" / "small"
    before = {name: steps_of(folder, name) for name in ("clean", "calibrate", "variant")}
    recipe.write_text(recipe.read_text().replace("quantize: full", "quantize: full, ranges: mse"))
    jettison("run", recipe)
    assert steps_of(folder, "clean") == before["clean"]
    assert steps_of(folder, "calibrate") == before["calibrate"]
    assert len(steps_of(folder, "variant")) == len(before["variant"]) + 1


def test_broken_run_resumes(jettison, recipe, workspace, monkeypatch):
    from jettison.pipeline.steps import Steps

    def die(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Steps, "latency", die)
        assert jettison("run", recipe).code == 130
    folder = workspace / "runs" / "small"
    made = steps_of(folder, "variant")
    assert made
    assert not list((folder / "steps").glob(".*")), "a half-made step was left behind"
    assert jettison("run", recipe).code == 0
    assert steps_of(folder, "variant") == made


def test_compress_tries_a_sensible_set_for_the_target(jettison, workspace):
    answer = jettison(
        "compress", workspace / "model.onnx", "--calibration", workspace / "calibration.npz",
        "--evaluation", workspace / "evaluation.npz", "--target", "cpu", "--tolerance", 0.1,
        "-o", workspace / "out", "--json",
    )  # fmt: skip
    names = [variant["name"] for variant in answer.document["variants"]]
    assert answer.code == 0
    assert names == ["int8", "int8-mse", "dynamic"]
    assert answer.document["metric"] == "top1"


def test_no_variant_within_tolerance_chooses_the_baseline_and_exits_with_1(jettison, workspace):
    answer = jettison(
        "compress", workspace / "model.onnx", "--calibration", workspace / "calibration.npz",
        "--evaluation", workspace / "evaluation.npz", "--target", "cpu", "--tolerance", 0,
        "--variant", "int8=[{quantize: full}]", "-o", workspace / "out", "--json",
    )  # fmt: skip
    assert answer.code == 1
    assert answer.document["chosen"] == "baseline"
    assert "cannot be excluded" in answer.document["variants"][0]["reasons"][0]


def test_one_sample_set_is_halved_and_the_report_says_so(jettison, workspace):
    answer = jettison(
        "compress", workspace / "model.onnx", "--calibration", workspace / "evaluation.npz",
        "--target", "cpu", "--variant", "int8=[{quantize: full}]", "--tolerance", 0.1,
        "-o", workspace / "out", "--json",
    )  # fmt: skip
    assert answer.document["evaluation_samples"] == 200
    assert "halved by seed 0" in answer.document["notes"][0]


def test_evaluation_on_seen_samples_is_said(jettison, workspace):
    answer = jettison(
        "compress", workspace / "model.onnx", "--calibration", workspace / "evaluation.npz",
        "--evaluation", workspace / "evaluation.npz", "--target", "cpu", "--tolerance", 0.1,
        "--variant", "int8=[{quantize: full}]", "-o", workspace / "out", "--json",
    )  # fmt: skip
    assert "no evidence on unseen ones" in answer.document["notes"][0]


def test_note_that_nothing_was_published_reaches_the_reader(jettison, recipe):
    recipe.write_text(recipe.read_text().replace("targets: [cpu]", "targets: [sm89]"))
    assert "note: nothing published: results for GPUs need an engine" in jettison("run", recipe).out


def test_evidence_stands_though_the_repository_refuses(jettison, recipe, workspace):
    (workspace / "models").write_text("a file in the way")
    answer = jettison("run", recipe)
    assert answer.code == 2
    assert "expected a folder, found a file" in answer.err
    assert json.loads((workspace / "runs" / "small" / "report.json").read_text())["chosen"] == "int8"


def test_refused_variant_is_reported_with_its_reason(jettison, workspace):
    answer = jettison(
        "compress", workspace / "model.onnx", "--calibration", workspace / "calibration.npz",
        "--evaluation", workspace / "evaluation.npz", "--target", "sm89",
        "--variant", "dynamic=[{quantize: dynamic}]", "-o", workspace / "out", "--json",
    )  # fmt: skip
    variant = answer.document["variants"][0]
    assert answer.code == 1
    assert variant["path"] is None
    assert "TensorRT cannot run DynamicQuantizeLinear" in variant["reasons"][0]
    assert "Triton's ONNX Runtime backend" in variant["reasons"][0]


@pytest.mark.rtx
def test_gpu_target_asks_the_compiler_and_measures_no_latency(jettison, workspace):
    pytest.importorskip("tensorrt_rtx")
    answer = jettison(
        "compress", workspace / "model.onnx", "--calibration", workspace / "calibration.npz",
        "--evaluation", workspace / "evaluation.npz", "--target", "sm89", "--tolerance", 0.1,
        "--variant", "int8=[{quantize: full}]", "-o", workspace / "out", "--json",
    )  # fmt: skip
    variant = answer.document["variants"][0]
    assert variant["compiles"] is True
    assert variant["int8_mac_share"] > 0.9
    assert variant["latency_ms"] is None


def test_table_goes_to_stdout_and_names_the_choice(jettison, recipe):
    answer = jettison("run", recipe)
    assert "chosen: int8" in answer.out
    assert "published small-int8 version 1" in answer.out
    assert answer.err == ""


def test_evaluate_judges_a_finished_file(jettison, recipe, workspace):
    jettison("run", recipe)
    answer = jettison(
        "evaluate", workspace / "runs/small/cpu/int8/model.onnx", "--baseline", workspace / "model.onnx",
        "--evaluation", workspace / "evaluation.npz", "--tolerance", 0.1, "--json",
    )  # fmt: skip
    assert answer.code == 0
    assert answer.document["variants"][0]["accepted"]
    assert answer.document["baseline"]["score"] == 1.0
