"""The whole road by the command line: what it writes, what it skips, what it answers."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from jettison.engines.tensorrt.report import PreflightReport, RefusedNode
from jettison.pipeline.steps import Steps

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
    assert [entry["is_new"] for entry in answer.document["published"]] == [False, False]
    told = jettison("run", recipe).out
    assert "small-int8 is already published as version 1: " in told
    assert "published small-int8 version" not in told


def test_run_tells_which_versions_it_retired(jettison, recipe):
    recipe.write_text(
        recipe.read_text().replace("repository: models", "repository: models, keep_versions: 1")
    )
    assert "retired versions" not in jettison("run", recipe).out
    recipe.write_text(recipe.read_text().replace("quantize: full", "quantize: full, ranges: mse"))
    told = jettison("run", recipe).out
    assert "published small-int8 version 2: " in told
    assert "retired versions 1" in told


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
    assert names == ["int8", "int8-tuned", "dynamic"]
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
    assert len(answer.document["notes"]) == 2
    assert "the baseline decides class" in answer.document["notes"][1]


def test_halves_too_small_for_the_tolerance_are_told(jettison, workspace):
    answer = jettison(
        "compress", workspace / "model.onnx", "--calibration", workspace / "evaluation.npz",
        "--target", "cpu", "--variant", "int8=[{quantize: full}]", "-o", workspace / "out", "--json",
    )  # fmt: skip
    assert answer.code == 1
    assert "takes about 299 even if not one differs" in answer.document["notes"][1]


def test_a_baseline_that_decides_one_class_and_few_calibration_samples_are_told(jettison, workspace):
    model = onnx.load(workspace / "model.onnx")
    name = model.graph.node[-1].input[-1]
    bias = next(found for found in model.graph.initializer if found.name == name)
    bias.CopyFrom(numpy_helper.from_array(np.eye(16, dtype=np.float32)[4] * 1e4, name))
    onnx.save(model, workspace / "model.onnx")
    with np.load(workspace / "calibration.npz") as stored:
        np.savez(workspace / "one.npz", **{name: array[:1] for name, array in stored.items()})
    answer = jettison(
        "compress", workspace / "model.onnx", "--calibration", workspace / "one.npz",
        "--evaluation", workspace / "evaluation.npz", "--target", "cpu", "--metric", "agreement",
        "--variant", "int8=[{quantize: full}]", "-o", workspace / "out", "--json",
    )  # fmt: skip
    notes = answer.document["notes"]
    assert "the baseline decides class 4 for all 400 samples: agreement proves little" in notes
    assert "1 calibration sample: ranges of activations are guesses; 128 are plenty" in notes


def test_evaluation_on_seen_samples_is_said(jettison, workspace):
    answer = jettison(
        "compress", workspace / "model.onnx", "--calibration", workspace / "evaluation.npz",
        "--evaluation", workspace / "evaluation.npz", "--target", "cpu", "--tolerance", 0.1,
        "--variant", "int8=[{quantize: full}]", "-o", workspace / "out", "--json",
    )  # fmt: skip
    assert "no evidence on unseen ones" in answer.document["notes"][0]


def test_a_search_on_the_samples_that_decide_is_wrong_input(jettison, workspace):
    answer = jettison(
        "compress", workspace / "model.onnx", "--calibration", workspace / "calibration.npz",
        "--search", workspace / "evaluation.npz", "--evaluation", workspace / "evaluation.npz",
        "--target", "cpu", "--variant", "part=[{quantize: partial}]", "-o", workspace / "out",
    )  # fmt: skip
    assert answer.code == 2
    assert "expected evaluation samples that no search sees, found all 400" in answer.err
    assert not (workspace / "out").exists()


@pytest.mark.parametrize("option", ["--evaluation", "--search"])
def test_labels_that_the_model_does_not_know_are_told_before_anything_is_written(jettison, workspace, option):
    with np.load(workspace / "evaluation.npz") as stored:
        arrays = dict(stored)
    arrays["labels"][[7, 9]] = -1
    np.savez(workspace / "wrong.npz", **{name: array[:100] for name, array in arrays.items()})
    given = {"--evaluation": workspace / "evaluation.npz"} | {option: workspace / "wrong.npz"}
    if option == "--search":
        given["--variant"] = "part=[{quantize: partial}]"
    answer = jettison(
        "compress", workspace / "model.onnx", "--calibration", workspace / "calibration.npz",
        "--target", "cpu", *(part for pair in given.items() for part in pair), "-o", workspace / "out",
    )  # fmt: skip
    assert answer.code == 2
    assert (
        f"labels of {workspace}/wrong.npz: expected a class from 0 to 15, found -1 in sample 7" in answer.err
    )
    assert not (workspace / "out").exists()


def test_labels_of_calibration_samples_are_not_read_where_nothing_searches(jettison, workspace):
    with np.load(workspace / "calibration.npz") as stored:
        np.savez(workspace / "labelled.npz", **stored, labels=np.full(32, 99))
    answer = jettison(
        "compress", workspace / "model.onnx", "--calibration", workspace / "labelled.npz", "--target", "cpu",
        "--evaluation", workspace / "evaluation.npz", "--metric", "top1", "--tolerance", "0.1",
        "--variant", "int8=[{quantize: full}]", "-o", workspace / "out",
    )  # fmt: skip
    assert (answer.code, answer.err) == (0, "")


def test_the_compilers_first_refusal_is_the_reason(jettison, workspace, monkeypatch):
    nodes = [
        RefusedNode(
            code="UNSUPPORTED_NODE", description="no importer\n  registered", node="n1", operator="Odd"
        ),
        RefusedNode(code="BUILDER", description="and more"),
    ]
    report = PreflightReport(
        target="sm89", compiled_for="sm89", nearest=False, module=None, version=None, outcome="refused",
        refusals=nodes,
    )  # fmt: skip
    monkeypatch.setattr(Steps, "preflight", lambda *_: report)
    answer = jettison(
        "compress", workspace / "model.onnx", "--calibration", workspace / "calibration.npz",
        "--evaluation", workspace / "evaluation.npz", "--target", "sm89", "--tolerance", 0.1,
        "--variant", "int8=[{quantize: full}]", "-o", workspace / "out", "--json",
    )  # fmt: skip
    assert answer.document["variants"][0]["reasons"] == [
        "does not compile for the target: UNSUPPORTED_NODE for Odd at n1: no importer registered (and 1 more)"
    ]


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
    assert answer.document["reasons"] == [f"dynamic: {variant['reasons'][0]}"]
    assert "TensorRT cannot run DynamicQuantizeLinear" in variant["reasons"][0]
    assert "Triton's ONNX Runtime backend" in variant["reasons"][0]


@pytest.mark.rtx
def test_a_model_of_an_earlier_run_does_not_stand_under_the_name_of_a_refused_variant(jettison, workspace):
    (workspace / "out" / "cpu" / "notes").mkdir(parents=True)
    for passes in ("{quantize: full}", "{quantize: float8}"):
        jettison(
            "compress", workspace / "model.onnx", "--calibration", workspace / "calibration.npz",
            "--evaluation", workspace / "evaluation.npz", "--target", "cpu", "--variant", f"d=[{passes}]",
            "--output", workspace / "out",
        )  # fmt: skip
        if passes == "{quantize: full}":
            assert (workspace / "out" / "cpu" / "d" / "model.onnx").is_file()
    assert sorted(path.name for path in (workspace / "out" / "cpu").iterdir()) == ["baseline", "notes"]


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


def test_outputs_that_are_far_off_are_doubted_though_every_decision_holds(jettison, workspace):
    model = onnx.load(workspace / "model.onnx")
    logits = model.graph.output[0].name
    model.graph.node[-1].output[0] = "unscaled"
    model.graph.initializer.append(numpy_helper.from_array(np.float32(3), "three"))
    model.graph.node.append(helper.make_node("Mul", ["unscaled", "three"], [logits]))
    onnx.save(model, workspace / "scaled.onnx")
    answer = jettison(
        "evaluate", workspace / "scaled.onnx", "--baseline", workspace / "model.onnx",
        "--evaluation", workspace / "evaluation.npz", "--metric", "agreement", "--tolerance", 0.1, "--json",
    )  # fmt: skip
    variant = answer.document["variants"][0]
    assert variant["score"] == 1.0
    assert variant["notes"][0].startswith(
        "outputs differ strongly (-6.0 dB SQNR) although the score holds: the error has 4 times the energy"
    )
    assert answer.document["notes"][0] == f"scaled: {variant['notes'][0]}"
    assert answer.document["notes"][1].startswith("the baseline decides class")
