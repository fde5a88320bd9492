"""The passes `{train: labels}` and `{train: baseline}`: what they refuse, what they gain, what they leave."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import onnx
import pytest
from pydantic import ValidationError
from small_models import feature_net, model_of, run
from zoo_cases import zoo_case

from jettison.compress.distillation.train_pass import TrainModel
from jettison.compress.passes import Refusal, Workpiece
from jettison.compress.pruning.unstructured import PruneSparsity
from jettison.compress.quantization.quantize import QuantizeDynamic, QuantizeFull
from jettison.compress.quantization.weight_only import QuantizeInt4
from jettison.core.errors import MissingError, RecipeError, SamplesError
from jettison.core.samples import samples_of
from jettison.core.targets import parse_target
from jettison.graph.model import input_specs, output_specs
from jettison.graph.save import model_bytes
from zoo.table import ZOO

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from test_train_graph import REFUSED  # noqa: E402

CPU, GPU = parse_target("cpu"), parse_target("sm89")
CLASSES = 4


def quarters(count, seed):
    """Points in 16 dimensions; the class is the quarter of the plane in which the first two lie."""
    x = np.random.default_rng(seed).normal(size=(count, 16)).astype(np.float32)
    return x, (2 * (x[:, 0] > 0) + (x[:, 1] > 0)).astype(np.int64)


def points(model, count=1500, seed=0, labels=True):
    x, y = quarters(count, seed)
    return samples_of({"features": x}, labels=y if labels else None, specs=input_specs(model))


def network(softmax=False):
    net, x = feature_net(16)
    x = net.op("Relu", net.gemm(net.op("Relu", net.gemm(x, (16, 64))), (64, 64)))
    x = net.gemm(x, (64, CLASSES))
    net.output(net.op("Softmax", x, axis=1) if softmax else x, ["batch", CLASSES])
    return model_of(net)


def piece_of(model, target=CPU, **given):
    return Workpiece(model, target, threads=1, **given)


def trained(model, **settings):
    piece = piece_of(model, training=points(model), baseline=settings.pop("baseline", None))
    step = TrainModel(**{"train": "labels", "epochs": 8, "learning_rate": 0.01, **settings})
    assert step.check(piece) is None
    return step(piece, piece.training)


@pytest.fixture(scope="module")
def teacher():
    """The network as it is once it knows the quarters."""
    return trained(network(), epochs=20).model


def accuracy(model, *, optimize=True):
    x, y = quarters(2000, seed=99)
    (scores,) = run(model, {"features": x}, optimize=optimize).values()
    return float((scores.argmax(1) == y).mean())


def divergence(reference, model):
    """KL(softmax(y_0) || softmax(y)), the mean over unseen points."""
    x, _ = quarters(1000, seed=98)
    pair = [run(found, {"features": x}, optimize=False) for found in (reference, model)]
    scores = [torch.from_numpy(next(iter(found.values()))).log_softmax(1) for found in pair]
    return float(torch.nn.functional.kl_div(scores[1], scores[0], reduction="batchmean", log_target=True))


def test_a_network_learns_from_labels_and_a_note_tells_how(teacher):
    assert accuracy(network()) < 0.5
    result = trained(network())
    assert accuracy(result.model) > 0.8
    told = result.notes[0]
    assert told.startswith("trained by labels for 8 epochs on 1350 samples: loss on 150 others ")
    before, after = (float(part.split()[0]) for part in told.split("others ")[1].split(" before, "))
    assert after < 0.5 * before
    assert accuracy(teacher) > 0.9


def test_training_gives_the_same_file_each_time():
    first, second = (model_bytes(trained(network(), epochs=1).model) for _ in range(2))
    assert first == second
    assert first != model_bytes(trained(network(), epochs=1, seed=1).model)


def test_probabilities_are_learned_as_probabilities():
    assert accuracy(trained(network(softmax=True)).model) > 0.8


def test_four_bits_gain_by_their_float_model_s_answers(teacher):
    piece = piece_of(teacher, training=points(teacher, labels=False), baseline=teacher)
    stored = QuantizeInt4(clip="none", block=64)(piece, piece.training).model
    result = trained(stored, train="baseline", baseline=teacher, learning_rate=0.003)
    assert divergence(teacher, result.model) < 0.5 * divergence(teacher, stored)
    assert any(note.startswith("trained through quantization: 3 stored weights") for note in result.notes)
    assert sorted(v.dtype.name for v in result.model.graph.initializers.values()) == sorted(
        v.dtype.name for v in stored.graph.initializers.values()
    )
    assert accuracy(result.model) >= accuracy(stored)


@pytest.mark.parametrize("target", [CPU, GPU], ids=["cpu", "gpu"])
def test_eight_bits_with_too_narrow_ranges_gain_by_learned_scales(teacher, target):
    piece = piece_of(teacher, target, training=points(teacher))
    narrow = QuantizeFull(ranges="percentile", percentile=95.0)(piece, piece.training).model
    settings = {"train": "baseline", "baseline": teacher, "learning_rate": 0.003}
    result = trained(narrow, **settings)
    assert divergence(teacher, result.model) < 0.5 * divergence(teacher, narrow)
    kernel, simulation = accuracy(result.model), accuracy(result.model, optimize=False)
    assert abs(kernel - simulation) < 0.005
    kept = trained(narrow, **settings, learn_scales=False)
    assert "scales kept" in kept.notes[1]
    assert divergence(teacher, kept.model) > divergence(teacher, result.model)


def test_eight_bits_gain_at_the_default_rate_which_is_that_of_fine_steps(teacher):
    """At 0.001, the rate of float weights, no epoch is better than the start."""
    piece = piece_of(teacher, training=points(teacher))
    stored = QuantizeFull()(piece, piece.training).model
    result = trained(stored, train="baseline", baseline=teacher, learning_rate=None)
    assert divergence(teacher, result.model) < divergence(teacher, stored)


def test_pruned_weights_stay_zero_and_the_others_make_up_for_them(teacher):
    piece = piece_of(teacher, training=points(teacher))
    pruned = PruneSparsity(sparsity=0.8, scope="global")(piece, piece.training).model
    result = trained(pruned)
    assert accuracy(result.model) > accuracy(pruned) + 0.05
    zeros = [
        [
            value.const_value.numpy() == 0
            for value in model.graph.initializers.values()
            if len(value.shape) == 2
        ]
        for model in (pruned, result.model)
    ]
    assert all(np.array_equal(one, other) for one, other in zip(*zeros, strict=True))
    assert "zeros kept in 3 pruned weights" in result.notes


@pytest.mark.parametrize("criterion", ["magnitude", "taylor"])
def test_weights_are_removed_while_the_others_learn(teacher, criterion):
    """Up to 90 % by the middle of the training, exactly."""
    settings = {"sparsity": 0.9, "criterion": criterion}
    result = trained(teacher, **settings)
    weights = [v.const_value.numpy() for v in result.model.graph.initializers.values() if len(v.shape) == 2]
    zeros = sum(int((array == 0).sum()) for array in weights)
    assert zeros == round(0.9 * sum(array.size for array in weights))
    told = f"while training, to 90.0% of all weights, by the least {criterion}"
    assert [layer.reason for layer in result.pruned] == [told] * len(weights)
    assert sorted(layer.zeros for layer in result.pruned) == sorted(int((a == 0).sum()) for a in weights)
    assert sum(layer.removed for layer in result.pruned) == zeros
    assert f"{zeros:,} of {sum(a.size for a in weights):,} weights removed (90.0%)" in " ".join(result.notes)
    piece = piece_of(teacher, training=points(teacher))
    at_once = PruneSparsity(sparsity=0.9, scope="global")(piece, piece.training).model
    assert accuracy(result.model) > accuracy(at_once) + 0.1


def test_pruning_while_training_goes_on_where_it_was_broken_off(teacher, tmp_path):
    piece = piece_of(teacher, training=points(teacher, count=300), checkpoints=tmp_path)
    step = TrainModel(train="labels", epochs=3, sparsity=0.8, criterion="taylor", batch_size=1)
    expected = step(dataclasses.replace(piece, checkpoints=None), piece.training).model

    def stop(seen, _):
        if seen == 450:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        step(dataclasses.replace(piece, progress=stop), piece.training)
    seen = []
    found = step(dataclasses.replace(piece, progress=lambda done, _: seen.append(done)), piece.training).model
    assert seen[0] == 401
    assert model_bytes(found) == model_bytes(expected)


def test_sparsity_is_for_float_weights_and_a_criterion_for_a_sparsity(teacher):
    quantized = QuantizeFull()(piece_of(teacher), points(teacher)).model
    assert "sparsity: the model is quantized" in refused(quantized, training=points(teacher), sparsity=0.5)
    with pytest.raises(ValidationError, match="criterion has no effect without sparsity"):
        TrainModel(train="labels", criterion="taylor")


def test_passes_compose_in_any_order(teacher):
    piece, model = piece_of(teacher, training=points(teacher), baseline=teacher), teacher
    for step in (
        PruneSparsity(sparsity=0.5),
        TrainModel(train="labels", epochs=2),
        QuantizeFull(),
        TrainModel(train="baseline", epochs=2),
    ):
        piece = dataclasses.replace(piece, model=model)
        assert step.check(piece) is None
        model = step(piece, piece.training).model
    onnx.checker.check_model(model_bytes(model), full_check=True)
    stored = [v.const_value.numpy() for v in model.graph.initializers.values() if v.dtype.name == "INT8"]
    shares = [float((array == 0).mean()) for array in stored if array.ndim == 2]
    assert len(shares) == 3
    assert min(shares) >= 0.5
    assert accuracy(model) > accuracy(teacher) - 0.03


def test_a_training_that_brings_nothing_leaves_the_model_as_it_was(teacher):
    result = trained(teacher, learning_rate=30.0, optimizer="sgd", epochs=2)
    assert model_bytes(result.model) == model_bytes(teacher)
    assert "never less after: the weights are as they were" in result.notes[-1]


def test_a_training_that_diverges_says_what_to_do(teacher, tmp_path, monkeypatch):
    (tmp_path / "loss_of_nothing.py").write_text(
        "def loss(outputs, labels):\n    return next(iter(outputs.values())).sum() * float('nan')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    result = trained(teacher, loss="loss_of_nothing:loss")
    assert result.warnings == (
        "training diverged after 0 steps: its loss was no number any more; give a smaller learning_rate",
    )
    ramped = trained(teacher, loss="loss_of_nothing:loss", sparsity=0.5)
    assert ramped.warnings[1] == (
        "nothing was removed while training, expected 50.0% of the weights: no epoch after the ramp "
        "had a loss that is a number; the weights are as they were"
    )
    assert sum(layer.removed for layer in ramped.pruned) == 0


@pytest.fixture
def losses(tmp_path, monkeypatch):
    (tmp_path / "own_losses.py").write_text(
        "import torch\n"
        "def margin(outputs, labels):\n"
        "    (scores,) = outputs.values()\n"
        "    return torch.nn.functional.multi_margin_loss(scores, labels)\n"
        "def broken(outputs, labels):\n    return outputs['none']\n"
        "def rows(outputs, labels):\n    return next(iter(outputs.values())).sum(1)\n"
        "def detached(outputs, labels):\n    return next(iter(outputs.values())).detach().sum()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("own_losses", None)


def test_a_users_own_loss_is_what_is_made_small(losses):
    result = trained(network(), loss="own_losses:margin")
    assert accuracy(result.model) > 0.7
    assert result.notes[0].startswith("trained by your loss for 8 epochs")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("broken", "it failed with KeyError: 'none'. Correct it"),
        (
            "rows",
            "expected a tensor of one number, found a tensor of (150,). Return the mean loss of the batch",
        ),
        ("detached", "expected a number that follows from the outputs, found one without a gradient."),
        ("missing", "has no attribute 'missing'"),
    ],
)
def test_a_users_own_loss_that_cannot_be_used_is_told(losses, name, told):
    with pytest.raises((RecipeError, SamplesError)) as caught:
        trained(network(), loss=f"own_losses:{name}", batch_size=150)
    assert told in str(caught.value)


def test_an_edited_loss_is_another_setting(losses):
    step = TrainModel(train="labels", loss="own_losses:margin")
    before = step.model_dump_json()
    (losses / "own_losses.py").write_text((losses / "own_losses.py").read_text() + "\n")
    assert step.model_dump_json() != before
    assert '"loss_code":""' in TrainModel(train="labels").model_dump_json()


def refused(model, *, training=None, **settings):
    found = TrainModel(**{"train": "labels", **settings}).check(piece_of(model, training=training))
    assert isinstance(found, Refusal)
    return str(found)


def test_what_cannot_be_trained_is_refused_with_a_way_out():
    model = network()
    assert refused(model) == (
        "it needs training samples, and there are none. Give them: samples.training in the recipe, or "
        "--training"
    )
    assert refused(model, training=points(model, labels=False)) == (
        "the training samples have no labels. Add an array 'labels' to them, or use {train: baseline}, which "
        "needs none"
    )
    dynamic = QuantizeDynamic()(piece_of(model), points(model)).model
    assert "has no gradient here. Train before the pass that brings it" in refused(
        dynamic, training=points(model)
    )
    odd = samples_of(
        {"features": quarters(20, 0)[0]}, labels=np.zeros((20, 3, 2), np.float32), specs=input_specs(model)
    )
    assert "no loss fits the outputs" in refused(model, training=odd)


def test_labels_beyond_the_classes_are_told_before_any_training():
    model = network()
    x, _ = quarters(20, 0)
    samples = samples_of({"features": x}, labels=np.full(20, 7), specs=input_specs(model))
    with pytest.raises(SamplesError, match="expected a class from 0 to 3, found 7"):
        TrainModel(train="labels").check(piece_of(model, training=samples))


def test_numbers_are_learned_by_their_squared_error():
    net, x = feature_net(16)
    net.output(net.gemm(x, (16, 1)), ["batch", 1])
    model = model_of(net)
    x, _ = quarters(1500, 0)
    samples = samples_of({"features": x}, labels=x[:, :1] - 2 * x[:, 1:2], specs=input_specs(model))
    piece = piece_of(model, training=samples)
    step = TrainModel(train="labels", epochs=8, learning_rate=0.05)
    assert step.check(piece) is None
    (found,) = run(step(piece, samples).model, {"features": x[:100]}).values()
    assert np.abs(found - (x[:100, :1] - 2 * x[:100, 1:2])).mean() < 0.05


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"learning_rate": 0.0}, {"temperature": 0.0}, {"batch_size": 0}, {"patience": 0}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        TrainModel(**{"train": "labels", **wrong})


def test_without_torch_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    model = network()
    with pytest.raises(MissingError) as caught:
        TrainModel(train="labels").check(piece_of(model, training=points(model)))
    assert caught.value.exit_code == 3
    assert "pip install -e '.[train]'" in caught.value.fix


def test_torch_is_not_imported_by_those_who_do_not_train():
    code = "import jettison.cli.main, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


TOO_FEW = frozenset({"dynamic_weights"})
"""Its kernel fixes the batch to 16, and of 16 samples some are held out."""


@pytest.mark.parametrize("name", [name for name in ZOO if name not in (*REFUSED, *TOO_FEW)])
def test_the_contract_holds_over_the_zoo(name):
    """One epoch over 16 samples: a valid model with the same signature that computes numbers, not refused."""
    case = zoo_case(name)
    model = QuantizeFull()(piece_of(case.model), case.samples).model
    piece = piece_of(model, training=case.samples, baseline=case.model)
    train = TrainModel(train="baseline", epochs=1, batch_size=8)
    before = model_bytes(model)
    assert train.check(piece) is None
    found = train(piece, case.samples).model
    onnx.checker.check_model(model_bytes(found), full_check=True)
    assert input_specs(found) == input_specs(case.model)
    assert [(s.name, s.dtype) for s in output_specs(found)] == [
        (s.name, s.dtype) for s in output_specs(case.model)
    ]
    assert all(np.isfinite(array).all() for array in run(found, case.inputs).values())
    assert model_bytes(model) == before
