"""The serving benchmark's clients: a figure comes only from clients that all worked to the end."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from served_models import Served

PLACE = Path(__file__).parents[2] / "benchmarks" / "serve_load.py"


@pytest.fixture(scope="module")
def load() -> ModuleType:
    """The benchmark's module, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("serve_load", PLACE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclass looks for its types
    spec.loader.exec_module(module)
    return module


def client_of(load: ModuleType, ask: Callable[[int, int], object]) -> Callable[..., object]:
    """Clients that are numbered; `ask` gets the client's number and the call's."""
    numbers = itertools.count()

    @contextlib.contextmanager
    def client() -> Iterator[object]:
        number, calls = next(numbers), itertools.count()
        yield load.Asker(lambda: ask(number, next(calls)), np.asarray)

    return client


def test_the_figure_counts_the_answers_of_all_clients(load: ModuleType) -> None:
    asked = set()
    assert load.served_rate(client_of(load, lambda number, _: asked.add(number)), 0.05) > 0
    assert asked == set(range(load.CLIENTS))


@pytest.mark.parametrize("call", [0, 3], ids=["at the start", "on the way"])
def test_a_client_that_dies_ends_the_measurement_with_its_own_error(load: ModuleType, call: int) -> None:
    def ask(number: int, count: int) -> None:
        if (number, count) == (5, call):
            raise RuntimeError("the server answers 500")

    with pytest.raises(RuntimeError, match="the server answers 500"):
        load.served_rate(client_of(load, ask), 60)


def test_a_client_that_cannot_connect_holds_up_nobody(load: ModuleType) -> None:
    @contextlib.contextmanager
    def client() -> Iterator[object]:
        raise ConnectionRefusedError("nobody there")
        yield

    with pytest.raises(ConnectionRefusedError, match="nobody there"):
        load.served_rate(client, 0.2)


@pytest.mark.server
def test_both_kinds_of_clients_find_the_output_in_the_answer(load: ModuleType, served: Served) -> None:
    x = np.float32([[1, 2, 3]])
    url = served.server.http_url
    clients = [
        lambda: load.shipped_client(url, "affine", "http", {"x": x}),
        lambda: load.prepared_client(url, "affine", {"x": x}),
    ]
    for client in clients:
        np.testing.assert_array_equal(load.answer_of(client), 3 * x)
        assert load.served_rate(client, 0.1) > 0
