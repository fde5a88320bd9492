"""Wrong input: a sentence that says what to do, exit code 2, and nothing written."""

from __future__ import annotations

import numpy as np
import onnx
import pytest


def compress(jettison, workspace, **changed):
    given = {
        "model": workspace / "model.onnx",
        "--calibration": workspace / "calibration.npz",
        "--evaluation": workspace / "evaluation.npz",
        "--target": "cpu",
        "--variant": "int8=[{quantize: full}]",
        "--output": workspace / "out",
    } | changed
    model = given.pop("model")
    return jettison("compress", model, *(part for pair in given.items() for part in pair))


def samples(workspace, name="wrong.npz", **arrays):
    np.savez(workspace / name, **arrays)
    return workspace / name


def images(workspace):
    with np.load(workspace / "calibration.npz") as stored:
        return next((name, stored[name]) for name in stored)


def test_no_onnx(jettison, workspace):
    (workspace / "text.onnx").write_text("these are words")
    answer = compress(jettison, workspace, model=workspace / "text.onnx")
    assert answer.code == 2
    assert "it is no ONNX file" in answer.err
    assert not (workspace / "out").exists()


def test_truncated_model(jettison, workspace):
    content = (workspace / "model.onnx").read_bytes()
    (workspace / "model.onnx").write_bytes(content[: len(content) // 2])
    answer = compress(jettison, workspace)
    assert answer.code == 2
    assert "truncated" in answer.err
    assert not (workspace / "out").exists()


@pytest.mark.parametrize(
    ("location", "words"),
    [("missing.data", "is missing"), ("../outside.data", "expected external data inside")],
)
def test_external_data_that_is_missing_or_outside(jettison, workspace, location, words):
    model = onnx.load(workspace / "model.onnx")
    onnx.save_model(
        model, workspace / "model.onnx", save_as_external_data=True, location="weights.data", size_threshold=0
    )
    model = onnx.load(workspace / "model.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    (workspace / "model.onnx").write_bytes(model.SerializeToString())
    answer = compress(jettison, workspace)
    assert answer.code == 2
    assert words in answer.err
    assert not (workspace / "out").exists()


@pytest.mark.parametrize("verb", ["compress", "evaluate"])
def test_an_output_without_a_row_for_each_sample_is_told_before_any_work(jettison, workspace, verb):
    model = onnx.load(workspace / "model.onnx")
    logits = model.graph.output[0]
    model.graph.node.append(onnx.helper.make_node("ReduceMean", [logits.name], ["mean"], keepdims=0))
    model.graph.output.append(onnx.helper.make_tensor_value_info("mean", onnx.TensorProto.FLOAT, []))
    path = workspace / "mean.onnx"
    onnx.save(model, path)
    if verb == "compress":
        answer = compress(jettison, workspace, model=path)
    else:
        found = workspace / "evaluation.npz"
        answer = jettison("evaluate", path, "--baseline", path, "--evaluation", found)
    assert answer.code == 2
    assert (
        "output 'mean': expected one row for each sample, found a single number for the whole batch"
        in answer.err
    )
    assert not list((workspace / "out").glob("steps/[!.]*"))


def test_opset_8(jettison, workspace):
    model = onnx.load(workspace / "model.onnx")
    model.opset_import[0].version = 8
    onnx.save(model, workspace / "model.onnx")
    answer = compress(jettison, workspace)
    assert answer.code == 2
    assert "found opset 8, expected 9 or newer" in answer.err


def test_samples_with_wrong_names(jettison, workspace):
    name, array = images(workspace)
    answer = compress(jettison, workspace, **{"--calibration": samples(workspace, picture=array)})
    assert answer.code == 2
    assert f"expected arrays ['{name}'], found ['picture']" in answer.err
    assert not (workspace / "out").exists()


def test_samples_with_wrong_dtype(jettison, workspace):
    name, array = images(workspace)
    answer = compress(
        jettison, workspace, **{"--calibration": samples(workspace, **{name: array.astype(np.float64)})}
    )
    assert answer.code == 2
    assert "is expected as float32, found float64" in answer.err


def test_samples_with_wrong_shape(jettison, workspace):
    name, array = images(workspace)
    answer = compress(jettison, workspace, **{"--calibration": samples(workspace, **{name: array[:, :3]})})
    assert answer.code == 2
    assert "expected shape" in answer.err


def test_samples_with_nan(jettison, workspace):
    name, array = images(workspace)
    array[3, 0] = np.nan
    answer = compress(jettison, workspace, **{"--calibration": samples(workspace, **{name: array})})
    assert answer.code == 2
    assert "holds NaN or infinity" in answer.err


def test_wrong_search_samples_are_told_before_anything_is_written(jettison, workspace):
    _, array = images(workspace)
    answer = compress(
        jettison, workspace,
        **{"--search": samples(workspace, picture=array), "--variant": "part=[{quantize: partial}]"},
    )  # fmt: skip
    assert answer.code == 2
    assert "found ['picture']" in answer.err
    assert not (workspace / "out").exists()


def test_no_samples_at_all(jettison, workspace):
    name, array = images(workspace)
    answer = compress(jettison, workspace, **{"--calibration": samples(workspace, **{name: array[:0]})})
    assert answer.code == 2
    assert "it holds no sample" in answer.err
    assert compress(jettison, workspace, **{"--calibration": workspace / "none.npz"}).code == 2


def test_target_that_does_not_exist(jettison, workspace):
    answer = compress(jettison, workspace, **{"--target": "sm88"})
    assert answer.code == 2
    assert "target 'sm88': there is no such target" in answer.err
    assert "Did you mean sm8" in answer.err


def test_metric_that_does_not_exist(jettison, workspace):
    answer = compress(jettison, workspace, **{"--metric": "top2"})
    assert answer.code == 2
    assert "top1" in answer.err


def test_pass_that_does_not_exist(jettison, workspace):
    answer = compress(jettison, workspace, **{"--variant": "int8=[{quantize: fulll}]"})
    assert answer.code == 2
    assert "Did you mean {quantize: full}?" in answer.err


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("metric: top1", "metrik: top1", "unknown key 'metrik'. Did you mean 'metric'?"),
        ("tolerance: 0.1", "tolerence: 0.1", "unknown key 'gate.tolerence'. Did you mean 'tolerance'?"),
        ("{quantize: full}", "{quantize: full, ranges: mad}", "ranges"),
        ("targets: [cpu]", "targets: [gpu]", "there is no such target"),
        ("tolerance: 0.1", "tolerance: -1", "gate.tolerance: expected 0 or more, found -1"),
        ("path: model.onnx", "pth: model.onnx", "unknown key 'model.pth'. Did you mean 'path'?"),
        ("model: {", "model: [", "not YAML"),
        ("targets: [cpu]", "targets: [{name: ../cpu, dialect: cpu}]", "there is no such target"),
        ("metric: top1", "metric: 2026-99-99", "not YAML"),
        ("metric: top1", f"metric: {'[' * 5000}", "not YAML"),
        ("name: int8", "name: baseline", "'baseline' is the model itself"),
        ("metric: top1", "seed: -1", "seed: expected 0 or more, found -1"),
        ("metric: top1", "time_budget_s: yes", "time_budget_s: expected a number, found true"),
        ("name: int8", "name: fp32", "small-fp32 is the name under which the baseline is published"),
        ("name: int8", f"name: i{'x' * 125}", "expected published names of 128 characters at most"),
    ],
)
def test_recipe_with_a_wrong_key_or_value(jettison, recipe, workspace, old, new, words):
    recipe.write_text(recipe.read_text().replace(old, new))
    answer = jettison("run", recipe)
    assert answer.code == 2
    assert words in answer.err
    assert not (workspace / "runs").exists()


def test_keys_of_a_pass_may_stand_in_any_order(jettison, recipe):
    recipe.write_text(recipe.read_text().replace("{quantize: full}", "{ranges: mad, quantize: full}"))
    answer = jettison("run", recipe)
    assert "ranges" in answer.err
    assert "there is no pass" not in answer.err


def test_recipe_that_is_not_there(jettison, tmp_path):
    answer = jettison("run", tmp_path / "none.yaml")
    assert answer.code == 2
    assert "there is no such file" in answer.err


def test_json_error_is_one_document_on_stdout(jettison, workspace):
    answer = jettison("run", workspace / "none.yaml", "--json")
    assert set(answer.document["error"]) == {"what", "detail", "fix"}


def test_output_that_is_a_file(jettison, workspace):
    (workspace / "out").write_text("")
    answer = compress(jettison, workspace)
    assert answer.code == 2
    assert f"-o {workspace / 'out'}: expected a folder, found a file" in answer.err
    assert "Traceback" not in answer.err


def test_recipe_that_is_a_folder(jettison, workspace):
    answer = jettison("run", workspace)
    assert answer.code == 2
    assert "it is a folder. Give the path of a YAML file" in answer.err


def test_publishing_what_is_not_there(jettison, workspace):
    answer = jettison("publish", workspace / "no", "--repository", workspace / "models", "--name", "small")
    assert answer.code == 2
    assert "no such file or folder. Give the path of an ONNX file, or the folder of a finished" in answer.err


@pytest.mark.parametrize("kind", ["full", "partial", "float16"])
def test_keep_float_that_matches_nothing_is_told_before_any_work(jettison, workspace, kind):
    variant = f"it=[{{quantize: {kind}, keep_float: ['/nope*']}}]"
    answer = compress(jettison, workspace, **{"--variant": variant})
    assert answer.code == 2
    assert "variant 'it': keep_float: '/nope*' matches no" in answer.err
    assert not (workspace / "out").exists()


@pytest.mark.parametrize("kind", ["full", "float16"])
def test_a_model_that_onnx_runtime_refuses_is_named_as_the_user_gave_it(jettison, workspace, kind):
    model = onnx.load(workspace / "model.onnx")
    model.graph.node[0].op_type, model.graph.node[0].domain = "NoSuchOperator", "own"
    model.opset_import.append(onnx.helper.make_opsetid("own", 1))
    onnx.save(model, workspace / "model.onnx")
    answer = compress(jettison, workspace, **{"--variant": f"it=[{{quantize: {kind}}}]"})
    assert answer.code == 2
    assert f"error: model {workspace / 'model.onnx'}: ONNX Runtime refuses it" in answer.err


def test_repository_that_is_a_file(jettison, workspace):
    (workspace / "models").write_text("")
    answer = jettison(
        "publish", workspace / "model.onnx", "--repository", workspace / "models", "--name", "small"
    )
    assert answer.code == 2
    assert "expected a folder, found a file" in answer.err


def test_publishing_what_onnx_runtime_cannot_run(jettison, workspace):
    model = onnx.load(workspace / "model.onnx")
    model.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(model, workspace / "model.onnx")
    answer = jettison(
        "publish", workspace / "model.onnx", "--repository", workspace / "models", "--name", "small"
    )
    assert answer.code == 2
    assert not (workspace / "models").exists()


@pytest.mark.parametrize("labels", [(-1, 1, 1), (-1, 1, 1, 1)])
def test_labels_in_a_shape_that_top1_does_not_read_are_told_before_any_work(jettison, workspace, labels):
    with np.load(workspace / "evaluation.npz") as stored:
        arrays = dict(stored)
    wrong = samples(workspace, **(arrays | {"labels": arrays["labels"].reshape(labels)}))
    answer = compress(jettison, workspace, **{"--evaluation": wrong, "--metric": "top1"})
    shape = "x".join(["1"] * (len(labels) - 1))
    assert answer.code == 2
    assert f"found int64 of shape {shape}" in answer.err
    assert not (workspace / "out").exists()


def test_a_negative_seed_is_told_by_every_verb_that_takes_one(jettison, workspace):
    assert "'--seed'" in compress(jettison, workspace, **{"--seed": -1}).err
    given = ("--baseline", workspace / "model.onnx", "--evaluation", workspace / "evaluation.npz")
    answer = jettison("evaluate", workspace / "model.onnx", *given, "--seed", "-1")
    assert answer.code == 2
    assert "'--seed'" in answer.err


@pytest.mark.parametrize("code", ["raise SystemExit(0)", "missing", "raise RuntimeError('no camera')"])
def test_a_metric_or_samples_of_the_user_that_fail_are_wrong_input(jettison, workspace, monkeypatch, code):
    monkeypatch.syspath_prepend(workspace)
    (workspace / "own_failing.py").write_text(f"def fails(*outputs):\n    {code}")
    for option in ("--metric", "--evaluation"):
        answer = compress(
            jettison, workspace, **{option: "own_failing:fails", "--variant": "h=[{quantize: float16}]"}
        )
        assert answer.code == 2
        assert "own_failing:fails" in answer.err
        assert "failed" in answer.err


def test_evaluating_models_of_different_signatures(jettison, workspace):
    other = onnx.load(workspace / "model.onnx")
    other.graph.input[0].name = "other"
    other.graph.node[0].input[0] = "other"
    onnx.save(other, workspace / "other.onnx")
    answer = jettison(
        "evaluate", workspace / "other.onnx", "--baseline", workspace / "model.onnx",
        "--evaluation", workspace / "evaluation.npz",
    )  # fmt: skip
    assert answer.code == 2
    assert "Compare models of one signature" in answer.err
