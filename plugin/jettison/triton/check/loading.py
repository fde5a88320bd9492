"""L601: a scratch server loads the repository, and what was published is asked for its golden answers."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from jettison.core.errors import JettisonError, RepositoryError
from jettison.triton.check.finding import Finding
from jettison.triton.check.look import Look, ModelLook
from jettison.triton.golden import served_differences
from jettison.triton.health import IndexEntry, index
from jettison.triton.manifest import Golden
from jettison.triton.server import ServerOptions, TritonServer

CODE = "L601"
TITLE = "everything loads, and answers as it did before it was published"
REASON = "only a server knows whether it takes a model; a 200 of a load proves nothing"
FIX = "Read the server's words; publish the version again"
BACKENDS = frozenset({"onnxruntime", "jettison_router"})
"""What the local server has, without a GPU."""
ARGUMENTS = ("--exit-on-error=false", "--strict-readiness=false")
"""A model that fails must not end the server: its reason stands in the index."""
_SETTLED = frozenset({"READY", "UNAVAILABLE"})
_POLL_S = 0.1

Serve = Callable[[Path, ServerOptions], TritonServer]
"""A server over that repository, to be used in a `with` block."""


def loadable(look: Look) -> list[ModelLook]:
    """The models that the local server can load."""
    return [model for model in look.models if model.backend in BACKENDS and model.versions]


def load_findings(look: Look, *, serve: Serve, deadline_s: float) -> tuple[Finding, ...]:
    """What a server says that loads all that it can of the repository, from a copy of it.

    Args:
        look: The repository.
        serve: Makes a server.
        deadline_s: Until all of them must be loaded, or refused.

    Raises:
        ExternalError: The server does not start.
    """
    models = loadable(look)
    if not models:
        return ()
    with _copy(models) as root:
        names = tuple(model.name for model in models)
        options = ServerOptions(control_mode="explicit", load_models=names, arguments=ARGUMENTS)
        with serve(root, options) as server:
            states = _settled(server.http_url, names, deadline_s)
            found = [finding for model in models for finding in _unserved(model, states)]
            served = {(entry.name, entry.version) for entry in states if entry.state == "READY"}
            for model in models:
                found += _changed_answers(model, served, server.http_url)
    return tuple(found)


@contextlib.contextmanager
def _copy(models: Sequence[ModelLook]) -> Iterator[Path]:
    """The models elsewhere: a server that loads programs writes beside them."""
    with tempfile.TemporaryDirectory(prefix="jettison-check-") as folder:
        for model in models:
            shutil.copytree(model.path, Path(folder) / model.name, copy_function=_link)
        yield Path(folder)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _settled(url: str, names: Sequence[str], deadline_s: float) -> tuple[IndexEntry, ...]:
    """The index once nothing is being loaded, or as it is at the deadline."""
    end = time.monotonic() + deadline_s
    while True:
        entries = tuple(entry for entry in index(url) if entry.name in names)
        told = {entry.name for entry in entries if entry.state in _SETTLED}
        is_settled = told == set(names) and all(entry.state in _SETTLED for entry in entries)
        if is_settled or time.monotonic() > end:
            return entries
        time.sleep(_POLL_S)


def _unserved(model: ModelLook, states: Sequence[IndexEntry]) -> Iterator[Finding]:
    """Versions that the policy names and that are not ready, with the server's words."""
    own = {entry.version: entry for entry in states if entry.name == model.name}
    for version in model.served:
        entry = own.get(str(version)) or own.get("")
        state = "nothing" if entry is None else f"{entry.state or 'nothing'} {entry.reason}".strip()
        if entry is None or entry.state != "READY":
            where = f"{model.name}/{version}"
            yield Finding(code=CODE, where=where, message=f"expected it READY, found {state}", fix=FIX)


def _changed_answers(model: ModelLook, served: set[tuple[str, str]], url: str) -> Iterator[Finding]:
    for version in model.served:
        golden = _golden(model, version)
        if golden is None or (model.name, str(version)) not in served:
            continue
        try:
            problems = served_differences(url, model.name, version, golden)
        except JettisonError as error:
            problems = [f"{error.what}: {error.detail}"]
        for problem in problems:
            yield Finding(code=CODE, where=f"{model.name}/{version}", message=problem, fix=FIX)


def _golden(model: ModelLook, version: int) -> Golden | None:
    with contextlib.suppress(RepositoryError):
        manifest = model.manifest(version)
        return None if manifest is None else manifest.golden
    return None
