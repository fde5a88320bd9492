"""A container of a real Docker or Podman; JETTISON_DOCKER_IMAGE names a small image with a shell."""

import os

import pytest

from jettison.core.errors import MissingError
from jettison.engines.container.door import docker_client
from jettison.engines.container.image import look_at_image
from jettison.engines.container.running import ContainerOrder, run_in_container

IMAGE = os.environ.get("JETTISON_DOCKER_IMAGE", "")
pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(not IMAGE, reason="JETTISON_DOCKER_IMAGE names no image"),
]


def test_a_program_runs_is_heard_and_leaves_nothing() -> None:
    script = "echo out; echo one >&2; echo two >&2; exit 3"
    order = ContainerOrder(image=IMAGE, command=("sh", "-c", script), needs_gpu=False)
    heard: list[str] = []
    with docker_client(limit_s=60) as client:
        assert look_at_image(client, IMAGE).digest.startswith("sha256:")
        before = {found.id for found in client.containers.list(all=True)}
        result = run_in_container(client, order, heard.append)
        assert {found.id for found in client.containers.list(all=True)} == before
    assert (result.code, result.stdout, heard) == (3, "out\n", ["one", "two"])


def test_an_image_that_is_not_there_is_missing() -> None:
    with docker_client(limit_s=60) as client, pytest.raises(MissingError, match="there is no such image"):
        look_at_image(client, "jettison-nowhere:0")
