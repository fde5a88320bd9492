"""Step results on disk as JSON and plain arrays: read back, they run no code."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, TypeAdapter

from jettison.compress.passes import Refusal
from jettison.compress.pruning.removed import PrunedLayer
from jettison.compress.quantization.placement import LayerDecision
from jettison.core.files import write_bytes
from jettison.evaluate.latency import LatencyReport
from jettison.evaluate.scoring import Scores

_LATENCY = TypeAdapter(LatencyReport)
_NO_DECIBELS = float("nan")


class VariantRecord(BaseModel):
    """What a chain of passes left beside the model file: decisions and remarks, or a refusal."""

    model_config = ConfigDict(frozen=True)

    refusal: Refusal | None = None
    layers: tuple[LayerDecision, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    evaluations: int = 0
    pruned: tuple[PrunedLayer, ...] = ()
    compressed_bytes: int | None = None
    is_cut_short: bool = False

    @property
    def kept_in_float(self) -> tuple[str, ...]:
        """Names of the weighted layers that stayed in float."""
        return tuple(layer.node for layer in self.layers if not layer.quantized)


def write_scores(scores: Scores, path: Path) -> None:
    """Write the scores as a whole or not at all."""
    buffer = io.BytesIO()
    decibels = _NO_DECIBELS if scores.sqnr_db is None else scores.sqnr_db
    decided = scores.predictions is not None
    np.savez_compressed(
        buffer,
        metric=np.array(scores.metric, dtype=np.str_),
        values=scores.values,
        sqnr_db=np.array(decibels),
        broken=np.array(scores.broken),
        predictions=np.array([] if scores.predictions is None else scores.predictions, np.int32),
        decided=np.array(decided),
    )
    write_bytes(path, buffer.getvalue())


def read_scores(path: Path) -> Scores:
    """The scores in that file."""
    with np.load(path, allow_pickle=False) as stored:
        decibels = float(stored["sqnr_db"])
        return Scores(
            metric=str(stored["metric"]),
            values=stored["values"],
            sqnr_db=None if np.isnan(decibels) else decibels,
            predictions=stored["predictions"] if bool(stored["decided"]) else None,
            broken=int(stored["broken"]),
        )


def write_latency(report: LatencyReport, path: Path) -> None:
    """Write the latencies as a whole or not at all."""
    write_bytes(path, _LATENCY.dump_json(report))


def read_latency(path: Path) -> LatencyReport:
    """The latencies in that file."""
    return _LATENCY.validate_json(path.read_bytes())
