"""The training loop: seeded, resumable at any moment, judged by held-out samples."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import random
import signal
import socket
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import feature_net, features, model_of, quantized

from jettison.core.errors import ModelError
from jettison.core.samples import samples_of
from jettison.core.tensors import TensorSpec
from jettison.graph.model import input_specs

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from jettison.compress.distillation.checkpoint import FILE, read_checkpoint  # noqa: E402
from jettison.compress.distillation.feed import Feed, hold_out  # noqa: E402
from jettison.compress.distillation.graph_module import GraphModule  # noqa: E402
from jettison.compress.distillation.losses import class_loss  # noqa: E402
from jettison.compress.distillation.masks import graph_masks, zero_masks  # noqa: E402
from jettison.compress.distillation.train import Lesson, Plan, learning_rate_share, train  # noqa: E402

QUANTIZED_PLAN = Plan(epochs=3, batch_size=8, learning_rate=1e-2, seed=5, checkpoint_steps=3)
STEPS = 27
"""Of that plan: 72 samples in batches of 8 for 3 epochs."""
SPECS = [TensorSpec(name="x", dtype="float32", shape=("n", 4))]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def float_network():
    net, x = feature_net(8)
    net.gemm(net.op("Relu", net.gemm(x, (8, 16))), (16, 2), to="scores")
    net.output("scores", ["batch", 2])
    return model_of(net)


def quantized_network():
    return quantized(float_network(), features(8)).model


@pytest.fixture(scope="module")
def network():
    return quantized_network()


def quantized_lesson(model, module):
    """72 samples to learn from and 8 to judge by, labelled by the sign of their mean."""
    x = np.random.default_rng(0).normal(size=(80, 8)).astype(np.float32)
    labels = (x.mean(1) > 0).astype(np.int64)
    samples = samples_of({module.input_names[0]: x}, labels=labels, specs=input_specs(model))
    learned, held_out = hold_out(samples, seed=5)
    return Lesson(learned, held_out, module.input_names, module.output_names, class_loss(), key="a test")


def weights_after(model, checkpoints=None, progress=None, plan=QUANTIZED_PLAN):
    module = GraphModule(model)
    train(module, quantized_lesson(model, module), plan, checkpoints=checkpoints, progress=progress)
    return module.state_dict()


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_equal_trainings_give_equal_weights_and_other_seeds_give_others(network):
    first = weights_after(network)
    torch.manual_seed(123)
    assert same(first, weights_after(network))
    assert not same(first, weights_after(network, plan=dataclasses.replace(QUANTIZED_PLAN, seed=6)))
    assert not same(first, GraphModule(network).state_dict())


class StoppedError(Exception):
    pass


@settings(max_examples=8)
@given(st.lists(st.integers(1, 8), min_size=1, max_size=3))
def test_a_training_broken_off_at_any_steps_ends_with_the_weights_of_an_unbroken_one(
    network, tmp_path_factory, stops
):
    folder = tmp_path_factory.mktemp("broken")
    for stop in stops:
        done = []

        def progress(seen, total, stop=stop, done=done):
            done.append(seen)
            if len(done) == stop:
                raise StoppedError

        with pytest.raises(StoppedError):
            weights_after(network, folder, progress)
    resumed = []
    found = weights_after(network, folder, lambda seen, _: resumed.append(seen))
    assert same(found, weights_after(network))
    assert len(resumed) == STEPS or max(stops) >= 3
    assert resumed[-1] == 3 * 72


def work(folder, end, environment, *, is_quantized=True, pause_s=0.0):
    """A whole training, its checkpoints in the folder, its weights in the file `end`."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    model = quantized_network() if is_quantized else float_network()
    torch.save(weights_after(model, folder, lambda *_: time.sleep(pause_s)), end)


def in_a_process(folder, end, environment=None, **how):
    """A new one, as a fork of one that has computed gradients cannot compute any (torch refuses it)."""
    arguments = (folder, end, environment or {})
    child = multiprocessing.get_context("spawn").Process(target=work, args=arguments, kwargs=how)
    child.start()
    return child


def test_a_killed_process_goes_on_with_the_weights_of_an_unbroken_one(network, tmp_path):
    """SIGKILL at a random moment between the first checkpoint and the end; messages tell which."""
    end = tmp_path / "end.pt"
    child = in_a_process(tmp_path / "kept", end, pause_s=0.05)
    while not (tmp_path / "kept" / FILE).exists():
        assert child.is_alive()
        time.sleep(0.01)
    moment_s = random.Random().uniform(0, 1.0)
    time.sleep(moment_s)
    child.kill()
    child.join()
    assert child.exitcode == -signal.SIGKILL, f"it ended before it was killed after {moment_s} s"
    assert not end.exists()
    again = in_a_process(tmp_path / "kept", end)
    again.join()
    assert again.exitcode == 0
    assert same(torch.load(end, weights_only=True), weights_after(network)), f"killed after {moment_s} s"


def test_processes_that_share_a_batch_train_what_one_process_does(tmp_path):
    """Two by gloo: sums of gradients in another order, so equal up to float32, not to the bit.

    In float, since a weight on the other side of a tie would go on otherwise.
    """
    network = float_network()
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "a"}
    children = [
        in_a_process(
            tmp_path / "kept",
            tmp_path / f"{rank}.pt",
            shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            is_quantized=False,
        )
        for rank in range(2)
    ]
    for child in children:
        child.join(timeout=100)
    assert [child.exitcode for child in children] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert same(first, second)
    for name, value in weights_after(network).items():
        torch.testing.assert_close(first[name], value, rtol=1e-3, atol=1e-4)


def linear(**settings):
    torch.manual_seed(0)
    return torch.nn.Linear(4, 1, **settings)


def numbers(count=40, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 4)).astype(np.float32)
    labels = (x @ np.array([1, -2, 0.5, 3], np.float32) + noise * rng.normal(size=count)).astype(np.float32)
    return samples_of({"x": x}, labels=labels[:, None], specs=SPECS)


def squared(outputs, batch):
    return torch.nn.functional.mse_loss(outputs["y"], batch.labels)


def lesson(samples, **settings):
    learned, held_out = hold_out(samples, seed=0)
    return Lesson(learned, held_out, ["x"], ["y"], **{"loss": squared, **settings})


PLAN = Plan(epochs=4, batch_size=8, learning_rate=0.1, seed=1)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_any_module_of_torch_learns(optimizer):
    module = linear()
    found = train(module, lesson(numbers(400)), dataclasses.replace(PLAN, optimizer=optimizer))
    assert found.held_out_losses[found.best_epoch] < 0.01 * found.held_out_losses[0]
    assert found.steps == 4 * 45
    assert module.weight.detach().numpy() == pytest.approx(np.array([[1, -2, 0.5, 3]]), abs=0.1)
    assert not module.training


def test_the_weights_of_the_best_epoch_are_kept_and_patience_ends_a_training():
    """A rate so large that each step makes it worse: the beginning is the best."""
    module = linear()
    before = module.weight.detach().clone()
    plan = dataclasses.replace(PLAN, optimizer="sgd", learning_rate=2.0, epochs=9, patience=2)
    found = train(module, lesson(numbers()), plan)
    assert torch.equal(module.weight, before)
    assert found.best_epoch == 0
    assert len(found.train_losses) == 2
    assert found.held_out_losses[0] == min(found.held_out_losses)


def test_a_training_whose_loss_is_no_number_stops_and_says_so():
    module = linear()
    before = module.weight.detach().clone()
    found = train(module, lesson(numbers(), loss=lambda o, b: squared(o, b) / (b.labels * 0).sum()), PLAN)
    assert found.is_diverged
    assert found.steps == 0
    assert torch.equal(module.weight, before)


@pytest.mark.parametrize("micro", [1, 3, 8])
def test_gradients_are_summed_over_what_the_module_takes_at_once(micro):
    whole, cut = linear(), linear()
    train(whole, lesson(numbers()), PLAN)
    seen = []
    cut.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    train(cut, lesson(numbers()), dataclasses.replace(PLAN, micro_batch=micro))
    torch.testing.assert_close(cut.weight, whole.weight, rtol=1e-4, atol=1e-4)
    assert max(seen) == micro


def test_a_module_of_fixed_batch_size_gets_no_other():
    module, seen = linear(), []
    module.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    train(module, lesson(numbers(43)), dataclasses.replace(PLAN, micro_batch=4, is_fixed=True))
    assert set(seen) == {4}


def test_progress_tells_samples_of_all_epochs():
    told = []
    train(linear(), lesson(numbers()), PLAN, progress=lambda seen, total: told.append((seen, total)))
    assert told[0] == (8, 4 * 36)
    assert told[-1] == (4 * 36, 4 * 36)
    assert len(told) == 4 * 5


def test_a_module_with_other_outputs_than_named_is_told():
    with pytest.raises(ModelError) as caught:
        train(linear(), dataclasses.replace(lesson(numbers()), outputs=["y", "z"]), PLAN)
    assert str(caught.value) == (
        "module Linear: expected 2 outputs, y, z, found 1. Let its forward return a tensor for each of them, "
        "in this order, or a dict by name"
    )


def test_a_checkpoint_of_another_training_or_a_damaged_one_is_not_taken_up(tmp_path, caplog):
    train(linear(), lesson(numbers()), PLAN, checkpoints=tmp_path)
    expected, again = linear(), linear()
    other = dataclasses.replace(PLAN, learning_rate=0.05)
    train(expected, lesson(numbers()), other)
    train(again, lesson(numbers()), other, checkpoints=tmp_path)
    assert torch.equal(again.weight, expected.weight)
    assert f"{tmp_path / FILE} is of another training: this one starts anew" in caplog.text
    content = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(content[: len(content) // 2])
    assert read_checkpoint(tmp_path, key="any") is None
    assert "training starts anew" in caplog.records[-1].getMessage()


def test_the_caller_s_random_numbers_go_on_as_if_nothing_had_been_trained():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    train(linear(), lesson(numbers()), PLAN)
    torch.manual_seed(3)
    module = linear()
    torch.manual_seed(3)
    train(module, lesson(numbers()), PLAN)
    assert torch.equal(torch.rand(2), expected)


def test_the_rate_rises_and_falls_along_a_cosine():
    shares = [learning_rate_share(share) for share in (0, 0.025, 0.05, 0.5, 1.0)]
    assert shares == pytest.approx([0, 0.5, 0.9938, 0.5, 0], abs=2e-3)


@settings(max_examples=40)
@given(st.integers(1, 50), st.integers(1, 9), st.integers(1, 400), st.integers(0, 5))
def test_an_epoch_holds_every_sample_once_whatever_buffer_and_batch(count, size, buffer_bytes, epoch):
    feed = Feed(numbers(count), size, seed=3, buffer_bytes=buffer_bytes)
    read = [np.concatenate([batch.inputs["x"] for batch in feed.epoch(epoch)]) for _ in range(2)]
    assert np.array_equal(read[0], read[1])
    original = next(numbers(count).batches(count)).inputs["x"]
    assert np.array_equal(read[0][np.lexsort(read[0].T)], original[np.lexsort(original.T)])
    labels = np.concatenate([batch.labels for batch in feed.epoch(epoch)])[:, 0]
    assert np.allclose(labels, read[0] @ np.array([1, -2, 0.5, 3], np.float32), atol=1e-5)


def test_epochs_have_orders_of_their_own():
    feed = Feed(numbers(50), 50, seed=3)
    first, second = (next(feed.epoch(number)).inputs["x"] for number in (0, 1))
    assert not np.array_equal(first, second)


def test_pruned_weights_stay_zero_and_others_learn():
    net, x = feature_net(8)
    weights = [net.he((8, 16), 8), net.he((16, 16), 16), net.he((16, 2), 16)]
    weights[0][np.abs(weights[0]) < 0.3] = 0
    weights[2][0, 0] = 0
    for index, weight in enumerate(weights):
        x = net.op("MatMul", x, net.const(weight, f"w{index}"), name=f"layer_{index}")
    net.output(x, ["batch", 2])
    model = model_of(net)
    module = GraphModule(model)
    masks = graph_masks(module)
    assert len(masks.pairs) == 2
    lesson_ = dataclasses.replace(quantized_lesson(model, module), after_step=lambda _: masks.apply())
    train(module, lesson_, QUANTIZED_PLAN)
    after = [layer.weight.detach().numpy().T for layer in module.layers.values()]
    assert np.array_equal(after[0] == 0, weights[0] == 0)
    assert not np.allclose(after[0], weights[0])
    assert after[2][0, 0] == 0, "a single weight that is 0 in float was pruned too"
    assert not np.allclose(after[2], weights[2])


def test_four_bits_round_so_much_to_zero_that_an_eighth_is_no_pruning():
    dense = torch.nn.Parameter(torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]))
    assert zero_masks([(dense, 3 / 8)]).pairs == ()
    assert len(zero_masks([(dense, 1 / 8)]).pairs) == 1
