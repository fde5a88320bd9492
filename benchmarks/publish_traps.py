"""What tritonserver does without a word, made to happen by hand, and what of ours tells it.

Each trap runs in a server of its own and gives what was seen without our protocol, and what its proof or
`jettison check` says of the very same repository and server.
"""

from __future__ import annotations

import dataclasses
import http.client
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crash_rules import release_of
from jettison.core import dtypes
from jettison.core.errors import ExternalError, RepositoryError
from jettison.core.tensors import TensorSpec
from jettison.graph.shapes import example_inputs
from jettison.triton.check.check import check
from jettison.triton.config import ResponseCache
from jettison.triton.health import ask, index, is_model_ready, is_server_ready
from jettison.triton.live import Live, prove
from jettison.triton.manifest import golden_of
from jettison.triton.publish import Release, publish
from jettison.triton.repository import configured, model_folder
from jettison.triton.runtime import Installation
from jettison.triton.server import ServerOptions, TritonServer
from publish_load import History, ask_once, load

MODEL = "one"


@dataclass(frozen=True)
class Trap:
    """What was done; what the server showed, and whether that is the trap; by what of ours it is caught."""

    name: str
    without: str
    happened: bool
    caught_by: str


class Bench:
    """A folder with a server's installation; each trap gets a repository of its own."""

    def __init__(self, work: Path, installation: Installation) -> None:
        self.work, self.installation = work, installation
        self.root = work / "repository"

    @contextmanager
    def server(self, *arguments: str, mode: str = "explicit") -> Iterator[TritonServer]:
        """A server over the repository."""
        loaded = (MODEL,) if mode == "explicit" else ()
        options = ServerOptions.model_validate(
            {"control_mode": mode, "load_models": loaded, "arguments": arguments, "exit_timeout_s": 1}
        )
        log = self.work / "server.log"  # goes with the folder, however the server ends
        with TritonServer(
            self.root, self.installation, environment=os.environ, options=options, log=log
        ) as running:
            yield running

    def publish(self, factor: float, **changes: object) -> None:
        """Publish y = factor x, with its golden answers."""
        release = golden_release(self.work, factor)
        config = release.config.model_copy(update=changes)
        publish(dataclasses.replace(release, config=config), self.root)

    def proof(self, url: str, version: int) -> str:
        """What our proof says of that version; empty where it believes the server."""
        try:
            prove(model_folder(self.root, MODEL), version, Live(url, 3.0))
        except ExternalError as error:
            return f"the proof: {error.detail[:160]}"
        return ""

    def check(self, code: str) -> str:
        """What that check says of the repository; empty where it says nothing."""
        return next((f"check {f.code}: {f.message}" for f in check(self.root) if f.code == code), "")


def golden_release(work: Path, factor: float) -> Release:
    """A release of y = factor x with its golden answers."""
    row = dtypes.of_name("float32")
    if row is None:
        raise LookupError("float32")
    x = example_inputs([TensorSpec(name="x", dtype=row, shape=("batch", 3))], seed=20)["x"]
    golden = golden_of({"y": x * np.float32(factor)}, seed=20, batch=len(x))
    return dataclasses.replace(release_of(work / "files", MODEL, factor), golden=golden)


def _load(url: str, body: str = "") -> int:
    """Ask for a load as people do; the status that is answered."""
    path = f"/v2/repository/models/{MODEL}/load"
    connection = http.client.HTTPConnection(url, timeout=30.0)
    connection.request("POST", path, body)
    status = connection.getresponse().status
    connection.close()
    return status


def symlink_back(bench: Bench) -> Trap:
    """Point the version's symlink at an older release, and load."""
    return _pointed_back(bench, "a symlink back to an older release", touches=False)


def _pointed_back(bench: Bench, name: str, *, touches: bool) -> Trap:
    bench.publish(2.0)
    bench.publish(3.0)
    place, releases = bench.root / MODEL, bench.work / "releases"
    releases.mkdir()
    for version in ("1", "2"):
        (place / version).rename(releases / version)
    config = model_folder(bench.root, MODEL)
    text = configured(config.config().model_copy(update={"version_policy": None}), [1], highest=2)
    config.config_path.write_text(text)
    (place / "1").symlink_to(releases / "2")
    with bench.server() as server:
        (place / "1").unlink()
        (place / "1").symlink_to(releases / "1")
        if touches:
            os.utime(config.config_path)
        status = _load(server.http_url)
        found = ask_once(server.grpc_url, MODEL)
        caught = bench.proof(server.http_url, 1)
    return Trap(name, f"{status}, factor {found:g}", found == 3.0, caught)


def touched_config(bench: Bench) -> Trap:
    """The same, and touch config.pbtxt before the load."""
    return _pointed_back(bench, "the same, and config.pbtxt touched", touches=True)


def missing_version(bench: Bench) -> Trap:
    """List a version that is not there, and load."""
    bench.publish(2.0)
    folder = model_folder(bench.root, MODEL)
    with bench.server() as server:
        text = folder.config_text().replace("versions: 1", "versions: 1\n    versions: 7")
        folder.config_path.write_text(text)
        status = _load(server.http_url)
        found = ask_once(server.grpc_url, MODEL)
        caught = bench.proof(server.http_url, 7) or bench.check("R004")
    return Trap(
        "versions 1 and 7 listed, 7 missing",
        f"{status}, factor {found:g}",
        "7" in text and status == 200,
        caught,
    )


def stray_folder(bench: Bench) -> Trap:
    """Leave `3.tmp` in the model folder under the default policy, load, take it out again, and load."""
    bench.publish(2.0)
    folder = model_folder(bench.root, MODEL)
    config = folder.config().model_copy(update={"version_policy": None})
    folder.config_path.write_text(configured(config, [1]))
    with bench.server() as server:
        (folder.path / "3.tmp").mkdir()
        first = _load_or_wait(server.http_url)
        caught = bench.check("R002")
        states = ", ".join(f"{e.version} {e.state}" for e in index(server.http_url) if e.name == MODEL)
        (folder.path / "3.tmp").rmdir()
        second = _load_or_wait(server.http_url)
    seen = f"{first}, index {states}; without it again {second}"
    return Trap("3.tmp in the model folder", seen, "3 " in states, caught)


def _load_or_wait(url: str) -> str:
    try:
        return str(ask(url, "POST", f"/v2/repository/models/{MODEL}/load", timeout_s=5.0)[0])
    except ExternalError:
        return "no answer in 5 s"


def hidden_folder(bench: Bench) -> Trap:
    """Leave a hidden folder in the root, and start."""
    bench.publish(2.0)
    (bench.root / ".staging").mkdir()
    try:
        with bench.server(mode="none"):
            seen, is_silent = "it started", False
    except ExternalError as error:
        seen, is_silent = f"no start: {error.detail[:120]}", True
    return Trap("a hidden folder in the root", seen, is_silent, bench.check("R001"))


def sticky_override(bench: Bench) -> Trap:
    """Load with a configuration in the request, then load plainly."""
    bench.publish(2.0)
    with bench.server() as server:
        config = model_folder(bench.root, MODEL).config()
        changed = config.model_copy(update={"max_batch_size": 3})
        words = json.dumps(changed.model_dump(mode="json", exclude_defaults=True))
        _load(server.http_url, json.dumps({"parameters": {"config": words}}))
        status = _load(server.http_url)
        _, echo = ask(server.http_url, "GET", f"/v2/models/{MODEL}/config")
        size = json.loads(echo)["max_batch_size"]
        caught = bench.proof(server.http_url, 1)
    return Trap("an override, then a plain load", f"{status}, max_batch_size {size}", size == 3, caught)


def ready_without_a_model(bench: Bench) -> Trap:
    """Unload the model, and ask the server whether it is ready."""
    bench.publish(2.0)
    with bench.server() as server:
        ask(server.http_url, "POST", f"/v2/repository/models/{MODEL}/unload")
        end = time.monotonic() + 5.0
        while not (is_ready := is_server_ready(server.http_url)) and time.monotonic() < end:
            time.sleep(0.05)
        caught = "readiness of the model" if not is_model_ready(server.http_url, MODEL) else ""
    return Trap(
        "an unloaded model", f"the server is {'ready' if is_ready else 'not ready'}", is_ready, caught
    )


def cached_answer(bench: Bench) -> Trap:
    """Replace a file in place under the same version, with the response cache on, and load."""
    caches = bench.installation.program.parent.parent / "caches"
    bench.publish(2.0, response_cache=ResponseCache(enable=True))
    arguments = (f"--cache-directory={caches}", "--cache-config=local,size=1048576")
    newer = golden_release(bench.work, 3.0).files["model.onnx"]
    with bench.server(*arguments) as server:
        ask_once(server.grpc_url, MODEL)
        shutil.copyfile(newer, bench.root / MODEL / "1" / "model.onnx")
        status = _load(server.http_url)
        found = ask_once(server.grpc_url, MODEL)
        caught = bench.check("R005")
    return Trap(
        "a file replaced in place, response cache on", f"{status}, factor {found:g}", found == 2.0, caught
    )


def replaced_in_place(bench: Bench) -> Trap:
    """Replace a file in place under the same version, and load."""
    bench.publish(2.0)
    newer = golden_release(bench.work, 3.0).files["model.onnx"]
    with bench.server() as server:
        shutil.copyfile(newer, bench.root / MODEL / "1" / "model.onnx")
        status = _load(server.http_url)
        found = ask_once(server.grpc_url, MODEL)
        caught = bench.proof(server.http_url, 1) or bench.check("R005")
    return Trap("a file replaced in place", f"{status}, factor {found:g} as version 1", found == 3.0, caught)


def unload_then_load(bench: Bench) -> Trap:
    """Unload and load again, as the documentation has it, while clients ask."""
    bench.publish(2.0)
    history = History()
    with bench.server() as server, load(server.grpc_url, MODEL, history):
        time.sleep(0.5)
        ask(server.http_url, "POST", f"/v2/repository/models/{MODEL}/unload", timeout_s=30.0)
        _load(server.http_url)
    failed = len(history.failed())
    seen = f"{failed} of {len(history.answers)} requests failed"
    return Trap("unload, then load, under load", seen, failed > 0, "not done: publish loads over the loaded")


def two_roots(bench: Bench) -> Trap:
    """Serve the same model from two roots."""
    bench.publish(2.0)
    twin = bench.work / "twin"
    shutil.copytree(bench.root, twin)
    try:
        with bench.server(f"--model-repository={twin}", "--exit-on-error=false") as server:
            is_ready = is_model_ready(server.http_url, MODEL)
            caught = bench.proof(server.http_url, 1)
    except (ExternalError, RepositoryError) as error:
        return Trap("the same model in two roots", f"no start: {error.detail[:120]}", True, "the start")
    return Trap("the same model in two roots", f"ready: {is_ready}", not is_ready, caught)


TRAPS: tuple[Callable[[Bench], Trap], ...] = (
    symlink_back,
    touched_config,
    missing_version,
    stray_folder,
    hidden_folder,
    sticky_override,
    ready_without_a_model,
    cached_answer,
    replaced_in_place,
    unload_then_load,
    two_roots,
)
