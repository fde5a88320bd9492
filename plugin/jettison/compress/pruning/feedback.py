"""SparseGPT over a model: for each layer the 2:4 weights whose outputs are nearest, and the biases with them.

What a layer's weights are multiplied with is the float model's activation, in 8 bits as GPTQ takes it: local,
so that one pass over the samples serves all layers. The error that a removed weight leaves on average goes
into the bias,

    b_pruned = b + (W - W_pruned) E[x]

so that only what varies has to be made up for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from jettison.compress.pruning.masks import Floats
from jettison.compress.pruning.sparsegpt import pruned_with_feedback
from jettison.compress.quantization.calibrate import Calibration
from jettison.compress.quantization.covariance import Doubles, Moments, Source, moments
from jettison.compress.quantization.layers import Layer
from jettison.compress.quantization.ranges import range_of
from jettison.compress.quantization.refine import REFINE_SAMPLES, part_of, source_of, together
from jettison.compress.quantization.static import activation_scale
from jettison.compress.quantization.weights import from_kernel_order, kernel_order
from jettison.core.progress import Progress, silent
from jettison.core.samples import Samples, draw
from jettison.graph.edit import float_attribute, float_constant


@dataclass(frozen=True)
class Fed:
    """Pruned weights by their values' names, and what to add to biases, by the layer's name."""

    weights: dict[str, Floats] = field(default_factory=dict)
    biases: dict[str, Floats] = field(default_factory=dict)


def weights_with_feedback(
    model: ir.Model,
    samples: Samples,
    calibration: Calibration,
    readers: Mapping[str, list[Layer]],
    *,
    threads: int = 0,
    progress: Progress | None = None,
) -> Fed:
    """The 2:4 weights of the layers for which covariances can be had; the others are not among them.

    Args:
        model: The clean float model.
        samples: Calibration samples, of which 64 are drawn.
        calibration: The histograms of the model's activations.
        readers: The layers to prune, by the name of the weight that they share.
        threads: Threads of ONNX Runtime; 0 for one per core.
        progress: Called with samples done and their number, over all passes.

    Raises:
        ModelError: ONNX Runtime cannot run the model on the samples.
    """
    drawn, found = draw(samples, REFINE_SAMPLES), Fed()
    passes = list(together(_jobs(readers, calibration)))
    for index, jobs in enumerate(passes):
        sources = list(dict.fromkeys(source for job in jobs for source in job.sources))
        step = part_of(progress or silent(""), index, len(passes))
        known = moments(model, drawn, sources, threads=threads, progress=step)
        for job in jobs:
            found.weights[job.name] = job.pruned(known)
            found.biases.update(job.shifts(known, found.weights[job.name]))
    return found


@dataclass(frozen=True)
class _Job:
    """One weight to prune: the layers that share it, and what each of them reads."""

    name: str
    layers: tuple[Layer, ...]
    sources: tuple[Source, ...]

    def pruned(self, known: Mapping[Source, Moments]) -> Floats:
        """The weight with its zeros."""
        layer = self.layers[0]
        rows = self._cut(float_constant(layer.weight))
        covariances = sum(known[found].covariance * found.patches.tap.scale**2 for found in self.sources)
        pruned = pruned_with_feedback(rows, np.asarray(covariances))
        return self._whole(pruned)

    def shifts(self, known: Mapping[Source, Moments], after: Floats) -> Iterator[tuple[str, Floats]]:
        """What each layer's outputs have lost on average: float32, (channels,)."""
        lost = self._cut(float_constant(self.layers[0].weight) - after)
        for layer, source in zip(self.layers, self.sources, strict=True):
            amounts = np.einsum("mci,mi->mc", lost, known[source].mean) * source.patches.tap.scale
            groups = source.patches.groups
            each = amounts.reshape(groups, source.parts, -1).sum(axis=1).reshape(-1)
            alpha = float_attribute(layer.node, "alpha", 1.0) if layer.kind == "Gemm" else 1.0
            yield layer.name, (each * alpha).astype(np.float32)

    def _cut(self, weight: Floats) -> Doubles:
        """Rows in the kernel's order as covariances have them: (matrices, channels, inner)."""
        layer, source = self.layers[0], self.sources[0]
        rows = kernel_order(weight, layer.weight_axis).astype(np.float64)
        grouped = rows.reshape(source.patches.groups, -1, source.inputs).transpose(0, 2, 1)
        return np.asarray(source.cut(grouped).transpose(0, 2, 1))

    def _whole(self, rows: Doubles) -> Floats:
        """The weight made of rows that were cut: the inverse of `_cut`."""
        layer, source = self.layers[0], self.sources[0]
        groups = source.patches.groups
        joined = rows.transpose(0, 2, 1).reshape(groups, -1, rows.shape[1])[:, : source.inputs]
        flat = joined.transpose(0, 2, 1).reshape(layer.channels, -1).astype(np.float32)
        return np.ascontiguousarray(from_kernel_order(flat, layer.weight_shape, layer.weight_axis))


def _jobs(readers: Mapping[str, list[Layer]], calibration: Calibration) -> Iterator[_Job]:
    for name, layers in readers.items():
        sources = [_source(layer, calibration) for layer in layers]
        known = tuple(source for source in sources if source is not None)
        if len(known) == len(layers):
            yield _Job(name, tuple(layers), known)


def _source(layer: Layer, calibration: Calibration) -> Source | None:
    """What the layer's weights meet; None where that was not observed, or the bias is not constant."""
    value = layer.activation.name or ""
    if layer.refusal is not None or not (value in calibration.histograms or value in calibration.sources):
        return None
    return source_of(layer, activation_scale(range_of(calibration.histogram(value), "max"), "cpu"))
