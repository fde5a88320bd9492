"""`jettison serve`: a real tritonserver over a repository, on this machine."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import typer
from pydantic import BaseModel

from jettison.cli.console import err, print_json
from jettison.cli.endings import end
from jettison.cli.interrupts import Terminated
from jettison.cli.local_server import local_installation
from jettison.core.errors import ExternalError, InputError
from jettison.triton.repository import model_folders
from jettison.triton.server import ServerOptions, TritonServer


class Endpoints(BaseModel):
    """What `serve --json` prints once the server is ready."""

    http: str
    grpc: str
    metrics: str
    pid: int | None
    models: tuple[str, ...]
    log: Path


def serve(
    repository: Path = typer.Argument(..., help="The model repository."),
    http_port: int = typer.Option(8000, "--http-port", min=0, max=65535, help="0 for any free port."),
    grpc_port: int = typer.Option(8001, "--grpc-port", min=0, max=65535, help="0 for any free port."),
    metrics_port: int = typer.Option(8002, "--metrics-port", min=0, max=65535, help="0 for any free port."),
    server: Path | None = typer.Option(
        None, "--server", help="A tritonserver; else the one on PATH, else a runtime made once in the cache."
    ),
    deadline_s: float = typer.Option(
        120.0, "--deadline", min=1.0, help="Seconds until all models must be ready."
    ),
    explicit: bool = typer.Option(
        False,
        "--explicit",
        help="Let publish --url and ab start --url load models; whoever reaches its ports can then run code.",
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document when the server is ready."),
) -> None:
    """Serve a repository with a real tritonserver, until interrupted.

    For a developer's machine: it listens on loopback only. With --explicit whoever reaches its API can run
    code in it: every user of this machine.

    Example: `jettison serve model_repository`
    """
    options = _options(http_port, grpc_port, metrics_port, deadline_s)
    models = tuple(folder.name for folder in model_folders(repository))
    if explicit:
        options = options.model_copy(update={"control_mode": "explicit", "load_models": models})
    if not models:
        err.print(f"note: {repository} holds no model", highlight=False, soft_wrap=True)
    installation = local_installation(server)
    announced = False
    try:
        with TritonServer(repository, installation, environment=os.environ, options=options) as running:
            _announce(running, models, as_json=as_json)
            announced = True
            status = running.wait()
    except (Exception, KeyboardInterrupt) as error:
        if not announced:
            raise
        if isinstance(error, Terminated):  # how a server is stopped: nothing broke off
            raise typer.Exit(error.exit_code) from error
        # The document is out: whatever comes after it may not put a second one on stdout.
        raise typer.Exit(end(error, as_json=False)) from error
    kept = f"; its log is {running.log_path}" if running.log_path.exists() else ""
    err.print(f"tritonserver ended with status {status}{kept}")
    if status != 0:
        raise typer.Exit(ExternalError.exit_code)


def _announce(running: TritonServer, models: tuple[str, ...], *, as_json: bool) -> None:
    if as_json:
        endpoints = Endpoints(
            http=running.http_url, grpc=running.grpc_url, metrics=running.metrics_url, pid=running.pid,
            models=models, log=running.log_path,
        )  # fmt: skip
        print_json(endpoints)
        return
    typer.echo(f"serving {', '.join(models) or 'no model'}; stop with Ctrl-C")
    typer.echo(f"  HTTP    {running.http_url}\n  gRPC    {running.grpc_url}\n  metrics {running.metrics_url}")


def _options(http: int, grpc: int, metrics: int, deadline_s: float) -> ServerOptions:
    """The server's options; a port of 0 is any free one.

    Raises:
        InputError: Two services would listen on one port.
    """
    ports = {"--http-port": http, "--grpc-port": grpc, "--metrics-port": metrics}
    for (first, one), (second, other) in itertools.combinations(ports.items(), 2):
        if one == other != 0:
            raise InputError(
                f"{first} and {second}",
                detail=f"expected two different ports, found {one} for both",
                fix="Change one of them, or give 0 for any free port",
            )
    return ServerOptions(
        http_port=http or None,
        grpc_port=grpc or None,
        metrics_port=metrics or None,
        ready_deadline_s=deadline_s,
    )
