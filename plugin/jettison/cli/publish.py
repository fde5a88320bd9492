"""`jettison publish`: an ONNX file or a finished run into a Triton model repository."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import typer
from pydantic import BaseModel

from jettison.cli.console import print_json
from jettison.cli.surroundings import now
from jettison.core.engine import ProfileRange
from jettison.core.errors import InputError
from jettison.core.signing import load_signer
from jettison.engines.tensorrt.shapes import parse_shape_range
from jettison.pipeline.delivery import chosen_model, release_of
from jettison.pipeline.plans import is_build_folder, plans_release, provider_release, target_needs
from jettison.triton.check.check import read_fleet
from jettison.triton.live import Live, publish_live
from jettison.triton.plans import Need, needs_of
from jettison.triton.provider import check_cache
from jettison.triton.publish import Published, Release
from jettison.triton.publish import publish as put

_SOURCE = typer.Argument(
    ...,
    metavar="MODEL|RUN_DIR",
    help="An ONNX file, the folder of a finished run, or one that `jettison build` filled.",
)
_REPOSITORY = typer.Option(..., "--repository", help="The model repository; made if it is not there.")
_URL = typer.Option(
    None,
    "--url",
    help="HOST:PORT of the HTTP service of a server over this repository: load and prove it there.",
)
_SIGN = typer.Option(None, "--sign", help="A private key: the version is signed, for check --verify.")
_FLEET = typer.Option(None, "--fleet", help="For plans: YAML with the machines that must each have one.")
_TARGETS = typer.Option("", "--targets", help="For plans: the GPUs that must each have one, as sm87,sm89.")
_CACHE = typer.Option(
    None,
    "--tensorrt-cache",
    help="For an ONNX file: ONNX Runtime builds TensorRT engines on the node, into this folder there.",
)
_SHAPES = typer.Option(
    [], "--shapes", help="With --tensorrt-cache: NAME=MIN,OPT,MAX for each input with open dimensions."
)


class PublishedDocument(BaseModel):
    """What `publish --json` prints.

    `path` is absolute, `retired` are the versions that were taken out for this one, `notes` tell what
    whoever publishes must know, such as that a run chose its baseline. `proven` says whether a server was
    seen to serve it, `proven_by` by what.
    """

    model: str
    version: int
    path: Path
    retired: tuple[int, ...]
    proven: bool
    proven_by: tuple[str, ...]
    notes: tuple[str, ...]


def proof(proven_by: tuple[str, ...]) -> str:
    """Whether a server was seen to serve it, and by what."""
    if not proven_by:
        return "not proven: no server was seen to serve it"
    return f"proven at the server by its {', '.join(proven_by)}"


def publish(
    source: Path = _SOURCE,
    repository: Path = _REPOSITORY,
    name: str = typer.Option(..., "--name", help="The model's name in the repository."),
    keep_versions: int = typer.Option(2, "--keep-versions", min=1, help="How many versions stay servable."),
    url: str | None = _URL,
    deadline_s: float = typer.Option(60.0, "--deadline", min=1.0, help="Seconds until it must be proven."),
    sign: Path | None = _SIGN,
    fleet: Path | None = _FLEET,
    targets: str = _TARGETS,
    cache: str | None = _CACHE,
    shapes: list[str] = _SHAPES,
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> None:
    """Publish a model into a Triton repository as its next version.

    Whole or not at all: readers see the old version or the new one. With --url the server loads it over the
    old one, without an outage, and what it serves then is proven; else the old one is put back. A server in
    mode none loads nothing: it has to be restarted, and the answer says `proven: false`.

    Example: `jettison publish out/cpu/int8/model.onnx --repository models --name fashion-int8`
    """
    if not source.exists():
        raise InputError(
            f"model {source}",
            detail="there is no such file or folder",
            fix="Give the path of an ONNX file, or the folder of a finished run",
        )
    needs = (*_fleet_needs(fleet), *target_needs(targets))
    if needs or is_build_folder(source):
        release, told = plans_release(source, name, created=now(), needs=needs), tuple[str, ...]()
    else:
        release, told = _model_release(source, name)
        if cache is not None:
            check_cache(cache, repository)
            release = _built_on_the_node(release, shapes, cache)
    release = replace(release, signer=None if sign is None else load_signer(sign))
    done = (
        put(release, repository, keep_versions=keep_versions)
        if url is None
        else publish_live(release, repository, Live(url, deadline_s), keep_versions=keep_versions)
    )
    done = replace(done, notes=(*told, *done.notes))
    if as_json:
        print_json(_document(done))
    else:
        _print(done)


def _document(done: Published) -> PublishedDocument:
    return PublishedDocument(
        model=done.model,
        version=done.version,
        path=done.path.absolute(),
        retired=done.retired,
        proven=bool(done.proven_by),
        proven_by=done.proven_by,
        notes=done.notes,
    )


def _print(done: Published) -> None:
    for note in done.notes:
        typer.echo(f"note: {note}")
    typer.echo(f"published {done.model} version {done.version}: {done.path}")
    typer.echo(proof(done.proven_by))
    if done.retired:
        typer.echo(f"retired versions {', '.join(str(version) for version in done.retired)}")


def _model_release(source: Path, name: str) -> tuple[Release, tuple[str, ...]]:
    """An ONNX file or what a run chose, and what whoever publishes it must know."""
    chosen = chosen_model(source) if source.is_dir() else None
    path, evidence = chosen or (source, None)
    notes = (chosen.note,) if chosen and chosen.note else ()
    return release_of(path, name, created=now(), evidence=evidence), notes


def _built_on_the_node(release: Release, shapes: list[str], cache: str) -> Release:
    """The same for ONNX Runtime's TensorRT provider."""
    path = release.files[release.config.default_model_filename]
    return provider_release(release, path, ranges=_ranges(shapes), cache=cache)


def _fleet_needs(fleet: Path | None) -> tuple[Need, ...]:
    return () if fleet is None else needs_of(read_fleet(fleet).targets)


def _ranges(texts: list[str]) -> tuple[ProfileRange, ...]:
    return tuple(ProfileRange(**parse_shape_range(text).model_dump()) for text in texts)
