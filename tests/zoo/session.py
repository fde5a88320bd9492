"""Runs zoo models in ONNX Runtime with graph optimizations off, so that only the graph itself speaks."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from jettison.graph.clean import clean
from zoo.table import ZOO


def opened(name: str) -> ir.Model:
    """The zoo model of that name as it was built."""
    return ir.from_proto(ZOO[name].build())


def cleaned(name: str) -> ir.Model:
    """The zoo model of that name, cleaned; a copy that the test may change."""
    return _cleaned(name).clone()


@functools.cache
def _cleaned(name: str) -> ir.Model:
    return clean(opened(name))


def run(
    model: bytes, inputs: Mapping[str, np.ndarray], names: list[str] | None = None
) -> dict[str, np.ndarray]:
    """The named outputs, or all, by name."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = names or [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def relative_difference(reference: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> float:
    """The largest absolute difference of any output, relative to that output's largest magnitude."""
    assert list(reference) == list(found)
    worst = 0.0
    for name, expected in reference.items():
        assert expected.shape == found[name].shape, name
        assert expected.dtype == found[name].dtype, name
        wide, other = expected.astype(np.float64), found[name].astype(np.float64)
        worst = max(worst, float(np.abs(wide - other).max() / max(np.abs(wide).max(), 1e-12)))
    return worst
