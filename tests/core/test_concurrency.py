from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from jettison.core.concurrency import available_cores, in_order

WAIT_S = 20


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_stand_in_the_order_of_the_items(workers: int) -> None:
    first_may_end = threading.Event()

    def square(number: int) -> int:
        if number == 0 and workers > 1:
            assert first_may_end.wait(WAIT_S)
        if number == 1:
            first_may_end.set()
        return number * number

    assert list(in_order(square, range(20), workers=workers)) == [number * number for number in range(20)]


def test_as_many_items_run_at_once_as_there_are_workers() -> None:
    together = threading.Barrier(3, timeout=WAIT_S)
    assert len(list(in_order(lambda _: together.wait(), range(6), workers=3))) == 6


@pytest.mark.parametrize("workers", [1, 3])
def test_items_are_taken_as_results_are_asked_for(workers: int) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = in_order(lambda number: number, items(), workers=workers)
    next(results)
    assert len(taken) <= workers + 1
    results.close()


@pytest.mark.parametrize("workers", [1, 3])
def test_a_failure_is_raised_where_its_result_would_stand(workers: int) -> None:
    results = in_order(lambda number: 1 // (2 - number), range(5), workers=workers)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_this_process_has_a_core() -> None:
    assert available_cores() >= 1
