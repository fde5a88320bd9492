"""Laws of training that no larger test would miss by itself: which epoch, which order, which formula."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir
import pytest
from small_models import image, quantized, samples_for, two_convolutions
from zoo_cases import zoo_case

from jettison.compress.distillation.scale_ties import scale_ties
from jettison.compress.passes import Workpiece
from jettison.compress.pruning.unstructured import PruneSparsity
from jettison.compress.quantization.quantize import QuantizeFull
from jettison.compress.quantization.weight_only import QuantizeInt4
from jettison.core.samples import Batch, samples_of
from jettison.core.targets import parse_target
from jettison.core.tensors import TensorSpec

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from jettison.compress.distillation.batches import as_tensors  # noqa: E402
from jettison.compress.distillation.feed import Feed, hold_out  # noqa: E402
from jettison.compress.distillation.graph_module import GraphModule  # noqa: E402
from jettison.compress.distillation.losses import baseline_loss, divergence  # noqa: E402
from jettison.compress.distillation.masks import graph_masks  # noqa: E402
from jettison.compress.distillation.ramp import Ramp  # noqa: E402
from jettison.compress.distillation.train import Lesson, Plan, train  # noqa: E402

SPECS = [TensorSpec(name="x", dtype="float32", shape=("n", 4))]
PLAN = Plan(epochs=4, batch_size=8, learning_rate=0.05, seed=1, checkpoint_steps=3)
"""Five steps an epoch: 36 samples are learned from, 4 are held out."""


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def numbers(count=40):
    x = np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)
    return samples_of({"x": x}, labels=x.sum(1, keepdims=True), specs=SPECS)


def lesson(loss, **settings):
    learned, held_out = hold_out(numbers(), seed=0)
    return Lesson(learned, held_out, ["x"], ["y"], loss, **settings)


def squared(outputs, batch):
    return torch.nn.functional.mse_loss(outputs["y"], batch.labels)


def scripted(module, judged, seen, learned=squared):
    """A loss whose held-out values are given; `seen` gets the weights that were judged."""
    values = iter(judged)

    def loss(outputs, batch):
        if torch.is_grad_enabled():
            return learned(outputs, batch)
        seen.append(module.weight.detach().clone())
        return torch.tensor(next(values))

    return loss


def linear():
    torch.manual_seed(0)
    return torch.nn.Linear(4, 1)


def test_the_best_epoch_is_the_least_of_all_and_not_one_less_than_the_last():
    module, seen = linear(), []
    found = train(module, lesson(scripted(module, [5.0, 1.0, 4.0, 3.0, 2.0], seen)), PLAN)
    assert found.best_epoch == 1
    assert torch.equal(module.weight, seen[1])
    assert not torch.equal(seen[1], seen[4])


def test_patience_begins_where_an_epoch_may_be_kept():
    module, judged = linear(), [1.0, 5.0, 5.0, 5.0, 6.0, 7.0, 8.0, 9.0]
    plan = dataclasses.replace(PLAN, epochs=7, patience=2)
    found = train(module, lesson(scripted(module, judged, []), first_epoch=3), plan)
    assert found.best_epoch == 3
    assert len(found.train_losses) == 5, "two epochs after the third brought nothing"


def test_what_was_drawn_and_summed_before_a_break_counts_after_it(tmp_path):
    """Dropout draws the masks of a training without a break, and a mean loss is of the whole epoch."""

    def run(folder, stop=0):
        torch.manual_seed(0)
        layers = torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1)
        module, steps = torch.nn.Sequential(*layers), []

        def progress(seen, _):
            steps.append(seen)
            if len(steps) == stop:
                raise KeyboardInterrupt

        found = train(module, lesson(squared), PLAN, checkpoints=folder, progress=progress)
        return module.state_dict(), found.train_losses, len(steps)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", stop=9)
    weights, losses, steps = run(tmp_path / "broken")
    whole, whole_losses, whole_steps = run(tmp_path / "whole")
    assert (steps, whole_steps) == (14, 20), "it went on after the sixth step, within the second epoch"
    assert losses == whole_losses
    assert all(torch.equal(weights[name], whole[name]) for name in whole)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_weight_decay_is_of_matrices_and_not_of_biases(optimizer):
    """A loss without a slope: only decay moves anything."""
    module = linear()
    weight, bias = module.weight.detach().clone(), module.bias.detach().clone()
    loss = scripted(module, [5.0, 4.0, 3.0, 2.0, 1.0], [], learned=lambda o, _: (o["y"] * 0).mean())
    train(module, lesson(loss), dataclasses.replace(PLAN, weight_decay=0.5, optimizer=optimizer))
    assert (module.weight.abs() < weight.abs()).all()
    assert torch.equal(module.bias, bias)


def test_taylor_removes_what_weight_and_gradient_together_say():
    """Products 10, 1, 8, 15: neither the order of the weights nor that of the gradients."""
    model = zoo_case("gemm_only").model
    module = GraphModule(model)
    ramp = Ramp(module, 0.5, "taylor")
    paths = {origin.name: origin.path for origin in module.origins}
    weights = [module.get_parameter(paths[name]) for name in ramp.names]
    sizes = torch.tensor([1.0, 10.0, 2.0, 5.0]), torch.tensor([10.0, 0.1, 4.0, 3.0])
    for weight in weights:
        values, gradients = (found.repeat(-(-weight.numel() // 4))[: weight.numel()] for found in sizes)
        weight.data = values.reshape(weight.shape).clone()
        weight.grad = gradients.reshape(weight.shape).clone()
    ramp.after_step(1.0)
    left = torch.cat([weight.detach().reshape(-1) for weight in weights])
    assert set(left.tolist()) == {0.0, 1.0, 5.0}, "10 times 0.1 and 2 times 4 are the least"


def softmax(scores, temperature=1.0):
    exponents = np.exp(scores / temperature)
    return exponents / exponents.sum(1, keepdims=True)


def hinton(wanted, found, temperature):
    """T^2 KL(softmax(wanted / T) || softmax(found / T)) in float64."""
    p, q = (softmax(scores.astype(np.float64), temperature) for scores in (wanted, found))
    return temperature**2 * (p * np.log(p / q)).sum(1).mean()


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("is_softmax", [True, False])
def test_the_baseline_s_classes_are_learned_by_hinton_s_formula(temperature, is_softmax):
    """Probabilities count by their logarithms: scores whose softmax they are."""
    rng = np.random.default_rng(1)
    wanted, found = (rng.normal(size=(6, 5)).astype(np.float32) for _ in range(2))
    given = [softmax(scores) if is_softmax else scores for scores in (wanted, found)]
    specs = [TensorSpec(name="scores", dtype="float32", shape=("n", 5))]
    loss = baseline_loss(
        lambda _: {"scores": given[0]}, specs, temperature=temperature, is_softmax=is_softmax
    )
    batch = as_tensors(Batch({"x": np.zeros((6, 1), np.float32)}), torch.device("cpu"))
    expected = hinton(wanted, found, temperature)
    assert loss({"scores": torch.from_numpy(given[1])}, batch).item() == pytest.approx(expected, rel=1e-4)
    tensors = (torch.from_numpy(found), torch.from_numpy(wanted))
    assert divergence(*tensors, temperature=temperature).item() == pytest.approx(expected, rel=1e-4)


def test_each_buffer_has_an_order_of_its_own():
    samples = numbers(32)
    original = next(samples.batches(32)).inputs["x"]
    feed = Feed(samples, 4, seed=3, buffer_bytes=16 * 4 * 4)
    read = np.concatenate([batch.inputs["x"] for batch in feed.epoch(0)])
    places = [int(np.flatnonzero((original == row).all(1))[0]) for row in read]
    assert sorted(places[:16]) == list(range(16)), "two buffers of 16 samples"
    assert places[:16] != [place - 16 for place in places[16:]]


def test_a_scale_that_lies_beyond_its_clip_already_is_not_capped():
    """A cap would throw it down at the first step; ONNX Runtime keeps that Clip in any case."""
    model = quantized(two_convolutions("Clip", 0.0, 6.0), {"image": 3 * image(count=16)["image"]}).model
    (name,) = scale_ties(model.graph).capped
    scale = model.graph.initializers[name]
    scale.const_value = ir.tensor(scale.const_value.numpy() * np.float32(1.5), name=name)
    assert scale_ties(model.graph).capped == frozenset()


@pytest.mark.parametrize(
    ("sparsity", "step", "is_pruned"),
    [
        (0.0, QuantizeInt4(clip="none", block=128), False),
        (0.6, QuantizeInt4(clip="none", block=128), True),
        (0.0, QuantizeFull(), False),
        (0.25, QuantizeFull(), True),
    ],
    ids=["4 bits", "4 bits pruned", "8 bits", "8 bits pruned"],
)
def test_zeros_count_as_pruned_where_rounding_makes_fewer(sparsity, step, is_pruned):
    """Rounding alone makes about 15 % zeros in 4 bits, more than the eighth that tells in 8 bits."""
    case = zoo_case("gemm_only")
    piece = Workpiece(case.model, parse_target("cpu"), threads=1)
    if sparsity:
        pruned = PruneSparsity(sparsity=sparsity)(piece, case.samples).model
        piece = dataclasses.replace(piece, model=pruned)
    model = step(piece, samples_for(piece.model, next(case.samples.batches(64)).inputs)).model
    module = GraphModule(model)
    matrices = sum(origin.is_matrix for origin in module.origins)
    assert matrices == 2
    assert len(graph_masks(module).pairs) == (matrices if is_pruned else 0)
