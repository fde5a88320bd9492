"""`jettison keys`: a pair of keys to sign versions and to verify them."""

from __future__ import annotations

from pathlib import Path

import typer
from pydantic import BaseModel

from jettison.cli.console import print_json
from jettison.core.signing import make_keys


class KeysDocument(BaseModel):
    """What `keys --json` prints; paths are absolute."""

    private: Path
    public: Path
    fingerprint: str


def keys(
    path: Path = typer.Argument(
        ..., help="Where the private key goes; the public one beside it, as PATH.pub."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> None:
    """Make keys to sign and verify versions.

    A pair of Ed25519 keys; those of `openssl genpkey -algorithm ed25519` do as well. The private key has no
    passphrase: only its owner can read the file. Needs the extra `sign`.

    Example: `jettison keys release.key`
    """
    public, fingerprint = make_keys(path)
    if as_json:
        print_json(KeysDocument(private=path.absolute(), public=public.absolute(), fingerprint=fingerprint))
        return
    typer.echo(
        f"private key: {path} (keep it to yourself)\npublic key:  {public}\nfingerprint: {fingerprint}"
    )
