"""Distilling by the command line: a student in the model's place, the passes behind it, the same gate."""

from __future__ import annotations

import numpy as np
import pytest

from jettison.core.errors import RecipeError
from jettison.graph.model import input_specs, open_model, output_specs
from jettison.recipe_text import load_recipe, parse_variant
from zoo.builder import image_net
from zoo.session import run as run_model

STUDENT = """
from torch import nn

def make():
    return nn.Sequential(
        nn.Conv2d({channels}, 8, 3, stride=4, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, {classes})
    )
"""


@pytest.fixture
def learning(workspace, monkeypatch):
    """The workspace with training samples, and a student for its images in a module of its own."""
    model = open_model(workspace / "model.onnx")
    channels, classes = input_specs(model)[0].shape[1], output_specs(model)[0].shape[1]
    (workspace / "my_student.py").write_text(STUDENT.format(channels=channels, classes=classes))
    monkeypatch.syspath_prepend(str(workspace))
    with np.load(workspace / "evaluation.npz") as stored:
        np.savez(workspace / "training.npz", **{name: stored[name][100:] for name in stored})
        np.savez(workspace / "unseen.npz", **{name: stored[name][:100] for name in stored})
    return workspace


def compress(jettison, folder, *variants):
    return jettison(
        "compress", folder / "model.onnx", "--calibration", folder / "calibration.npz",
        "--evaluation", folder / "unseen.npz", "--training", folder / "training.npz", "--target", "cpu",
        "--tolerance", 1.0, *(part for text in variants for part in ("--variant", text)),
        "--threads", 1, "-o", folder / "out", "--json",
    )  # fmt: skip


@pytest.mark.torch
@pytest.mark.slow
def test_students_take_the_models_place_and_are_quantized(jettison, learning):
    pytest.importorskip("torch")
    answer = compress(
        jettison,
        learning,
        "own=[{distill: {student: 'my_student:make'}, epochs: 1}, {quantize: full}]",
        "narrow=[{distill: {shrink: {width: 0.5}, epochs: 1}}, {prune: {sparsity: 0.3}}, {quantize: full}]",
    )
    own, narrow = answer.document["variants"]
    baseline = open_model(learning / "out" / "cpu" / "baseline" / "model.onnx")
    for variant in (own, narrow):
        assert variant["size_bytes"] < 0.5 * answer.document["baseline"]["size_bytes"]
        made = open_model(learning / "out" / "cpu" / variant["name"] / "model.onnx")
        assert [spec.name for spec in output_specs(made)] == [spec.name for spec in output_specs(baseline)]
        assert input_specs(made)[0].shape[1:] == input_specs(baseline)[0].shape[1:]
        assert all(layer["sqnr_db"] > 10 for layer in variant["explanation"]["layers"]), (
            "layers are compared with the student's own, not with the model's"
        )
    assert [layer["kind"] for layer in own["explanation"]["layers"]] == ["Conv", "Gemm"]
    told = "student my_student:make learned from the model before all passes by 1 logits, 0.1 labels"
    assert told in own["notes"]
    assert not list((learning / "out" / "steps").glob("checkpoints-*"))


@pytest.mark.torch
def test_a_student_of_another_shape_is_wrong_input(jettison, learning):
    pytest.importorskip("torch")
    (learning / "wrong_student.py").write_text(STUDENT.format(channels=16, classes=3))
    answer = compress(jettison, learning, "own=[{distill: {student: 'wrong_student:make'}}]")
    assert answer.code == 2
    assert answer.document["error"]["detail"].startswith("expected outputs as the model gives them, ")


def test_a_model_without_a_narrower_form_is_a_refused_variant(jettison, learning):
    pytest.importorskip("torch")
    net, x = image_net("grouped", 16)
    net.head(net.op("Relu", net.conv(x, (16, 16), groups=4)), 16)
    (learning / "model.onnx").write_bytes(net.model().SerializeToString())
    assert run_model(
        net.model().SerializeToString(), {"image": np.zeros((1, 16, 16, 16), np.float32)}, ["logits"]
    )
    answer = compress(jettison, learning, "narrow=[{distill: {shrink: {width: 0.5}}}]")
    (variant,) = answer.document["variants"]
    assert variant["reasons"][0].startswith("refused: no narrower form can be derived: node ")
    assert "has 4 groups of channels. Give a student of your own" in variant["reasons"][0]


def test_teachers_are_found_beside_the_recipe(tmp_path):
    (tmp_path / "recipe.yaml").write_text(
        "model: {name: m, path: m.onnx}\nsamples: {calibration: c.npz, training: t.npz}\nvariants:\n"
        "  - {name: a, passes: [{distill: {student: 'a:b', teacher: big.onnx}}]}\n"
        "  - {name: b, passes: [{distill: {student: 'a:b'}, teacher: 'a:big', teacher_state: w.pt}]}\n"
    )
    (first,), (second,) = (variant.passes for variant in load_recipe(tmp_path / "recipe.yaml").variants)
    assert first.teacher == str(tmp_path / "big.onnx")
    assert (second.teacher, second.teacher_state) == ("a:big", tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{distill: {}}", "distill: expected a kind, or a mapping with student or shrink, found {}"),
        ("{distill: {studnet: 'a:b'}}", "Did you mean 'student'?"),
        ("{distill: {student: model.onnx}}", "student: expected package.module:function, found 'model.onnx'"),
        ("{distill: {student: 'a:b', epoch: 3}}", "{distill: {student: ...}} has no key 'epoch'"),
        ("{distill: {shrink: {width: 1.5}}}", "shrink.width: expected a number below 1, found 1.5"),
        ("{distill: {shrink: 0.5}}", "shrink: expected a mapping of keys, found 0.5"),
        (
            "{distill: {shrink: {width: 0.5}}, losses: {logits: yes}}",
            "losses.logits: expected a number, found",
        ),
    ],
)
def test_wrong_words_are_told(text, told):
    with pytest.raises(RecipeError) as caught:
        parse_variant(f"v=[{text}]")
    assert told in str(caught.value)


def test_distilling_comes_before_what_works_on_its_result():
    with pytest.raises(RecipeError) as caught:
        parse_variant("v=[{quantize: full}, {distill: {student: 'a:b'}}]")
    assert "expected {distill: {student: ...}} before {quantize: full}" in str(caught.value)
    assert "Write [{distill: {student: ...}}, {quantize: full}]" in str(caught.value)
