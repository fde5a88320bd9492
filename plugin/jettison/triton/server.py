"""A real tritonserver on this machine, bound to loopback, for as long as a `with` block lasts."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import Self

from jettison.core.errors import ExternalError, RepositoryError
from jettison.triton.health import is_server_ready
from jettison.triton.interpreters import find_interpreter
from jettison.triton.runtime import OUR_BACKENDS, Installation, Progress, make_runtime

LOOPBACK = "127.0.0.1"
_POLL_S = 0.05
_GRACE_S = 5.0
_TELLING_LINES = 12
_START_ATTEMPTS = 3
"""A start that ends by a signal is tried again: on a loaded machine the Python backend sometimes aborts
with `boost::interprocess::lock_exception` (1 of 60 starts; triton-inference-server/server issue 8882)."""
_SHM = Path("/dev/shm")  # noqa: S108 (where Linux keeps shared memory, not a scratch folder)
_REGION_BYTES = 16 << 20
"""Shared memory for each instance instead of Triton's 1 MiB, where there is plenty: a region that need not
grow spares a remapping, and crashes of issue 8882 were seen as regions grew."""
_PLENTY_BYTES = 1 << 30
_TELLING = re.compile(r"^E\d{4} |UNAVAILABLE|[Ee]rror|[Ff]ailed|already in use|not found|cannot open")
_NOISE = re.compile(
    r"CudaDriverHelper|NVML|DCGM|[Pp]inned|CUDA memory pool|CUDA driver version|compute capability|"
    r"Non-graceful|min_supported|^W\d{4} |unable to get number of CUDA"
)


class ServerOptions(BaseModel):
    """How a server is started. Ports that are not given are chosen free; times are in seconds.

    `control_mode` stays `none` unless models shall be loaded over the API: in `explicit` mode whoever
    reaches the API can run code.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    http_port: int | None = None
    grpc_port: int | None = None
    metrics_port: int | None = None
    control_mode: Literal["none", "poll", "explicit"] = "none"
    load_models: tuple[str, ...] = ()
    ready_deadline_s: float = Field(60.0, gt=0)
    exit_timeout_s: int = Field(10, ge=0)
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ports:
    """The three ports of one server."""

    http: int
    grpc: int
    metrics: int


def find_server(
    explicit: Path | None,
    *,
    which: Callable[[str], str | None],
    cache: Path,
    python: Path,
    progress: Progress,
) -> Installation:
    """The server to use: the given program, else `tritonserver` on the search path, else the runtime.

    Raises:
        ExternalError: The given program does not exist, or the runtime could not be made.
        MissingError: No runtime can be made on this machine.
    """
    if explicit is not None:
        if not explicit.is_file():
            raise ExternalError(
                f"tritonserver {explicit}",
                detail="there is no such program",
                fix="Correct the path, or leave it out",
            )
        return Installation(program=explicit.absolute(), backends=None, environment={})
    if (found := which("tritonserver")) is not None:
        return Installation(program=Path(found).absolute(), backends=None, environment={})
    return make_runtime(cache, find_interpreter(python, which=which), progress=progress)


class TritonServer:
    """A server over a repository: started and ready inside the `with` block, stopped after it.

    Args:
        repository: The model repository.
        installation: The server, from `find_server`.
        environment: The environment that the server shall see; the installation's additions win.
        options: Ports, mode and times.
        log: Where its log goes; a temporary file if None.
    """

    def __init__(
        self,
        repository: Path,
        installation: Installation,
        *,
        environment: Mapping[str, str],
        options: ServerOptions | None = None,
        log: Path | None = None,
    ) -> None:
        self.repository = repository.absolute()
        self.options = options or ServerOptions()
        self.log_path = log or _temporary_log()
        self._installation = installation
        self._environment = {**environment, **installation.environment}
        self._ports: Ports | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._region_prefix = f"jettison-{secrets.token_hex(6)}-"

    @property
    def ports(self) -> Ports:
        """The ports that it listens on."""
        if self._ports is None:
            raise ExternalError("tritonserver", detail="it was not started", fix="Use it in a with block")
        return self._ports

    @property
    def http_url(self) -> str:
        """Host and port of the HTTP service."""
        return f"{LOOPBACK}:{self.ports.http}"

    @property
    def grpc_url(self) -> str:
        """Host and port of the gRPC service."""
        return f"{LOOPBACK}:{self.ports.grpc}"

    @property
    def metrics_url(self) -> str:
        """Where Prometheus metrics are read."""
        return f"http://{LOOPBACK}:{self.ports.metrics}/metrics"

    @property
    def pid(self) -> int | None:
        """The process, or None when it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until all models are ready.

        Raises:
            RepositoryError: There is no such repository.
            ExternalError: It ended, or was not ready by the deadline; the message has its own words.
        """
        if not self.repository.is_dir():
            raise RepositoryError(
                f"repository {self.repository}",
                detail="there is no such folder",
                fix="Publish a model into it first",
            )
        for attempts_left in reversed(range(_START_ATTEMPTS)):
            self._ports = _free_ports(self.options)
            self._launch()
            try:
                self._wait_ready()
                return
            except ExternalError:
                if not (self._has_crashed() and attempts_left):
                    self.stop()
                    raise
            except BaseException:
                self.stop()
                raise
            self.stop()

    def stop(self) -> None:
        """Stop it by its own process number: asked first, killed after the exit timeout."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout=self.options.exit_timeout_s + _GRACE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for left_over in _SHM.glob(f"{self._region_prefix}*"):
            left_over.unlink(missing_ok=True)

    def _has_crashed(self) -> bool:
        return self._process is not None and (self._process.poll() or 0) < 0

    def wait(self) -> int:
        """Wait until the server ends by itself; its exit status."""
        return self._process.wait() if self._process else 0

    def command(self) -> list[str]:
        """The whole command line."""
        backends = self._installation.backends
        loads = [f"--load-model={name}" for name in self.options.load_models]
        return [
            str(self._installation.program),
            f"--model-repository={self.repository}",
            *([f"--backend-directory={backends}"] if backends else []),
            *(self._shared_memory() if backends else []),
            "--disable-auto-complete-config",
            f"--model-control-mode={self.options.control_mode}",
            *loads,
            f"--exit-timeout-secs={self.options.exit_timeout_s}",
            *(f"--{service}-address={LOOPBACK}" for service in ("http", "grpc", "metrics")),
            f"--http-port={self.ports.http}",
            f"--grpc-port={self.ports.grpc}",
            f"--metrics-port={self.ports.metrics}",
            *self.options.arguments,
        ]

    def _shared_memory(self) -> Iterator[str]:
        for backend in ("python", *(path.name for path in sorted(OUR_BACKENDS.iterdir()))):
            yield f"--backend-config={backend},shm-region-prefix-name={self._region_prefix}"
            if shutil.disk_usage(_SHM).free > _PLENTY_BYTES:
                yield f"--backend-config={backend},shm-default-byte-size={_REGION_BYTES}"

    def _launch(self) -> None:
        with self.log_path.open("wb") as log:
            try:
                self._process = subprocess.Popen(
                    self.command(),
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    env=self._environment,
                )
            except OSError as error:
                raise self._failure(f"it cannot be run: {error}") from error

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + self.options.ready_deadline_s
        while not is_server_ready(self.http_url):
            if self.pid is None:
                raise self._failure(
                    f"it ended with status {self._process.returncode if self._process else None}"
                )
            if time.monotonic() > deadline:
                raise self._failure(f"it was not ready after {self.options.ready_deadline_s:g} s")
            time.sleep(_POLL_S)

    def _failure(self, reason: str) -> ExternalError:
        words = " / ".join(telling_lines(self.log_path))
        return ExternalError(
            f"tritonserver over {self.repository}",
            detail=f"{reason}{': ' if words else ''}{words}",
            fix=f"Read the whole log: {self.log_path}",
        )


def _temporary_log() -> Path:
    handle, name = tempfile.mkstemp(prefix="jettison-tritonserver-", suffix=".log")
    os.close(handle)
    return Path(name)


def telling_lines(log: Path) -> list[str]:
    """The lines of a server's log that say what is wrong, without what every machine without a GPU says."""
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    telling = [_plain(line) for line in lines if _TELLING.search(line) and not _NOISE.search(line)]
    return list(dict.fromkeys(telling))[-_TELLING_LINES:]


def _plain(line: str) -> str:
    without_prefix = re.sub(r"^[EIW]\d{4} [\d:.]+ +\d+ \S+\] ?", "", line)
    return re.sub(r"\s*\|\s*", " ", without_prefix).strip(' "')


def _free_ports(options: ServerOptions) -> Ports:
    wanted: Sequence[int | None] = (options.http_port, options.grpc_port, options.metrics_port)
    with contextlib.ExitStack() as held:
        ports = [port if port is not None else _free_port(held) for port in wanted]
    return Ports(*ports)


def _free_port(held: contextlib.ExitStack) -> int:
    """A port that was free just now; held until all are chosen, so that they differ."""
    listener = held.enter_context(socket.socket())
    listener.bind((LOOPBACK, 0))
    port: int = listener.getsockname()[1]
    return port
