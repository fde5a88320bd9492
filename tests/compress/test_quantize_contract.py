"""The contract of both passes over the zoo: a valid model that computes the same, or a refusal."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from small_models import float_kernels, is_portable
from zoo_cases import zoo_case, zoo_result

from jettison.compress.passes import PassResult, Refusal, Workpiece
from jettison.compress.quantization.layers import KINDS
from jettison.compress.quantization.partial import QuantizePartial
from jettison.compress.quantization.quantize import QuantizeDynamic, QuantizeFull
from jettison.core.samples import samples_of
from jettison.core.targets import parse_target
from jettison.core.tensors import Arrays
from jettison.engines.onnxruntime import OnnxRuntimeRunner
from jettison.evaluate.sqnr import sqnr_db
from jettison.graph.model import input_specs, output_specs
from jettison.graph.save import model_bytes
from zoo.session import cleaned
from zoo.table import ZOO

STEPS = {
    "max": QuantizeFull(),
    "mse": QuantizeFull(ranges="mse"),
    "dynamic": QuantizeDynamic(),
}

SMALLEST_DB = 25.0
"""Eight bits leave 30 to 45 dB on small models with random weights; a wrong scale or axis leaves under 15."""

EXCEPTIONS_DB = {
    "dynamic_weights": (10.0, "calibration saw one of the kernels that callers feed, and others clip"),
}

REFUSED = {
    "max": {"no_weighted_op", "half_precision"},
    "mse": {"no_weighted_op", "half_precision"},
    "dynamic": {
        "no_weighted_op", "half_precision",
        # convolutions only
        "conv_transpose", "resize_nearest_linear", "question_mark_dimensions", "unnamed_dimensions",
        "negative_dimensions", "fixed_batch", "narrow_layers",
    },
}  # fmt: skip
"""Which models a pass refuses on the CPU; on a GPU dynamic quantization refuses all."""


def answers(content: bytes, inputs: Arrays, *, optimize: bool) -> Arrays:
    return OnnxRuntimeRunner(content, threads=1, optimize=optimize).run(inputs)


def result(name: str, target: str, step: str) -> PassResult:
    found = zoo_result(name, target, STEPS[step])
    if isinstance(found, Refusal):
        pytest.skip("refused, as another test demands")
    return found


def cases(*targets: str, steps: tuple[str, ...] = tuple(STEPS)) -> list[tuple[str, str, str]]:
    return [
        (name, target, step)
        for name in ZOO
        for target in targets
        for step in steps
        if name not in REFUSED[step] and (target == "cpu" or step != "dynamic")
    ]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("target", ["cpu", "tensorrt"])
@pytest.mark.parametrize("name", ZOO)
def test_a_pass_refuses_with_reasons_and_a_way_out_or_not_at_all(name: str, target: str, step: str) -> None:
    found = zoo_result(name, target, STEPS[step])
    expected = name in REFUSED[step] or (step == "dynamic" and target != "cpu")
    assert isinstance(found, Refusal) == expected
    if isinstance(found, Refusal):
        assert found.reasons
        assert all(found.reasons)
        assert found.instead
    assert ZOO[name].quantizable or isinstance(found, Refusal)


@pytest.mark.parametrize(("name", "target", "step"), cases("cpu", "tensorrt"))
def test_a_result_is_valid_and_has_the_float_models_signature(name: str, target: str, step: str) -> None:
    found, model = result(name, target, step).model, zoo_case(name).model
    onnx.checker.check_model(model_bytes(found), full_check=True)
    assert input_specs(found) == input_specs(model)
    assert [(spec.name, spec.dtype) for spec in output_specs(found)] == [
        (spec.name, spec.dtype) for spec in output_specs(model)
    ]
    nodes = [node.name for node in ir.traversal.RecursiveGraphIterator(found.graph)]
    assert len(set(nodes)) == len(nodes)


@pytest.mark.parametrize(("name", "target", "step"), cases("cpu", "tensorrt"))
def test_a_result_computes_what_the_float_model_does(name: str, target: str, step: str) -> None:
    """On the CPU kernels must agree with the exact simulation, which alone judges a file for TensorRT."""
    case, content = zoo_case(name), model_bytes(result(name, target, step).model)
    kernel, simulation = (answers(content, case.inputs, optimize=flag) for flag in (True, False))
    for outputs in (kernel, simulation):
        assert {key: array.shape for key, array in outputs.items()} == {
            key: array.shape for key, array in case.outputs.items()
        }
        assert all(np.isfinite(array).all() for array in outputs.values())
    kernel_db, simulation_db = (sqnr_db(case.outputs, outputs) for outputs in (kernel, simulation))
    assert kernel_db is not None
    assert simulation_db is not None
    assert simulation_db >= EXCEPTIONS_DB.get(name, (SMALLEST_DB, ""))[0]
    assert target != "cpu" or is_portable(kernel_db, simulation_db)


@pytest.mark.parametrize(("name", "target", "step"), cases("cpu", steps=("max",)))
def test_exactly_the_layers_reported_as_float_run_in_float(name: str, target: str, step: str) -> None:
    """ONNX Runtime leaves a layer in float, or quantizes one, without a word; the real graph tells."""
    found, graph = result(name, target, step), zoo_case(name).model.graph
    weighted = {layer.node for layer in found.layers}
    attention = [node for node in graph if node.op_type in KINDS and node.name not in weighted]
    kept = [layer for layer in found.layers if not layer.quantized]
    assert sum(float_kernels(found.model).values()) == len(kept) + len(attention)


@pytest.mark.parametrize(("name", "target", "step"), cases("cpu", "tensorrt"))
def test_every_weighted_layer_is_reported_with_a_reason(name: str, target: str, step: str) -> None:
    found = result(name, target, step)
    names = [node.name for node in zoo_case(name).model.graph]
    assert [layer.node for layer in found.layers] == sorted(
        (layer.node for layer in found.layers), key=names.index
    )
    assert all(layer.reason for layer in found.layers)
    assert name in ("lstm", "gru") or any(layer.quantized for layer in found.layers)


@pytest.mark.parametrize("name", ZOO)
def test_no_pass_changes_the_model_that_it_was_given(name: str) -> None:
    from zoo.session import cleaned

    for target in ("cpu", "tensorrt"):
        for step in STEPS.values():
            zoo_result(name, target, step)
    assert model_bytes(zoo_case(name).model) == model_bytes(cleaned(name))


def test_exceptions_are_still_needed() -> None:
    for name, (least, reason) in EXCEPTIONS_DB.items():
        case, content = zoo_case(name), model_bytes(result(name, "cpu", "max").model)
        found = sqnr_db(case.outputs, answers(content, case.inputs, optimize=False))
        assert found is not None
        assert least <= found < SMALLEST_DB, f"{name} needs no exception any more: {reason}"


@pytest.mark.parametrize(
    "again", [QuantizeFull(), QuantizePartial(), QuantizeDynamic()], ids=lambda p: p.quantize
)
@pytest.mark.parametrize("before", [QuantizeFull(), QuantizeDynamic()], ids=lambda p: p.quantize)
def test_quantized_model_is_refused_with_the_way_out(before, again):
    model = cleaned("gemm_only")
    samples = samples_of(ZOO["gemm_only"].inputs(8, 0), specs=input_specs(model))
    target = parse_target("cpu")
    once = before(Workpiece(model, target), samples).model
    refusal = again.check(Workpiece(once, target))
    assert refusal is not None
    assert "quantized already" in refusal.reasons[0]
    assert "the float model that it was made from" in refusal.instead
