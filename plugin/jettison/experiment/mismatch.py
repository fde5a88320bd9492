"""Whether traffic was split as it was meant to be: the sequential test for a sample-ratio mismatch.

A router that sends 48 % instead of 50 % loses units for a reason, and what is left can no longer be
compared. Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from jettison.experiment.eprocess import log_mean_exp

CONCENTRATIONS = (10.0, 1000.0)
"""How close to the planned split the prior's splits lie: the first for gross mismatches, the second for
slight ones. Of seven sets tried (1 to 10,000, alone and together) none was better at both ends: of a planned
half, shares of 0.8, 0.6, 0.53 and 0.51 were found after 49, 443, 4,677 and 46,940 units, medians at 0.001."""

Assigned = Sequence[tuple[float, int, int]]
"""Triples of (planned share of the candidate, units given to the candidate, units given to either)."""


def log_e_split(assigned: Assigned) -> float:
    """The logarithm of e against "each unit goes to the candidate with the planned probability w".

    The Dirichlet-multinomial test, here with two arms: for each concentration c

        e = B(c w + n1, c (1 - w) + n0) / (B(c w, c (1 - w)) w^n1 (1 - w)^n0)

    multiplied over the stages of a ramp, and the mean over c. Its expectation is 1 at every time. Count
    units, which are assigned once, and not their requests.

    Source: M. Lindon and A. Malek, Anytime-valid inference for multinomial count data, NeurIPS 2022.
    """
    return log_mean_exp([_log_factor(assigned, concentration) for concentration in CONCENTRATIONS])


def _log_factor(assigned: Assigned, concentration: float) -> float:
    return math.fsum(
        _log_ratio(share, concentration, events, count - events) for share, events, count in assigned if count
    )


def _log_ratio(share: float, concentration: float, candidate: int, baseline: int) -> float:
    first, second = concentration * share, concentration * (1 - share)
    gained = _log_beta(first + candidate, second + baseline) - _log_beta(first, second)
    return gained - candidate * math.log(share) - baseline * math.log1p(-share)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
