"""TensorRT's own compiler takes what the `tensorrt` dialect writes, and runs it in INT8 as reported."""

from pathlib import Path

import onnx_ir as ir
import pytest
from zoo_cases import zoo_case, zoo_result

from jettison.compress.passes import PassResult
from jettison.compress.quantization.quantize import QuantizeFull
from jettison.core.targets import parse_target
from jettison.engines.onnxruntime import shapes_of
from jettison.engines.tensorrt.module import find_module
from jettison.engines.tensorrt.preflight import preflight
from jettison.graph.macs import macs_by_node
from jettison.graph.save import save_model
from zoo.table import ZOO

pytestmark = [
    pytest.mark.rtx,
    pytest.mark.skipif(find_module() is None, reason="the extra 'rtx' is not installed"),
]

REFUSED = {"data_dependent_shape": "NonZero"}
"""Models with an operator that TensorRT lacks, quantized or not: the operator."""

FALLS_BACK = {"ConvTranspose"}
"""Kinds that TensorRT-RTX compiles to float arithmetic though both inputs are quantized."""

COMPILED = [name for name in ZOO if name not in ("no_weighted_op", "half_precision")]


def macs_of(model: ir.Model) -> dict[str, int]:
    return macs_by_node(model, shapes_of(model))


@pytest.mark.parametrize("name", COMPILED)
def test_a_quantized_model_compiles_and_its_layers_run_in_int8(name: str, tmp_path: Path) -> None:
    found = zoo_result(name, "tensorrt", QuantizeFull())
    assert isinstance(found, PassResult)
    save_model(found.model, tmp_path / "model.onnx")
    macs = macs_of(zoo_case(name).model)
    report = preflight(tmp_path / "model.onnx", parse_target("sm86"), macs=macs)
    if name in REFUSED:
        assert report.outcome == "refused"
        assert REFUSED[name] in report.refusals[0].description
        return
    assert (report.outcome, report.refusals) == ("compiles", ())
    assert not [text for text in report.warnings if "zero point" in text.lower() or "INT8" in text]
    fast = {layer.node for layer in found.layers if layer.quantized and layer.kind not in FALLS_BACK}
    expected = sum(count for node, count in macs.items() if node in fast) / sum(macs.values())
    assert report.int8_mac_share == pytest.approx(expected)
