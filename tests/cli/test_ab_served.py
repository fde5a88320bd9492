"""An experiment from start to verdict on a real tritonserver, with real images and their labels."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tritonclient.http
from ab_world import repository
from onnx import numpy_helper

from jettison.cli.ab_replay import ReplayDocument
from jettison.experiment.folder import ExperimentFolder
from jettison.experiment.planning import Question, plan
from jettison.experiment.registry import read_registry
from jettison.pipeline.delivery import publish_file
from jettison.triton.runtime import Installation
from jettison.triton.server import ServerOptions, TritonServer

pytestmark = pytest.mark.server

EXAMPLE = Path(__file__).parents[2] / "examples" / "fashion"
MARGIN, PLANNED, CHUNK = 0.02, 0.02, 50


class Shop:
    """A server in explicit mode over float, INT8 and a damaged model, and labelled images to ask about."""

    def __init__(self, server: TritonServer, work: Path) -> None:
        self.server, self.work = server, work
        self.client = tritonclient.http.InferenceServerClient(server.http_url)
        sets = [np.load(EXAMPLE / f"{name}.npz") for name in ("evaluation", "search")]
        self.images = np.concatenate([found["image"] for found in sets])
        self.labels = np.concatenate([found["labels"] for found in sets])

    def ask(self, model: str, index: int, unit: str = "") -> np.ndarray[Any, Any]:
        tensor = tritonclient.http.InferInput("image", [1, 1, 28, 28], "FP32")
        tensor.set_data_from_numpy(self.images[index : index + 1])
        parameters = {"unit": unit} if unit else None
        answer = self.client.infer(model, [tensor], request_id=f"image-{index}", parameters=parameters)
        found: np.ndarray[Any, Any] = answer.as_numpy("logits")
        return found

    def write_labels(self, count: int) -> Path:
        path = self.work / "labels.csv"
        with path.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(("request", "label"))
            rows.writerows((f"image-{index}", self.labels[index]) for index in range(count))
        return path


def damaged(path: Path) -> Path:
    """The float model, its head blind for one class of ten: 6.4 points worse on the 3,000 images."""
    model = onnx.load(EXAMPLE / "fashion.onnx")
    head = next(node for node in reversed(model.graph.node) if node.op_type in ("Gemm", "MatMul"))
    tensor = next(t for t in model.graph.initializer if t.name == head.input[1])
    weight = np.array(numpy_helper.to_array(tensor))
    weight[4 if weight.shape[0] == 10 else (slice(None), 4)] = 0
    tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def shop(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    work = tmp_path_factory.mktemp("shop")
    root = repository(work)
    publish_file(damaged(work / "bad.onnx"), root, "fashion-bad", created="2026-01-01T00:00:00+00:00")
    options = ServerOptions(
        control_mode="explicit", load_models=("fashion-fp32", "fashion-int8", "fashion-bad"), exit_timeout_s=5
    )
    with TritonServer(
        root, installation, environment=os.environ, options=options, log=work / "log"
    ) as server:
        yield Shop(server, work)


def settle(folder: ExperimentFolder, sent: int) -> int:
    """How many of the requests are counted, once all are or nothing more comes.

    Shadows stand back behind whatever else the machine has to do, so that they may come late.
    """
    counted, changed = -1, time.monotonic()
    while counted < sent and time.monotonic() - changed < 20:
        time.sleep(0.1)
        now = folder.counters().tally().offered
        if now != counted:
            counted, changed = now, time.monotonic()
    return counted


def judge(jettison: Any, shop: Shop, name: str, candidate: str) -> dict[str, Any]:
    """Begin, send labelled images until there is a verdict, and give what `ab wait` told.

    All experiments have the router `shop`: the second one is loaded over the first.
    """
    begun = jettison(
        "ab", "start", name, "--repository", "models", "--baseline", "fashion-fp32", "--candidate", candidate,
        "--margin", MARGIN, "--planned-disagreement", PLANNED, "--unit", "request",
        "--requests-are-independent", "--task", "classification", "--node", "edge-1", "--router", "shop",
        "--router-option", "candidate_in_flight=200",
        "--url", shop.server.http_url, "--json",
    )  # fmt: skip
    assert (begun.code, begun.document["loaded"]) == (0, True), begun.err
    folder = ExperimentFolder(Path(begun.document["folder"]))
    for end in range(CHUNK, len(shop.images), CHUNK):
        for index in range(end - CHUNK, end):
            assert np.array_equal(shop.ask("shop", index), shop.ask("fashion-fp32", index))
        assert settle(folder, end) > 0.9 * end
        assert jettison("ab", "label", shop.write_labels(end), "--name", name).code == 0
        waited = jettison("ab", "wait", name, "--timeout", 0, "--exit-code", "--json")
        if waited.code != 4:
            return {**waited.document, "code": waited.code}
    pytest.fail(f"no verdict after {len(shop.images)} images: {waited.document}")


def test_int8_is_promoted_and_answers(jettison: Any, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop.work)
    told = judge(jettison, shop, "shop", "fashion-int8")
    assert (told["code"], told["decision"]) == (0, "promote")
    assert jettison("ab", "promote", "shop").code == 0
    answers = [
        (shop.ask("shop", i), shop.ask("fashion-int8", i), shop.ask("fashion-fp32", i)) for i in range(20)
    ]
    assert all(np.array_equal(router, int8) for router, int8, _ in answers)
    assert not any(np.array_equal(router, float32) for router, _, float32 in answers)
    audited = jettison("ab", "audit", told["verdict"], "--json")
    assert (audited.code, audited.document["decision"]) == (0, "promote")
    assert read_registry(shop.work / "experiments" / "registry.json")[0].ending == "promote"
    status = jettison("ab", "status", "shop", "--plot", "shop.svg")
    assert "the candidate answers since" in status.out
    assert (shop.work / "shop.svg").read_text().startswith("<svg")


def test_a_damaged_model_is_rolled_back_within_the_promised_units(
    jettison: Any, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promised by `ab plan` to 9 of 10 candidates that are three margins worse; this one is worse still."""
    monkeypatch.chdir(shop.work)
    told = judge(jettison, shop, "repair", "fashion-bad")
    assert (told["code"], told["decision"]) == (1, "rollback")
    promised = plan(Question(margin=MARGIN, planned_disagreement=PLANNED, harm=3 * MARGIN)).rolled_back.enough
    assert promised is not None
    assert told["units"] <= promised + CHUNK, "one look is taken every fifty units"
    assert jettison("ab", "rollback", "repair").code == 0
    for index in range(20):
        assert np.array_equal(shop.ask("shop", index), shop.ask("fashion-fp32", index))
    audited = jettison("ab", "audit", told["verdict"], "--json")
    assert (audited.code, audited.document["decision"]) == (0, "rollback")


def test_clips_are_judged_once_each(jettison: Any, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clip is complete with its third image. Who is right on it is known from the models alone."""
    monkeypatch.chdir(shop.work)
    begun = jettison(
        "ab", "start", "clips", "--repository", "models", "--baseline", "fashion-fp32",
        "--candidate", "fashion-bad", "--margin", MARGIN, "--planned-disagreement", PLANNED,
        "--unit", "clip", "--task", "classification", "--router-option", "unit_max_requests=3",
        "--router-option", "candidate_in_flight=200",
        "--url", shop.server.http_url, "--json",
    )  # fmt: skip
    assert begun.code == 0, begun.err
    for index in range(150):
        shop.ask("clips", index, unit=f"clip-{index // 3}")
    folder = ExperimentFolder(Path(begun.document["folder"]))
    assert settle(folder, 50) == 50
    time.sleep(1.5)  # the note of units that differ follows the counts
    labelled = jettison("ab", "label", shop.write_labels(150), "--name", "clips", "--json")
    old, new = (
        np.array([shop.ask(name, index).argmax() for index in range(150)]).reshape(50, 3)
        for name in ("fashion-fp32", "fashion-bad")
    )
    truth = shop.labels[:150].reshape(50, 3)
    gained = ((new == truth).astype(int) - (old == truth)).sum(axis=1)
    differ = (new != old).sum(axis=1)
    tally = folder.counters().tally()
    assert (tally.offered, tally.disagree, tally.judged) == (50, (differ > 0).sum(), 50)
    assert (labelled.document["judged"], labelled.document["waiting"]) == (tally.disagree, 0)
    assert labelled.document["worse"] == ((differ > 0) & (gained == -differ)).sum()
    assert labelled.document["better"] == ((differ > 0) & (gained == differ)).sum()


def test_a_replay_counts_times_and_is_judged(
    jettison: Any, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shop.work)
    np.savez("capture.npz", image=shop.images[:400], labels=shop.labels[:400])
    models = ("--baseline", "fashion-fp32", "--candidate", "fashion-bad", "--url", shop.server.http_url)
    found = jettison("ab", "replay", "capture.npz", *models, "--json")
    assert found.code == 0, found.err
    told = found.document
    assert set(told) == set(ReplayDocument.model_fields)
    assert told["samples"] == told["units"] == told["agree"] + told["disagree"] == 400
    assert told["better"] + told["same"] + told["worse"] == 400
    latency = told["latency"]
    assert latency["low_ms"] <= latency["difference_ms"] <= latency["high_ms"]
    assert latency["samples"] == 400
    decided = jettison(*told["next"].split()[1:])
    assert decided.out.startswith("rollback, after 400 units")


def test_a_replay_writes_counters_of_an_experiment(
    jettison: Any, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shop.work)
    np.savez("plain.npz", image=shop.images[:60])
    Path("ab.yaml").write_text(
        f"name: march\nbaseline: {'a' * 64}\ncandidate: {'b' * 64}\ndata_source: replay:march\nunit: clip\n"
        "margin: 0.2\nplanned_disagreement: 0.1\nevidence: agreement\n"
        "latency: {limit_ms: 1000, quantile: 0.9}\n"
    )
    Path("units.txt").write_text("".join(f"clip-{number // 2}\n" for number in range(60)))
    models = ("--baseline", "fashion-fp32", "--candidate", "fashion-int8", "--url", shop.server.http_url)
    asked = ("--settings", "ab.yaml", "-o", "march.json")
    missing = jettison("ab", "replay", "plain.npz", *models, *asked, "--json")
    assert (missing.code, missing.document["error"]["what"]) == (2, "ab replay")
    assert "unit is 'clip', and nothing says which samples share one" in missing.document["error"]["detail"]
    found = jettison("ab", "replay", "plain.npz", *models, *asked, "--units", "units.txt")
    assert "fashion-fp32 against fashion-int8: 30 units" in found.out
    assert found.out.endswith("next: jettison ab decide --settings ab.yaml --counters march.json\n")
    decided = jettison("ab", "decide", "--settings", "ab.yaml", "--counters", "march.json", "--json")
    assert decided.document["decision"] == "promote"
    whole = decided.document["counters"]["nodes"][0]["slices"]["all"]
    assert whole["within_limit"] + whole.get("over_limit", 0) == 60


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--settings", "x.yaml"), "expected --settings and -o together, found --settings alone"),
        (("--protocol", "udp"), "expected http or grpc, found 'udp'"),
        (("--units", "none.txt"), "there is no such file"),
        (("--candidate", "nobody"), "the server says"),
    ],
)
def test_wrong_input_of_a_replay(jettison: Any, shop: Shop, arguments: Any, words: str) -> None:
    models = ("--baseline", "fashion-fp32", "--candidate", "fashion-int8", "--url", shop.server.http_url)
    answer = jettison("ab", "replay", str(EXAMPLE / "search.npz"), *models, *arguments, "--json")
    assert answer.code in (2, 4)
    assert words in answer.document["error"]["detail"]
