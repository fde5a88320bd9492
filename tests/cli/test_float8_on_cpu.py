"""FP8 is for GPUs: what `evaluate` says of such a file on a CPU, where its kernels compute something else."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from jettison.compress.passes import Workpiece
from jettison.compress.quantization.float8 import QuantizeFloat8
from jettison.core.samples import samples_of
from jettison.core.targets import parse_target
from jettison.graph.model import input_specs
from jettison.graph.save import save_model
from jettison.graph.stored import FLOAT8, stored_types
from zoo.session import cleaned


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, model = tmp_path_factory.mktemp("float8"), cleaned("residual_add")
    (spec,) = input_specs(model)
    images = np.random.default_rng(0).normal(size=(40, *spec.shape[1:])).astype(np.float32)
    samples = samples_of({spec.name: images}, specs=[spec])
    made = QuantizeFloat8()(Workpiece(model, parse_target("sm89"), threads=1), samples).model
    assert stored_types(made) >= {ir.DataType.FLOAT8E4M3FN}
    assert not stored_types(model) & FLOAT8
    save_model(model, folder / "float.onnx")
    save_model(made, folder / "fp8.onnx")
    np.savez(folder / "evaluation.npz", **{spec.name: images})
    return folder


@pytest.mark.parametrize(("target", "is_doubted"), [("cpu", True), ("sm89", False)])
def test_fp8_that_a_cpu_computes_otherwise_is_not_told_to_be_saturated_integers(
    jettison, folder, target, is_doubted
):
    answer = jettison(
        "evaluate", folder / "fp8.onnx", "--baseline", folder / "float.onnx", "--target", target,
        "--evaluation", folder / "evaluation.npz", "--metric", "sqnr", "--json",
    )  # fmt: skip
    reasons = " ".join(answer.document["variants"][0]["reasons"])
    assert ("judge it with --target sm89 or newer" in reasons) == is_doubted
    assert "pair-safe" not in reasons
