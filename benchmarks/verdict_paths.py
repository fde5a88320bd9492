"""Experiments drawn by seed, and the verdict's e-values after every item of each: plain, with numpy.

Written item by item, apart from the product's functions of counters, so that each checks the other.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from jettison.experiment.eprocess import LARGEST_STAKE
from jettison.experiment.mismatch import CONCENTRATIONS

BLOCK_ITEMS = 4_000_000
"""Items that are held at once: 32 MB for each array of float64."""


@dataclass(frozen=True)
class Stops:
    """After how many items each experiment stopped, 0 where it did not; and the longest there is."""

    times: np.ndarray
    horizon: int

    @property
    def share(self) -> float:
        """Of the experiments that stopped."""
        return float((self.times > 0).mean())

    @property
    def median(self) -> float:
        """Of all; those that never stopped count as the horizon."""
        return float(np.median(self._censored()))

    @property
    def mean(self) -> float:
        """The same on average."""
        return float(self._censored().mean())

    def _censored(self) -> np.ndarray:
        return np.where(self.times > 0, self.times, self.horizon)


def run(
    name: str,
    experiments: int,
    horizon: int,
    path: Callable[[np.random.Generator, int], np.ndarray],
    *,
    seed: int,
    alpha: float,
) -> Stops:
    """Stop each experiment where its e-value first reaches 1/alpha, looked at after every item.

    Args:
        name: For the progress.
        experiments: How many.
        horizon: Items of each.
        path: Gives the logarithm of e after every item: float64, (experiments, items).
        seed: Of the draws.
        alpha: The level.
    """
    drawn = blocks(name, experiments, horizon, seed)
    times = [first_reached(path(rng, rows), alpha) for rng, rows in drawn]
    return Stops(np.concatenate(times), horizon)


def blocks(name: str, experiments: int, horizon: int, seed: int) -> Iterator[tuple[np.random.Generator, int]]:
    """A generator and a number of experiments, until there are enough; tells on stderr how far it is."""
    rng, done = np.random.default_rng(seed), 0
    most = max(1, BLOCK_ITEMS // horizon)
    while done < experiments:
        rows = min(most, experiments - done)
        yield rng, rows
        done += rows
        print(f"\r{name}: {done} of {experiments} experiments", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


def first_reached(logs: np.ndarray, alpha: float) -> np.ndarray:
    """After how many items each row first reaches 1/alpha, 0 where it does not: int64, (experiments,)."""
    hits = logs >= -math.log(alpha)
    return np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, 0)


def differences(
    rng: np.random.Generator, rows: int, items: int, *, mean: float, disagreement: float
) -> np.ndarray:
    """Scores -1, 0, 1 of units: int8, (rows, items)."""
    drawn = rng.random((rows, items), dtype=np.float32)
    better, worse = (disagreement + mean) / 2, (disagreement - mean) / 2
    return (drawn < better).astype(np.int8) - (drawn > 1 - worse).astype(np.int8)


def log_e_mean(scores: np.ndarray, *, mean: float, bets: Sequence[float], sign: int = 1) -> np.ndarray:
    """The logarithm of e after every item, against a mean of at most (sign 1) or at least (-1) `mean`."""
    cap = LARGEST_STAKE / (1 + sign * mean)
    values, places = np.unique(scores, return_inverse=True)
    total = None
    for bet in bets:
        factors = np.log1p(min(bet, cap) * (sign * values - sign * mean))
        path = np.cumsum(factors[places.reshape(scores.shape)], axis=1)
        total = path if total is None else np.logaddexp(total, path, out=total)
    assert total is not None
    return total - math.log(len(bets))


def log_e_events(events: np.ndarray, *, probability: float | np.ndarray, odds: Sequence[float]) -> np.ndarray:
    """The logarithm of e against that probability of an event, after every trial."""
    total = None
    for ratio in odds:
        likely = ratio * probability / (1 - probability + ratio * probability)
        hit, miss = np.log(likely / probability), np.log((1 - likely) / (1 - probability))
        path = np.cumsum(np.where(events, hit, miss), axis=1)
        total = path if total is None else np.logaddexp(total, path, out=total)
    assert total is not None
    return total - math.log(len(odds))


def log_e_assigned(given: np.ndarray, *, share: float) -> np.ndarray:
    """The logarithm of e against "the candidate is given that share", after every unit, by predictions."""
    seen = np.arange(given.shape[1])
    candidate = np.cumsum(given, axis=1) - given
    total = None
    for concentration in CONCENTRATIONS:
        likely = (concentration * share + candidate) / (concentration + seen)
        path = np.cumsum(np.log(np.where(given, likely / share, (1 - likely) / (1 - share))), axis=1)
        total = path if total is None else np.logaddexp(total, path, out=total)
    assert total is not None
    return total - math.log(len(CONCENTRATIONS))


def peeked_z_test(
    scores: np.ndarray, *, margin: float, alpha_quantile: float, first: int, every: int
) -> np.ndarray:
    """Whether a z-test of "worse by the margin" ever rejects at its looks: bool, (rows,)."""
    looks = np.arange(first, scores.shape[1] + 1, every)
    sums = np.cumsum(scores, axis=1, dtype=np.int32)[:, looks - 1]
    differing = np.cumsum(scores != 0, axis=1, dtype=np.int32)[:, looks - 1]
    means = sums / looks
    variance = differing / looks - means**2
    with np.errstate(divide="ignore", invalid="ignore"):
        z = (means + margin) / np.sqrt(variance / looks)
    return np.asarray((np.nan_to_num(z) > alpha_quantile).any(axis=1))


def clips(
    rng: np.random.Generator, shape: tuple[int, int, int], *, copied: float, mean: float, disagreement: float
) -> np.ndarray:
    """Frames of clips: each is its clip's own score with probability `copied`, else a draw of its own.

    int8, of the shape (experiments, clips, frames).
    """
    rows, count, frames = shape
    own = differences(rng, rows, count * frames, mean=mean, disagreement=disagreement)
    shared = differences(rng, rows, count, mean=mean, disagreement=disagreement)
    is_copied = rng.random(shape, dtype=np.float32) < copied
    return np.where(is_copied, shared[:, :, None], own.reshape(shape))
