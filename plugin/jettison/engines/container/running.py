"""Run one program in a container to its end, hear it while it runs, and leave nothing behind."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from jettison.engines.container.door import bind, explained, gpu_request, remove


class ContainerOrder(BaseModel):
    """One program to run.

    Args:
        image: The tag.
        command: The program with its arguments; the image's own entry point is not run, since those of
            NVIDIA print a page to stdout first.
        reads: Folders of this machine by their places in the container, read-only.
        writes: The same for folders that it writes.
        user: As "uid:gid": who shall own what it writes.
        environment: Variables beside those of the image.
        needs_gpu: Whether all GPUs are asked for.
    """

    model_config = ConfigDict(frozen=True)

    image: str
    command: tuple[str, ...]
    reads: Mapping[str, Path] = {}
    writes: Mapping[str, Path] = {}
    user: str = ""
    environment: Mapping[str, str] = {}
    needs_gpu: bool = True


class ContainerResult(BaseModel):
    """How it ended: exit code, all of stdout, and the last lines of stderr."""

    model_config = ConfigDict(frozen=True)

    code: int
    stdout: str
    complaints: tuple[str, ...] = ()


_KEPT_LINES = 20


def run_in_container(client: Any, order: ContainerOrder, hear: Callable[[str], None]) -> ContainerResult:
    """Run the program; each line of its stderr is told as it comes.

    The container is removed whatever happens, an interrupt too.

    Raises:
        MissingError: There is no such image.
        ExternalError: The API refuses.
    """
    name = f"jettison-{secrets.token_hex(6)}"
    try:
        with explained(f"a container of {order.image}"):
            return _run(client, order, name, hear)
    finally:
        with explained(f"the container {name}"):
            remove(client, name)


def _run(client: Any, order: ContainerOrder, name: str, hear: Callable[[str], None]) -> ContainerResult:
    container = client.containers.create(
        order.image,
        list(order.command[1:]),
        entrypoint=[order.command[0]],
        name=name,
        user=order.user,
        environment=dict(order.environment),
        mounts=[
            *(bind(str(path), place, writable=False) for place, path in order.reads.items()),
            *(bind(str(path), place, writable=True) for place, path in order.writes.items()),
        ],
        device_requests=[gpu_request()] if order.needs_gpu else [],
    )
    # Attached before it starts, so that not a byte is lost.
    stream = container.attach(stdout=True, stderr=True, stream=True, logs=False, demux=True)
    container.start()
    said, lines = bytearray(), _Lines(hear)
    for out, complaint in stream:
        said += out or b""
        lines.add(complaint or b"")
    lines.end()
    code = int(container.wait()["StatusCode"])
    return ContainerResult(
        code=code, stdout=said.decode(errors="replace"), complaints=tuple(lines.last[-_KEPT_LINES:])
    )


class _Lines:
    """Cuts a stream of bytes into lines; a frame may end anywhere, inside of a character too."""

    def __init__(self, hear: Callable[[str], None]) -> None:
        self.hear = hear
        self.last: list[str] = []
        self._rest = b""

    def add(self, piece: bytes) -> None:
        *whole, self._rest = (self._rest + piece).split(b"\n")
        for line in whole:
            self._tell(line)

    def end(self) -> None:
        if self._rest:
            self._tell(self._rest)
        self._rest = b""

    def _tell(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip("\r")
        self.last = [*self.last[-_KEPT_LINES:], text]
        self.hear(text)
