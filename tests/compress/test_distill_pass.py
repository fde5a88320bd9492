"""The passes `{distill: ...}`: what students learn, what they take over, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from pydantic import ValidationError
from small_models import feature_net, image, model_of, run

from jettison.compress.distillation.distill_pass import DistillShrink, DistillStudent
from jettison.compress.distillation.train_pass import TrainModel
from jettison.compress.passes import Workpiece
from jettison.core.errors import JettisonError, ModelError
from jettison.core.samples import samples_of
from jettison.core.targets import parse_target
from jettison.core.validation import problem_of
from jettison.graph.model import input_specs, output_specs
from jettison.graph.save import model_bytes, save_model
from jettison.pipeline.modules import SourceModules
from jettison.sources import child, export
from jettison.sources.exchange import ExportAnswer, ExportRequest, problem_from
from zoo.builder import image_net

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

CPU = parse_target("cpu")
CLASSES = 4


@pytest.fixture(autouse=True)
def in_process(monkeypatch):
    """Exports in this process: that a child of its own does the same is for the tests of `sources`."""

    def run_child(path):
        request = ExportRequest.model_validate_json(path.read_bytes())
        try:
            answer = child.export(request)
        except JettisonError as error:
            answer = ExportAnswer(problem=problem_from(error))
        request.answer.write_text(answer.model_dump_json())
        return 0, ""

    monkeypatch.setattr(export, "_run_child", run_child)


def quarters(count, seed):
    """Points in 16 dimensions; the class is the quarter of the plane in which the first two lie."""
    x = np.random.default_rng(seed).normal(size=(count, 16)).astype(np.float32)
    return x, (2 * (x[:, 0] > 0) + (x[:, 1] > 0)).astype(np.int64)


def network(softmax=False, two=False):
    net, x = feature_net(16)
    x = net.op("Relu", net.gemm(net.op("Relu", net.gemm(x, (16, 64))), (64, 64)))
    x = net.gemm(x, (64, CLASSES))
    if softmax:
        net.output(net.named("Softmax", x, to="scores", axis=1), ["batch", CLASSES])
    else:
        net.output(net.named("Identity", x, to="scores"), ["batch", CLASSES])
    if two:
        net.output(net.named("ReduceSum", x, net.const(np.array([1])), to="sum", keepdims=1), ["batch", 1])
    return model_of(net)


def points(model, count=1200, seed=0, labels=True):
    x, y = quarters(count, seed)
    return samples_of({"features": x}, labels=y if labels else None, specs=input_specs(model))


def piece_of(model, **given):
    training = given.pop("training", None) or points(model)
    return Workpiece(model, CPU, threads=1, **{"training": training, "modules": SourceModules(), **given})


def distilled(step, piece):
    assert step.check(piece) is None
    return step(piece, piece.training)


def student(name="small", **settings):
    given = {"epochs": 6, "learning_rate": 0.01, **settings}
    return DistillStudent.model_validate({"student": f"students:{name}", **given})


def shrink(width=0.5, **settings):
    given = {"epochs": 3, "learning_rate": 0.003, **settings}
    return DistillShrink.model_validate({"shrink": {"width": width}, **given})


@pytest.fixture(scope="module")
def teacher():
    piece = piece_of(network())
    return TrainModel(train="labels", epochs=12, learning_rate=0.01)(piece, piece.training).model


def accuracy(model):
    x, y = quarters(2000, seed=99)
    return float((run(model, {"features": x})["scores"].argmax(1) == y).mean())


def agreement(one, other):
    x, _ = quarters(2000, seed=98)
    found = [run(model, {"features": x})["scores"].argmax(1) for model in (one, other)]
    return float((found[0] == found[1]).mean())


def weights(model):
    return sum(value.const_value.size for value in model.graph.initializers.values())


def test_a_student_of_one_s_own_learns_from_the_model_without_labels(teacher):
    piece = piece_of(teacher, training=points(teacher, labels=False))
    result = distilled(student(), piece)
    assert accuracy(teacher) > 0.85
    assert agreement(result.model, teacher) > 0.85
    assert weights(result.model) < 0.15 * weights(teacher)
    assert input_specs(result.model) == input_specs(teacher)
    assert [spec.name for spec in output_specs(result.model)] == ["scores"]
    assert result.notes[0] == "student students:small learned from the model before all passes by 1 logits"
    assert result.notes[1].startswith("trained on 1080 samples: loss on 120 held-out samples ")
    assert {node.op_type for node in result.model.graph} == {"Gemm", "Relu"}, "BatchNormalization is folded"


def test_a_narrower_form_of_the_model_learns_back_what_it_lost(teacher):
    from jettison.compress.distillation.shrink import shrunk

    piece = piece_of(teacher)
    result = distilled(shrink(0.25, epochs=12, learning_rate=0.01), piece)
    assert agreement(result.model, teacher) > agreement(shrunk(teacher, 0.25), teacher) + 0.05
    assert agreement(result.model, teacher) > 0.85
    sizes = [value.shape.numpy() for value in result.model.graph.initializers.values()]
    assert (16, 16) in sizes
    assert output_specs(result.model) == output_specs(teacher)
    assert result.notes[0].startswith("the model with 0.25 of the channels of its layers learned from ")
    assert "1 logits, 0.1 labels" in result.notes[0]


@pytest.mark.parametrize("step", [student(epochs=1), shrink(epochs=1)], ids=["student", "shrink"])
def test_distilling_gives_the_same_file_each_time(teacher, step):
    first, second = (model_bytes(distilled(step, piece_of(teacher)).model) for _ in range(2))
    assert first == second
    other = step.model_copy(update={"seed": 1})
    assert first != model_bytes(distilled(other, piece_of(teacher)).model)


class StoppedError(Exception):
    pass


@pytest.mark.parametrize(
    "step",
    [
        student(epochs=2, batch_size=8, losses={"logits": 1, "features": 0.5, "relation": 0.5}),
        shrink(epochs=2, batch_size=4),
    ],
    ids=["student", "shrink"],
)
def test_a_broken_training_goes_on_and_ends_in_the_same_file(teacher, tmp_path, step):
    expected = model_bytes(distilled(step, piece_of(teacher)).model)

    def breaking(done, total):
        if done > 0.8 * total:
            raise StoppedError

    with pytest.raises(StoppedError):
        step(piece_of(teacher, checkpoints=tmp_path, progress=breaking), None)
    seen = []
    resumed = piece_of(teacher, checkpoints=tmp_path, progress=lambda done, _: seen.append(done))
    assert model_bytes(step(resumed, None).model) == expected
    assert seen[0] > 1000, "what was learned before the break is not learned again"


def test_another_onnx_file_teaches(teacher, tmp_path):
    save_model(teacher, tmp_path / "teacher.onnx")
    untrained = network()
    step = student(teacher=str(tmp_path / "teacher.onnx"))
    result = distilled(step, piece_of(untrained, training=points(untrained, labels=False)))
    assert agreement(result.model, teacher) > 0.8
    assert f"learned from teacher {tmp_path / 'teacher.onnx'} by 1 logits" in result.notes[0]


def test_a_torch_module_teaches():
    untrained = network()
    result = distilled(student(teacher="students:known", losses={"logits": 1}), piece_of(untrained))
    assert accuracy(result.model) > 0.85


def test_another_teacher_is_another_pass_and_another_place_of_the_same_is_not(teacher, tmp_path):
    names = [tmp_path / name for name in ("one.onnx", "two.onnx", "same.onnx")]
    for path, model in zip(names, (teacher, network(), teacher), strict=True):
        save_model(model, path)
    one, two, same = (student(teacher=str(path)).model_dump_json() for path in names)
    assert one == same != two


def test_probabilities_are_learned_as_probabilities():
    model = network(softmax=True)
    piece = piece_of(model)
    taught = TrainModel(train="labels", epochs=8, learning_rate=0.01)(piece, piece.training).model
    result = distilled(shrink(), piece_of(taught))
    assert agreement(result.model, taught) > 0.85
    with pytest.raises(ModelError) as caught:
        student()(piece_of(taught), None)
    assert f"{caught.value.detail}. {caught.value.fix}" == (
        "expected probabilities in 'scores', as the model gives them, found scores that are none. "
        "End its forward with a softmax"
    )


def test_outputs_are_taken_by_name_where_a_student_names_them():
    model = network(two=True)
    result = distilled(student("by_name", epochs=1), piece_of(model))
    assert [spec.name for spec in output_specs(result.model)] == ["scores", "sum"]
    found = run(result.model, {"features": quarters(8, 1)[0]})
    assert np.allclose(found["scores"].sum(1, keepdims=True), found["sum"], atol=1e-5)


@pytest.mark.parametrize("term", ["features", "attention", "relation"])
def test_layers_are_learned_by_depth_and_adapters_are_not_kept(term):
    net, x = image_net("maps", 8)
    x = net.op("Relu", net.conv(net.op("Relu", net.conv(x, (8, 16))), (16, 24)))
    net.head(x, 24)
    model = model_of(net)
    training = samples_of(image(8, count=160), specs=input_specs(model))
    step = student("convolution", losses={term: 1.0}, epochs=3, batch_size=16)
    result = distilled(step, piece_of(model, training=training))
    assert result.notes[2].startswith("layers learned: 2 by relu_")
    before, after = (
        float(result.notes[1].split(mark)[1].split()[0]) for mark in ("held-out samples ", "before, ")
    )
    assert after < before
    assert {node.op_type for node in result.model.graph} <= {
        "Conv", "Relu", "GlobalAveragePool", "ReduceMean", "Flatten", "Reshape", "Gemm",
    }  # fmt: skip


def test_named_pairs_are_taken_and_wrong_names_are_told(teacher):
    layer = next(node for node in teacher.graph if node.op_type == "Relu")
    step = student(losses={"features": 1}, pairs={"2": layer.name}, epochs=1)
    told = distilled(step, piece_of(teacher)).notes[2]
    assert told == f"layers learned: 2 by {layer.outputs[0].name}"
    with pytest.raises(ModelError) as caught:
        student(losses={"features": 1}, pairs={"2": f"{layer.name}x"})(piece_of(teacher), None)
    assert caught.value.fix == f"Did you mean {layer.name!r}?"
    with pytest.raises(ModelError) as caught:
        student(losses={"features": 1}, pairs={"relu": layer.name})(piece_of(teacher), None)
    assert str(caught.value) == (
        "student students:small: expected a layer for `pairs`, found none named 'relu'. It has 0, 1, 2, 3 "
        "and others"
    )


def test_attention_needs_maps(teacher):
    with pytest.raises(ModelError) as caught:
        student(losses={"attention": 1})(piece_of(teacher), None)
    assert caught.value.detail.startswith("expected layers that give maps, found 2 by ")


@pytest.mark.parametrize(
    ("name", "detail", "fix"),
    [
        (
            "wrong_classes",
            "expected outputs as the model gives them, scores float32 batchx4, found scores float32 batchx5",
            "A student takes the model's place: let its forward give these, in this order or by name",
        ),
        (
            "two_outputs",
            "expected 1 tensors from its forward, for scores, found Tensor, Tensor",
            "Return a tensor for each of these outputs, in this order, or a dict by name",
        ),
        (
            "no_module",
            "expected a function that gives a torch.nn.Module in Python, found one that gives a int",
            "Return the module itself; its weights may be given as `state`",
        ),
    ],
)
def test_a_student_that_cannot_take_the_models_place_is_told_before_the_training(teacher, name, detail, fix):
    with pytest.raises(ModelError) as caught:
        student(name)(piece_of(teacher), None)
    assert (caught.value.detail, caught.value.fix) == (detail, fix)


def test_a_student_that_cannot_be_exported_is_told_before_the_training(teacher):
    told = []
    with pytest.raises(ModelError, match="students:unexportable"):
        student("unexportable")(piece_of(teacher, progress=lambda *now: told.append(now)), None)
    assert not told


def test_what_a_pass_needs_is_told_as_a_refusal(teacher):
    piece = piece_of(teacher)
    none = dataclasses.replace(piece, training=None)
    assert shrink().check(none).reasons == ("it needs training samples, and there are none",)
    unlabelled = dataclasses.replace(piece, training=points(teacher, labels=False))
    assert str(shrink(losses={"labels": 1}).check(unlabelled)) == (
        "only labels have a weight, and the training samples have none. Add an array 'labels' to them, or "
        "give logits a weight"
    )
    assert student().check(dataclasses.replace(piece, modules=None)).reasons == (
        "no torch modules can be opened here",
    )
    assert shrink(losses={"logits": 1, "labels": 1}).check(unlabelled) is None


def test_labels_that_lack_are_left_out_and_said(teacher):
    piece = piece_of(teacher, training=points(teacher, labels=False))
    result = distilled(shrink(losses={"logits": 1, "labels": 0.5}, epochs=1), piece)
    assert "the training samples have no labels: that term was left out" in result.notes


@pytest.mark.parametrize(
    ("settings", "detail"),
    [
        ({"losses": {"logits": 0}}, "losses: expected a weight above 0, found none"),
        ({"pairs": {"a": "b"}}, "pairs has no effect: no loss looks at layers"),
        ({"teacher": "t.onnx", "teacher_state": "w.pt"}, "teacher_state has no effect without a teacher as"),
        ({"losses": {"labels": 1}, "temperature": 2}, "temperature has no effect without the loss logits"),
        ({"losses": {"logit": 1}}, "unknown key 'losses.logit'"),
    ],
)
def test_settings_without_effect_are_wrong_input(settings, detail):
    with pytest.raises(ValidationError) as caught:
        student(**settings)
    assert problem_of(caught.value).detail.startswith(detail)
