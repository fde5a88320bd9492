"""Calibration: one streaming pass that leaves a histogram for every value that a pair may stand on.

Memory grows with values and bins, not with samples. Samples are run one by one (or at the model's fixed
batch size), so that neither the order nor the split into batches can change a single bit of the result.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from jettison.compress.quantization.histogram import Histogram, histogram_of
from jettison.compress.quantization.layers import PASSTHROUGH
from jettison.compress.quantization.placement import Placement, name_of
from jettison.compress.quantization.placement_cpu import place_for_cpu
from jettison.compress.quantization.placement_tensorrt import place_for_tensorrt
from jettison.core.batching import fitting_batches
from jettison.core.concurrency import available_cores, in_order
from jettison.core.errors import SamplesError
from jettison.core.progress import Progress
from jettison.core.samples import Samples
from jettison.core.tensors import Arrays
from jettison.engines.onnxruntime import runner_of
from jettison.graph.model import input_specs
from jettison.graph.observe import Observation, observed, stride_of

_BUFFERED = 1 << 16
"""Elements of one value that are gathered before they are counted together."""
_MOST_AT_ONCE = 4
"""Samples that run at once, each with its own activations: a bound for large machines."""


@dataclass(frozen=True)
class Calibration:
    """A histogram for each observed value; `sources` leads from a moved value to what it was moved from."""

    histograms: dict[str, Histogram]
    sources: dict[str, str]
    samples: int

    def histogram(self, value: str) -> Histogram:
        """The histogram of a value, or of what it holds the values of."""
        while value in self.sources:
            value = self.sources[value]
        return self.histograms[value]

    def merged(self, other: Calibration) -> Calibration:
        """Both together, as if one pass had seen all samples; exact to the bit."""
        merged = {name: found.merged(other.histograms[name]) for name, found in self.histograms.items()}
        return Calibration(merged, self.sources, self.samples + other.samples)


def calibrate(
    model: ir.Model,
    samples: Samples,
    *,
    threads: int = 0,
    progress: Progress | None = None,
    attention: bool = False,
) -> Calibration:
    """The histograms of every value that either dialect may quantize, from one pass over the samples.

    Args:
        model: A clean float model.
        samples: Representative inputs.
        threads: Cores to use; 0 for all. Several samples run at once, since what is reported of a sample is
            computed by one thread each.
        progress: Called with samples done and samples in all.
        attention: Also observe the operands of the products of activations in attention.

    Raises:
        SamplesError: A value became NaN or infinite on these samples.
        ModelError: ONNX Runtime cannot run the model on them.
    """
    observations, sources = plan_observations(model, attention=attention)
    if not observations:
        return Calibration({}, sources, samples.count)
    cores = threads or available_cores()
    workers = min(cores, _MOST_AT_ONCE)
    runner = runner_of(observed(model, observations), threads=cores // workers)
    counter = _Counter(observations)
    batches = fitting_batches(samples, input_specs(model), progress=progress)
    for outputs in in_order(runner.run, batches, workers=workers):
        counter.add(outputs)
    return Calibration(counter.histograms(), sources, samples.count)


def plan_observations(
    model: ir.Model, *, attention: bool = False
) -> tuple[list[Observation], dict[str, str]]:
    """What to observe, in the graph's order, and for values that only move elements where these come from."""
    values = {name_of(value): value for value in model.graph.inputs}
    values |= {name_of(value): value for node in model.graph for value in node.outputs}
    graph, none = model.graph, frozenset[str]()
    sites = _sites((place_for_cpu(graph, none), place_for_tensorrt(graph, none, attention=attention)))
    wanted = [name for name in values if name in sites]
    sources = {name: source for name in wanted if (source := _moved_from(values[name])) in wanted and source}
    observations = [
        Observation(name, _stride(values[name]), _known_low(values[name]))
        for name in wanted
        if name not in sources
    ]
    return observations, sources


def _sites(placements: Iterable[Placement]) -> set[str]:
    return {site.value for placement in placements for site in placement.sites}


def _moved_from(value: ir.Value) -> str | None:
    node = value.producer()
    if node is None or node.op_type not in PASSTHROUGH or node.inputs[0] is None:
        return None
    return node.inputs[0].name


def _stride(value: ir.Value) -> int | None:
    sizes = (value.shape or ir.Shape([None, None]))[1:]
    known = [size for size in sizes if isinstance(size, int)]
    return stride_of(math.prod(known)) if len(known) == len(sizes) else None


def _known_low(value: ir.Value) -> float | None:
    node = value.producer()
    if node is None:
        return None
    if node.op_type in ("Relu", "Sigmoid", "HardSigmoid", "Softmax"):
        return 0.0
    if node.op_type == "Clip" and len(node.inputs) > 1 and node.inputs[1] is not None:
        bound = node.inputs[1].const_value
        return 0.0 if bound is not None and float(bound.numpy()) == 0.0 else None
    return None


class _Counter:
    """Gathers reported elements of each value and counts them many at a time."""

    def __init__(self, observations: Sequence[Observation]) -> None:
        self._observations = observations
        self._held: dict[str, list[np.ndarray[Any, Any]]] = {found.value: [] for found in observations}
        self._sizes = dict.fromkeys(self._held, 0)
        self._lows = dict.fromkeys(self._held, np.inf)
        self._highs = dict.fromkeys(self._held, -np.inf)
        self._found: dict[str, Histogram] = {}

    def add(self, outputs: Arrays) -> None:
        """Take the reports of one run."""
        for observation in self._observations:
            name, part = observation.value, outputs[observation.sample]
            if not part.size:
                continue  # its shape depends on the sample, and this one leaves nothing: it has no extremes
            high = float(outputs[observation.highest])
            low = float(outputs[observation.lowest]) if observation.low is None else observation.low
            if np.isnan(outputs[observation.total]) or not np.isfinite([low, high]).all():
                raise SamplesError(
                    "calibration",
                    detail=f"value {name!r} became NaN or infinite",
                    fix="Check the model in float on these samples: it overflows by itself",
                )
            self._lows[name], self._highs[name] = min(self._lows[name], low), max(self._highs[name], high)
            self._held[name].append(part)
            self._sizes[name] += part.size
            if self._sizes[name] >= _BUFFERED:
                self._count(name)

    def histograms(self) -> dict[str, Histogram]:
        """All that was counted, by value."""
        for name, size in self._sizes.items():
            if size:
                self._count(name)
        nothing = histogram_of(np.zeros(1, np.float32), low=0.0, high=0.0)
        return {name: self._found.get(name, nothing) for name in self._sizes}

    def _count(self, name: str) -> None:
        part = np.concatenate(self._held[name])
        fresh = histogram_of(part, low=self._lows[name], high=self._highs[name])
        self._found[name] = self._found[name].merged(fresh) if name in self._found else fresh
        self._held[name], self._sizes[name] = [], 0
