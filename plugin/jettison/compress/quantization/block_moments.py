"""Second moments of what weights are multiplied with, from one pass over the samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from jettison.core.batching import fitting_batches
from jettison.core.errors import SamplesError
from jettison.core.progress import Progress
from jettison.core.samples import Samples
from jettison.engines.onnxruntime import runner_of
from jettison.graph.model import input_specs
from jettison.graph.moments import Moment, with_moments

Floats = np.ndarray[Any, np.dtype[np.float32]]


def block_moments(
    model: ir.Model,
    samples: Samples,
    moments: Sequence[Moment],
    *,
    threads: int = 0,
    progress: Progress | None = None,
) -> dict[Moment, Floats]:
    """E[x_g x_g^T] of each value and block, a sum over a sample's rows: float32, (blocks, block, block).

    Args:
        model: A clean float model.
        samples: Representative inputs.
        moments: What to measure.
        threads: Threads of ONNX Runtime; 0 for one per core.
        progress: Called with samples done and samples in all.

    Raises:
        SamplesError: A value became NaN or infinite on these samples.
        ModelError: ONNX Runtime cannot run the model on them.
    """
    if not moments:
        return {}
    runner = runner_of(with_moments(model, moments), threads=threads)
    totals: dict[Moment, Any] = dict.fromkeys(moments, 0.0)
    runs = 0
    for inputs in fitting_batches(samples, input_specs(model), fill_last=False, progress=progress):
        outputs = runner.run(inputs)
        for moment in moments:
            totals[moment] = totals[moment] + outputs[moment.output].astype(np.float64)
        runs += 1
    return {moment: _mean(moment, total / max(runs, 1)) for moment, total in totals.items()}


def _mean(moment: Moment, mean: np.ndarray[Any, np.dtype[np.float64]]) -> Floats:
    if not np.isfinite(mean).all():
        raise SamplesError(
            "calibration",
            detail=f"value {moment.value!r} became NaN or infinite",
            fix="Check the model in float on these samples: it overflows by itself",
        )
    return np.asarray(mean, np.float32)
