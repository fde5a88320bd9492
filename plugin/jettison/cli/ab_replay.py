"""`jettison ab replay`: saved requests to both models, in turns."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import typer
from pydantic import BaseModel

from jettison.cli.ab_home import AS_JSON
from jettison.cli.console import print_json, progress_bars
from jettison.core.errors import InputError
from jettison.core.files import read_bounded
from jettison.core.samples import Samples, open_samples
from jettison.evaluate.metrics import Metric, metric_for
from jettison.experiment.counter_file import write_counters
from jettison.experiment.counters import WHOLE, Counters, CounterSet
from jettison.experiment.replay import LatencyDifference, latency_of, tally_of
from jettison.experiment.replay import replay as send
from jettison.experiment.settings import REQUEST, Settings
from jettison.experiment.settings_file import load_settings
from jettison.experiment.tally import Tally
from jettison.triton.client import Protocol, TritonRunner

NODE = "replay"
"""The node of its counters: a second replay contradicts the first, and is not added to it."""
_LARGEST_BYTES = 1 << 28


class ReplayDocument(BaseModel):
    """What `ab replay --json` prints; `latency` is null with fewer than four samples that both answered."""

    baseline: str
    candidate: str
    samples: int
    units: int
    agree: int
    disagree: int
    better: int
    same: int
    worse: int
    between: int
    baseline_lost: int
    candidate_lost: int
    latency: LatencyDifference | None
    experiment: str
    counters: Path | None
    next: str


def replay(
    capture: str = typer.Argument(
        ...,
        help="Saved requests: .npz, a folder of them, or package.module:function; with labels or without.",
    ),
    baseline: str = typer.Option(..., "--baseline", help="The model that serves today."),
    candidate: str = typer.Option(..., "--candidate", help="The model that shall replace it."),
    url: str = typer.Option("127.0.0.1:8000", "--url", help="HOST:PORT of the server that serves both."),
    protocol: str = typer.Option("http", "--protocol", help="http or grpc."),
    metric: str | None = typer.Option(
        None, "--metric", help="What is right: top1, top5 or a function; top1 where labels are classes."
    ),
    units: Path | None = typer.Option(
        None, "--units", help="A text file with the unit of each sample, a line each; else each is one."
    ),
    settings: Path | None = typer.Option(None, "--settings", help="An experiment's settings (YAML), for -o."),
    output: Path | None = typer.Option(None, "--output", "-o", help="Write the counters there."),
    warm_up: int = typer.Option(20, "--warm-up", min=0, help="So many samples before, which do not count."),
    as_json: bool = AS_JSON,
) -> None:
    """Send saved requests to both models in turns (ABBA), over one connection, and count.

    Example: `jettison ab replay march.npz --baseline fashion-fp32 --candidate fashion-int8`
    """
    asked = _asked(settings, output)
    with (
        TritonRunner(url, baseline, protocol=_protocol(protocol)) as first,
        first.beside(candidate) as second,
    ):
        samples = open_samples(capture, first.inputs)
        names = _units(units, samples, asked)
        judge = _metric(metric, samples, first)
        with progress_bars() as reporter:
            outcomes = send(
                (first, second), samples, metric=judge, clock=time.perf_counter_ns, warm_up=warm_up,
                progress=reporter("replay"),
            )  # fmt: skip
    limit_ms = asked.latency.limit_ms if asked and asked.latency else None
    tally = tally_of(outcomes, names, limit_ms=limit_ms)
    if asked is not None and output is not None:
        state = Counters(asked.id, NODE, sequence=1, slices=((WHOLE, tally),))
        write_counters(output, CounterSet(asked.id, (state,)))
    decide = _decide(tally) if asked is None else f"--settings {settings} --counters {output}"
    document = ReplayDocument(
        baseline=baseline, candidate=candidate, samples=len(outcomes), units=tally.offered, agree=tally.agree,
        disagree=tally.disagree, better=tally.better, same=tally.same, worse=tally.worse,
        between=tally.judged - tally.better - tally.same - tally.worse, baseline_lost=tally.baseline_lost,
        candidate_lost=tally.candidate_lost, latency=latency_of(outcomes),
        experiment=asked.id if asked else "", counters=output.absolute() if output else None,
        next=f"jettison ab decide {decide}",
    )  # fmt: skip
    if as_json:
        print_json(document)
    else:
        _print(document)


def _asked(settings: Path | None, output: Path | None) -> Settings | None:
    if (settings is None) != (output is None):
        fix = "Give both: counters carry the id of the experiment that they are of"
        found = "--settings alone" if output is None else "-o alone"
        raise InputError("ab replay", detail=f"expected --settings and -o together, found {found}", fix=fix)
    return None if settings is None else load_settings(settings)


def _protocol(text: str) -> Protocol:
    if text == "http":
        return "http"
    if text == "grpc":
        return "grpc"
    raise InputError("--protocol", detail=f"expected http or grpc, found {text!r}", fix="Choose one of them")


def _metric(name: str | None, samples: Samples, runner: TritonRunner) -> Metric | None:
    """What tells who is right; nothing without labels, unless a metric was asked for."""
    if name is None and not samples.has_labels:
        return None
    return metric_for(name, samples, runner.outputs)


def _units(path: Path | None, samples: Samples, asked: Settings | None) -> Sequence[str]:
    if path is None:
        if asked is not None and asked.unit != REQUEST:
            raise InputError(
                "ab replay",
                detail=f"the experiment's unit is {asked.unit!r}, and nothing says which samples share one",
                fix="Give --units, a text file with a name a line",
            )
        return [str(number) for number in range(samples.count)]
    what = f"units {path}"
    content = read_bounded(
        path, what, most=_LARGEST_BYTES, missing="Give a text file", fix="Give a text file"
    )
    lines = content.decode(errors="replace").splitlines()
    if len(lines) != samples.count:
        detail = f"expected {samples.count} lines, one a sample, found {len(lines)}"
        raise InputError(what, detail=detail, fix="Write the unit of every sample, in their order")
    return lines


def _decide(tally: Tally) -> str:
    """The counts as options; the numbers after them are for the reader to choose."""
    counts = f"--better {tally.better} --same {tally.same} --worse {tally.worse + tally.candidate_lost}"
    return f"{counts} --margin 0.01 --planned-disagreement 0.04"


def _print(document: ReplayDocument) -> None:
    typer.echo(f"{document.baseline} against {document.candidate}: {document.units:,} units")
    typer.echo(f"  answered alike {document.agree:,}, differently {document.disagree:,}")
    lost = document.baseline_lost, document.candidate_lost
    if any(lost):
        typer.echo(f"  lost answers: baseline {lost[0]:,}, candidate {lost[1]:,}")
    judged = document.better + document.same + document.worse + document.between
    typer.echo(
        f"  judged {judged:,}: better {document.better:,}, same {document.same:,}, "
        f"worse {document.worse:,}, between {document.between:,}"
    )
    found = document.latency
    if found is not None:
        typer.echo(
            f"  latency: baseline {found.baseline_ms:.3f} ms (p99 {found.baseline_p99_ms:.3f}), "
            f"candidate {found.candidate_ms:.3f} ms (p99 {found.candidate_p99_ms:.3f})"
        )
        typer.echo(
            f"  difference {found.difference_ms:+.3f} ms, at least {found.low_ms:+.3f}, "
            f"at most {found.high_ms:+.3f}"
        )
    typer.echo(f"next: {document.next}")
