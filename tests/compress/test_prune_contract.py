"""The contract of pruning over the zoo: valid models, zeros that later passes keep, exact reordering."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from zoo_cases import zoo_case

from jettison.compress.passes import PassResult, Refusal, Workpiece
from jettison.compress.pruning.choice import choose_for_groups
from jettison.compress.pruning.two_to_four import PruneTwoToFour
from jettison.compress.pruning.unstructured import PruneDynamic, PruneFixed, PruneSparsity
from jettison.compress.quantization.calibrate import calibrate
from jettison.compress.quantization.cast import CastFloat16
from jettison.compress.quantization.float8 import QuantizeFloat8
from jettison.compress.quantization.layers import find_layers
from jettison.compress.quantization.quantize import QuantizeFull, place
from jettison.compress.quantization.refine import refined_weights
from jettison.compress.quantization.static import layer_integers
from jettison.compress.quantization.weight_only import QuantizeInt4
from jettison.compress.quantization.weights import kernel_order, pair_excess
from jettison.core.targets import parse_target
from jettison.engines.onnxruntime import OnnxRuntimeRunner
from jettison.graph.edit import constant_of
from jettison.graph.model import input_specs, output_specs
from jettison.graph.save import model_bytes
from jettison.graph.two_to_four import valid_groups
from jettison.graph.zeros import zeros_of
from zoo.session import cleaned
from zoo.table import ZOO

STEPS: dict[str, Any] = {
    "fixed": PruneFixed(value=0.02),
    "dynamic": PruneDynamic(deviations=0.3),
    "sparsity": PruneSparsity(sparsity=0.4),
    "global": PruneSparsity(sparsity=0.4, scope="global"),
    "magnitude": PruneTwoToFour(method="magnitude"),
    "sparsegpt": PruneTwoToFour(),
    "permuted": PruneTwoToFour(permute=True),
}
NOTHING_TO_PRUNE = {"no_weighted_op", "half_precision"}
GROUPED = ("magnitude", "sparsegpt", "permuted")

LATER: dict[str, tuple[str, Any]] = {
    "cpu": ("cpu", QuantizeFull()),
    "cpu repaired": ("cpu", QuantizeFull(ranges="measure", repair="all")),
    "gpu": ("sm89", QuantizeFull()),
    "gpu repaired": ("sm89", QuantizeFull(repair="all")),
    "float8": ("sm89", QuantizeFloat8()),
    "int4": ("cpu", QuantizeInt4(block=32)),
    "float16": ("sm89", CastFloat16()),
}
"""Passes that may follow, each on a target that takes it."""

FEW = (
    "conv_relu_chain", "grouped_conv", "residual_projection", "depthwise_clip", "gemm_forms", "matmul_bias",
    "shared_weight",
)  # fmt: skip
"""Models with every kind of layer, for what takes long."""


def piece(model: ir.Model, target: str) -> Workpiece:
    return Workpiece(model, parse_target(target), threads=1)


@functools.cache
def result(name: str, step: str) -> PassResult | Refusal:
    case = zoo_case(name)
    work = piece(case.model, "cpu")
    found: PassResult | Refusal = STEPS[step].check(work) or STEPS[step](work, case.samples)
    return found


def pruned(name: str, step: str) -> PassResult:
    found = result(name, step)
    if isinstance(found, Refusal):
        pytest.skip("refused, as another test demands")
    return found


def can_prune(name: str, step: str) -> bool:
    if step in GROUPED:
        return bool(choose_for_groups(zoo_case(name).model.graph, ()).layers)
    return name not in NOTHING_TO_PRUNE


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", ZOO)
def test_a_pass_refuses_with_reasons_and_a_way_out_or_not_at_all(name: str, step: str) -> None:
    found = result(name, step)
    assert isinstance(found, Refusal) != can_prune(name, step)
    if isinstance(found, Refusal):
        assert found.reasons
        assert all(found.reasons)
        assert found.instead


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", ZOO)
def test_a_result_is_valid_and_has_the_models_signature(name: str, step: str) -> None:
    found, case = pruned(name, step).model, zoo_case(name)
    content = model_bytes(found)
    onnx.checker.check_model(content, full_check=True)
    assert input_specs(found) == input_specs(case.model)
    assert output_specs(found) == output_specs(case.model)
    answers = OnnxRuntimeRunner(content, threads=1, optimize=False).run(case.inputs)
    assert {key: array.shape for key, array in answers.items()} == {
        key: array.shape for key, array in case.outputs.items()
    }
    assert all(np.isfinite(array).all() for array in answers.values())


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", ZOO)
def test_every_weighted_layer_is_reported_with_a_reason(name: str, step: str) -> None:
    found = pruned(name, step)
    names = [layer.name for layer in find_layers(zoo_case(name).model.graph)]
    assert [layer.node for layer in found.pruned] == names
    assert all(layer.reason for layer in found.pruned)
    assert sum(layer.removed for layer in found.pruned) > 0
    assert all(layer.removed == 0 for layer in found.pruned if not layer.pruned)


@pytest.mark.parametrize("step", GROUPED)
@pytest.mark.parametrize("name", ZOO)
def test_every_layer_that_can_is_two_to_four(name: str, step: str) -> None:
    found = pruned(name, step)
    groups = valid_groups(found.model)
    for layer in found.pruned:
        assert groups[layer.node].hold if layer.pruned else not layer.groups, layer
        if layer.pruned:
            assert layer.valid_groups == layer.groups == layer.weights // 4
            assert layer.zeros >= layer.weights // 2


@pytest.mark.parametrize("name", ZOO)
def test_no_pass_changes_the_model_that_it_was_given(name: str) -> None:
    for step in STEPS:
        result(name, step)
    assert model_bytes(zoo_case(name).model) == model_bytes(cleaned(name))


@functools.cache
def after(name: str, step: str, later: str) -> PassResult | Refusal:
    target, second = LATER[later]
    work = piece(pruned(name, step).model, target)
    found: PassResult | Refusal = second.check(work) or second(work, zoo_case(name).samples)
    return found


def followed(name: str, step: str, later: str) -> PassResult:
    found = after(name, step, later)
    if isinstance(found, Refusal):
        pytest.skip("the second pass refuses this model")
    return found


@pytest.mark.parametrize("later", LATER)
@pytest.mark.parametrize("step", ["sparsity", "sparsegpt"])
@pytest.mark.parametrize("name", FEW)
def test_zeros_stay_zeros_through_all_that_may_follow(name: str, step: str, later: str) -> None:
    """With error feedback, equalized channels and corrected biases too."""
    nodes = {node.name: node for node in followed(name, step, later).model.graph}
    for layer in find_layers(pruned(name, step).model.graph):
        weight, zeros = constant_of(layer.weight), zeros_of(nodes[layer.name].inputs[1])
        assert weight is not None
        assert zeros is not None
        turned = later == "int4" and layer.kind == "Gemm" and layer.weight_axis == 0
        assert (zeros.T if turned else zeros)[weight == 0].all(), layer.name


@pytest.mark.parametrize("dialect", ["cpu", "tensorrt"])
@pytest.mark.parametrize("name", FEW)
def test_error_feedback_makes_no_zero_up_for_others(name: str, dialect: Any) -> None:
    """Whether held-out samples prefer it or not: the integers that it gives, pair-safe ones too."""
    model, samples = pruned(name, "sparsegpt").model, zoo_case(name).samples
    calibration = calibrate(model, samples, threads=1)
    integers = layer_integers(model, calibration, place(model.graph, dialect))
    found = refined_weights(model, samples, integers=integers, threads=1)
    layers = {layer.name: layer for layer in find_layers(model.graph)}
    assert found
    for node, refined in found.items():
        weight = constant_of(layers[node].weight)
        assert weight is not None
        assert not refined.values[weight == 0].any(), node
        if dialect == "cpu" and not layers[node].is_depthwise:
            rows = kernel_order(refined.values.astype(np.float32), layers[node].weight_axis)
            assert not pair_excess(rows).any()


@pytest.mark.parametrize("later", ["cpu", "cpu repaired", "gpu repaired"])
@pytest.mark.parametrize("name", FEW)
def test_two_to_four_holds_after_integers_in_both_dialects(name: str, later: str) -> None:
    groups = valid_groups(followed(name, "sparsegpt", later).model)
    for layer in pruned(name, "sparsegpt").pruned:
        assert groups[layer.node].hold or not layer.pruned, layer.node


@pytest.mark.parametrize("later", ["cpu", "cpu repaired"])
@pytest.mark.parametrize("name", FEW)
def test_weights_are_pair_safe_beside_their_zeros(name: str, later: str) -> None:
    model = followed(name, "sparsegpt", later).model
    seen = 0
    for layer in find_layers(zoo_case(name).model.graph):
        node = model.graph.node(layer.name)
        pair = node.inputs[1].producer()
        if pair is None or layer.is_depthwise:
            continue
        integers = constant_of(pair.inputs[0])
        assert integers is not None
        assert not pair_excess(kernel_order(integers.astype(np.float32), layer.weight_axis)).any()
        seen += 1
    assert seen or name == "depthwise_clip"
