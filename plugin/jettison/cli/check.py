"""`jettison check`: everything in a repository that would make Triton refuse, hang or lie."""

from __future__ import annotations

import os
from pathlib import Path

import typer
from pydantic import BaseModel, ConfigDict
from rich.table import Table

from jettison.cli.console import EVIDENCE_SAYS_NO, print_json, table_console
from jettison.cli.local_server import local_installation
from jettison.core.signing import load_verifier
from jettison.evaluate.figures import counted
from jettison.triton.check.check import findings_of, look_at, read_fleet
from jettison.triton.check.finding import Finding
from jettison.triton.check.loading import load_findings, loadable
from jettison.triton.check.signature_rules import verified
from jettison.triton.server import ServerOptions, TritonServer


class CheckDocument(BaseModel):
    """What `check --json` prints: all findings, how many models there are and a real server loaded.

    `verified` is how many versions bear the signature of the key, None where none was given.
    """

    model_config = ConfigDict(frozen=True)

    findings: tuple[Finding, ...]
    models: int
    loaded: int
    verified: int | None


def check(
    repository: Path = typer.Argument(..., help="The model repository; nothing in it is changed."),
    fleet: Path | None = typer.Option(
        None, "--fleet", help="YAML with targets: name, compute, memory_mib, image of each kind of machine."
    ),
    image: list[str] = typer.Option([], "--image", help="Tag of a Triton image that serves it."),
    verify: Path | None = typer.Option(
        None, "--verify", help="A public key: all versions must be signed by its owner, and be unchanged."
    ),
    load: bool = typer.Option(True, "--load/--no-load", help="Load it in a scratch server on loopback."),
    server: Path | None = typer.Option(
        None, "--server", help="A tritonserver; else the one on PATH, else a runtime made once in the cache."
    ),
    deadline_s: float = typer.Option(120.0, "--deadline", min=1.0, help="Seconds until all must be loaded."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> None:
    """Find what would make Triton refuse, hang or lie in a repository.

    All checks are in docs/check.md. Exit code 1 says that there are findings.

    Example: `jettison check model_repository --fleet fleet.yaml`
    """
    known = read_fleet(fleet) if fleet is not None else None
    verifier = None if verify is None else load_verifier(verify)
    look = look_at(repository, fleet=known, images=image, verifier=verifier)
    findings = list(findings_of(look))
    loads = loadable(look) if load else []
    if loads:
        installation = local_installation(server)

        def serve(root: Path, options: ServerOptions) -> TritonServer:
            return TritonServer(root, installation, environment=os.environ, options=options)

        findings += load_findings(look, serve=serve, deadline_s=deadline_s)
    document = CheckDocument(
        findings=tuple(findings),
        models=len(look.models),
        loaded=len(loads),
        verified=None if verifier is None else verified(look, findings),
    )
    if as_json:
        print_json(document)
    else:
        _print(document)
    if findings:
        raise typer.Exit(EVIDENCE_SAYS_NO)


def _print(document: CheckDocument) -> None:
    console = table_console()
    if document.findings:
        table = Table("code", "where", "found", "what to do")
        for finding in document.findings:
            table.add_row(finding.code, finding.where, finding.message, finding.fix)
        console.print(table)
    loaded = f", {document.loaded} of them loaded by a server" if document.loaded else ""
    if document.verified is not None:
        loaded += f", {counted(document.verified, 'version')} with a signature of the key"
    found = counted(len(document.findings), "finding")
    console.print(f"{found} in {document.models} models{loaded}")
