"""What a verdict service is told, and everything that is wrong with it before it listens."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from jettison.core.errors import InputError
from jettison.experiment.counter_file import read_key
from jettison.experiment.settings import Settings
from jettison.experiment.settings_file import load_settings
from jettison.verdict_service.sources import CounterFolder, MetricsEndpoint, Source

LONGEST_TOKEN_BYTES = 4096
"""Chosen: half of what servers take for all headers of a request."""
SHORTEST_TOKEN_BYTES = 16
"""Chosen as for keys: too much to try all."""


class ServiceOptions(BaseModel):
    """How a verdict service works.

    Args:
        experiments: Files with an experiment's settings, or folders of them, which are looked at again.
        state: The service's own folder.
        counters: Folders in which nodes leave their counter files.
        scrape: URLs of Tritons' metrics.
        key: The key by which every counter must be signed.
        token: The file with the token that callers must have; None where nobody needs one.
        host: The address to listen on.
        port: The port; 0 for any free one.
        poll_s: How often the sources are looked at.
        timeout_s: How long a Triton may take to show its metrics.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    experiments: tuple[Path, ...]
    state: Path
    counters: tuple[Path, ...] = ()
    scrape: tuple[str, ...] = ()
    key: Path | None = None
    token: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    poll_s: float = 5.0
    timeout_s: float = 5.0


class Checked(NamedTuple):
    """What options come to: the secrets, and where counters come from."""

    token: bytes | None
    key: bytes | None
    sources: tuple[Source, ...]


def checked(options: ServiceOptions) -> Checked:
    """Secrets and sources, looked at as far as can be beforehand; experiments and state are opened elsewhere.

    Raises:
        InputError: Nothing to judge, no source, no such folder, no URL, a short token or key, an open door.
    """
    if not options.experiments:
        raise InputError(
            "ab serve", detail="expected an experiment, found none", fix="Give --experiment FILE"
        )
    token = None if options.token is None else read_token(options.token)
    key = None if options.key is None else read_key(options.key)
    if token is None and not _is_loopback(options.host):
        raise InputError(
            f"--host {options.host}",
            detail="expected a token where others can reach the service, found none",
            fix="Give --token FILE, or leave --host out to listen on this machine only",
        )
    if not options.counters and not options.scrape and token is None:
        raise InputError(
            "ab serve",
            detail="expected a source of counters, found none",
            fix="Give --counters FOLDER or --scrape URL, or --token FILE to let nodes send theirs",
        )
    _refuse_unsigned(options)
    return Checked(token, key, tuple(_sources(options, key)))


def read_token(path: Path) -> bytes:
    """The token in a file, without line ends around it.

    Raises:
        InputError: No such file, or what it holds is no token.
    """
    what, fix = f"token {path}", "Make one: openssl rand -hex 32 > FILE"
    if not path.is_file():
        raise InputError(what, detail="there is no such file", fix=fix)
    token = path.read_bytes().strip()
    if not SHORTEST_TOKEN_BYTES <= len(token) <= LONGEST_TOKEN_BYTES:
        detail = f"expected {SHORTEST_TOKEN_BYTES} to {LONGEST_TOKEN_BYTES} bytes, found {len(token)}"
        raise InputError(what, detail=detail, fix=fix)
    if any(not 0x21 <= byte <= 0x7E for byte in token):
        raise InputError(what, detail="expected letters, digits and signs, found other bytes", fix=fix)
    return token


def load_experiments(paths: Sequence[Path]) -> Iterator[Settings]:
    """The settings in files, and in all YAML files of folders.

    Raises:
        InputError: One of them cannot be read.
    """
    for path in paths:
        for file in settings_files(path):
            yield load_settings(file)


def settings_files(path: Path) -> list[Path]:
    """The file itself, or the YAML files of a folder."""
    if not path.is_dir():
        return [path]
    found = (file for file in path.iterdir() if file.suffix in (".yaml", ".yml"))
    return sorted(file for file in found if not file.name.startswith("."))


def _sources(options: ServiceOptions, key: bytes | None) -> Iterator[Source]:
    for folder in options.counters:
        if not folder.is_dir():
            fix = "Make it, or correct the path"
            raise InputError(f"--counters {folder}", detail="there is no such folder", fix=fix)
        yield CounterFolder(folder, key=key)
    for url in options.scrape:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise InputError(
                f"--scrape {url}",
                detail="expected a URL of http or https",
                fix="Give one such as http://node:8002/metrics",
            )
        yield MetricsEndpoint(url, timeout_s=options.timeout_s)


def _refuse_unsigned(options: ServiceOptions) -> None:
    if options.key is not None and options.scrape:
        raise InputError(
            "--key and --scrape",
            detail="metrics bear no signature, so that none of these counters could be taken",
            fix="Leave --key out, or let nodes hand on signed counter files",
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
