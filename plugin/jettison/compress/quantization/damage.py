"""What each layer costs in accuracy when integers carry it alone.

Damage is the energy of the output error over the energy of the output: noise-to-signal, so that
SQNR = -10 log10(damage) in dB. Errors of different layers are nearly independent once kernels compute what
the graph says, so the damage of a set is about the sum of its members', measured before a softmax or a
decision at the end of the model (graph/judged.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import onnx_ir as ir

from jettison.core.batching import fitting_batches
from jettison.core.progress import Progress
from jettison.core.samples import Samples, draw
from jettison.core.tensors import Arrays
from jettison.engines.onnxruntime import runner_of
from jettison.evaluate.sqnr import SqnrMeter
from jettison.graph.judged import judged_view
from jettison.graph.model import input_specs

DAMAGE_SAMPLES = 24
"""Samples per layer: the order of layers by damage settles from 16 on (benchmarks/guarantee.py)."""
BATCH = 4
"""Samples run at once where the model leaves it open."""

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
        samples: Of which a few are drawn: the first ones of a sorted set would leave whole classes out.
        quantize: Makes the model with some layers quantized.
        exact: Run in exact arithmetic instead of this machine's kernels, as for a GPU target.
        progress: Called with layers done and their number.
    """
    judge = NoiseJudge(model, samples, exact=exact)
    found = {}
    for index, layer in enumerate(layers):
        found[layer] = judge.noise(quantize(frozenset({layer})))
        progress(index + 1, len(layers))
    return found


class NoiseJudge:
    """Says how far a quantized model's outputs are from the float model's on samples drawn once.

    Args:
        model: The clean float model.
        samples: Of which a few are drawn.
        exact: Run quantized models in exact arithmetic instead of this machine's kernels.
    """

    def __init__(self, model: ir.Model, samples: Samples, *, exact: bool) -> None:
        self._exact = exact
        few = draw(samples, DAMAGE_SAMPLES)
        self._batches = list(fitting_batches(few, input_specs(model), size=BATCH))
        self._reference = outputs_of(judged_view(model), self._batches, exact=False)

    def noise(self, quantized: ir.Model) -> float:
        """Energy of the error over the energy of the output."""
        found = outputs_of(judged_view(quantized), self._batches, exact=self._exact)
        return noise_to_signal(self._reference, found)


def outputs_of(model: ir.Model, batches: Iterable[Arrays], *, exact: bool) -> list[Arrays]:
    """The model's outputs for each batch: copies, since a session's own hold all memory that it took."""
    runner = runner_of(model, optimize=not exact)
    return [{name: np.array(array) for name, array in runner.run(batch).items()} for batch in batches]


def noise_to_signal(reference: Sequence[Arrays], found: Sequence[Arrays]) -> float:
    """Energy of the error over the energy of the reference, of the worst float output."""
    meter = SqnrMeter()
    for expected, outputs in zip(reference, found, strict=True):
        meter.add_whole(expected, outputs)
    return meter.noise_share
