"""Calibrations on disk: `.npz` with plain arrays, so that reading one runs no code."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from jettison.compress.quantization.calibrate import Calibration
from jettison.compress.quantization.histogram import Histogram
from jettison.core.files import write_bytes


def save_calibration(calibration: Calibration, path: Path) -> None:
    """Write the calibration as a whole or not at all."""
    found = list(calibration.histograms.values())
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        names=np.array(list(calibration.histograms), dtype=np.str_),
        counts=np.array([histogram.counts for histogram in found], np.int64),
        exponents=np.array([histogram.exponent for histogram in found], np.int64),
        extremes=np.array([(histogram.low, histogram.high) for histogram in found], np.float64),
        zeros=np.array([histogram.zeros for histogram in found], np.int64),
        moved=np.array(list(calibration.sources), dtype=np.str_),
        moved_from=np.array(list(calibration.sources.values()), dtype=np.str_),
        samples=np.array(calibration.samples, np.int64),
    )
    write_bytes(path, buffer.getvalue())


def load_calibration(path: Path) -> Calibration:
    """The calibration in that file, to the bit as it was saved."""
    with np.load(path, allow_pickle=False) as stored:
        histograms = {
            str(name): Histogram(counts, int(exponent), float(low), float(high), int(zeros))
            for name, counts, exponent, (low, high), zeros in zip(
                stored["names"], stored["counts"], stored["exponents"], stored["extremes"].reshape(-1, 2),
                stored["zeros"], strict=True,
            )
        }  # fmt: skip
        sources = {
            str(name): str(source) for name, source in zip(stored["moved"], stored["moved_from"], strict=True)
        }
        return Calibration(histograms, sources, int(stored["samples"]))
