"""Equalization: ranges of channels brought nearer to each other, before one scale has to serve them all.

An activation has one scale for all its channels, and the widest channel sets it. A factor s_j for channel j,
taken out of what makes the activation X and put back into the weights W that read it, changes nothing in
float and evens the channels out:

    Y = W X = (W diag(s)) (diag(1 / s) X),        s_j = max|X_j|^alpha / max|W_j|^(1 - alpha)

max|W_j| is over the weights that read channel j, each relative to the largest of its own output channel,
since weights have one scale for each of these. At alpha = 1/2 this is s_j = sqrt(r1 r2) / r2 of cross-layer
equalization, with the ranges r1 of the activation and r2 of the weights.
Source: Nagel et al. 2019 (arXiv 1906.04721), section 4.1; Xiao et al. 2022 (arXiv 2211.10438), equation 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from jettison.compress.quantization.layers import Layer, find_layers
from jettison.core.batching import fitting_batches
from jettison.core.errors import SamplesError
from jettison.core.progress import Progress
from jettison.core.samples import Samples
from jettison.core.tensors import Arrays
from jettison.engines.onnxruntime import runner_of
from jettison.graph.absorb import Array
from jettison.graph.edit import constant_of
from jettison.graph.junction import Junction, find_junctions
from jettison.graph.model import input_specs
from jettison.graph.peaks import peak_name, peaked, total_name
from jettison.graph.rescale import rescaled

ALPHA = 0.7
"""How much of the spread moves from activations to weights.

Of 0.3 to 0.9 it left the least noise on calibration samples held out, for EfficientNet-Lite0 and MiniLM in
both dialects, or 0.2 dB more than the least; docs/quantization.md has the figures.
"""
LARGEST_FACTOR = 100.0
"""Factors lie within this of 1, so that neither side comes near the limits of 16-bit floats."""


@dataclass(frozen=True)
class Equalized:
    """A model that computes the same, and the names of the junctions where factors were moved."""

    model: ir.Model
    junctions: tuple[str, ...]


def channel_maxima(
    model: ir.Model, samples: Samples, *, threads: int = 0, progress: Progress | None = None
) -> dict[str, Array]:
    """The largest |x| of each channel at each junction: float32, (channels,), by the junction's name.

    Args:
        model: The clean float model.
        samples: Calibration samples.
        threads: Threads of ONNX Runtime; 0 for one per core.
        progress: Called with samples done and their number.

    Raises:
        SamplesError: A value became NaN or infinite on these samples.
        ModelError: ONNX Runtime cannot run the model on them.
    """
    junctions = _useful(model)
    if not junctions:
        return {}
    axes = {name: axis for junction in junctions for name, axis in junction.reads.items()}
    runner = runner_of(peaked(model, axes), threads=threads)
    found = {junction.name: np.zeros(junction.channels, np.float32) for junction in junctions}
    for inputs in fitting_batches(samples, input_specs(model), progress=progress):
        outputs = runner.run(inputs)
        for junction in junctions:
            for name in junction.reads:
                np.maximum(found[junction.name], _peaks(outputs, name), out=found[junction.name])
    return found


def equalized(model: ir.Model, maxima: Mapping[str, Array], *, alpha: float = ALPHA) -> Equalized:
    """A copy of the float model whose channels are more alike, and which computes the same.

    Nodes keep their names, and so do the values that layers read, so that placements and costs of the model
    hold for the copy too, but for multiplications that it may have more; ranges and corrections do not.

    Args:
        model: The clean float model.
        maxima: What `channel_maxima` found in it; junctions without any stay as they are.
        alpha: How much of the spread moves from activations to weights, 0 to 1.
    """
    junctions = [junction for junction in _useful(model) if junction.name in maxima]
    layers = {layer.name: layer for layer in find_layers(model.graph)}
    factors = {
        junction.name: factors_of(maxima[junction.name], _weight_maxima(junction, layers), alpha)
        for junction in junctions
    }
    return Equalized(rescaled(model, junctions, factors), tuple(factors))


def factors_of(activation: Array, weight: Array, alpha: float) -> Array:
    """The factor s_j of each channel, (channels,): 1 in the geometric mean, and where a channel is dead.

    Args:
        activation: max|X_j|, (channels,).
        weight: max|W_j|, (channels,).
        alpha: 0 to 1.
    """
    factors = np.ones(len(activation), np.float64)
    live = (activation > 0) & (weight > 0)
    if live.any():
        spread, held = (np.log(side[live].astype(np.float64)) for side in (activation, weight))
        logs = alpha * spread - (1 - alpha) * held
        factors[live] = np.exp(logs - logs.mean())
    return np.clip(factors, 1 / LARGEST_FACTOR, LARGEST_FACTOR).astype(np.float32)


def _useful(model: ir.Model) -> list[Junction]:
    """Junctions that lead into a layer which integers may carry."""
    names = {layer.name for layer in find_layers(model.graph) if layer.refusal is None}
    return [
        junction
        for junction in find_junctions(model)
        if any(change.node in names for change in junction.weights)
    ]


def _weight_maxima(junction: Junction, layers: Mapping[str, Layer]) -> Array:
    """max|W_j| over all weights that read channel j, each relative to its output channel's largest."""
    largest = np.zeros(junction.channels, np.float32)
    for change in junction.weights:
        layer = layers[change.node]
        weight = constant_of(layer.weight)
        if weight is not None and layer.refusal is None:
            np.maximum(largest, change.peaks(_relative(weight, layer.weight_axis)), out=largest)
    return largest


def _relative(weight: Array, axis: int) -> Array:
    """The weight with every output channel's largest magnitude at 1."""
    others = tuple(other for other in range(weight.ndim) if other != axis)
    largest = np.abs(weight).max(axis=others, keepdims=True)
    relative: Array = weight / np.maximum(largest, np.finfo(np.float32).tiny)
    return relative


def _peaks(outputs: Arrays, value: str) -> Array:
    peaks: Array = np.maximum(outputs[peak_name(value)], 0)  # below 0 only where the value is empty
    if np.isnan(outputs[total_name(value)]) or not np.isfinite(peaks).all():
        raise SamplesError(
            "equalization",
            detail=f"value {value!r} became NaN or infinite",
            fix="Check the model in float on these samples: it overflows by itself",
        )
    return peaks
