"""One real tritonserver for all tests marked `server`, over a repository that the product writes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import served_models as zoo
from router_fakes import World, load

from jettison.triton.interpreters import Interpreter
from jettison.triton.publish import Release, publish
from jettison.triton.runtime import Installation
from jettison.triton.server import TritonServer
from jettison.triton.serving import Serving, config_of


def carries_text(interpreter: Interpreter) -> bool:
    """Whether the stub can carry text under that Python's numpy."""
    return interpreter.requirements[0].startswith("numpy==1.")


@pytest.fixture
def world() -> World:
    """The models behind a router, without a server."""
    return World()


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch, world: World) -> ModuleType:
    """The router backend over them."""
    return load(monkeypatch, world)("model")


@pytest.fixture(scope="session")
def python_models(interpreter: Interpreter) -> None:
    """Skips where a plain Python model, as `WHIMS` is, cannot read its tensors (docs/serving.md)."""
    if not interpreter.requirements[0].startswith("numpy==1."):
        pytest.skip("the server's Python has no numpy 1")


@pytest.fixture(scope="session")
def served(
    installation: Installation, interpreter: Interpreter, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[zoo.Served]:
    work = tmp_path_factory.mktemp("served")
    root = work / "repository"
    configs = {
        "affine": zoo.published(root, work, "affine", zoo.affine(2.0)),
        "fixed": zoo.published(root, work, "fixed", zoo.affine(2.0, batch=2)),
        "total": zoo.published(root, work, "total", zoo.total()),
        "row_totals": zoo.published(root, work, "row_totals", zoo.row_totals()),
        "pair": zoo.published(root, work, "pair", zoo.pair()),
        "passer": zoo.published(root, work, "passer", zoo.passer()),
        "embedding": zoo.published(root, work, "embedding", zoo.embedding(), max_queue_delay_us=200_000),
    }
    config = root / "affine" / "config.pbtxt"
    config.write_text(f"# edited by hand\n{config.read_text()}")
    zoo.published(root, work, "affine", zoo.affine(3.0))
    if carries_text(interpreter):
        configs["words"] = zoo.published(root, work, "words", zoo.words())
    _publish_defaulted(root, work)
    files, inputs, outputs = zoo.external(work)
    publish(Release(config_of("external", inputs, outputs), files, zoo.CREATED), root)
    with TritonServer(root, installation, environment=os.environ, log=work / "server.log") as server:
        yield zoo.Served(server, root, configs)


def _publish_defaulted(root: Path, work: Path) -> None:
    model, inputs, outputs = zoo.defaulted()
    config = config_of("defaulted", inputs, outputs, serving=Serving(max_batch_size=0))
    optional = config.input[1].model_copy(update={"optional": True})
    config = config.model_copy(update={"input": (config.input[0], optional)})
    publish(Release(config, {"model.onnx": zoo.save(model, work / "defaulted.onnx")}, zoo.CREATED), root)
