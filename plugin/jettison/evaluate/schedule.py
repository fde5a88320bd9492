"""In which order variants take their turns, so that neither drift nor neighbours favour one of them.

A round gives every variant one turn. Each round is followed by its mirror image (ABBA), so that a drift
that is linear over two rounds cancels in their sum, and the rounds walk through a Williams square, so
that every variant follows every other one equally often.
Source: E. J. Williams, Australian Journal of Scientific Research 2 (1949), 149-168.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count


def orders(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Orders of the names without end: a row of the square, its mirror image, the next row and so on."""
    size = len(names)
    zigzag = [(step + 1) // 2 if step % 2 else (size - step // 2) % size for step in range(size)]
    for shift in count():
        row = tuple(names[(place + shift) % size] for place in zigzag)
        yield row
        yield row[::-1]
