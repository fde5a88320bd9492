"""A real Prometheus: the one on PATH, or Debian's package, unpacked into the cache at first use."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from jettison.core.environments import cache_folder


def program() -> Path:
    """Prometheus, or a skip with the reason."""
    if (found := shutil.which("prometheus")) is not None:
        return Path(found)
    folder = cache_folder(os.environ, Path.home()) / "debian-prometheus"
    unpacked = folder / "usr" / "bin" / "prometheus"
    if not unpacked.exists():
        _unpack(folder)
    return unpacked


def _unpack(folder: Path) -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        pytest.skip("no prometheus on PATH, and no Debian to take it from")
    work = folder.with_name(f"{folder.name}.{os.getpid()}")
    work.mkdir(parents=True)
    try:
        command = ("apt-get", "download", "prometheus")
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
        packages = list(work.glob("prometheus_*.deb"))
        if not packages:
            pytest.skip(
                f"no prometheus on PATH, and Debian's cannot be fetched: {done.stderr.strip()[-200:]}"
            )
        subprocess.run(["dpkg", "-x", str(packages[0]), str(work / "root")], check=True)
        with contextlib.suppress(OSError):  # another test run was faster
            (work / "root").rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


class Prometheus:
    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, path: str, **query: str) -> Any:
        url = f"{self.url}{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 (our own)
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return json.loads(error.read())

    def values(self, expression: str) -> list[dict[str, Any]]:
        """What a query gives now; an error of it fails the test."""
        found = self.ask("/api/v1/query", query=expression)
        assert found["status"] == "success", f"{expression}: {found.get('error')}"
        result: list[dict[str, Any]] = found["data"]["result"]
        return result


@contextlib.contextmanager
def prometheus(work: Path, config: dict[str, Any]) -> Iterator[Prometheus]:
    """One that runs with that configuration, ready."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (work / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = (
        program(), f"--config.file={work / 'prometheus.yml'}", f"--storage.tsdb.path={work / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
    )  # fmt: skip
    with (work / "prometheus.log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            found, end = Prometheus(port), time.monotonic() + 30
            while time.monotonic() < end and process.poll() is None:
                with contextlib.suppress(OSError, ValueError, AssertionError):
                    found.values("vector(1)")
                    break
                time.sleep(0.1)
            yield found
        finally:
            process.kill()
