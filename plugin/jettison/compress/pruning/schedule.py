"""How sparsity grows over the steps of a training: fast where much is superfluous, then ever more slowly.

s_t = s_f + (s_i - s_f) * (1 - (t - t_0) / n)^3        t_0 <= t <= t_0 + n
"""

from __future__ import annotations


def cubic_sparsity(step: int, steps: int, *, final: float, initial: float = 0.0, begin: int = 0) -> float:
    """The sparsity at a step, 0 to 1: `initial` up to step `begin`, `final` from `begin + steps` on.

    Args:
        step: t, 0 or more.
        steps: n, over how many steps sparsity grows; with 0 it is `final` from `begin` on.
        final: s_f, the sparsity in the end.
        initial: s_i, the sparsity in the beginning.
        begin: t_0, the step at which it begins to grow.

    Source: Zhu and Gupta 2017, "To prune, or not to prune" (arXiv 1710.01878), equation 1.
    """
    if step < begin:
        return initial
    left = 0.0 if step >= begin + steps else 1.0 - (step - begin) / steps
    return final + (initial - final) * left**3
