"""Saved requests sent to both models in turns: pairs without a router in the path.

The order is ABBA: baseline, candidate, candidate, baseline. So each model comes first as often as the other,
and a drift that is linear over two pairs cancels in their mean.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from pydantic import BaseModel, ConfigDict

from jettison.core.batching import fixed_batch_size
from jettison.core.errors import ExternalError, InputError
from jettison.core.progress import Progress
from jettison.core.runner import Runner
from jettison.core.samples import Batch, Samples
from jettison.core.tensors import Arrays
from jettison.evaluate.answers import Answers
from jettison.evaluate.classes import predictions_of
from jettison.evaluate.metrics import Metric
from jettison.evaluate.speed import CONFIDENCE, median_interval
from jettison.experiment.tally import BUCKETS, Arms, Tally, unit_tally

_RELATIVE, _ABSOLUTE = 1e-2, 1e-3
"""How far numbers that are no class scores may differ and still agree, as in a router's task `tolerance`."""
_MOST_FAILURES = 5
"""Chosen: when both models have failed so often in a row, it is the server."""

Clock = Callable[[], int]
"""The time in nanoseconds since any fixed moment."""


@dataclass(frozen=True)
class Outcome:
    """What came of one sample.

    Args:
        baseline_ms: How long the baseline took; None where it failed.
        candidate_ms: How long the candidate took; None where it failed.
        agrees: Whether both answered alike; None where one failed.
        score: The candidate's score minus the baseline's, from -1 to 1; None where one failed, or nothing
            tells which was right.
    """

    baseline_ms: float | None
    candidate_ms: float | None
    agrees: bool | None
    score: float | None


class LatencyDifference(BaseModel):
    """What a caller sees of both models' latency, in milliseconds.

    Args:
        baseline_ms: The median.
        candidate_ms: The median.
        baseline_p99_ms: Of fewer than 100 samples the slowest one.
        candidate_p99_ms: The same.
        difference_ms: Candidate minus baseline: the median over pairs of pairs.
        low_ms: Its one-sided lower bound.
        high_ms: Its one-sided upper bound.
        confidence: Of each bound by itself.
        samples: Of which both answered.
    """

    model_config = ConfigDict(frozen=True)

    baseline_ms: float
    candidate_ms: float
    baseline_p99_ms: float
    candidate_p99_ms: float
    difference_ms: float
    low_ms: float
    high_ms: float
    confidence: float
    samples: int


def replay(
    models: tuple[Runner, Runner],
    samples: Samples,
    *,
    metric: Metric | None,
    clock: Clock,
    warm_up: int = 20,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Each sample to both models, one at a time, in the order ABBA.

    Args:
        models: The baseline and the candidate, over one connection.
        samples: The saved requests.
        metric: Of which the difference is the score; None where nothing tells which is right.
        clock: For latencies.
        warm_up: So many samples go to both before, and count for nothing.
        progress: Gets the samples done and all of them.

    Raises:
        ExternalError: Both models failed several times in a row.
        InputError: A score of the metric is not from 0 to 1, or a model takes no single sample.
    """
    _check_batch(models)
    for batch in islice(samples.batches(1), warm_up):
        for runner in models:
            _call(runner, batch.inputs, clock)
    found: list[Outcome] = []
    failures = 0
    for index, batch in enumerate(samples.batches(1)):
        calls = [_call(runner, batch.inputs, clock) for runner in models[:: 1 if index % 2 == 0 else -1]]
        first, second = calls if index % 2 == 0 else calls[::-1]
        failures = failures + 1 if first.error and second.error else 0
        if failures >= _MOST_FAILURES and first.error:
            raise first.error
        found.append(_outcome(first, second, batch, index, metric))
        if progress is not None:
            progress(index + 1, samples.count)
    return found


def _check_batch(models: Sequence[Runner]) -> None:
    for runner in models:
        size = fixed_batch_size(runner.inputs)
        if size not in (None, 1):
            raise InputError(
                "ab replay",
                detail=f"expected models that take one sample, found one that takes {size} at a time",
                fix="Publish the model with an open batch",
            )


@dataclass(frozen=True)
class _Call:
    outputs: Arrays | None
    ms: float
    error: ExternalError | None = None


def _call(runner: Runner, inputs: Arrays, clock: Clock) -> _Call:
    begin = clock()
    try:
        outputs = runner.run(inputs)
    except ExternalError as error:
        return _Call(None, 0.0, error)
    return _Call(outputs, (clock() - begin) / 1e6)


def _outcome(first: _Call, second: _Call, batch: Batch, index: int, metric: Metric | None) -> Outcome:
    if first.outputs is None or second.outputs is None:
        lost = [None if call.outputs is None else call.ms for call in (first, second)]
        return Outcome(lost[0], lost[1], None, None)
    score = None
    if metric is not None:
        scores = [
            float(metric(Answers(side, batch.labels, first.outputs, index))[0])
            for side in (first.outputs, second.outputs)
        ]
        _check_scores(metric, scores)
        score = scores[1] - scores[0]
    return Outcome(first.ms, second.ms, _agree(first.outputs, second.outputs), score)


def _check_scores(metric: Metric, scores: Sequence[float]) -> None:
    if any(not 0 <= score <= 1 for score in scores):
        raise InputError(
            f"metric {metric.name!r}",
            detail=f"expected scores from 0 to 1, of which a difference is from -1 to 1, found {scores}",
            fix="Give top1, top5, or a function of your own that stays in that range",
        )


def _agree(baseline: Arrays, candidate: Arrays) -> bool:
    """The same class where outputs are class scores, else all numbers nearly equal."""
    before, after = predictions_of(baseline), predictions_of(candidate)
    if before is not None and after is not None:
        return bool(np.array_equal(before, after))
    return all(
        np.allclose(candidate[name], array, rtol=_RELATIVE, atol=_ABSOLUTE, equal_nan=True)
        if array.dtype.kind in "fc"
        else np.array_equal(candidate[name], array)
        for name, array in baseline.items()
    )


def tally_of(outcomes: Sequence[Outcome], units: Sequence[str], *, limit_ms: float | None) -> Tally:
    """The counts: each unit once, errors and latencies by request.

    Args:
        outcomes: One a sample.
        units: The unit of each sample; equal names belong together.
        limit_ms: What counts as late, or None where nothing does.
    """
    by_unit: dict[str, list[Outcome]] = defaultdict(list)
    for unit, outcome in zip(units, outcomes, strict=True):
        by_unit[unit].append(outcome)
    errors = Arms(
        baseline_errors=sum(outcome.baseline_ms is None for outcome in outcomes),
        candidate_errors=sum(outcome.candidate_ms is None for outcome in outcomes),
    )
    late = [o.candidate_ms > limit_ms for o in outcomes if limit_ms and o.candidate_ms is not None]
    requests = Tally(
        over_limit=sum(late),
        within_limit=len(late) - sum(late),
        arms=((BUCKETS // 2, errors),) if errors != Arms() else (),
    )
    return sum((_unit(some) for some in by_unit.values()), requests)


def _unit(outcomes: Sequence[Outcome]) -> Tally:
    """One unit, as the router counts it: an answer that the candidate owes outweighs those that it gave."""
    if any(outcome.candidate_ms is None and outcome.baseline_ms is not None for outcome in outcomes):
        return Tally(offered=1, candidate_lost=1)
    whole = [outcome for outcome in outcomes if outcome.agrees is not None]
    if not whole:
        return Tally(offered=1, baseline_lost=1)
    agrees = all(outcome.agrees for outcome in whole)
    compared = Tally(offered=1, agree=int(agrees), disagree=int(not agrees))
    scores = [outcome.score for outcome in whole if outcome.score is not None]
    if scores:
        return compared + unit_tally(min(1.0, max(-1.0, sum(scores) / len(scores))))
    return compared + Tally(same=int(agrees))


def latency_of(outcomes: Sequence[Outcome]) -> LatencyDifference | None:
    """Both models' latencies and their difference; None with fewer than two pairs of pairs."""
    pairs = np.asarray(list(_pairs(outcomes)), np.float64)
    if len(pairs) < 4:
        return None
    baseline, candidate = pairs.T
    low, middle, high = median_interval(candidate - baseline)
    p99 = [float(np.quantile(side, 0.99, method="higher")) for side in (baseline, candidate)]
    return LatencyDifference(
        baseline_ms=float(np.median(baseline)),
        candidate_ms=float(np.median(candidate)),
        baseline_p99_ms=p99[0],
        candidate_p99_ms=p99[1],
        difference_ms=middle,
        low_ms=low,
        high_ms=high,
        confidence=CONFIDENCE,
        samples=len(pairs),
    )


def _pairs(outcomes: Sequence[Outcome]) -> Iterator[tuple[float, float]]:
    """The latencies of whole ABBA quadruples: an even number, each first as often as second."""
    for one, other in zip(outcomes[::2], outcomes[1::2], strict=False):
        told = [(o.baseline_ms, o.candidate_ms) for o in (one, other)]
        if all(b is not None and c is not None for b, c in told):
            yield from [(float(b or 0), float(c or 0)) for b, c in told]
