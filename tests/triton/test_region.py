"""Inputs through shared memory: with a real server, and with clients that refuse."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np
import pytest
import served_models as zoo
from served_models import Served
from tritonclient.utils import InferenceServerException

from jettison.core.errors import ExternalError
from jettison.triton import client as client_module
from jettison.triton import region as region_module
from jettison.triton.client import Protocol, TritonRunner
from jettison.triton.region import LEAST_BYTES, Place, Region

PROTOCOLS: tuple[Protocol, ...] = ("http", "grpc")


def does_nothing() -> None:
    return None


class Recorder:
    """A client that notes what is registered; `refuse` may raise at either call."""

    def __init__(self, refuse: Callable[[], None] = does_nothing) -> None:
        self.registered: dict[str, int] = {}
        self.deadlines: list[dict[str, float]] = []
        self.refuse = refuse

    def register_system_shared_memory(self, name: str, key: str, byte_size: int, **deadline: float) -> None:
        self.deadlines.append(deadline)
        self.refuse()
        assert key == f"/{name}"
        self.registered[name] = byte_size

    def unregister_system_shared_memory(self, name: str, **deadline: float) -> None:
        self.deadlines.append(deadline)
        self.refuse()
        del self.registered[name]


def found_at(place: Place, like: np.ndarray) -> np.ndarray:
    """What another process would read there."""
    memory = SharedMemory(place.name)
    try:
        return np.ndarray(like.shape, like.dtype, buffer=memory.buf, offset=place.offset).copy()
    finally:
        memory.close()


def exists(name: str) -> bool:
    return Path("/dev/shm", name).exists()


def test_arrays_stand_aligned_and_whole_at_their_places() -> None:
    client = Recorder()
    region = Region(client)
    arrays = [np.arange(5, dtype=np.int8), np.float32([[1, 2], [3, 4]]).T, np.array(7, np.int64)]
    places = region.place(arrays)
    for place, array in zip(places, arrays, strict=True):
        assert place.offset % 64 == 0
        assert place.size == array.nbytes
        np.testing.assert_array_equal(found_at(place, array), array)
    region.close()
    assert client.registered == {}
    assert not exists(places[0].name)


def test_a_region_is_kept_until_the_inputs_outgrow_it() -> None:
    client = Recorder()
    region = Region(client)
    first = region.place([np.zeros(1000, np.uint8)])[0].name
    assert region.place([np.ones(900, np.uint8)])[0].name == first
    second = region.place([np.ones(3000, np.uint8)])[0].name
    assert second != first
    assert set(client.registered) == {second}
    assert not exists(first)
    region.close()


def test_a_server_that_refuses_leaves_no_memory_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise InferenceServerException("Unable to open shared memory region")

    monkeypatch.setattr(region_module.secrets, "token_hex", lambda _: "refused")
    with pytest.raises(InferenceServerException):
        Region(Recorder(refuse)).place([np.zeros(8)])
    assert not exists("jettison-refused")


def test_more_than_the_machine_has_is_an_error_and_not_a_crash() -> None:
    enormous = np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), (1 << 50,), (0,))
    with pytest.raises(OSError, match="too little shared memory"):
        Region(Recorder()).place([enormous])


def test_a_region_still_in_use_is_asked_for_again_and_then_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Recorder()
    region = Region(client)
    name = region.place([np.zeros(8)])[0].name
    asked = []

    def busy() -> None:
        asked.append(1)
        raise InferenceServerException("Cannot unregister shared memory region, it is currently in use.")

    client.refuse = busy
    monkeypatch.setattr(region_module, "_UNREGISTER_DEADLINE_S", 0.02)
    with pytest.raises(ExternalError, match=r"does not let it go: .*currently in use"):
        region.close()
    assert len(asked) > 1
    assert not exists(name)


def test_closing_after_the_server_has_gone_is_quiet() -> None:
    client = Recorder()
    region = Region(client)
    name = region.place([np.zeros(8)])[0].name

    def gone() -> None:
        raise ConnectionRefusedError

    client.refuse = gone
    region.close()
    assert not exists(name)


@pytest.mark.parametrize(
    ("timeout_s", "deadlines"),
    [
        (None, [{}, {}]),
        (0.5, [{"client_timeout": 0.5}, {"client_timeout": 0.5}]),
        (30.0, [{"client_timeout": 30.0}, {"client_timeout": 1.0}]),
    ],
    ids=["http", "grpc", "grpc patient"],
)
def test_every_call_has_a_deadline(timeout_s: float | None, deadlines: list[dict[str, float]]) -> None:
    client = Recorder()
    region = Region(client, client_timeout_s=timeout_s)
    region.place([np.zeros(8)])
    region.close()
    assert client.deadlines == deadlines


@pytest.mark.parametrize(
    ("url", "here"),
    [("127.0.0.1:8000", True), ("localhost:1", True), ("[::1]:8001", True), ("10.0.0.7:8000", False)],
)
def test_a_server_on_this_machine_is_known_by_its_address(url: str, here: bool) -> None:
    assert client_module._is_here(url) is here


def url_of(served: Served, protocol: Protocol) -> str:
    return served.server.http_url if protocol == "http" else served.server.grpc_url


def long_ids(length: int) -> np.ndarray:
    return np.arange(2 * length, dtype=np.int64).reshape(2, length) % 10


@pytest.mark.server
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_large_inputs_go_through_shared_memory_and_small_ones_in_the_request(
    served: Served, protocol: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    place = Region.place

    def counted(self: Region, arrays: list[np.ndarray]) -> list[Place]:
        taken.append(sum(array.nbytes for array in arrays))
        return place(self, arrays)

    monkeypatch.setattr(Region, "place", counted)
    with TritonRunner(url_of(served, protocol), "embedding", protocol=protocol) as live:
        for length in (3, 5_000, 6_000, 50_000, 4):  # the region grows in between
            ids = long_ids(length)
            np.testing.assert_array_equal(live.run({"ids": ids})["y"], zoo.TABLE[ids])
    assert taken == [2 * length * 8 for length in (5_000, 6_000, 50_000)]
    assert min(taken) >= LEAST_BYTES


@pytest.mark.server
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("length", [3, 5_000], ids=["request", "shared memory"])
def test_big_endian_inputs_arrive_as_the_numbers_that_they_are(
    served: Served, protocol: Protocol, length: int
) -> None:
    ids = long_ids(length)
    with TritonRunner(url_of(served, protocol), "embedding", protocol=protocol) as live:
        np.testing.assert_array_equal(live.run({"ids": ids.astype(">i8")})["y"], zoo.TABLE[ids])


@pytest.mark.server
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_stopped_server_is_given_up_after_the_timeout_though_the_inputs_are_large(
    served: Served, protocol: Protocol
) -> None:
    pid = served.server.pid or 0
    runner = TritonRunner(url_of(served, protocol), "embedding", protocol=protocol, timeout_s=0.5)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(ExternalError, match=r"no answer within 0\.5 s"):
            runner.run({"ids": long_ids(5_000)})
        runner.close()
    finally:
        os.kill(pid, signal.SIGCONT)
    with TritonRunner(url_of(served, protocol), "embedding", protocol=protocol) as live:
        live.run({"ids": long_ids(3)})


@pytest.mark.server
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_that_cannot_map_the_memory_gets_the_inputs_in_the_request(
    served: Served, protocol: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = long_ids(5_000)
    with TritonRunner(url_of(served, protocol), "embedding", protocol=protocol) as live:
        register = live._client.register_system_shared_memory
        monkeypatch.setattr(
            live._client,
            "register_system_shared_memory",
            lambda name, key, size, **deadline: register(name, f"{key}-elsewhere", size, **deadline),
        )
        np.testing.assert_array_equal(live.run({"ids": ids})["y"], zoo.TABLE[ids])
        assert live._region is None


@pytest.mark.server
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_region_that_the_server_forgot_is_replaced_by_the_request(
    served: Served, protocol: Protocol
) -> None:
    ids = long_ids(5_000)
    with TritonRunner(url_of(served, protocol), "embedding", protocol=protocol) as live:
        np.testing.assert_array_equal(live.run({"ids": ids})["y"], zoo.TABLE[ids])
        assert live._region is not None
        live._region._unregister()
        np.testing.assert_array_equal(live.run({"ids": ids})["y"], zoo.TABLE[ids])
        assert live._region is None


@pytest.mark.server
def test_an_error_of_the_model_itself_is_not_taken_for_a_refusal(served: Served) -> None:
    ids = long_ids(5_000) + 100  # no such rows in the table
    with TritonRunner(served.server.http_url, "embedding") as live:
        with pytest.raises(ExternalError, match="the server says"):
            live.run({"ids": ids})
        assert live._region is not None
