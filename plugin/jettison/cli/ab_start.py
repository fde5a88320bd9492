"""`jettison ab start`: an experiment on live traffic, by a router in front of two published models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import typer
from pydantic import BaseModel, ValidationError

from jettison.cli.ab_home import AS_JSON, HOME, host
from jettison.cli.ab_start_options import (
    ALPHA,
    BASELINE,
    DATA_SOURCE,
    INDEPENDENT,
    KEY,
    LATENCY_QUANTILE,
    MARGIN,
    MODE,
    NODE,
    PLANNED_DISAGREEMENT,
    RAMP,
    RAMP_UNITS,
    ROUTER,
    ROUTER_OPTION,
    TASK,
    UNIT,
    URL,
)
from jettison.cli.console import print_json
from jettison.cli.surroundings import now
from jettison.core.errors import InputError
from jettison.core.strict_yaml import read_mapping
from jettison.experiment.counter_file import read_key
from jettison.experiment.folder import LARGEST_BYTES, Setup, Side
from jettison.experiment.opening import Begun, open_experiment, options_of, side_of
from jettison.experiment.settings import REQUEST, Settings
from jettison.experiment.settings_file import settings_error
from jettison.experiment.tally import BUCKETS
from jettison.triton.loading import load, missing_models

_FILLED = ("name", "baseline", "candidate")
"""Keys of the settings that `start` fills in."""
Mode = Literal["shadow", "split"]


class StartedDocument(BaseModel):
    """What `ab start --json` prints; `loaded` is null where no server was named."""

    experiment: str
    name: str
    folder: Path
    router: str
    version: int
    mode: str
    weight: float
    resumed: bool
    loaded: bool | None
    notes: tuple[str, ...]
    next: tuple[str, ...]


def start(
    name: str = typer.Argument(..., help="What people call the experiment."),
    repository: Path = typer.Option(..., "--repository", help="The model repository."),
    baseline: str = BASELINE,
    candidate: str = typer.Option(..., "--candidate", help="The model that shall replace it."),
    margin: float | None = MARGIN,
    planned_disagreement: float | None = PLANNED_DISAGREEMENT,
    unit: str | None = UNIT,
    independent: bool = INDEPENDENT,
    mode: str = MODE,
    task: str | None = TASK,
    output: str = typer.Option("", "--output", help="The output that is compared; the first by default."),
    ramp: str = RAMP,
    ramp_units: int = RAMP_UNITS,
    evidence: str | None = typer.Option(None, "--evidence", help="labels (the default) or agreement."),
    alpha: float | None = ALPHA,
    max_units: int | None = typer.Option(None, "--max-units", help="`exhausted` after so many."),
    latency_limit_ms: float | None = typer.Option(None, "--latency-limit-ms", help="What counts as late."),
    latency_quantile: float = LATENCY_QUANTILE,
    data_source: str | None = DATA_SOURCE,
    rules: Path | None = typer.Option(None, "--rules", help="Further settings (YAML), such as slices."),
    router: str | None = ROUTER,
    router_option: list[str] = ROUTER_OPTION,
    node: str | None = NODE,
    key: Path | None = KEY,
    url: str | None = URL,
    because: str = typer.Option("", "--because", help="Why the same comparison shall be repeated."),
    home: Path = HOME,
    as_json: bool = AS_JSON,
) -> None:
    """Begin an experiment: publish a router in front of two published models.

    Clients call the router from then on. `docs/ab-testing.md` says how to choose unit and margin.

    Example: `jettison ab start night --repository models --baseline fashion-fp32 --candidate fashion-int8
    --margin 0.01 --planned-disagreement 0.02 --unit request --requests-are-independent
    --task classification`
    """
    shares = _shares(mode, ramp)
    sides = side_of(repository, baseline), side_of(repository, candidate)
    given = {
        "margin": margin, "planned_disagreement": planned_disagreement, "unit": unit, "evidence": evidence,
        "requests_are_independent": independent or None, "alpha": alpha, "max_units": max_units,
        "latency": _latency(latency_limit_ms, latency_quantile),
        "data_source": data_source or f"{mode}:{router or name}",
    }  # fmt: skip
    settings = _settings(name, sides, {k: v for k, v in given.items() if v is not None}, rules)
    _check_split(mode, settings)
    try:
        setup = Setup(
            router=router or name, repository=repository.absolute(), baseline=sides[0], candidate=sides[1],
            mode="split" if mode == "split" else "shadow", ramp=shares, ramp_units=ramp_units,
            task=_task(mode, task), node=node or host(), key=_key(key), salt=settings.id, started=now(),
        )  # fmt: skip
        options = options_of(home, settings, setup, {**_pairs(router_option), "output": output})
    except ValidationError as error:
        raise settings_error("ab start", error) from error
    begun = open_experiment(home, settings, setup, options, now=setup.started, because=because)
    loaded = None if url is None else _load(url, begun, setup)
    _tell(_document(begun, setup, settings, loaded), as_json=as_json)


def _latency(limit_ms: float | None, quantile: float) -> dict[str, float] | None:
    """The limit as settings have it; None where none was given."""
    return None if limit_ms is None else {"limit_ms": limit_ms, "quantile": quantile}


def _shares(mode: str, ramp: str) -> tuple[int, ...]:
    """The ramp in buckets.

    Raises:
        InputError: The mode is none; a share is none, or does not grow; a ramp without a split.
    """
    if mode not in ("shadow", "split"):
        raise InputError(
            "--mode", detail=f"expected shadow or split, found {mode!r}", fix="Choose one of them"
        )
    if (mode == "split") != bool(ramp):
        detail = "mode split needs a share of the candidate" if not ramp else "mode shadow has no shares"
        raise InputError("--ramp", detail=detail, fix="Give --mode split --ramp 0.1, or --mode shadow alone")
    try:
        weights = tuple(round(float(part) * BUCKETS) for part in ramp.split(",") if ramp)
    except (ValueError, OverflowError) as error:
        fix = "Write shares such as 0.01,0.1,0.5"
        raise InputError("--ramp", detail=f"expected numbers, found {ramp!r}", fix=fix) from error
    if any(not 0 < weight < BUCKETS for weight in weights) or list(weights) != sorted({*weights}):
        fix = "Write growing shares such as 0.01,0.1,0.5: a unit then moves once at most"
        detail = f"expected shares that grow, from {1 / BUCKETS:g} to {1 - 1 / BUCKETS:g}, found {ramp!r}"
        raise InputError("--ramp", detail=detail, fix=fix)
    return weights


def _check_split(mode: str, settings: Settings) -> None:
    """Nothing, where the mode counts what the settings ask.

    Raises:
        InputError: They ask for pairs, and a split has none: what they say would never happen.
    """
    asked = {
        "max_units": settings.max_units is not None,
        "min_units": settings.min_units > 0,
        "slices": bool(settings.slices),
        "evidence: agreement": settings.evidence == "agreement",
    }
    idle = [name for name, is_asked in asked.items() if is_asked]
    if mode == "split" and idle:
        raise InputError(
            "ab start",
            detail=f"{idle[0]} judges units that both have answered, and in mode split none is",
            fix="Leave it out (--ramp-units says how long a share lasts), or give --mode shadow",
        )


def _task(mode: str, task: str | None) -> str:
    if task is None and mode == "shadow":
        raise InputError(
            "--task",
            detail="mode shadow compares answers, and nothing says how",
            fix="Give classification, embedding, detection or tolerance (docs/router.md)",
        )
    return task or "tolerance"


def _key(path: Path | None) -> Path | None:
    """The key's absolute path, where there is a key in that file."""
    if path is None:
        return None
    read_key(path)
    return path.absolute()


def _settings(name: str, sides: Sequence[Side], given: Mapping[str, object], rules: Path | None) -> Settings:
    """The experiment's settings, of options and file.

    Raises:
        InputError: A key stands in both, is unknown, missing or impossible.
    """
    further = {} if rules is None else _mapping(rules)
    twice = sorted(set(given) & set(further) | set(_FILLED) & set(further))
    if twice:
        fix = "Leave it out of the file"
        raise InputError(f"rules {rules}", detail=f"{twice[0]} is given by an option", fix=fix)
    is_aa = {"is_aa": True} if sides[0].sha256 == sides[1].sha256 else {}
    filled = {"name": name, "baseline": sides[0].sha256, "candidate": sides[1].sha256, **is_aa}
    try:
        return Settings.model_validate({**filled, **given, **further})
    except ValidationError as error:
        what = "ab start" if rules is None else f"ab start, {rules}"
        raise settings_error(what, error) from error


def _mapping(path: Path) -> dict[str, object]:
    start = "Write `slices:` and the like"
    found = read_mapping(path, f"rules {path}", most=LARGEST_BYTES, form="Give settings", start=start)
    return {str(key): value for key, value in found.items()}


def _pairs(options: Sequence[str]) -> dict[str, str]:
    wrong = [option for option in options if "=" not in option]
    if wrong:
        detail = f"expected KEY=VALUE, found {wrong[0]!r}"
        raise InputError("--router-option", detail=detail, fix="Write it as sample_share=0.5")
    return {key: value for key, _, value in (option.partition("=") for option in options)}


def _load(url: str, begun: Begun, setup: Setup) -> bool:
    missing = missing_models(url, (setup.baseline.model, setup.candidate.model))
    if missing:
        raise InputError(
            f"server {url}",
            detail=f"it does not serve {', '.join(missing)}",
            fix="Load it there first, or restart the server and leave --url out",
        )
    return load(url, begun.config, version=begun.version, deadline_s=60.0)


def _document(begun: Begun, setup: Setup, settings: Settings, loaded: bool | None) -> StartedDocument:
    folder = begun.folder
    return StartedDocument(
        experiment=settings.id, name=folder.name, folder=folder.path, router=setup.router,
        version=begun.version, mode=setup.mode, weight=(setup.ramp[0] if setup.ramp else 0) / BUCKETS,
        resumed=begun.is_resumed, loaded=loaded, notes=_notes(setup, settings, loaded),
        next=_next(folder.name, setup, settings, is_served=bool(loaded)),
    )  # fmt: skip


def _notes(setup: Setup, settings: Settings, loaded: bool | None) -> tuple[str, ...]:
    notes = []
    if loaded is None:
        notes.append(
            "the router is published, not served yet: restart the server, or begin again with --url and one "
            "in explicit mode"
        )
    if loaded is False:
        notes.append("the server loads nothing over its API (it is not in explicit mode): restart it")
    if settings.is_aa:
        notes.append(
            "both models are the same file: an A/A experiment, which tests the road and promotes nothing"
        )
    if setup.mode == "split":
        notes += _split_notes(setup, settings)
    elif settings.unit != REQUEST:
        notes.append(f"requests name their {settings.unit} by the parameter `unit` (docs/router.md)")
    return tuple(notes)


def _split_notes(setup: Setup, settings: Settings) -> list[str]:
    late = " or is late too often" if settings.latency else ""
    units = f"{setup.ramp_units:,} units at {setup.ramp[-1] / BUCKETS:.2%}"
    notes = [
        f"a split rolls back where the candidate fails more{late}, and is invalid where units do not come in "
        "their shares; it proves no quality, so that no verdict promotes it: shadow or replay first",
        f"`ab wait` ends by such a verdict, or after {units} with exit code 4 of --exit-code",
    ]
    if settings.latency is None:
        notes.append("nothing limits its latency: --latency-limit-ms does")
    return notes


def _next(name: str, setup: Setup, settings: Settings, *, is_served: bool) -> tuple[str, ...]:
    serve = [] if is_served else [f"jettison serve {setup.repository}"]
    label = [f"jettison ab label labels.csv --name {name}"] if settings.evidence == "labels" else []
    label = label if setup.mode == "shadow" else []
    return (*serve, f"jettison ab status {name} --watch", *label, f"jettison ab wait {name}")


def _tell(document: StartedDocument, *, as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    verb = "runs already" if document.resumed else "begins"
    typer.echo(f"experiment {document.name} {verb}: {document.experiment}")
    share = f", {document.weight:.2%} to the candidate" if document.weight else ""
    typer.echo(f"clients call {document.router} (version {document.version}), mode {document.mode}{share}")
    if document.loaded:
        typer.echo("the server has loaded it: version, readiness and configuration are as published")
    for note in document.notes:
        typer.echo(f"note: {note}")
    typer.echo("next:")
    for command in document.next:
        typer.echo(f"  {command}")
