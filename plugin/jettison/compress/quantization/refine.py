"""GPTQ over a model: for each layer the integers whose outputs are nearest, on the scales that it has.

What a layer's weights are multiplied with is the float model's activation, rounded with the layer's scale:
local, so the integers are valid for any choice of layers and are found once for all of them. They need a bias
correction that is computed with them (`correct.py`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import onnx_ir as ir

from jettison.compress.quantization.covariance import Doubles, Source, covariances
from jettison.compress.quantization.gptq import rounded_with_feedback
from jettison.compress.quantization.layers import Layer, find_layers
from jettison.compress.quantization.static import LayerIntegers
from jettison.compress.quantization.weights import QuantizedWeight, from_kernel_order, kernel_order
from jettison.core.progress import Progress, silent
from jettison.core.samples import Samples, draw
from jettison.graph.edit import float_constant
from jettison.graph.patches import patches_of, tap_of
from jettison.graph.qdq import Scale

REFINE_SAMPLES = 64
"""Samples that covariances are taken over: 32 gave 24.5 dB on EfficientNet-Lite0, 64 24.9, 104 24.8."""
_MOST_BYTES = 64 << 20
"""Of sums held at once. A model with more is taken in several passes. A layer with more, from 2,897 inputs
on, is cut into parts that hand no error to each other, so that memory grows with its inputs and not with
their square. It costs little: cut for a 64th of these bytes, EfficientNet-Lite0 lost 0.2 dB."""


def refined_weights(
    model: ir.Model,
    samples: Samples,
    *,
    integers: Mapping[str, LayerIntegers],
    most: int = REFINE_SAMPLES,
    threads: int = 0,
    progress: Progress | None = None,
) -> dict[str, QuantizedWeight]:
    """The layers' weights on the same scales, rounded with error feedback: by the layer's name.

    Layers that share their integers share the new ones. There are none for a ConvTranspose, where different
    weights meet at different places.

    Args:
        model: The clean float model.
        samples: Calibration samples.
        integers: What each layer would compute with.
        most: Of more samples than that, so many are drawn.
        threads: Threads of ONNX Runtime; 0 for one per core.
        progress: Called with samples done and their number, over all passes.

    Raises:
        ModelError: ONNX Runtime cannot run the model on the samples.
    """
    drawn, found = draw(samples, most), {}
    passes = list(together(_jobs(model.graph, integers)))
    for index, jobs in enumerate(passes):
        sources = list(dict.fromkeys(source for job in jobs for source in job.sources))
        step = part_of(progress or silent(""), index, len(passes))
        known = covariances(model, drawn, sources, threads=threads, progress=step)
        for job in jobs:
            refined = job.refined(known)
            found.update({layer.name: refined for layer in job.layers})
        known.clear()
    return found


@dataclass(frozen=True)
class _Job:
    """One weight to refine: the layers that compute with its integers, and what each of them reads."""

    weight: QuantizedWeight
    layers: tuple[Layer, ...]
    sources: tuple[Source, ...]

    def refined(self, known: Mapping[Source, Doubles]) -> QuantizedWeight:
        """The weight with its new integers."""
        layer, source = self.layers[0], self.sources[0]
        groups = source.patches.groups
        rows = kernel_order(float_constant(layer.weight), layer.weight_axis)
        cut = source.cut(rows.reshape(groups, -1, source.inputs).transpose(0, 2, 1))
        values = rounded_with_feedback(
            cut.transpose(0, 2, 1),
            np.repeat(self.weight.scales.reshape(groups, -1), source.parts, axis=0),
            self._covariances(known),
            pair_safe=not source.patches.tap.is_signed and not layer.is_depthwise,
        )
        joined = values.transpose(0, 2, 1).reshape(groups, -1, values.shape[1])[:, : source.inputs]
        whole = joined.transpose(0, 2, 1).reshape(rows.shape).astype(np.int8)
        shaped = from_kernel_order(whole, layer.weight_shape, layer.weight_axis)
        return dataclasses.replace(self.weight, values=np.ascontiguousarray(shaped))

    def _covariances(self, known: Mapping[Source, Doubles]) -> Doubles:
        """Those of all layers together, in the units of their activations."""
        first, *others = self.sources
        if not others:
            return known[first]
        total = known[first] * first.patches.tap.scale**2
        for source in others:
            total += known[source] * source.patches.tap.scale**2
        return total


def _jobs(graph: ir.Graph, integers: Mapping[str, LayerIntegers]) -> Iterator[_Job]:
    sharing: dict[int, list[tuple[Layer, Source]]] = {}
    for layer in find_layers(graph):
        source = source_of(layer, integers[layer.name].activation) if layer.name in integers else None
        if source is not None:
            sharing.setdefault(id(integers[layer.name].weight), []).append((layer, source))
    for members in sharing.values():
        layers, sources = (tuple(found) for found in zip(*members, strict=True))
        yield _Job(integers[layers[0].name].weight, layers, sources)


def source_of(layer: Layer, activation: Scale) -> Source | None:
    """What the layer's weights are multiplied with, its activation rounded so; None for a ConvTranspose."""
    patches = patches_of(layer.node, tap_of(layer.activation.name or "", activation))
    if patches is None:
        return None
    return Source(patches, layer.inner_size, _inner(layer.inner_size, patches.groups))


def _inner(inputs: int, groups: int) -> int:
    """The size of the parts into which the inputs of each group are cut.

    A multiple of four, so that pairs, and the groups of 2:4 sparsity, stay whole.
    """
    most = max(_MOST_BYTES // (8 * groups * inputs), 2)
    if inputs <= most:
        return inputs
    size = math.ceil(inputs / math.ceil(inputs / most))
    return size + -size % 4


class Job(Protocol):
    """A weight to make anew from what it is multiplied with."""

    @property
    def sources(self) -> tuple[Source, ...]:
        """What each of its layers reads."""
        ...


_AnyJob = TypeVar("_AnyJob", bound=Job)


def together(jobs: Iterable[_AnyJob]) -> Iterator[list[_AnyJob]]:
    """The jobs in groups whose sums fit into memory together; one that does not fit at all is alone."""
    held: list[_AnyJob] = []
    for job in jobs:
        sources = {source for one in (*held, job) for source in one.sources}
        if held and sum(source.size_bytes for source in sources) > _MOST_BYTES:
            yield held
            held = []
        held.append(job)
    if held:
        yield held


def part_of(progress: Progress, index: int, count: int) -> Progress:
    """The progress of one pass of so many."""
    return lambda done, total: progress(index * total + done, count * total)
