"""The one door to the package `docker`, which speaks to Docker and to Podman alike."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from jettison.core.errors import ExternalError, MissingError
from jettison.core.extras import install_command

_START = "Start Docker or Podman's service, or name its socket in DOCKER_HOST"


@contextlib.contextmanager
def docker_client(*, limit_s: float) -> Iterator[Any]:
    """A client of the API that the environment names (DOCKER_HOST, else Docker's own socket).

    Args:
        limit_s: The longest silence of the service: a build may say nothing for many minutes.

    Raises:
        MissingError: The package is not installed, or no service answers.
    """
    try:
        import docker
    except ImportError as error:
        fix = f"Run: {install_command('docker')}"
        raise MissingError("a container", detail="the package docker is not installed", fix=fix) from error
    try:
        client = docker.from_env(timeout=limit_s)
        client.ping()
    except docker.errors.DockerException as error:
        raise MissingError("a container", detail=f"no Docker API answers: {error}", fix=_START) from error
    try:
        yield client
    finally:
        client.close()


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Turns errors of the API into ours, with its own words.

    Raises:
        MissingError: There is no such image.
        ExternalError: It refuses anything else.
    """
    import docker
    import requests

    try:
        yield
    except docker.errors.ImageNotFound as error:
        fix = "Pull or build it first: docker pull TAG"
        raise MissingError(what, detail="there is no such image on this machine", fix=fix) from error
    except docker.errors.APIError as error:
        fix = "Look at the service's log; for a GPU it needs NVIDIA's container toolkit"
        raise ExternalError(
            what, detail=f"the Docker API says: {error.explanation or error}", fix=fix
        ) from error
    except (requests.RequestException, OSError) as error:
        raise ExternalError(what, detail=f"the Docker API broke off: {error}", fix=_START) from error


def gpu_request() -> Any:
    """The request for all GPUs."""
    from docker.types import DeviceRequest

    return DeviceRequest(count=-1, capabilities=[["gpu"]])


def bind(source: str, target: str, *, writable: bool) -> Any:
    """A folder of this machine at a place in the container."""
    from docker.types import Mount

    return Mount(target=target, source=source, type="bind", read_only=not writable)


def remove(client: Any, name: str) -> None:
    """Remove the container of that name, running or not; one that is not there is no error."""
    import docker

    with contextlib.suppress(docker.errors.NotFound):
        client.api.remove_container(name, force=True, v=True)
