"""The verdict's functions of counters against others that compute the same: our paths, scipy, ville."""

from __future__ import annotations

import importlib.util

import numpy as np

from jettison.experiment.eprocess import HIGHER_ODDS, LOWER_ODDS, log_e_above, log_e_below, log_e_rate
from jettison.experiment.mcnemar import mcnemar
from jettison.experiment.mismatch import CONCENTRATIONS, log_e_split
from verdict_cells import BETS, DISAGREEMENT, MARGIN, Check
from verdict_paths import differences, log_e_assigned, log_e_events, log_e_mean

CLOSE = 1e-8
"""Of logarithms of e of some tens, and of shares."""


def oracles() -> list[Check]:
    """How far the functions are from each oracle at worst; those that are not installed are left out."""
    checks = [_paths()]
    if importlib.util.find_spec("scipy"):
        checks.append(_scipy())
    if importlib.util.find_spec("ville"):
        checks.append(_ville())
    return checks


def _check(what: str, errors: list[float]) -> Check:
    worst = max(errors)
    return Check(what, len(errors), f"at most {CLOSE:g}", f"{worst:.1e}", worst <= CLOSE)


def _paths() -> Check:
    """Every product of factors against the function of its counters, at some places."""
    rng, errors = np.random.default_rng(0), []
    scores = differences(rng, 20, 4000, mean=-MARGIN, disagreement=DISAGREEMENT)
    events = rng.random((20, 4000)) < 0.02
    quality = [log_e_mean(scores, mean=-MARGIN, bets=BETS, sign=sign) for sign in (1, -1)]
    rates = [log_e_events(events, probability=0.03, odds=odds) for odds in (HIGHER_ODDS, LOWER_ODDS)]
    assigned = log_e_assigned(events, share=0.03)
    for row in range(20):
        for end in (1, 50, 999, 4000):
            seen, hits = scores[row, :end], int(events[row, :end].sum())
            outcomes = [(value, int((seen == value).sum())) for value in (-1.0, 0.0, 1.0)]
            ours = [
                log_e_above(outcomes, mean=-MARGIN, bets=BETS),
                log_e_below(outcomes, mean=-MARGIN, bets=BETS),
            ]
            ours += [log_e_rate([(0.03, hits, end)], odds) for odds in (HIGHER_ODDS, LOWER_ODDS)]
            ours.append(log_e_split([(0.03, hits, end)]))
            theirs = [path[row, end - 1] for path in (*quality, *rates, assigned)]
            errors += [abs(one - float(other)) for one, other in zip(ours, theirs, strict=True)]
    return _check("functions of counters against products item by item, ln e", errors)


def _scipy() -> Check:
    """McNemar's exact test and interval, and the Dirichlet-multinomial by scipy's beta function."""
    from scipy.special import betaln
    from scipy.stats import binomtest

    errors = []
    for better, worse in ((0, 5), (3, 7), (48, 52), (200, 150), (2000, 2300)):
        found, known = mcnemar(better, 0, worse), binomtest(better, better + worse)
        interval = known.proportion_ci(0.95, method="exact")
        errors += [abs(found.p_value - known.pvalue), abs(found.share_low - interval.low),
                   abs(found.share_high - interval.high)]  # fmt: skip
        for share in (0.5, 0.1):
            parts = [
                betaln(c * share + better, c * (1 - share) + worse) - betaln(c * share, c * (1 - share))
                for c in CONCENTRATIONS
            ]
            mean = np.logaddexp(*parts) - np.log(2) - better * np.log(share) - worse * np.log1p(-share)
            errors.append(abs(log_e_split([(share, better, better + worse)]) - float(mean)))
    return _check("against scipy: McNemar's exact test and interval, the split's ln e", errors)


def _ville() -> Check:
    """The split's e-process after every unit: ville's Bernoulli test with the same priors."""
    from ville import BernoulliTest

    rng, errors = np.random.default_rng(1), []
    for share in (0.5, 0.1):
        given = (rng.random(3000) < share * 1.1).astype(float)
        tests = [BernoulliTest(share, prior=(c * share, c * (1 - share))).fit(given) for c in CONCENTRATIONS]
        known = np.logaddexp(*(test.log_e_values_ for test in tests)) - np.log(2)
        counts = np.cumsum(given).astype(int)
        errors += [
            abs(log_e_split([(share, int(counts[at]), at + 1)]) - float(known[at]))
            for at in range(0, 3000, 100)
        ]
    return _check("against ville: the split's ln e", errors)
