"""Training where it is rare: odd names, several heads, few samples, broken checkpoints."""

from __future__ import annotations

import pickle

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from jettison.compress.distillation.train_pass import TrainModel
from jettison.compress.passes import Workpiece
from jettison.core.errors import RecipeError, SamplesError
from jettison.core.samples import samples_of
from jettison.core.targets import parse_target
from jettison.engines.onnxruntime import runner_of
from jettison.graph.model import input_specs

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from jettison.compress.distillation.checkpoint import FILE, read_checkpoint  # noqa: E402
from jettison.compress.distillation.graph_module import GraphModule  # noqa: E402
from jettison.compress.distillation.losses import ends_in_softmax, relative_error  # noqa: E402
from jettison.compress.distillation.masks import graph_masks  # noqa: E402

RNG = np.random.default_rng(0)
X = RNG.standard_normal((96, 8)).astype(np.float32)
LABELS = RNG.integers(0, 3, 96)


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def model_of(nodes, outputs, weights, batch="n") -> ir.Model:
    info = [helper.make_tensor_value_info(name, 1, shape) for name, shape in outputs]
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    x = helper.make_tensor_value_info("x", 1, [batch, 8])
    graph = helper.make_graph(nodes, "odd", [x], info, constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
    onnx.checker.check_model(made)
    return ir.from_proto(made)


def one_layer(*, node="layer", weight="w", batch="n") -> ir.Model:
    nodes = [helper.make_node("Gemm", ["x", weight, "b"], ["y"], name=node)]
    return model_of(nodes, [("y", [batch, 3])], {weight: floats(8, 3), "b": floats(3)}, batch)


def trained(model: ir.Model, step: TrainModel, *, labels=None, baseline=None, rows=X):
    samples = samples_of({"x": rows}, labels=labels, specs=input_specs(model))
    piece = Workpiece(model, parse_target("cpu"), training=samples, baseline=baseline)
    assert step.check(piece) is None
    return step(piece, samples).model


@pytest.mark.parametrize("name", ["type", "pop", "keys", "float", "forward", "values", "parameters", "0"])
def test_names_that_torch_s_containers_have_are_taken(name):
    shared = [
        helper.make_node("Gemm", ["x", name, "b"], ["a"], name=name),
        helper.make_node("Gemm", ["a", name, "b"], ["y"], name="second"),
    ]
    both = model_of(shared, [("y", ["n", 8])], {name: floats(8, 8), "b": floats(8)})
    for model in (one_layer(node=name), both):
        expected = runner_of(model).run({"x": X})["y"]
        found = GraphModule(model)(torch.from_numpy(X))[0].detach().numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)  # another order of sums


def test_an_output_that_nothing_computes_is_given_as_it_is():
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="layer")]
    constant = floats(5)
    model = model_of(nodes, [("y", ["n", 3]), ("c", [5])], {"w": floats(8, 3), "b": floats(3), "c": constant})
    found = GraphModule(model)(torch.from_numpy(X))
    np.testing.assert_array_equal(found[1].detach().numpy(), constant)


def test_all_heads_learn_from_the_baseline():
    def heads(scale: float) -> ir.Model:
        nodes = [
            helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="classes"),
            helper.make_node("Gemm", ["x", "v", "d"], ["boxes"], name="boxes"),
        ]
        rng = np.random.default_rng(1)
        weights = {
            name: (rng.standard_normal(shape) * scale).astype(np.float32)
            for name, shape in (("w", (8, 3)), ("b", (3,)), ("v", (8, 4)), ("d", (4,)))
        }
        return model_of(nodes, [("y", ["n", 3]), ("boxes", ["n", 4])], weights)

    baseline, student = heads(1.0), heads(0.5)
    step = TrainModel(train="baseline", epochs=20, learning_rate=0.02)
    result = trained(student, step, baseline=baseline)
    wanted, before, after = (runner_of(each).run({"x": X})["boxes"] for each in (baseline, student, result))
    assert np.square(after - wanted).mean() < 0.5 * np.square(before - wanted).mean()


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_float_weights_that_were_pruned_stay_0_however_few_they_are(share):
    model = one_layer()
    weight = model.graph.initializers["w"]
    array = weight.const_value.numpy().copy()
    array.reshape(-1)[: max(1, int(share * array.size))] = 0
    weight.const_value = ir.tensor(array, name="w")
    result = trained(model, TrainModel(train="labels", epochs=3, learning_rate=0.05), labels=LABELS)
    after = result.graph.initializers["w"].const_value.numpy()
    np.testing.assert_array_equal(after == 0, array == 0)
    assert not np.array_equal(after, array)


def test_a_float_weight_that_is_0_throughout_may_learn():
    model = one_layer()
    model.graph.initializers["w"].const_value = ir.tensor(np.zeros((8, 3), np.float32), name="w")
    assert graph_masks(GraphModule(model)).pairs == ()


def test_a_fixed_batch_needs_as_many_samples_to_judge_by():
    step = TrainModel(train="labels", epochs=1)
    with pytest.raises(SamplesError, match=r"expected at least the 64 to judge by .*found \d+"):
        trained(one_layer(batch=64), step, labels=LABELS)


@pytest.mark.parametrize("content", [pickle.dumps(print), pickle.dumps([1, 2]), b"no checkpoint", b""])
def test_a_checkpoint_that_is_none_is_passed_over(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    assert read_checkpoint(tmp_path, key="k") is None


def test_a_saved_list_is_no_checkpoint(tmp_path):
    torch.save([1, 2], tmp_path / FILE)
    assert read_checkpoint(tmp_path, key="k") is None


def test_an_installed_loss_has_no_digest_and_one_that_is_not_there_is_told():
    assert TrainModel(train="labels", loss="builtins:max").loss_code == ""
    missing = TrainModel(train="labels", loss="nowhere.to_be:found")
    assert missing.model_dump_json()
    with pytest.raises(RecipeError, match=r"loss 'nowhere\.to_be:found'"):
        trained(one_layer(), missing, labels=LABELS)


def test_a_sample_whose_answer_is_nearly_0_does_not_outweigh_all_others():
    target = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    found = target + 0.1
    assert relative_error(found, target).item() < 1.0
    scaled = relative_error(1e-4 * found, 1e-4 * target).item()
    assert scaled == pytest.approx(relative_error(found, target).item(), rel=1e-3), "whatever the unit"


@pytest.mark.parametrize("moves", [["Transpose"], ["Unsqueeze"], ["Transpose", "Reshape"]])
def test_a_softmax_is_seen_behind_what_only_moves_its_shares(moves):
    constants = {"w": floats(8, 3), "b": floats(3), "axes": np.array([2]), "shape": np.array([-1, 3])}
    inputs = {"Transpose": [], "Unsqueeze": ["axes"], "Reshape": ["shape"]}
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["a"], name="layer"),
        helper.make_node("Softmax", ["a"], ["m0"], name="softmax"),
    ]
    for index, move in enumerate(moves):
        output = "y" if index == len(moves) - 1 else f"m{index + 1}"
        nodes.append(helper.make_node(move, [f"m{index}", *inputs[move]], [output], name=f"move{index}"))
    rank = {"Transpose": 2, "Unsqueeze": 3, "Reshape": 2}[moves[-1]]
    assert ends_in_softmax(model_of(nodes, [("y", [None] * rank)], constants).graph)


def test_a_start_without_a_loss_is_not_kept_for_the_best(tmp_path, monkeypatch):
    """The loss is NaN on the untrained weights' held-out samples, and a number after the first steps."""
    from test_train_loop import PLAN, lesson, linear, numbers, squared

    from jettison.compress.distillation.train import train

    module = linear()
    start = module.weight.detach().clone()

    def loss(outputs, batch):
        is_start = not torch.is_grad_enabled() and torch.equal(module.weight, start)
        return squared(outputs, batch) * (float("nan") if is_start else 1.0)

    found = train(module, lesson(numbers(400), loss=loss), PLAN)
    assert found.best_epoch > 0
    assert not found.is_diverged
    assert found.held_out_losses[found.best_epoch] == min(found.held_out_losses[1:])


@pytest.mark.parametrize("ending", ["Sigmoid", "Identity"])
@pytest.mark.parametrize("shape", [(96,), (96, 1)])
def test_yes_or_no_is_learned_from_whole_numbers(ending, shape):
    """The loss of a network that gives 1/2 is log 2; separable labels are learned to far below that."""
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["a"], name="layer"),
        helper.make_node(ending, ["a"], ["y"], name="end"),
    ]
    model = model_of(nodes, [("y", ["n", 1])], {"w": floats(8, 1) * 0.01, "b": floats(1) * 0.01})
    labels = (X[:, 0] - X[:, 3] > 0).astype(np.int64)
    step = TrainModel(train="labels", epochs=60, learning_rate=0.05)
    result = trained(model, step, labels=labels.reshape(shape))
    found = runner_of(result).run({"x": X})["y"].reshape(-1)
    limit = 0.5 if ending == "Sigmoid" else 0.0
    assert np.mean((found > limit) == (labels == 1)) > 0.95


def test_whole_numbers_beyond_yes_and_no_fit_no_single_output():
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="layer")]
    model = model_of(nodes, [("y", ["n", 1])], {"w": floats(8, 1), "b": floats(1)})
    samples = samples_of({"x": X}, labels=LABELS, specs=input_specs(model))
    piece = Workpiece(model, parse_target("cpu"), training=samples)
    refusal = TrainModel(train="labels").check(piece)
    assert refusal is not None
    assert refusal.reasons == ("no loss fits the outputs ['y'] and labels of int64, () each",)
    assert "0 and 1 for a model of one output" in refusal.instead
