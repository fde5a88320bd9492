"""The cells of the verdict's benchmark: a kind of experiment, how often it is run, what is asked of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from jettison.experiment.eprocess import HIGHER_ODDS, LOWER_ODDS, bet_sizes
from jettison.experiment.evidence import VALIDITY_ALPHA
from jettison.experiment.planning import Question, plan
from verdict_paths import (
    Stops,
    blocks,
    clips,
    differences,
    first_reached,
    log_e_assigned,
    log_e_events,
    log_e_mean,
    peeked_z_test,
    run,
)

MARGIN, DISAGREEMENT, ALPHA = 0.01, 0.04, 0.05
FIXED = 3426
"""Units of a z-test with one look and a power of 90 %: (1.645 + 1.282)^2 * 0.04 / 0.01^2."""
HORIZON = 5 * FIXED // 2
BETS = bet_sizes(MARGIN, DISAGREEMENT)


@dataclass(frozen=True)
class Check:
    """One target: over how many experiments, what is asked, what was found, and whether it holds."""

    what: str
    experiments: int
    asked: str
    found: str
    held: bool


def border(scale: float) -> list[Check]:
    """A candidate worse by exactly the margin, which must not be promoted; and a z-test that is peeked at."""
    count = int(6000 * scale)
    stops = _quality("at the margin", count, -MARGIN, seed=1)
    quantile = NormalDist().inv_cdf(1 - ALPHA)
    rejected = np.concatenate(
        [
            peeked_z_test(
                differences(rng, rows, FIXED, mean=-MARGIN, disagreement=DISAGREEMENT),
                margin=MARGIN, alpha_quantile=quantile, first=250, every=25,
            )
            for rng, rows in blocks("z-test", count, FIXED, 2)
        ]
    )  # fmt: skip
    z = float(rejected.mean())
    return [
        at_most("false promotion at the margin, looked at after every unit", stops.share, ALPHA, count),
        Check("the same by a z-test looked at every 25 units, from 250 to 3,426", count,
              "0.2 to 0.32", f"{z:.3f}", 0.2 <= z <= 0.32),
    ]  # fmt: skip


def equal(scale: float) -> list[Check]:
    """A candidate as good as the baseline: promoted, soon, and hardly ever rolled back."""
    count = int(6000 * scale)
    stops, wrong = [], []
    for rng, rows in blocks("equal", count, HORIZON, 3):
        scores = differences(rng, rows, HORIZON, mean=0, disagreement=DISAGREEMENT)
        stops.append(first_reached(log_e_mean(scores, mean=-MARGIN, bets=BETS), ALPHA))
        wrong.append(first_reached(log_e_mean(scores, mean=-MARGIN, bets=BETS, sign=-1), ALPHA))
    promoted, rolled_back = Stops(np.concatenate(stops), HORIZON), Stops(np.concatenate(wrong), HORIZON)
    planned = plan(Question(margin=MARGIN, planned_disagreement=DISAGREEMENT, seed=4)).promoted
    assert planned.median is not None
    off = abs(planned.median / promoted.median - 1)
    return [
        at_least("an equal candidate is promoted within 2.5 fixed samples", promoted.share, 0.95, count),
        at_most("median of its units over the fixed sample of 3,426", promoted.median / FIXED, 0.75, count),
        at_most("mean of them (those not promoted as 2.5)", promoted.mean / FIXED, 0.9, count),
        at_most("it is rolled back", rolled_back.share, ALPHA, count),
        at_most("`ab plan` against this median, relative difference", off, 0.05, count),
    ]  # fmt: skip


def worse(scale: float) -> list[Check]:
    """A candidate worse by three points: stopped early."""
    count = int(4000 * scale)
    stops = _quality("three points worse", count, -3 * MARGIN, seed=5, sign=-1, horizon=FIXED)
    return [
        at_least(
            "a candidate three points worse is stopped within one fixed sample", stops.share, 0.99, count
        ),
        at_most("mean of its units over the fixed sample", stops.mean / FIXED, 0.25, count),
    ]


def clustered(scale: float) -> list[Check]:
    """Clips of five frames that mostly agree with one another: units hold the level, frames do not."""
    count, number, frames = int(2000 * scale), HORIZON // 5, 5
    by_unit, by_frame = [], []
    for rng, rows in blocks("clips of five frames", count, HORIZON, 6):
        drawn = clips(rng, (rows, number, frames), copied=0.8, mean=-MARGIN, disagreement=DISAGREEMENT)
        units = drawn.mean(axis=2)
        by_unit.append(first_reached(log_e_mean(units, mean=-MARGIN, bets=BETS), ALPHA))
        by_frame.append(first_reached(log_e_mean(drawn.reshape(rows, -1), mean=-MARGIN, bets=BETS), ALPHA))
    unit_share = float((np.concatenate(by_unit) > 0).mean())
    frame_share = float((np.concatenate(by_frame) > 0).mean())
    return [
        at_most("false promotion, clips of five frames as units", unit_share, ALPHA, count),
        Check("the same with every frame a unit: the trap", count, "0.33 to 0.49", f"{frame_share:.3f}",
              0.33 <= frame_share <= 0.49),
    ]  # fmt: skip


def agreement(scale: float) -> list[Check]:
    """Agreement without labels."""
    count, horizon = int(4000 * scale), 5000

    def differing(share: float, seed: int) -> Stops:
        def path(rng: np.random.Generator, rows: int) -> np.ndarray:
            return log_e_events(rng.random((rows, horizon)) < share, probability=MARGIN, odds=LOWER_ODDS)

        return run(f"disagreement {share}", count, horizon, path, seed=seed, alpha=ALPHA)

    good = differing(MARGIN / 4, 8)
    return [
        at_most("agreement: false certificate at the margin", differing(MARGIN, 7).share, ALPHA, count),
        at_least(
            "agreement of 99.75 %, margin 1 point: certified within 5,000 units", good.share, 0.99, count
        ),
        told("its median", good.median, count),
    ]


def latency(scale: float) -> list[Check]:
    """The latency guard at the 0.99 quantile."""
    count = int(4000 * scale)

    def late(share: float, horizon: int, seed: int) -> Stops:
        def path(rng: np.random.Generator, rows: int) -> np.ndarray:
            return log_e_events(rng.random((rows, horizon)) < share, probability=0.01, odds=HIGHER_ODDS)

        return run(f"{share} late", count, horizon, path, seed=seed, alpha=ALPHA)

    return [
        at_most(
            "latency: false alarm with just 1 % late, 10,000 requests",
            late(0.01, 10_000, 9).share,
            ALPHA,
            count,
        ),
        at_most(
            "median requests until 2 % late are found", late(0.02, 8000, 10).median, 1350, count, digits=0
        ),
        at_most(
            "median requests until 5 % late are found", late(0.05, 2000, 11).median, 150, count, digits=0
        ),
    ]


def errors(scale: float) -> list[Check]:
    """The error guard under waves that hit both arms, with a tenth of the traffic on the candidate."""
    count, requests, weight = int(2000 * scale), 20_000, 0.1
    waves = np.where(np.arange(requests) // 1000 % 4 == 3, 0.3, 0.002)

    def failing(ratio: float, seed: int) -> Stops:
        def path(rng: np.random.Generator, rows: int) -> np.ndarray:
            candidate = rng.random((rows, requests), dtype=np.float32) < weight
            rate = np.minimum(1, waves * np.where(candidate, ratio, 1.0))
            failed = rng.random((rows, requests), dtype=np.float32) < rate
            return _of_errors(candidate, failed, weight)

        return run(f"errors, {ratio} times the rate", count, requests, path, seed=seed, alpha=ALPHA)

    double = failing(2.0, 13)
    return [
        at_most(
            "errors: false alarm at equal rates, in waves of 0.2 % to 30 %",
            failing(1.0, 12).share,
            ALPHA,
            count,
        ),
        at_least("errors at twice the rate are found within 20,000 requests", double.share, 0.99, count),
    ]


def split(scale: float) -> list[Check]:
    """The sample-ratio mismatch: silent over many sound experiments, awake for a lost twentieth."""
    count, units = int(60_000 * scale), 2000

    def given(name: str, share: float, planned: float, rounds: int, seed: int) -> Stops:
        def path(rng: np.random.Generator, rows: int) -> np.ndarray:
            return log_e_assigned(rng.random((rows, units), dtype=np.float32) < share, share=planned)

        return run(name, rounds, units, path, seed=seed, alpha=VALIDITY_ALPHA)

    sound = given("sound split", 0.5, 0.5, count, 14)
    tenth = given("sound split, a tenth", 0.1, 0.1, count // 3, 15)
    gross = given("60 instead of 50 %", 0.6, 0.5, int(2000 * scale), 16)
    return [
        at_most("split: false alarm, halves, 2,000 units", sound.share, VALIDITY_ALPHA, count, digits=5),
        at_most(
            "split: false alarm, a tenth, 2,000 units", tenth.share, VALIDITY_ALPHA, count // 3, digits=5
        ),
        at_least("60 instead of 50 % is found within 2,000 units", gross.share, 0.99, int(2000 * scale)),
        told("its median", gross.median, int(2000 * scale)),
    ]


def same_model(scale: float) -> list[Check]:
    """An A/A experiment whose answers differ by chance on one unit of a hundred."""
    count = int(3000 * scale)
    found = []
    for rng, rows in blocks("A/A", count, FIXED, 17):
        scores = differences(rng, rows, FIXED, mean=0, disagreement=0.01)
        paths = [log_e_mean(scores, mean=0, bets=BETS, sign=sign) for sign in (1, -1)]
        found.append(np.maximum(*(first_reached(path, ALPHA / 2) for path in paths)))
    share = float((np.concatenate(found) > 0).mean())
    return [at_most("A/A: a difference from itself", share, ALPHA, count)]


CELLS: dict[str, Callable[[float], list[Check]]] = {
    "border": border,
    "equal": equal,
    "worse": worse,
    "clustered": clustered,
    "agreement": agreement,
    "latency": latency,
    "errors": errors,
    "split": split,
    "same-model": same_model,
}


def at_most(what: str, found: float, limit: float, experiments: int, *, digits: int = 3) -> Check:
    """A check of an upper limit."""
    return Check(what, experiments, f"at most {limit:g}", f"{found:.{digits}f}", found <= limit)


def at_least(what: str, found: float, limit: float, experiments: int) -> Check:
    """A check of a lower limit."""
    return Check(what, experiments, f"at least {limit:g}", f"{found:.3f}", found >= limit)


def told(what: str, found: float, experiments: int) -> Check:
    """A figure of which nothing is asked."""
    return Check(what, experiments, "", f"{found:.0f}", True)


def _quality(
    name: str, count: int, mean: float, *, seed: int, sign: int = 1, horizon: int = HORIZON
) -> Stops:
    def path(rng: np.random.Generator, rows: int) -> np.ndarray:
        scores = differences(rng, rows, horizon, mean=mean, disagreement=DISAGREEMENT)
        return log_e_mean(scores, mean=-MARGIN, bets=BETS, sign=sign)

    return run(name, count, horizon, path, seed=seed, alpha=ALPHA)


def _of_errors(candidate: np.ndarray, failed: np.ndarray, weight: float) -> np.ndarray:
    """The logarithm of e after every request, of which only those that failed count."""
    total = None
    for ratio in HIGHER_ODDS:
        normal = np.log1p(weight * (ratio - 1))
        path = np.cumsum(np.where(failed, np.where(candidate, np.log(ratio), 0.0) - normal, 0.0), axis=1)
        total = path if total is None else np.logaddexp(total, path, out=total)
    assert total is not None
    return total - np.log(len(HIGHER_ODDS))
