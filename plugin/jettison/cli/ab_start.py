"""`jettison ab start`: an experiment on live traffic, by a router in front of two published models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import typer
from pydantic import BaseModel, ValidationError

from jettison.cli.ab_home import AS_JSON, HOME, host
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
    baseline: str = typer.Option(
        ..., "--baseline", help="The model that serves today: NAME, or NAME@VERSION for an older one."
    ),
    candidate: str = typer.Option(..., "--candidate", help="The model that shall replace it."),
    margin: float | None = typer.Option(
        None, "--margin", help="How much worse it may be: 0.01 is one unit of a hundred."
    ),
    planned_disagreement: float | None = typer.Option(
        None, "--planned-disagreement", help="The share of units on which the two are expected to differ."
    ),
    unit: str | None = typer.Option(
        None, "--unit", help="What is independent of the next one: clip, study, patient, device-hour."
    ),
    independent: bool = typer.Option(
        False, "--requests-are-independent", help="Say with --unit request that no two come from one of them."
    ),
    mode: str = typer.Option(
        "shadow", "--mode", help="shadow: both are asked. split: one of the two answers."
    ),
    task: str | None = typer.Option(
        None, "--task", help="What agreement means: classification, embedding, detection, tolerance."
    ),
    output: str = typer.Option("", "--output", help="The output that is compared; the first by default."),
    ramp: str = typer.Option(
        "", "--ramp", help="Of mode split: the candidate's shares, such as 0.01,0.1,0.5; one is enough."
    ),
    ramp_units: int = typer.Option(
        1000, "--ramp-units", min=1, help="So many units at one share, and `ab wait` takes the next."
    ),
    evidence: str | None = typer.Option(None, "--evidence", help="labels (the default) or agreement."),
    alpha: float | None = typer.Option(
        None, "--alpha", help="How often a bad one may pass, 0.05 by default."
    ),
    max_units: int | None = typer.Option(None, "--max-units", help="`exhausted` after so many."),
    latency_limit_ms: float | None = typer.Option(None, "--latency-limit-ms", help="What counts as late."),
    latency_quantile: float = typer.Option(
        0.99, "--latency-quantile", help="The share of answers that must be in time."
    ),
    data_source: str | None = typer.Option(
        None, "--data-source", help="Where units come from; MODE:ROUTER by default."
    ),
    rules: Path | None = typer.Option(None, "--rules", help="Further settings (YAML), such as slices."),
    router: str | None = typer.Option(
        None, "--router", help="The model that clients call; the experiment's name by default."
    ),
    router_option: list[str] = typer.Option(
        [], "--router-option", help="KEY=VALUE of the router, such as sample_share=0.5; may come again."
    ),
    node: str | None = typer.Option(
        None, "--node", help="This machine's name in the counters; '$NAME' takes it where the router runs."
    ),
    key: Path | None = typer.Option(
        None, "--key", help="The file of the key by which all counters shall be signed."
    ),
    url: str | None = typer.Option(
        None, "--url", help="HOST:PORT of a running server's HTTP service, in explicit mode: load it there."
    ),
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
    latency = (
        None if latency_limit_ms is None else {"limit_ms": latency_limit_ms, "quantile": latency_quantile}
    )
    given = {
        "margin": margin, "planned_disagreement": planned_disagreement, "unit": unit, "evidence": evidence,
        "requests_are_independent": independent or None, "alpha": alpha, "max_units": max_units,
        "latency": latency, "data_source": data_source or f"{mode}:{router or name}",
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
    document = _document(begun, setup, settings, loaded)
    if as_json:
        print_json(document)
    else:
        _print(document)


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


def _print(document: StartedDocument) -> None:
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
