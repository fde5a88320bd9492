"""Latency of variants against the baseline, measured in one run, in turns.

All variants live in one process and take turns, so that heat, clock frequency and other programs hit them
alike; one process each would exchange that for a drift between processes. The caller must have switched
off that idle threads spin (`session.intra_op.allow_spinning=0` in ONNX Runtime): threads of one session
that spin after a run steal the cores of the next, and the same pair of models measured 14.2 against 8.8 ms
with spinning and 6.6 against 4.4 ms without.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from jettison.core.errors import RecipeError
from jettison.core.progress import Progress
from jettison.core.runner import Runner
from jettison.core.tensors import Arrays
from jettison.evaluate.schedule import orders
from jettison.evaluate.speed import Latency, Turns, is_stable, latency_of

Clock = Callable[[], int]
"""The time in nanoseconds since any fixed moment."""


class LatencyPlan(BaseModel):
    """How long to measure.

    A turn calls a variant `calls_per_turn` times; the first call is not counted, since it finds the
    caches filled by another variant, which a server that runs one model does not.
    The measurement ends when every speed-up is known to `stable_share` (half the width of its interval,
    and between the two halves of the run), or at `max_rounds` or `max_seconds`, but never before two
    rounds. Two models of 2.9 and 1.3 ms on two busy cores took 116 to 400 rounds, 1.6 to 5.4 s.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    warm_up_rounds: int = Field(default=3, ge=1)
    calls_per_turn: int = Field(default=3, ge=2)
    min_rounds: int = Field(default=24, ge=2)
    max_rounds: int = Field(default=400, ge=2)
    max_seconds: float = Field(default=20.0, gt=0)
    stable_share: float = Field(default=0.01, gt=0, lt=1)


@dataclass(frozen=True)
class LatencyReport:
    """Latencies by name, and why the measurement ended."""

    baseline: str
    latencies: dict[str, Latency]
    rounds: int
    seconds: float
    ended: Literal["stable", "rounds", "seconds"]


def compare_latency(
    runners: Mapping[str, Runner],
    inputs: Arrays,
    *,
    baseline: str,
    plan: LatencyPlan | None = None,
    progress: Progress | None = None,
) -> LatencyReport:
    """Latency of running each of the models once on these inputs.

    Args:
        runners: Models by name, the baseline among them, idle threads not spinning.
        inputs: One batch, which all of them take.
        baseline: Name of the model that the others are compared with.
        plan: How long to measure.
        progress: Gets the rounds done and `max_rounds`; the end may come sooner.

    Raises:
        RecipeError: The baseline is not among the runners.
    """
    calls = {name: _call_of(runner, inputs) for name, runner in runners.items()}
    return compare_calls(calls, baseline=baseline, plan=plan, progress=progress)


def compare_calls(
    calls: Mapping[str, Callable[[], object]],
    *,
    baseline: str,
    plan: LatencyPlan | None = None,
    clock: Clock = time.perf_counter_ns,
    progress: Progress | None = None,
) -> LatencyReport:
    """Latency of anything that can be called: a request to a server as well as a model in this process.

    Raises:
        RecipeError: The baseline is not among the calls.
    """
    if baseline not in calls:
        raise RecipeError(
            f"baseline {baseline!r}",
            detail=f"expected one of {sorted(calls)}",
            fix="Measure the baseline too",
        )
    plan = plan or LatencyPlan()
    start = clock()
    turns = Turns(baseline=baseline, names=tuple(calls))
    with _garbage_collection_paused():
        _warm_up(calls, plan, clock)
        rounds = orders(sorted(calls))
        ended = None
        while ended is None:
            for _ in range(2):
                turns.add(_round(calls, next(rounds), plan, clock))
            if progress is not None:
                progress(min(turns.rounds, plan.max_rounds), plan.max_rounds)
            ended = _end(turns, plan, (clock() - start) / 1e9)
    latencies = {name: latency_of(turns, name) for name in calls}
    return LatencyReport(baseline, latencies, turns.rounds, (clock() - start) / 1e9, ended)


def _call_of(runner: Runner, inputs: Arrays) -> Callable[[], object]:
    return lambda: runner.run(inputs)


def _warm_up(calls: Mapping[str, Callable[[], object]], plan: LatencyPlan, clock: Clock) -> None:
    """At least one round; no more of them once they took a quarter of the time."""
    start = clock()
    for order, _ in zip(orders(sorted(calls)), range(plan.warm_up_rounds), strict=False):
        _round(calls, order, plan, clock)
        if (clock() - start) / 1e9 > plan.max_seconds / 4:
            return


def _round(
    calls: Mapping[str, Callable[[], object]], order: tuple[str, ...], plan: LatencyPlan, clock: Clock
) -> dict[str, list[int]]:
    """Nanoseconds of every counted call of one turn each."""
    measured: dict[str, list[int]] = {}
    for name in order:
        call = calls[name]
        call()
        spent = []
        for _ in range(plan.calls_per_turn - 1):
            begin = clock()
            call()
            spent.append(clock() - begin)
        measured[name] = spent
    return measured


def _end(turns: Turns, plan: LatencyPlan, seconds: float) -> Literal["stable", "rounds", "seconds"] | None:
    if turns.rounds >= plan.min_rounds and is_stable(turns, plan.stable_share):
        return "stable"
    if turns.rounds >= plan.max_rounds:
        return "rounds"
    return "seconds" if seconds >= plan.max_seconds else None


@contextmanager
def _garbage_collection_paused() -> Iterator[None]:
    """A collection in the middle of a call would be counted as the model's time."""
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
