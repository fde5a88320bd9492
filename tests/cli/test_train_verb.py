"""Training by the command line: through the same gate, and told where its samples have no effect."""

from __future__ import annotations

import numpy as np
import pytest

from jettison.core.errors import RecipeError
from jettison.recipe_text import load_recipe, parse_variant


@pytest.mark.torch
def test_compress_trains_by_labels_and_the_gate_judges_the_result(jettison, workspace):
    pytest.importorskip("torch")
    with np.load(workspace / "evaluation.npz") as stored:
        np.savez(workspace / "training.npz", **{name: stored[name][200:] for name in stored})
        np.savez(workspace / "unseen.npz", **{name: stored[name][:200] for name in stored})
    answer = jettison(
        "compress", workspace / "model.onnx", "--calibration", workspace / "calibration.npz",
        "--evaluation", workspace / "unseen.npz", "--training", workspace / "training.npz", "--target", "cpu",
        "--tolerance", 0.1, "--variant", "tuned=[{quantize: full}, {train: labels, epochs: 1}]",
        "--threads", 1, "-o", workspace / "out", "--json",
    )  # fmt: skip
    (variant,) = answer.document["variants"]
    assert answer.code == 0
    assert variant["name"] == "tuned"
    assert variant["accepted"]
    notes = " ".join([*answer.document["targets"][0]["notes"], *variant["notes"]])
    assert "trained by labels for 1 epoch on 180 samples" in notes
    assert not list((workspace / "out" / "steps").glob("checkpoints-*"))


IDLE = "expected a variant that trains, found only int8. Leave it out, or add a variant such as"


def test_training_samples_that_no_variant_learns_from_are_refused(jettison, workspace, tmp_path):
    (tmp_path / "recipe.yaml").write_text(
        "model: {name: m, path: m.onnx}\nsamples: {calibration: c.npz, training: t.npz}\n"
        "variants: [{name: int8, passes: [{quantize: full}]}]\n"
    )
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / "recipe.yaml")
    assert f"samples.training has no effect: {IDLE} {{name: trained, passes: [" in str(caught.value)
    answer = jettison(
        "compress", workspace / "model.onnx", "--calibration", workspace / "calibration.npz",
        "--target", "cpu", "--training", workspace / "evaluation.npz",
        "--variant", "int8=[{quantize: full}]", "-o", tmp_path / "o",
    )  # fmt: skip
    assert answer.code == 2
    assert "--training has no effect" in answer.err.replace("\n", " ")


def test_training_samples_are_taken_from_the_folder_of_the_recipe(tmp_path):
    (tmp_path / "recipe.yaml").write_text(
        "model: {name: m, path: m.onnx}\nsamples: {calibration: c.npz, training: t.npz}\n"
        "variants: [{name: a, passes: [{train: labels}]}]\n"
    )
    assert load_recipe(tmp_path / "recipe.yaml").samples.training == str(tmp_path / "t.npz")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{train: labels, temperature: 2}", "temperature has no effect with train: labels"),
        ("{train: baseline, loss: 'a.b:c'}", "loss has no effect with train: baseline"),
        ("{train: label}", "there is no pass {train: label}. Did you mean {train: labels}?"),
        ("{train: labels, epoch: 2}", "{train: labels} has no key 'epoch'. Did you mean 'epochs'?"),
        ("{train: labels, epochs: 0}", "epochs: expected 1 or more, found 0"),
        ("{train: labels, learning_rate: yes}", "expected a number for learning_rate, found true"),
        ("{quantize: float16}, {train: labels}", "expected {train: labels} before {quantize: float16}"),
    ],
)
def test_wrong_settings_are_told_plainly(text, words):
    with pytest.raises(RecipeError) as caught:
        parse_variant(f"a=[{text}]")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "passes",
    [
        "{train: labels}, {quantize: full}",
        "{quantize: full}, {train: baseline}",
        "{prune: {sparsity: 0.9}}, {train: labels}, {prune: two-to-four}, {train: labels}, {quantize: full}, "
        "{train: baseline}",
        "{quantize: int4}, {train: baseline, temperature: 4}",
    ],
)
def test_training_may_stand_anywhere_before_the_casts(passes):
    assert parse_variant(f"a=[{passes}]").trains


@pytest.mark.parametrize(
    ("passes", "words"),
    [
        (
            "{distill: {student: 'a:b'}, teacher: gone.onnx}",
            "teacher gone.onnx: expected a file, found no such",
        ),
        (
            "{distill: {shrink: {width: 0.5}}, teacher: training.npz}",
            "model training.npz: it is no ONNX file",
        ),
        (
            "{distill: {shrink: {width: 0.5}}, teacher: 'a:b', teacher_state: gone.pt}",
            "teacher_state gone.pt: expected a file, found no such file. Correct its path",
        ),
        ("{train: labels, loss: 'nowhere:found'}", "function 'nowhere:found': No module named 'nowhere'"),
        ("{train: labels}", "expected labels, which {train: labels} learns, found none"),
        (
            "{distill: {shrink: {width: 0.5}}, losses: {labels: 1}}",
            "which alone have a weight",
        ),
    ],
)
def test_what_a_pass_would_learn_from_is_looked_for_before_any_work(
    jettison, workspace, monkeypatch, passes, words
):
    with np.load(workspace / "evaluation.npz") as stored:
        rows = {name: stored[name] for name in stored if name != "labels"}
        np.savez(workspace / "training.npz", **rows)
    monkeypatch.chdir(workspace)
    answer = jettison(
        "compress", workspace / "model.onnx", "--calibration", workspace / "calibration.npz",
        "--training", workspace / "training.npz", "--target", "cpu",
        "--variant", f"learned=[{passes}]", "-o", workspace / "out",
    )  # fmt: skip
    assert answer.code == 2
    assert words in " ".join(answer.err.split())
    assert not (workspace / "out").exists()


@pytest.mark.parametrize("passes", ["{train: labels}", "{distill: {shrink: {width: 0.5}}}"])
def test_a_variant_that_trains_without_samples_is_refused(jettison, workspace, tmp_path, passes):
    (tmp_path / "recipe.yaml").write_text(
        "model: {name: m, path: m.onnx}\nsamples: {calibration: c.npz}\n"
        f"variants: [{{name: a, passes: [{passes}]}}]\n"
    )
    with pytest.raises(RecipeError, match=r"samples\.training, since variant 'a' trains, found"):
        load_recipe(tmp_path / "recipe.yaml")
    answer = jettison(
        "compress", workspace / "model.onnx", "--calibration", workspace / "calibration.npz",
        "--target", "cpu", "--variant", f"a=[{passes}]", "-o", tmp_path / "o",
    )  # fmt: skip
    assert answer.code == 2
    assert "expected --training, since variant 'a' trains" in " ".join(answer.err.split())
