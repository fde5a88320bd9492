"""The service is killed again and again: no count is lost or doubled, and what it told stands."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from pathlib import Path

import pytest
from verdict_cases import TOKEN, Service, gate, leave, serving

from jettison.experiment.counter_file import document_of
from jettison.experiment.counters import WHOLE, Counters, CounterSet
from jettison.experiment.tally import Tally

pytest.importorskip("uvicorn", reason="the extra 'verdict' is not installed")

KILLS = 6
NODES = tuple(f"n{i}" for i in range(8))
MORE = Tally(better=1, same=40, worse=1)


class Nodes(threading.Thread):
    """Eight nodes that count on: half leave files, half send what they have and remember what was heard."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder, self.ended = folder, threading.Event()
        self.states = {node: Counters(gate().id, node, epoch=3) for node in NODES}
        self.heard: dict[str, int] = {}
        self.service: Service | None = None

    def run(self) -> None:
        while not self.ended.wait(0.01):
            for node in NODES:
                self.states[node] = self.states[node].counting({WHOLE: MORE})
                if node < "n4":
                    leave(self.folder, self.states[node])
                else:
                    self.send(node)

    def send(self, node: str) -> None:
        one, service = self.states[node], self.service
        body = json.dumps(document_of(CounterSet(gate().id, (one,)))).encode()
        try:
            if service is not None and service.ask("/v1/counters", body, token=TOKEN).status == 200:
                self.heard[node] = one.sequence
        except (OSError, http.client.HTTPException):
            pass  # it was killed meanwhile: nothing was acknowledged

    def sum(self) -> int:
        return sum(dict(one.slices)[WHOLE].same for one in self.states.values())


def sequences(document: dict) -> dict[str, int]:
    return {one["node"]: one["sequence"] for one in document["nodes"]}


@pytest.mark.slow
def test_six_kills_lose_and_double_nothing_and_an_ending_stands(tmp_path):
    chance, nodes, told = random.Random(5), Nodes(tmp_path / "counters"), []
    for kill in range(KILLS + 1):
        heard = dict(nodes.heard)
        with serving(tmp_path, "--token", str(tmp_path / "token"), poll=0.1) as service:
            nodes.service = service
            known = sequences(service.ask("/v1/experiments/gate/counters", token=TOKEN).document)
            assert all(known[node] >= sequence for node, sequence in heard.items()), "what was heard is kept"
            if kill == 0:
                nodes.start()
            if kill == KILLS:
                break_up(nodes, service, told)
                return
            end = time.monotonic() + chance.uniform(0.0, 0.6)
            while time.monotonic() < end:
                told.append(service.ask("/v1/experiments/gate/verdict", token=TOKEN).document)
            nodes.service = None
            service.kill()


def break_up(nodes: Nodes, service: Service, told: list[dict]) -> None:
    """The nodes stop; all that they counted is in the sum, once, and the first ending is the verdict."""
    nodes.ended.set()
    nodes.join()
    for node in NODES[4:]:
        nodes.send(node)
    end, found = time.monotonic() + 20, {}
    while time.monotonic() < end and sum_of(found) != nodes.sum():
        found = service.ask("/v1/experiments/gate/counters", token=TOKEN).document
    assert sum_of(found) == nodes.sum()
    assert sequences(found) == {node: one.sequence for node, one in nodes.states.items()}
    told.append(service.ask("/v1/experiments/gate/verdict", token=TOKEN).document)
    endings = [one for one in told if one["decision"] != "continue"]
    assert told[-1]["decision"] == "promote", "equal models, some thousand units"
    assert all(one == endings[0] for one in endings)
    assert told[-len(endings) :] == endings


def sum_of(document: dict) -> int:
    return sum(one["slices"]["all"].get("same", 0) for one in document.get("nodes", ()))
