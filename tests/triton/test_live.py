"""Publishing to a running server: nothing is lost, and what is not proven is taken back."""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import served_models as zoo
from releases import release_of

from jettison.core.errors import ExternalError, InputError, RepositoryError
from jettison.graph.shapes import example_inputs
from jettison.triton import live as living
from jettison.triton.client import TritonRunner
from jettison.triton.health import index
from jettison.triton.live import Live, beside, publish_live, roll_back
from jettison.triton.manifest import golden_of
from jettison.triton.publish import Release, publish
from jettison.triton.repository import model_folder
from jettison.triton.runtime import Installation
from jettison.triton.server import ServerOptions, TritonServer

ROW = np.float32([[1, 2, 3]])
LATER = "2026-01-02T00:00:00Z"


def with_golden(work: Path, *, name: str = "one", factor: float, claimed: float | None = None) -> Release:
    """A release of y = factor x, whose manifest claims the answers of another factor where one is given."""
    release = release_of(work, name=name, factor=factor)
    x = example_inputs(zoo.affine(factor)[1], seed=20)["x"]
    golden = golden_of({"y": x * np.float32(claimed or factor)}, seed=20, batch=1)
    return dataclasses.replace(release, golden=golden)


def served_factor(url: str, name: str = "one") -> float:
    with TritonRunner(url, name) as runner:
        return float(runner.run({"x": ROW})["y"][0, 0])


def ready(url: str, name: str = "one") -> list[int]:
    return sorted(int(e.version) for e in index(url) if e.name == name and e.state == "READY")


def events(root: Path, name: str = "one") -> list[tuple[str, int]]:
    lines = (beside(root, "journal") / f"{name}.jsonl").read_text().splitlines()
    return [(entry["event"], entry["version"]) for entry in map(json.loads, lines)]


def live_at(server: TritonServer) -> Live:
    return Live(server.http_url, 30.0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    publish(with_golden(tmp_path, factor=2.0), tmp_path / "repository")
    return tmp_path / "repository"


@pytest.fixture
def server(root: Path, installation: Installation) -> Iterator[TritonServer]:
    options = ServerOptions(control_mode="explicit", load_models=("one",))
    with TritonServer(root, installation, environment=os.environ, options=options) as running:
        yield running


@pytest.mark.server
def test_versions_follow_each_other_without_one_failed_or_wrong_answer(
    root: Path, server: TritonServer, tmp_path: Path
) -> None:
    stop, seen, errors = threading.Event(), [], []

    def ask() -> None:
        with TritonRunner(server.http_url, "one") as runner:
            try:
                while not stop.is_set():
                    seen.append(float(runner.run({"x": ROW})["y"][0, 0]))
            except ExternalError as error:
                errors.append(str(error))

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        for factor in (3.0, 4.0, 5.0):
            done = publish_live(with_golden(tmp_path, factor=factor), root, live_at(server))
            assert served_factor(server.http_url) == factor
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert errors == []
    assert set(seen) <= {2.0, 3.0, 4.0, 5.0}
    assert (done.version, done.retired) == (4, (2,))
    assert ready(server.http_url) == [3, 4]
    assert model_folder(root, "one").versions() == [3, 4]
    assert events(root)[:2] == [("published", 2), ("proven", 2)]


@pytest.mark.server
def test_a_version_with_other_answers_is_taken_back(root: Path, server: TritonServer, tmp_path: Path) -> None:
    before = model_folder(root, "one").versions()
    with pytest.raises(ExternalError, match=r"golden answers are others .*version 1 is served as before"):
        publish_live(with_golden(tmp_path, factor=3.0, claimed=9.0), root, live_at(server))
    assert served_factor(server.http_url) == 2.0
    assert ready(server.http_url) == [1]
    assert model_folder(root, "one").versions() == before
    assert (beside(root, "failed") / "one-2/model.onnx").is_file()
    assert events(root) == [("published", 2), ("FAILED", 2)]
    done = publish_live(with_golden(tmp_path, factor=4.0), root, live_at(server))
    assert done.version == 3, "a number that was served once is never used again"
    assert served_factor(server.http_url) == 4.0


@pytest.mark.server
def test_a_version_that_does_not_load_is_taken_back(root: Path, server: TritonServer, tmp_path: Path) -> None:
    release = with_golden(tmp_path, factor=3.0)
    broken = tmp_path / "broken.onnx"
    broken.write_text("no onnx")
    with pytest.raises(ExternalError, match="version 1 is served as before"):
        publish_live(dataclasses.replace(release, files={"model.onnx": broken}), root, live_at(server))
    assert served_factor(server.http_url) == 2.0
    assert "highest so far is 2" in model_folder(root, "one").config_text()


@pytest.mark.server
def test_a_new_model_that_fails_is_taken_out_whole(root: Path, server: TritonServer, tmp_path: Path) -> None:
    with pytest.raises(ExternalError, match="the new model was taken out again"):
        publish_live(with_golden(tmp_path, name="two", factor=3.0, claimed=9.0), root, live_at(server))
    assert sorted(path.name for path in root.iterdir()) == ["one"]
    assert ready(server.http_url, "two") == []
    assert served_factor(server.http_url) == 2.0


@pytest.mark.server
def test_rolling_back_serves_the_older_version_and_only_it(
    root: Path, server: TritonServer, tmp_path: Path
) -> None:
    publish_live(with_golden(tmp_path, factor=3.0), root, live_at(server))
    done = roll_back(root, "one", now=LATER, live=live_at(server))
    assert (done.version, done.before) == (1, (1, 2))
    assert done.proven_by == ("index", "readiness", "configuration", "golden answers")
    assert served_factor(server.http_url) == 2.0
    assert ready(server.http_url) == [1]
    again = roll_back(root, "one", now=LATER, to=2, live=live_at(server))
    assert (again.version, served_factor(server.http_url)) == (2, 3.0)
    assert publish_live(with_golden(tmp_path, factor=4.0), root, live_at(server)).version == 3


@pytest.mark.server
def test_a_server_that_loads_nothing_has_to_be_restarted_and_that_is_said(
    root: Path, installation: Installation, tmp_path: Path
) -> None:
    with TritonServer(root, installation, environment=os.environ) as server:
        done = publish_live(with_golden(tmp_path, factor=3.0), root, live_at(server))
        assert "runs in mode none" in done.notes[-1]
        assert "restart it to serve version 2" in done.notes[-1]
        assert done.proven_by == ()
        assert served_factor(server.http_url) == 2.0
        assert "restart it" in roll_back(root, "one", now=LATER, live=live_at(server)).notes[0]


def test_rolling_back_without_a_server_lists_the_version_and_gives_its_files_new_times(
    root: Path, tmp_path: Path
) -> None:
    publish(with_golden(tmp_path, factor=3.0), root)
    model = root / "one/1/model.onnx"
    os.utime(model, (0, 0))
    done = roll_back(root, "one", now=LATER)
    assert (done.version, done.proven_by) == (1, ())
    assert model_folder(root, "one").listed_versions() == [1]
    assert model.stat().st_mtime > 0
    assert publish(with_golden(tmp_path, factor=4.0), root).version == 3


def test_there_must_be_a_version_to_roll_back_to(root: Path) -> None:
    with pytest.raises(
        RepositoryError, match=r"found none: version 1, which is served, is the oldest of \[1\]"
    ):
        roll_back(root, "one", now=LATER)
    with pytest.raises(RepositoryError, match=r"expected version 7 to roll back to, found versions \[1\]"):
        roll_back(root, "one", now=LATER, to=7)
    with pytest.raises(RepositoryError, match=r"found no such one: it has one\. Known are one"):
        roll_back(root, "nobody", now=LATER)


@pytest.mark.server
def test_another_repository_and_other_ports_are_told_before_anything_is_done(
    root: Path, server: TritonServer, tmp_path: Path
) -> None:
    other, work = tmp_path / "other", tmp_path / "work"
    work.mkdir()
    publish(with_golden(work, name="two", factor=2.0), other)
    release = with_golden(work, name="two", factor=3.0)
    with pytest.raises(ExternalError, match=r"over another repository, with one\. Give the --url"):
        publish_live(release, other, live_at(server))
    with pytest.raises(ExternalError, match=r"HTTP service there, found gRPC\. Give the port of HTTP"):
        publish_live(release, other, Live(server.grpc_url, 5.0))
    metrics = server.metrics_url.removeprefix("http://").removesuffix("/metrics")
    with pytest.raises(ExternalError, match=r"HTTP service there, found one that answers no JSON"):
        publish_live(release, other, Live(metrics, 5.0))
    with pytest.raises(InputError, match=r"found the scheme http:// before it\. Give 127\.0\.0\.1:\d+$"):
        publish_live(release, other, Live(f"http://{server.http_url}", 5.0))
    assert model_folder(other, "two").versions() == [1]
    assert not beside(other, "failed").exists()


@pytest.mark.server
def test_a_first_model_to_a_server_of_another_repository_is_taken_out(
    server: TritonServer, tmp_path: Path
) -> None:
    with pytest.raises(ExternalError, match="expected it in the server's repository, found a server over"):
        publish_live(with_golden(tmp_path, name="new", factor=2.0), tmp_path / "empty", live_at(server))
    assert list((tmp_path / "empty").iterdir()) == []


@pytest.mark.parametrize("fails", ["prove", "record"])
def test_whatever_fails_after_the_publish_takes_the_version_back(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """Not only a server that refuses: a journal on a full disk, a client that is not installed."""

    works, calls = getattr(living, fails), []

    def full_once(*arguments: object, **named: object) -> bool:
        calls.append(arguments)
        if len(calls) == 1:
            raise RepositoryError("repository", detail="the disk is full", fix="Free some space")
        return works(*arguments, **named)

    monkeypatch.setattr(living, fails, full_once)
    monkeypatch.setattr(living, "load", lambda *_, **__: True)
    monkeypatch.setattr(living, "meet", lambda *_: None)
    with pytest.raises(ExternalError, match="the disk is full"):
        publish_live(with_golden(tmp_path, factor=3.0), root, Live("127.0.0.1:9", 1.0))
    assert model_folder(root, "one").listed_versions() == [1]
    assert (beside(root, "failed") / "one-2").is_dir()
    assert events(root)[-1] == ("FAILED", 2)


def test_a_rollback_gives_new_times_before_a_server_can_read_the_list(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dead between the two, it would leave a list that a load answers with 200 and does not follow."""
    publish(with_golden(tmp_path, factor=3.0), root)
    model = root / "one/1/model.onnx"
    os.utime(model, (0, 0))

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(living, "put_config", dies)
    with pytest.raises(KeyboardInterrupt):
        roll_back(root, "one", now=LATER)
    assert model.stat().st_mtime > 0
    assert model_folder(root, "one").listed_versions() == [1, 2]


@pytest.mark.server
def test_an_edited_configuration_is_known_for_that_after_a_failure(
    root: Path, server: TritonServer, tmp_path: Path
) -> None:
    config = root / "one/config.pbtxt"
    config.write_text(config.read_text() + "# ours\n")
    with pytest.raises(ExternalError):
        publish_live(with_golden(tmp_path, factor=3.0, claimed=9.0), root, live_at(server))
    assert "# ours" in config.read_text()
    assert any("differed" in note for note in publish(with_golden(tmp_path, factor=4.0), root).notes)
