"""The real ModelOpt as the backend: that it agrees with ours where both do the same, and what it leaves.

Skipped where its environment is not made.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx_ir as ir
import pytest
from small_models import EQUAL_ABOVE_DB, image, model_of, piece_of, run, samples_for
from zoo_cases import zoo_calibration, zoo_case

from jettison.compress.passes import PassResult, Workpiece
from jettison.compress.quantization.modelopt import (
    Order,
    QuantizeModelopt,
    opened,
    run_modelopt,
    write_batches,
)
from jettison.compress.quantization.modelopt_environment import find_python
from jettison.compress.quantization.quantize import QuantizeFull
from jettison.core.errors import ExternalError, MissingError
from jettison.core.targets import parse_target
from jettison.engines.tensorrt.module import find_module
from jettison.engines.tensorrt.preflight import preflight
from jettison.evaluate.sqnr import sqnr_db
from jettison.graph.save import model_bytes, save_model
from zoo.builder import image_net

GPU = "sm86"


def is_made() -> bool:
    try:
        find_python()
    except MissingError:
        return False
    return True


pytestmark = [
    pytest.mark.modelopt,
    pytest.mark.skipif(not is_made(), reason="ModelOpt's environment is not made"),
]


def asked_for_real(name: str, **settings: str) -> PassResult:
    case = zoo_case(name)
    return QuantizeModelopt(**settings)(piece_of(case.model, GPU), case.samples)


def between_db(name: str, one: ir.Model, other: ir.Model) -> float:
    """How near the two answers are to each other, in exact arithmetic."""
    inputs = zoo_case(name).inputs
    found = sqnr_db(run(one, inputs, optimize=False), run(other, inputs, optimize=False))
    assert found is not None
    return found


@pytest.mark.parametrize("name", ["matmul_bias", "conv_transpose", "fixed_batch"])
def test_where_both_place_the_same_pairs_both_compute_the_same(name: str) -> None:
    case, theirs = zoo_case(name), asked_for_real(name)
    piece = Workpiece(case.model, parse_target(GPU), 1, None, lambda *_: zoo_calibration(name))
    ours = QuantizeFull()(piece, case.samples)
    assert [layer.quantized for layer in theirs.layers] == [layer.quantized for layer in ours.layers]
    # Scales may differ in their last bit. A rounding that falls otherwise costs far more than this.
    assert between_db(name, ours.model, theirs.model) > 100.0


@pytest.mark.parametrize("name", ["conv_relu_chain", "residual_add", "depthwise_clip", "inception_concat"])
def test_where_placement_differs_the_two_are_nearer_to_each_other_than_to_float(name: str) -> None:
    case, theirs = zoo_case(name), asked_for_real(name)
    kept = tuple(layer.node for layer in theirs.layers if not layer.quantized)
    assert len(kept) == 1, "the head, a product with one row, which ModelOpt leaves in float"
    piece = Workpiece(case.model, parse_target(GPU), 1, None, lambda *_: zoo_calibration(name))
    ours = QuantizeFull(keep_float=kept)(piece, case.samples)
    noise = [sqnr_db(case.outputs, run(found.model, case.inputs, optimize=False)) for found in (ours, theirs)]
    assert None not in noise
    assert noise[0] == pytest.approx(noise[1], abs=1.5), "1.0 dB was measured at most"
    assert between_db(name, ours.model, theirs.model) > max(found or 0.0 for found in noise) + 6.0


def test_weights_are_stored_as_integers_and_the_answer_repeats() -> None:
    once, again = (asked_for_real("conv_relu_chain").model for _ in range(2))
    assert model_bytes(once) == model_bytes(again)
    stored = [value for value in once.graph.initializers.values() if value.dtype == ir.DataType.INT8]
    assert sorted(len(value.shape or ()) for value in stored if value.const_value.size > 100) == [4, 4]
    readers = [node for node in once.graph if node.op_type == "QuantizeLinear"]
    assert not [node for node in readers if node.inputs[0] is not None and node.inputs[0].is_initializer()]


def test_entropy_answers_too() -> None:
    case = zoo_case("residual_add")
    found = asked_for_real("residual_add", calibration_method="entropy")
    noise = sqnr_db(case.outputs, run(found.model, case.inputs, optimize=False))
    assert noise is not None
    assert noise > 10.0, "a rough check that ranges were found; entropy cuts off the tails of normal numbers"


def test_weights_that_lie_beside_the_model_are_handed_over_and_back(tmp_path: Path) -> None:
    case = zoo_case("matmul_bias")
    save_model(case.model, tmp_path / "float.onnx", limit_bytes=1 << 10)
    assert (tmp_path / "float.onnx.data").is_file()
    names = tuple(value.name or "" for value in case.model.graph.inputs)
    order = Order(tmp_path / "float.onnx", names, tmp_path, "max", tmp_path / "quantized.onnx")
    write_batches([batch.inputs for batch in case.samples.batches(1)], order)
    run_modelopt(order)
    found = opened(order.output)
    shutil.rmtree(tmp_path)
    assert between_db("matmul_bias", asked_for_real("matmul_bias").model, found) > EQUAL_ABOVE_DB


def test_what_modelopt_does_not_take_is_told_in_its_words() -> None:
    model = zoo_case("conv_relu_chain").model
    net, _ = image_net("other", 16)
    net.head("image", 16)
    wrong = samples_for(model_of(net), image())
    with pytest.raises(
        ExternalError, match=r"ModelOpt on float\.onnx: .*Got invalid dimensions for input: image"
    ):
        QuantizeModelopt()(piece_of(model, GPU), wrong)


@pytest.mark.rtx
@pytest.mark.skipif(find_module() is None, reason="the extra 'rtx' is not installed")
def test_tensorrt_compiles_what_modelopt_wrote(tmp_path: Path) -> None:
    save_model(asked_for_real("residual_add").model, tmp_path / "model.onnx")
    report = preflight(tmp_path / "model.onnx", parse_target(GPU))
    assert (report.outcome, report.refusals) == ("compiles", ())
