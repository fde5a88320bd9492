"""The contract of the passes over the zoo: a valid model that computes the same, or a refusal."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from small_models import float_kernels, is_portable
from zoo_cases import zoo_case, zoo_result

from jettison.compress.passes import PassResult, Refusal, Workpiece
from jettison.compress.quantization.float8 import QuantizeFloat8
from jettison.compress.quantization.layers import KINDS
from jettison.compress.quantization.partial import QuantizePartial
from jettison.compress.quantization.quantize import QuantizeDynamic, QuantizeFull
from jettison.compress.quantization.weight_only import QuantizeInt4
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
    "float8": QuantizeFloat8(),
    "int4": QuantizeInt4(),
}

TAKEN_BY = {"dynamic": ("cpu",), "float8": ("sm89",)}
"""Targets of a pass that does not take both `cpu` and `tensorrt`."""

SMALLEST_DB = 25.0
"""Eight bits leave 30 to 45 dB on small models with random weights; a wrong scale or axis leaves under 15."""

LOWER_DB = {"float8": 22.0, "int4": 14.0}
"""Three bits of mantissa leave 23 to 31 dB, four bits 15 to 24; a wrong scale or axis leaves under 10."""

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
"""Which models a pass refuses on the targets that it takes."""
REFUSED["float8"], REFUSED["int4"] = REFUSED["max"], REFUSED["dynamic"]


def answers(content: bytes, inputs: Arrays, *, optimize: bool) -> Arrays:
    return OnnxRuntimeRunner(content, threads=1, optimize=optimize).run(inputs)


def result(name: str, target: str, step: str) -> PassResult:
    found = zoo_result(name, target, STEPS[step])
    if isinstance(found, Refusal):
        pytest.skip("refused, as another test demands")
    return found


def targets_of(step: str) -> tuple[str, ...]:
    return TAKEN_BY.get(step, ("cpu", "tensorrt"))


def cases(steps: tuple[str, ...] = tuple(STEPS)) -> list[tuple[str, str, str]]:
    return [
        (name, target, step)
        for name in ZOO
        for step in steps
        for target in targets_of(step)
        if name not in REFUSED[step]
    ]


@pytest.mark.parametrize(
    ("target", "step"),
    [(target, step) for step in STEPS for target in dict.fromkeys(("cpu", "tensorrt", *targets_of(step)))],
)
@pytest.mark.parametrize("name", ZOO)
def test_a_pass_refuses_with_reasons_and_a_way_out_or_not_at_all(name: str, target: str, step: str) -> None:
    found = zoo_result(name, target, STEPS[step])
    expected = name in REFUSED[step] or target not in targets_of(step)
    assert isinstance(found, Refusal) == expected
    if isinstance(found, Refusal):
        assert found.reasons
        assert all(found.reasons)
        assert found.instead
    assert ZOO[name].quantizable or isinstance(found, Refusal)


@pytest.mark.parametrize(("name", "target", "step"), cases())
def test_a_result_is_valid_and_has_the_float_models_signature(name: str, target: str, step: str) -> None:
    found, model = result(name, target, step).model, zoo_case(name).model
    onnx.checker.check_model(model_bytes(found), full_check=True)
    assert input_specs(found) == input_specs(model)
    assert [(spec.name, spec.dtype) for spec in output_specs(found)] == [
        (spec.name, spec.dtype) for spec in output_specs(model)
    ]
    nodes = [node.name for node in ir.traversal.RecursiveGraphIterator(found.graph)]
    assert len(set(nodes)) == len(nodes)


@pytest.mark.parametrize(("name", "target", "step"), cases())
def test_a_result_computes_what_the_float_model_does(name: str, target: str, step: str) -> None:
    """On the CPU kernels must agree with the exact simulation, which alone judges a file for TensorRT.

    ONNX Runtime's kernel for 4 bits rounds activations to 8, which is up to 0.6 dB where little else is lost;
    FP8 it has no kernels for at all.
    """
    case, content = zoo_case(name), model_bytes(result(name, target, step).model)
    flags = (False, False) if step == "float8" else (True, False)
    kernel, simulation = (answers(content, case.inputs, optimize=flag) for flag in flags)
    for outputs in (kernel, simulation):
        assert {key: array.shape for key, array in outputs.items()} == {
            key: array.shape for key, array in case.outputs.items()
        }
        assert all(np.isfinite(array).all() for array in outputs.values())
    kernel_db, simulation_db = (sqnr_db(case.outputs, outputs) for outputs in (kernel, simulation))
    assert kernel_db is not None
    assert simulation_db is not None
    assert simulation_db >= EXCEPTIONS_DB.get(name, (LOWER_DB.get(step, SMALLEST_DB), ""))[0]
    is_near = step == "int4" and abs(kernel_db - simulation_db) < 1
    assert target != "cpu" or is_near or is_portable(kernel_db, simulation_db)


@pytest.mark.parametrize("name", [name for name in ZOO if name not in REFUSED["max"]])
def test_exactly_the_layers_reported_as_float_run_in_float(name: str) -> None:
    """ONNX Runtime leaves a layer in float, or quantizes one, without a word; the real graph tells."""
    found, graph = result(name, "cpu", "max"), zoo_case(name).model.graph
    weighted = {layer.node for layer in found.layers}
    attention = [node for node in graph if node.op_type in KINDS and node.name not in weighted]
    kept = [layer for layer in found.layers if not layer.quantized]
    assert sum(float_kernels(found.model).values()) == len(kept) + len(attention)


@pytest.mark.parametrize(("name", "target", "step"), cases())
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

    for key, step in STEPS.items():
        for target in targets_of(key):
            zoo_result(name, target, step)
    assert model_bytes(zoo_case(name).model) == model_bytes(cleaned(name))


def test_exceptions_are_still_needed() -> None:
    for name, (least, reason) in EXCEPTIONS_DB.items():
        case, content = zoo_case(name), model_bytes(result(name, "cpu", "max").model)
        found = sqnr_db(case.outputs, answers(content, case.inputs, optimize=False))
        assert found is not None
        assert least <= found < SMALLEST_DB, f"{name} needs no exception any more: {reason}"


@pytest.mark.parametrize(
    "again", [QuantizeFull(), QuantizePartial(), QuantizeDynamic(), QuantizeInt4()], ids=lambda p: p.quantize
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
