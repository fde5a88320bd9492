"""What each layer costs in accuracy when integers carry it alone.

Damage is the energy of the output error over the energy of the output: noise-to-signal, so that
SQNR = -10 log10(damage) in dB. Errors of different layers are nearly independent once kernels compute what
the graph says, so the damage of a set is about the sum of its members', measured on logits: a softmax
would flatten large errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from jettison.core.batching import fixed_batch_size, padded
from jettison.core.progress import Progress
from jettison.core.samples import Samples, first
from jettison.core.tensors import Arrays
from jettison.engines.onnxruntime import runner_of
from jettison.graph.model import input_specs

DAMAGE_SAMPLES = 24
"""Samples per layer: the order of layers by damage settles from 16 on (benchmarks/guarantee.py)."""
_BATCH = 8
_FLATTENING = frozenset({"Softmax", "LogSoftmax"})

Quantize = Callable[[frozenset[str]], ir.Model]
"""The model with exactly these layers quantized."""


def layer_damages(
    model: ir.Model,
    layers: Sequence[str],
    samples: Samples,
    *,
    quantize: Quantize,
    exact: bool,
    progress: Progress,
) -> dict[str, float]:
    """The damage of each layer alone.

    Args:
        model: The clean float model.
        layers: Names of the layers to try.
        samples: Of which the first few are used.
        quantize: Makes the model with some layers quantized.
        exact: Run in exact arithmetic instead of this machine's kernels, as for a GPU target.
        progress: Called with layers done and their number.
    """
    few = first(samples, DAMAGE_SAMPLES)
    batches = batches_of(model, few)
    reference = outputs_of(logits_view(model), batches, exact=False)
    found = {}
    for index, layer in enumerate(layers):
        quantized = logits_view(quantize(frozenset({layer})))
        found[layer] = noise_to_signal(reference, outputs_of(quantized, batches, exact=exact))
        progress(index + 1, len(layers))
    return found


def outputs_of(model: ir.Model, batches: Iterable[Arrays], *, exact: bool) -> list[Arrays]:
    """The model's outputs for each batch."""
    runner = runner_of(model, optimize=not exact)
    return [runner.run(batch) for batch in batches]


def noise_to_signal(
    reference: Sequence[Mapping[str, np.ndarray]], found: Sequence[Mapping[str, np.ndarray]]
) -> float:
    """Energy of the error over the energy of the reference, of the worst float output."""
    worst = 0.0
    for name in reference[0]:
        if reference[0][name].dtype.kind != "f":
            continue
        signal = sum(float(np.square(batch[name], dtype=np.float64).sum()) for batch in reference)
        pairs = zip(reference, found, strict=True)
        noise = sum(
            float(np.square(left[name] - right[name], dtype=np.float64).sum()) for left, right in pairs
        )
        worst = max(worst, noise / signal if signal > 0 else 0.0)
    return worst


def logits_view(model: ir.Model) -> ir.Model:
    """The model with every softmax at its end taken off: its outputs are the logits, under other names."""
    ends = [(index, value.producer()) for index, value in enumerate(model.graph.outputs)]
    flattened = [(index, node) for index, node in ends if node is not None and node.op_type in _FLATTENING]
    if not flattened:
        return model
    copy = model.clone()
    for index, _ in flattened:
        node = copy.graph.outputs[index].producer()
        source = node.inputs[0] if node is not None else None
        if source is not None:
            copy.graph.outputs[index] = source
    return copy


def batches_of(model: ir.Model, samples: Samples, *, size: int = _BATCH) -> list[Arrays]:
    """The samples' inputs in batches that the model takes."""
    fixed = fixed_batch_size(input_specs(model))
    batches = samples.batches(fixed or size)
    return [padded(batch.inputs, fixed) if fixed else batch.inputs for batch in batches]
