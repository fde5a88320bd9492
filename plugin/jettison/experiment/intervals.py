"""Bounds of the mean difference that hold at all times at once: the e-process read the other way round.

The lower bound is the largest mean that the e-process has refuted at 1/alpha. So it passes -margin at the
very moment at which the verdict promotes, and the truth lies below it at any time with a probability of at
most alpha. The bets are fixed for the margin, so that at the planned disagreement the bounds come no
nearer to the mean than about a quarter of the margin, however many units there are.

Source: Waudby-Smith and Ramdas (2024), section 4, with fixed bets. Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from jettison.core.bisection import last_that_holds
from jettison.experiment.eprocess import Outcomes, log_e_above

_HALVINGS = 40
"""Of an interval of length 2: down to 2e-12."""


def lower_bound(outcomes: Outcomes, *, bets: Sequence[float], alpha: float) -> float:
    """The mean difference that was surpassed, from -1 to 1; -1 where nothing is known.

    e falls as the mean that it speaks against rises, so that halving finds where it crosses 1/alpha.
    """
    asked = -math.log(alpha)
    return last_that_holds(
        lambda mean: log_e_above(outcomes, mean=mean, bets=bets) >= asked, -1.0, 1.0, halvings=_HALVINGS
    )


def upper_bound(outcomes: Outcomes, *, bets: Sequence[float], alpha: float) -> float:
    """The mean difference that was undercut, from -1 to 1; 1 where nothing is known."""
    mirrored = [(-value, count) for value, count in outcomes]
    return -lower_bound(mirrored, bets=bets, alpha=alpha)
