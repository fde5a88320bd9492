"""Each zoo model with samples to calibrate on and unseen inputs to judge by, made once."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from jettison.compress.passes import Pass, PassResult, Refusal, Workpiece
from jettison.compress.quantization.calibrate import Calibration, calibrate
from jettison.core.samples import Samples, samples_of
from jettison.core.targets import parse_target
from jettison.core.tensors import Arrays
from jettison.engines.onnxruntime import OnnxRuntimeRunner
from jettison.graph.model import input_specs
from jettison.graph.save import model_bytes
from zoo.session import cleaned
from zoo.table import ZOO

COUNT = 16


@dataclass(frozen=True)
class ZooCase:
    """A cleaned zoo model, its samples, unseen inputs and what it answers to them."""

    model: ir.Model
    samples: Samples
    inputs: Arrays
    outputs: Arrays


@functools.cache
def zoo_case(name: str) -> ZooCase:
    model = cleaned(name)
    specs = input_specs(model)
    seeds = [ZOO[name].inputs(COUNT, seed) for seed in range(COUNT)]
    rows = {spec.name: _rows([seed[spec.name] for seed in seeds], len(spec.shape)) for spec in specs}
    fixed = next((spec.shape[0] for spec in specs if spec.shape and isinstance(spec.shape[0], int)), 8)
    inputs = {key: np.atleast_1d(array) for key, array in ZOO[name].inputs(int(fixed), seed=99).items()}
    outputs = OnnxRuntimeRunner(model_bytes(model), threads=1, optimize=False).run(inputs)
    return ZooCase(model, samples_of(rows, specs=specs), inputs, outputs)


def _rows(arrays: list[np.ndarray], rank: int) -> np.ndarray:
    """As many rows as samples, whatever the model's fixed batch; a number without dimensions is one row."""
    if rank == 0:
        return np.array(arrays)
    return np.concatenate(arrays)[:COUNT]


@functools.cache
def zoo_calibration(name: str) -> Calibration:
    case = zoo_case(name)
    return calibrate(case.model, case.samples, threads=1)


@functools.cache
def zoo_result(name: str, target: str, step: Pass) -> PassResult | Refusal:
    """What the pass answers for that model and target."""
    case = zoo_case(name)
    piece = Workpiece(case.model, parse_target(target), 1, None, lambda *_: zoo_calibration(name))
    return step.check(piece) or step(piece, case.samples)
