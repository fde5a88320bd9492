"""Build an engine in the very image that will serve it, so that its TensorRT is the right one by itself.

`jettison build` runs in a container of that image, on the GPU of this machine. The image must hold Jettison:
deploy/docker/Dockerfile.builder adds it to an image of Triton.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from jettison.core.engine import ENGINE_FILE, EngineRecord, same_version
from jettison.core.errors import ExternalError, InputError, JettisonError, MissingError
from jettison.core.files import write_bytes
from jettison.core.progress import Reporter, silent
from jettison.core.targets import Target
from jettison.engines.container.door import docker_client
from jettison.engines.container.image import ImageFacts, look_at_image
from jettison.engines.container.running import ContainerOrder, ContainerResult, run_in_container
from jettison.engines.tensorrt.build_exchange import BuildStep
from jettison.engines.tensorrt.build_report import BuildReport
from jettison.graph.model import check_exists

_MODEL, _OUT = "/model", "/engines"
_ERRORS = {2: InputError, 3: MissingError}
"""What exit codes of `jettison build` mean; all else is an error of the program there."""


class ImageOrder(BaseModel):
    """One build in an image; `arguments` are those of `jettison build` beside model, target and output."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    image: str
    arguments: tuple[str, ...] = ()
    user: str = ""
    limit_s: float = 7200.0
    report: Reporter = silent


def build_in_image(path: Path, target: Target, folder: Path, *, order: ImageOrder) -> BuildReport:
    """Build the engine into `folder/<target>` of this machine.

    Raises:
        MissingError: No Docker API, no such image, or no fitting GPU in the container.
        InputError: The model or its shapes do not fit.
        ExternalError: The API or the program in the container failed.
    """
    check_exists(path)
    folder.mkdir(parents=True, exist_ok=True)
    with docker_client(limit_s=order.limit_s) as client:
        facts = look_at_image(client, order.image)
        job = ContainerOrder(
            image=order.image,
            command=_command(path, target, order.arguments),
            reads={_MODEL: path.resolve().parent},
            writes={_OUT: folder.resolve()},
            user=order.user,
            environment={"HOME": "/tmp", "JETTISON_PROGRESS": "lines"},  # noqa: S108 - in the container
        )
        result = run_in_container(client, job, lambda line: _hear(line, order.report))
    return _with_image(_report(result, order.image), facts, folder.resolve() / target.name)


def _command(path: Path, target: Target, arguments: Sequence[str]) -> tuple[str, ...]:
    model = f"{_MODEL}/{path.resolve().name}"
    return ("jettison", "build", model, "--target", target.name, "-o", _OUT, "--json", *arguments)


def _hear(line: str, report: Reporter) -> None:
    """Hand on a line of progress; other lines are kept for the error, if there is one."""
    try:
        step = BuildStep.model_validate_json(line)
    except ValidationError:
        return
    report(step.phase)(step.done, step.total)


def _report(result: ContainerResult, image: str) -> BuildReport:
    try:
        return BuildReport.model_validate_json(result.stdout)
    except ValidationError:
        raise _error(result, image) from None


def _error(result: ContainerResult, image: str) -> JettisonError:
    """The error that the program in the container told as its document, or what it complained of."""
    try:
        told = json.loads(result.stdout)["error"]
        kind = _ERRORS.get(result.code, ExternalError)
        return kind(f"{told['what']}, in {image}", detail=told["detail"], fix=told["fix"])
    except (ValueError, KeyError, TypeError):
        last = next((line for line in reversed(result.complaints) if line.strip()), "nothing")
        return ExternalError(
            f"jettison build in {image}",
            detail=f"expected its report, found exit code {result.code} and on stderr {last!r}",
            fix="Use an image that holds Jettison: deploy/docker/Dockerfile.builder adds it to Triton's",
        )


def _with_image(report: BuildReport, facts: ImageFacts, place: Path) -> BuildReport:
    """The report with paths of this machine, and the image in the engine's record."""
    if report.engine is None:
        return report
    engine: EngineRecord = report.engine.model_copy(update={"image": facts.name})
    write_bytes(place / ENGINE_FILE, engine.model_dump_json(indent=1).encode())
    notes = [*report.notes, *([f"{facts.tag} asks of the driver: {facts.driver}"] if facts.driver else [])]
    if facts.tensorrt is not None and not same_version(facts.tensorrt, engine.tensorrt):
        notes.append(
            f"built by TensorRT {engine.tensorrt}, and {facts.tag} names {facts.tensorrt}: its Python module "
            "is not the library that serves"
        )
    return report.model_copy(update={"engine": engine, "path": place, "notes": tuple(notes)})
