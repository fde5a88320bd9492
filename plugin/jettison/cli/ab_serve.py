"""`jettison ab serve`: the verdicts on all experiments, over HTTP."""

from __future__ import annotations

import logging
from pathlib import Path

import typer
from pydantic import BaseModel

from jettison.cli.clock import now
from jettison.cli.console import err, print_json
from jettison.cli.endings import end
from jettison.verdict_service.options import ServiceOptions
from jettison.verdict_service.running import run


class ServiceAddress(BaseModel):
    """What `ab serve --json` prints once the service listens."""

    url: str


def serve(
    experiments: list[Path] = typer.Option(
        [], "--experiment", help="An experiment's settings (YAML), or a folder of them, which may grow."
    ),
    state: Path = typer.Option(..., "--state", help="The service's own folder: what it knows outlives it."),
    counters: list[Path] = typer.Option(
        [], "--counters", help="A folder in which nodes leave their counter files."
    ),
    scrape: list[str] = typer.Option([], "--scrape", help="The metrics of a Triton with a router."),
    key: Path | None = typer.Option(None, "--key", help="The key by which all counters must be signed."),
    token: Path | None = typer.Option(
        None, "--token", help="A file with the token that callers must have; nodes may then send counters."
    ),
    host: str = typer.Option("127.0.0.1", "--host", help="The address; others than loopback need a token."),
    port: int = typer.Option(8080, "--port", min=0, max=65535, help="0 for any free port."),
    poll_s: float = typer.Option(
        5.0, "--poll", min=0.1, max=3600, help="Seconds between two looks at the sources."
    ),
    timeout_s: float = typer.Option(
        5.0, "--timeout", min=0.1, max=600, help="Seconds that a Triton may take to show its metrics."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document once it listens."),
) -> None:
    """Tell verdicts to rollouts, dashboards and people, until interrupted.

    Example: `jettison ab serve --experiment ab.yaml --counters counters --state verdicts`
    """
    options = ServiceOptions(
        experiments=tuple(experiments), state=state, counters=tuple(counters), scrape=tuple(scrape), key=key,
        token=token, host=host, port=port, poll_s=poll_s, timeout_s=timeout_s,
    )  # fmt: skip
    logging.basicConfig(level=logging.WARNING, format="%(message)s")

    announced: list[str] = []

    def ready(url: str) -> None:
        announced.append(url)
        if as_json:
            print_json(ServiceAddress(url=url))
        else:
            err.print(f"listening on {url}", highlight=False, soft_wrap=True)

    try:
        run(options, now=now, ready=ready)
    except (Exception, KeyboardInterrupt) as error:
        if not announced:
            raise
        # The document is out: whatever comes after it may not put a second one on stdout.
        raise typer.Exit(end(error, as_json=False)) from error
