"""A second look at what the gate accepts: outputs that are far off although the score holds."""

from __future__ import annotations

from typing import Any

import numpy as np

from jettison.evaluate.classes import NO_CLASS
from jettison.evaluate.figures import counted
from jettison.evaluate.metrics import BINARY

STRONG_NOISE_DB = 6.0
"""Below that SQNR a variant's outputs are no longer the baseline's, whatever a metric says.

6 dB is an error with a quarter of the signal's energy, 10 log10(4): its root mean square is half of the
signal's. In benchmarks/RESULTS.md, quantization that works has 15 to 45 dB, and variants at 5.6 dB decide as
the baseline does on 0.61 of the samples only. So a score that holds below it points to a broken scale or to
samples that are too easy: top1 and agreement read nothing but the highest class."""


def doubt(sqnr_db: float | None, *, metric: str) -> str | None:
    """What to tell of a variant whose score holds, or None where its outputs are near the baseline's."""
    if sqnr_db is None or sqnr_db >= STRONG_NOISE_DB:
        return None
    unseen = f"{metric} does not see it" if metric in BINARY else f"the tolerance for {metric} allows it"
    energy = 10 ** (-sqnr_db / 10)
    return (
        f"outputs differ strongly ({sqnr_db:.1f} dB SQNR) although the score holds: the error has "
        f"{energy:.2g} times the energy of the baseline's outputs, and {unseen}"
    )


def one_class(decided: np.ndarray[Any, Any] | None, *, metric: str) -> str | None:
    """What to tell of a baseline that decides one class for all samples, by whose decisions it is scored."""
    if decided is None or len(decided) < 2 or metric not in BINARY:
        return None
    if decided[0] == NO_CLASS or (decided != decided[0]).any():
        return None
    samples = counted(len(decided), "sample")
    return f"the baseline decides class {decided[0]} for all {samples}: {metric} proves little"
