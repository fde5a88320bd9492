"""What each layer costs in accuracy when integers carry it alone.

Damage is the energy of the output error over the energy of the output: noise-to-signal, so that
SQNR = -10 log10(damage) in dB. Errors of different layers are nearly independent once kernels compute what
the graph says, so the damage of a set is about the sum of its members', measured on logits: a softmax
would flatten large errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import onnx_ir as ir

from jettison.core.batching import fitting_batches
from jettison.core.progress import Progress
from jettison.core.samples import Samples, first
from jettison.core.tensors import Arrays
from jettison.engines.onnxruntime import runner_of
from jettison.evaluate.sqnr import SqnrMeter
from jettison.graph.model import input_specs

DAMAGE_SAMPLES = 24
"""Samples per layer: the order of layers by damage settles from 16 on (benchmarks/guarantee.py)."""
BATCH = 4
"""Samples run at once where the model leaves it open."""
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
    batches = list(fitting_batches(few, input_specs(model), size=BATCH))
    reference = outputs_of(logits_view(model), batches, exact=False)
    found = {}
    for index, layer in enumerate(layers):
        quantized = logits_view(quantize(frozenset({layer})))
        found[layer] = noise_to_signal(reference, outputs_of(quantized, batches, exact=exact))
        progress(index + 1, len(layers))
    return found


def outputs_of(model: ir.Model, batches: Iterable[Arrays], *, exact: bool) -> list[Arrays]:
    """The model's outputs for each batch: copies, since a session's own hold all memory that it took."""
    runner = runner_of(model, optimize=not exact)
    return [{name: array.copy() for name, array in runner.run(batch).items()} for batch in batches]


def noise_to_signal(reference: Sequence[Arrays], found: Sequence[Arrays]) -> float:
    """Energy of the error over the energy of the reference, of the worst float output."""
    meter = SqnrMeter()
    for expected, outputs in zip(reference, found, strict=True):
        meter.add(expected, outputs)
    return meter.noise_share


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
