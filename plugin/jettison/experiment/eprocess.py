"""E-processes: what speaks against a hypothesis so far, in a form that may be looked at after every item.

An e-process starts at 1 and grows on average only where its hypothesis is false. Where the hypothesis is
true it ever exceeds 1/alpha with a probability of at most alpha, however often one looks and whenever one
stops (Ville's inequality). All here are products of one factor an item, so the logarithm is a sum of counts
times constants: it depends on the counters only, adds up over nodes, and anyone can compute it again.

All is in natural logarithms, so counts of 1e9 neither overflow nor lose the sign. Standard library only: the
router runs it inside Triton.

Source: G. Shafer, Testing by betting, JRSS A 184 (2021); I. Waudby-Smith and A. Ramdas, Estimating means of
bounded random variables by betting, JRSS B 86 (2024); J. Ville, Etude critique de la notion de collectif
(1939).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

FORMULAS = 1
"""Which formulas a verdict was made by; raised whenever a formula or constant below gives other figures."""

BET_FACTORS = (0.5, 1.0, 2.0, 4.0)
"""Bets as multiples of margin / planned disagreement, about the best bet where both are equally good: half of
it for twice the disagreement, more for less of it or for a better candidate. Source: docs/adr/0008."""

LARGEST_STAKE = 0.9
"""The share of its wealth that a bet may lose in one unit; all of it could never be won back."""

HIGHER_ODDS = (1.5, 2.0, 4.0, 8.0)
"""How many times the odds of the hypothesis an event may have that happens too often. Of seven sets tried,
these found a slight excess soonest and a gross one nearly so: of a planned 1 %, shares of 1.5, 2, 5 and 20 %
after 2,438, 793, 80 and 14 trials in the median, at alpha 0.05."""

LOWER_ODDS = (1 / 8, 1 / 4, 1 / 2, 3 / 4)
"""The same for an event that is rarer than the hypothesis says. Of five sets tried, these were never far from
the best: against 1 %, shares of 0, 0.25 and 0.5 % are certified after 428, 637 and 1,557 trials, medians."""

Outcomes = Sequence[tuple[float, int]]
"""Pairs of (value of a unit from -1 to 1, how many units had it)."""

Trials = Sequence[tuple[float, int, int]]
"""Triples of (the event's probability under the hypothesis, events, trials), one for each stage of a ramp."""


def bet_sizes(margin: float, planned_disagreement: float) -> tuple[float, ...]:
    """The stakes f * margin / planned_disagreement, fixed before any data.

    Args:
        margin: How much worse the candidate may be, from 0 to 1.
        planned_disagreement: The share of units on which the two are expected to differ.
    """
    return tuple(factor * margin / planned_disagreement for factor in BET_FACTORS)


def log_wealths_above(outcomes: Outcomes, *, mean: float, bets: Sequence[float]) -> tuple[float, ...]:
    """The logarithm of each bet's wealth against the hypothesis that the mean is at most `mean`.

    For D in [-1, 1] and the bet L: sum of ln(1 + L' (D - mean)), L' = min(L, 0.9 / (1 + mean)). The factor's
    expectation is 1 + L' (E[D] - mean), at most 1 under the hypothesis. Wealths of several nodes add up.
    """
    caps = LARGEST_STAKE / (1 + mean) if mean > -1 else math.inf
    return tuple(_log_wealth(outcomes, mean, min(bet, caps)) for bet in bets)


def _log_wealth(outcomes: Outcomes, mean: float, bet: float) -> float:
    return math.fsum(count * math.log1p(bet * (value - mean)) for value, count in outcomes if count)


def log_e_above(outcomes: Outcomes, *, mean: float, bets: Sequence[float]) -> float:
    """The logarithm of e against "the mean is at most `mean`": the mean wealth of the bets.

    With `mean` = -margin it speaks for the candidate: it is worse by less than the margin.
    """
    return log_mean_exp(log_wealths_above(outcomes, mean=mean, bets=bets))


def log_e_below(outcomes: Outcomes, *, mean: float, bets: Sequence[float]) -> float:
    """The logarithm of e against "the mean is at least `mean`": the same with the other signs."""
    mirrored = [(-value, count) for value, count in outcomes]
    return log_e_above(mirrored, mean=-mean, bets=bets)


def log_e_rate(trials: Trials, odds: Sequence[float]) -> float:
    """The logarithm of e against "the event has the probability p".

    "At most p" for odds above 1, "at least p" for odds below. It is a mixture of likelihood
    ratios: with the odds r p / (1 - p) instead of p / (1 - p), k events in n trials have the ratio
    r^k / (1 + p (r - 1))^n, so

        e = mean over r of product over stages of r^k / (1 + p (r - 1))^n

    Stages whose p is 0 or 1 tell nothing. It serves latency (events: over the limit), errors (trials: all
    errors; p: the candidate's share of the traffic; r: how many times its error rate is the baseline's),
    lost answers, and with `LOWER_ODDS` agreement.
    """
    told = [(p, events, count) for p, events, count in trials if 0 < p < 1]
    return log_mean_exp([_log_ratio(told, ratio) for ratio in odds])


def _log_ratio(trials: Trials, ratio: float) -> float:
    log_ratio = math.log(ratio)
    return math.fsum(events * log_ratio - count * math.log1p(p * (ratio - 1)) for p, events, count in trials)


def log_mean_exp(logs: Sequence[float]) -> float:
    """The logarithm of the mean of exp(logs), whatever their size."""
    highest = max(logs)
    if math.isinf(highest):
        return highest
    return highest + math.log(math.fsum(math.exp(value - highest) for value in logs) / len(logs))


_LARGEST_LOG = 690.0


def e_value(log_e: float) -> float:
    """The e-value itself, at most e^690 (about 1e299), since JSON knows no infinity."""
    return math.exp(min(log_e, _LARGEST_LOG))
