"""Whether two sets of answers are equal, and which output differs by how much where they are not.

Floating point sums depend on their order, and a graph has another order than the framework. An output passes
if no value differs by more than a share of the largest value in it:

    max |y - y0| <= tolerance * max |y0| + 1e-6
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from jettison.core.tensors import Arrays

TOLERANCE = 1e-4
"""Of float32: 840 times its resolution of 1.2e-7. An encoder of 12 layers and a residual network of 81
convolutions differed by 1 to 3 times it; a graph with the other GELU by 1300, one with BatchNormalization's
epsilon 1e-3 for 1e-5 by 4100."""
HALF_TOLERANCE = 1e-2
"""Of float16: 10 times float16's resolution of 1e-3."""
_ABSOLUTE = 1e-6
"""For outputs that are zero or nearly so."""

Array = np.ndarray[Any, np.dtype[Any]]


def differences(expected: Arrays, found: Arrays) -> Iterator[str]:
    """Each output that differs, in words; integers and truth values must be the same."""
    for name, array in expected.items():
        problem = _difference(array, found[name])
        if problem is not None:
            yield f"output {name!r} {problem}"


def _difference(expected: Array, found: Array) -> str | None:
    if expected.shape != found.shape:
        return f"is of shape {list(found.shape)} instead of {list(expected.shape)}"
    if not np.issubdtype(expected.dtype, np.floating):
        wrong = int(np.count_nonzero(expected != found))
        return f"differs in {wrong} of {expected.size} values" if wrong else None
    finite = np.isfinite(expected)
    if not np.array_equal(finite, np.isfinite(found)):
        return "has NaN or infinity in other places"
    if not finite.any():
        return None
    wide, other = expected.astype(np.float64)[finite], found.astype(np.float64)[finite]
    largest, peak = float(np.abs(wide - other).max()), float(np.abs(wide).max())
    tolerance = HALF_TOLERANCE if expected.dtype.itemsize == 2 else TOLERANCE
    if largest <= tolerance * peak + _ABSOLUTE:
        return None
    return f"differs by {largest:.3g}, with values up to {peak:.3g} and a tolerance of {tolerance:g} of that"
