"""The service in a process of its own: what rollouts, dashboards and nodes are told."""

from __future__ import annotations

import json
import socket
import time

import pytest
from verdict_cases import SETTINGS, TOKEN, Service, gate, leave, serving, state

from jettison.experiment.counter_file import document_of
from jettison.experiment.counters import CounterSet
from jettison.experiment.verdict import Verdict
from jettison.experiment.verdict_file import audit

pytest.importorskip("uvicorn", reason="the extra 'verdict' is not installed")

PROMOTED = {"better": 60, "same": 2900, "worse": 55}
ROLLED_BACK = {"better": 5, "same": 500, "worse": 60}


def sent(*states) -> bytes:
    return json.dumps(document_of(CounterSet(gate().id, states))).encode()


def decided(service: Service, decision: str, name: str = "gate", token: str = "") -> dict:
    end = time.monotonic() + 20
    while True:
        found = service.ask(f"/v1/experiments/{name}/verdict", token=token).document
        if found.get("decision") == decision or time.monotonic() > end:
            return found
        time.sleep(0.05)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """One that asks for a token, beside a second experiment in a folder."""
    work = tmp_path_factory.mktemp("guarded")
    (work / "more").mkdir()
    with serving(work, "--token", str(work / "token"), "--experiment", str(work / "more")) as service:
        yield service, work


def test_a_rollout_sees_the_verdict_of_the_counters_that_nodes_left(tmp_path):
    with serving(tmp_path) as service:
        assert service.ask("/v1/experiments/gate/verdict").document["decision"] == "continue"
        assert service.ask("/flagger/promote?experiment=gate", b"").status == 409
        assert service.ask("/flagger/gate?experiment=gate", b"").status == 200
        leave(tmp_path / "counters", state(better=30, same=1450, worse=27))
        leave(tmp_path / "counters", state("n2", better=30, same=1450, worse=28))
        found = decided(service, "promote")
        assert found["units"] == 3015
        assert audit(Verdict.model_validate(found)).agrees, "the answer is a verdict file"
        body = json.dumps({"name": "app", "metadata": {"experiment": gate().id}}).encode()
        answers = {hook: service.ask(f"/flagger/{hook}", body).status for hook in ("promote", "rollback")}
        assert answers == {"promote": 200, "rollback": 409}
        assert service.ask("/v1/experiments/gate/counters").document["nodes"][1]["node"] == "n2"
        metrics = service.ask("/metrics").text
        assert f'ab_verdict{{experiment="{gate().id}",name="gate"}} 1\n' in metrics
        assert f'ab_counted{{experiment="{gate().id}",name="gate",count="same"}} 2900\n' in metrics


def test_a_rollback_is_told_by_every_door(tmp_path):
    leave(tmp_path / "counters", state(**ROLLED_BACK))
    with serving(tmp_path) as service:
        decided(service, "rollback")
        hooks = ("pre-rollout", "gate", "promote", "rollback")
        found = {hook: service.ask(f"/flagger/{hook}?experiment=gate", b"{}").status for hook in hooks}
        assert found == {"pre-rollout": 409, "gate": 409, "promote": 409, "rollback": 200}
        assert f'ab_verdict{{experiment="{gate().id}",name="gate"}} -1\n' in service.ask("/metrics").text
        (listed,) = service.ask("/v1/experiments").document["experiments"]
        assert (listed["decision"], listed["name"]) == ("rollback", "gate")
        assert listed["ended"] is not None


def test_it_is_ready_after_the_first_look_and_says_what_a_source_lacks(tmp_path):
    with serving(tmp_path, "--scrape", "http://127.0.0.1:9/metrics") as service:
        end = time.monotonic() + 20
        while service.ask("/readyz").status != 200 and time.monotonic() < end:
            time.sleep(0.05)
        assert service.ask("/readyz").document == {"ready": True, "state": "good"}
        assert service.ask("/healthz").document == {"alive": True}
        assert (
            'ab_source_failures_total{source="http://127.0.0.1:9/metrics"} ' in service.ask("/metrics").text
        )
        service.process.terminate()
        _, errors = service.process.communicate(timeout=20)
        assert "metrics http://127.0.0.1:9/metrics: [Errno 111] Connection refused" in errors
        assert service.process.returncode == 143


def test_only_health_is_open_where_a_token_is_asked(guarded):
    service, _ = guarded
    paths = ("/v1/experiments", "/v1/experiments/gate/verdict", "/v1/experiments/gate/counters", "/metrics")
    for path in paths:
        for token in ("", TOKEN[:-1], TOKEN + "0", "ä"):
            assert service.ask(path, headers={"Authorization": f"Bearer {token}".encode()}).status == 401
        assert service.ask(path, token=TOKEN).status == 200
    assert service.ask("/metrics").headers["www-authenticate"] == "Bearer"
    assert service.ask("/healthz").status == 200
    assert service.ask("/v1/counters", sent(state(same=5))).status == 401
    for metadata, status in (({}, 401), ({"token": "other"}, 401), ({"token": TOKEN}, 200)):
        body = json.dumps({"metadata": {"experiment": "gate", **metadata}}).encode()
        assert service.ask("/flagger/gate", body).status == status, "Flagger sends no headers"


def test_nodes_send_their_counters_as_often_as_they_like(guarded):
    service, work = guarded
    for one in (state("a", sequence=2, same=7), state("a", sequence=1, same=5), state("b", same=3)):
        for _ in range(2):
            assert service.ask("/v1/counters", sent(one), token=TOKEN).status == 200
    nodes = service.ask("/v1/experiments/gate/counters", token=TOKEN).document["nodes"]
    assert [(one["node"], one["slices"]["all"]["same"]) for one in nodes] == [("a", 7), ("b", 3)]
    kept = json.loads((work / "verdicts" / f"{gate().id}.state.json").read_text())
    assert len(kept["counters"]["nodes"]) == 2, "what was acknowledged is on disk"


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/v1/counters", b"{", 422, "sent counters"),
        ("/v1/counters", b"[" * 100_000, 422, "not JSON"),
        ("/v1/counters", b'{"format": "other"}', 422, "expected the format 'jettison-counters/1'"),
        ("/v1/counters", sent().replace(gate().id.encode(), b"0" * 32), 404, "no experiment '0000"),
        ("/v1/counters", b" " * ((8 << 20) + 1), 413, "expected at most 8388608 bytes"),
        ("/flagger/gate", b" " * 65_537, 413, "expected at most 65536 bytes"),
        ("/flagger/gate", b"{", 400, "expected a JSON object"),
        ("/flagger/gate", b'{"metadata": []}', 404, "no experiment ''"),
        ("/flagger/gate", b'{"metadata": [1]}', 400, "expected metadata to be an object"),
        ("/flagger/gate?experiment=none", b"", 404, "no experiment 'none'"),
        ("/v1/experiments/none/verdict", None, 404, "no experiment 'none'"),
        ("/v1/experiments", b"", 405, "Method Not Allowed"),
        ("/other", None, 404, "Not Found"),
    ],
)
def test_wrong_requests_are_told(guarded, path, body, status, words):
    service, _ = guarded
    found = service.ask(path, body, token=TOKEN)
    assert found.status == status
    assert words in found.text


def test_a_body_without_a_length_is_bounded_too(guarded):
    service, _ = guarded
    with socket.create_connection(service.address, timeout=20) as raw:
        head = f"POST /v1/counters HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        raw.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        piece = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
        answer = b""
        try:
            for _ in range(10):
                raw.sendall(piece)
        except OSError:
            pass
        answer = raw.recv(1000)
    assert b" 413 " in answer.splitlines()[0]


def test_an_experiment_that_comes_into_the_folder_is_opened(guarded):
    service, work = guarded
    text = SETTINGS.replace("name: gate", "name: door").replace("margin: 0.01", "margin: 0.02")
    (work / "more" / "wrong.yaml").write_text("name: [")
    (work / "more" / "door.yaml").write_text(text)
    assert decided(service, "continue", "door", TOKEN)["settings"]["margin"] == 0.02
