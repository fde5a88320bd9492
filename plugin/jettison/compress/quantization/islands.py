"""The search for islands: nodes that must stay in float32 for the sake of the outputs.

A simulation tells how much of the outputs is noise for any choice of nodes; the graph is halved again and
again to find the nodes whose return to float32 takes most of it away.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from jettison.compress.passes import Workpiece
from jettison.core.batching import fitting_batches, fixed_batch_size
from jettison.core.samples import Samples
from jettison.core.tensors import Arrays
from jettison.engines.onnxruntime import runner_of
from jettison.evaluate.sqnr import SqnrMeter
from jettison.graph.cast import simulate_cast, without_activation_pairs
from jettison.graph.cast_types import CastType
from jettison.graph.model import input_specs

SCORED_SAMPLES = 32
"""Samples on which outputs are compared. Which 32 of 128 it is moves the SQNR by 0.2 to 0.7 dB (one standard
deviation; EfficientNet-Lite0 and MiniLM, both types)."""

LARGEST_SEARCH = 64
"""Simulated trials at most: one culprit among 200 nodes takes about 20."""

LEAST_GAIN = 0.2
"""An island must take away this share of the noise (1 dB): it costs two casts and breaks a fusion."""

_SMALL_ISLAND = 8
"""Segments up to so many nodes are kept whole where no part of them does half as well."""


@dataclass
class Scorer:
    """How much of the outputs is noise when nodes are cast, by simulation; `trials` counts the runs."""

    view: ir.Model
    dtype: CastType
    batches: tuple[Arrays, ...]
    references: tuple[Arrays, ...]
    threads: int = 0
    trials: int = 0

    def noise(self, keep_float: frozenset[str]) -> float | None:
        """Noise over signal of the worst output, 0 to 1; None where no output is a float with a signal."""
        self.trials += 1
        simulated = simulate_cast(self.view, self.dtype, keep_float)
        runner = runner_of(simulated, threads=self.threads, optimize=False)
        meter = SqnrMeter()
        for inputs, reference in zip(self.batches, self.references, strict=True):
            meter.add(reference, runner.run(inputs))
        return None if meter.db is None else _share(meter.db)


def scorer_of(piece: Workpiece, view: ir.Model, samples: Samples, *, dtype: CastType) -> Scorer:
    """A scorer against the piece's own outputs, on samples spread over all that there are."""
    batch = fixed_batch_size(input_specs(view)) or 1
    wanted = max(SCORED_SAMPLES // batch, 1)
    step = max(samples.count // batch // wanted, 1)
    fitting = fitting_batches(samples, input_specs(view))
    batches = tuple(itertools.islice(fitting, 0, wanted * step, step))
    original = without_activation_pairs(piece.model)
    runner = runner_of(original, threads=piece.threads, optimize=False)
    references = tuple(runner.run(inputs) for inputs in batches)
    return Scorer(view, dtype, batches, references, piece.threads)


@dataclass(frozen=True)
class Found:
    """What a search ended with: the islands, in the order found, and the outputs' SQNR before and after."""

    islands: tuple[str, ...] = ()
    before_db: float | None = None
    after_db: float | None = None
    trials: int = 0

    def notes(self, least_sqnr_db: float) -> tuple[str, ...]:
        """The figures in words."""
        if self.after_db is None or self.before_db is None:
            return ("no output is a floating point number with a signal: only ranges were checked",)
        text = (
            f"the cast alone leaves outputs at {self.after_db:.1f} dB of the model's before it, simulated on "
            "calibration samples"
        )
        if self.islands:
            text += f"; {self.before_db:.1f} dB without islands, which {self.trials} trials found"
        if self.after_db >= least_sqnr_db:
            return (text,)
        return (text, f"below the {least_sqnr_db:g} dB asked for, and no small island would mend it")


def search(scorer: Scorer, candidates: Sequence[str], kept: frozenset[str], *, least_db: float) -> Found:
    """The islands that bring the outputs to `least_db`, found by halving the graph again and again.

    Each round follows the part (first half, middle, last half) whose return to float32 takes most noise
    away. Both ends of a loss (a sum and the difference behind it) often must return together, so a short
    part is kept whole where its halves do not do half as well.
    """
    start = scorer.noise(kept)
    if start is None:
        return Found()
    islands: list[str] = []
    noise = start
    while noise > _share(least_db) and scorer.trials < LARGEST_SEARCH:
        rest = [name for name in candidates if name not in islands]
        part, after = _culprit(scorer, rest, kept | set(islands), noise)
        is_large = len(islands) + len(part) > max(len(candidates) // 2, 1)
        if is_large or after > noise * (1 - LEAST_GAIN):
            break
        islands, noise = [*islands, *part], after
    return Found(tuple(islands), _db(start), _db(noise), scorer.trials)


def _culprit(
    scorer: Scorer, part: Sequence[str], kept: frozenset[str], noise: float
) -> tuple[Sequence[str], float]:
    """The smallest part found whose return to float32 takes most of the noise away, and the noise then."""
    after = 0.0
    while len(part) > 1 and scorer.trials < LARGEST_SEARCH:
        half, quarter = (len(part) + 1) // 2, len(part) // 4
        parts = [part[:half], part[half:], *([part[quarter : quarter + half]] if quarter else [])]
        tried = [scorer.noise(kept | set(smaller)) or 0.0 for smaller in parts]
        best = min(range(len(parts)), key=tried.__getitem__)
        if len(part) <= _SMALL_ISLAND and noise - tried[best] < (noise - after) / 2:
            break
        part, after = parts[best], tried[best]
    return part, after


def _share(db: float) -> float:
    return float(10 ** (-db / 10))


def _db(share: float) -> float:
    return -10 * math.log10(max(share, 1e-15))
