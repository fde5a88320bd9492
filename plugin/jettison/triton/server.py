"""A real tritonserver on this machine, bound to loopback, for as long as a `with` block lasts."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import Self

from jettison.core.environments import Say
from jettison.core.errors import ExternalError, InputError, RepositoryError
from jettison.triton.health import is_server_ready
from jettison.triton.interpreters import find_interpreter
from jettison.triton.runtime import OUR_BACKENDS, Installation, make_runtime
from jettison.triton.server_guard import MARK, Guard, end_left
from jettison.triton.server_log import ServerLog
from jettison.triton.server_ports import LOOPBACK, Ports, free_ports, is_anothers
from jettison.triton.shared_memory import SHARED_MEMORY, free_bytes

_POLL_S = 0.05
"""Chosen: so often that nobody waits for it, so seldom that asking costs next to nothing."""
_GRACE_S = 5
"""Chosen: what the server may take beyond its own exit timeout before it is killed."""
_START_ATTEMPTS = 3
"""A start that ends by a signal is tried again: on a loaded machine the Python backend sometimes aborts
with `boost::interprocess::lock_exception` (1 of 60 starts; triton-inference-server/server issue 8882).
Chosen: at that rate three in a row abort once in 216,000, and a server that always crashes is soon told."""
_REGION_BYTES = 16 << 20
"""Shared memory for each instance instead of Triton's 1 MiB, where there is plenty: a region that need not
grow spares a remapping, and crashes of issue 8882 were seen as regions grew. Chosen: a batch of 27 images of
3x224x224 float32 fits."""
_PLENTY_BYTES = 1 << 30
"""Chosen: 64 instances with such a region."""
_ASKED = (0, -signal.SIGTERM, -signal.SIGINT)
"""Exit statuses of a server that ended because it was asked to, maybe before it could listen to signals."""


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


def find_server(
    explicit: Path | None,
    *,
    which: Callable[[str], str | None],
    cache: Path,
    python: Path,
    progress: Say,
) -> Installation:
    """The server to use: the given program, else `tritonserver` on the search path, else the runtime.

    Raises:
        InputError: The given program does not exist, or cannot be run.
        ExternalError: The runtime could not be made.
        MissingError: No runtime can be made on this machine.
    """
    if explicit is not None:
        _check_program(explicit)
        return Installation(program=explicit.absolute(), backends=None, environment={})
    if (found := which("tritonserver")) is not None:
        return Installation(program=Path(found).absolute(), backends=None, environment={})
    return make_runtime(cache, find_interpreter(python, which=which), progress=progress)


def _check_program(path: Path) -> None:
    if path.is_file() and os.access(path, os.X_OK):
        return
    detail = "it is a file that cannot be run" if path.is_file() else "there is no such program"
    raise InputError(f"tritonserver {path}", detail=detail, fix="Correct the path, or leave it out")


class TritonServer:
    """A server over a repository: started and ready inside the `with` block, stopped after it.

    Args:
        repository: The model repository.
        installation: The server, from `find_server`.
        environment: The environment that the server shall see; the installation's additions win.
        options: Ports, mode and times.
        log: Where its log goes; if None a temporary file, which is removed when the server was ready and
            ended because it was asked to, whoever asked.
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
        self._log = ServerLog(log)
        self._installation = installation
        self._name = f"jettison-{secrets.token_hex(6)}-"
        self._environment = {**environment, **installation.environment, MARK: self._name}
        self._ports: Ports | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None

    @property
    def ports(self) -> Ports:
        """The ports that it listens on."""
        if self._ports is None:
            raise ExternalError("tritonserver", detail="it was not started", fix="Use it in a with block")
        return self._ports

    @property
    def name(self) -> str:
        """What its regions in shared memory begin with."""
        return self._name

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
    def log_path(self) -> Path:
        """Where its log is; a temporary one is made when it is first asked for."""
        return self._log.path

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
        self.stop(keeps_log=kind is not None and issubclass(kind, Exception))

    def start(self) -> None:
        """Start it and wait until all models are ready.

        Raises:
            RepositoryError: There is no such repository.
            InputError: Something listens on a given port already, or this user may not.
            ExternalError: It ended, or was not ready by the deadline; the message has its own words.
        """
        if not self.repository.is_dir():
            raise RepositoryError(
                f"repository {self.repository}",
                detail="there is no such folder",
                fix="Publish a model into it first",
            )
        for attempts_left in reversed(range(_START_ATTEMPTS)):
            self._ports = free_ports(
                self.options.http_port, self.options.grpc_port, self.options.metrics_port
            )
            try:
                self._launch()
                self._wait_ready()
                return
            except ExternalError:
                if not (self._has_crashed() and attempts_left):
                    self._log.keep()
                    self.stop()
                    raise
            except BaseException:
                self.stop()
                raise
            self.stop()

    def stop(self, *, keeps_log: bool = False) -> None:
        """Stop it and whatever it left: asked first, killed after the exit timeout.

        Args:
            keeps_log: Whether a temporary log stays though the server ended in order.
        """
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout=self.options.exit_timeout_s + _GRACE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process is not None:
            end_left(self._name)
        if self._guard is not None:
            self._guard.dismiss()
            self._guard = None
        for left_over in SHARED_MEMORY.glob(f"{self._name}*"):
            left_over.unlink(missing_ok=True)
        if self._process is not None and self._process.returncode in _ASKED and not keeps_log:
            self._log.discard()

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
            yield f"--backend-config={backend},shm-region-prefix-name={self._name}"
            if free_bytes() > _PLENTY_BYTES:
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
        patience_s = self.options.exit_timeout_s + _GRACE_S
        self._guard = Guard(self._process.pid, name=self._name, patience_s=patience_s)

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + self.options.ready_deadline_s
        mark, is_other = f"{MARK}={self._name}", False
        while not is_server_ready(self.http_url) or (is_other := is_anothers(self.ports.http, mark)):
            if self.pid is None:
                raise self._failure(
                    f"it ended with status {self._process.returncode if self._process else None}"
                )
            if time.monotonic() > deadline:
                why = f"; another process listens on port {self.ports.http}" if is_other else ""
                raise self._failure(f"it was not ready after {self.options.ready_deadline_s:g} s{why}")
            time.sleep(_POLL_S)

    def _failure(self, reason: str) -> ExternalError:
        words = self._log.telling_words()
        return ExternalError(
            f"tritonserver over {self.repository}",
            detail=f"{reason}{': ' if words else ''}{words}",
            fix=f"Read the whole log: {self.log_path}",
        )
