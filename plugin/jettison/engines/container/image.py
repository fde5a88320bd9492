"""What an image says of itself: its TensorRT, its Triton and the driver that it wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from jettison.engines.container.door import explained

_TENSORRT = ("TENSORRT_VERSION", "TRT_VERSION")
_TRITON = ("NVIDIA_TRITON_SERVER_VERSION", "TRITON_SERVER_VERSION")
_DRIVER = "NVIDIA_REQUIRE_CUDA"
"""Variables of NVIDIA's images. Source: the environment of nvcr.io/nvidia/tritonserver and tensorrt."""
_LABEL = "com.nvidia.tensorrt.version"


class ImageFacts(BaseModel):
    """One image: its tag, its identity, and the versions that its environment or its labels name.

    `driver` is the condition that NVIDIA's container toolkit checks at the start, as "cuda>=12.9".
    """

    model_config = ConfigDict(frozen=True)

    tag: str
    digest: str
    tensorrt: str | None = None
    triton: str | None = None
    driver: str | None = None

    @property
    def name(self) -> str:
        """The tag with the identity, for the record of what was built in it."""
        return f"{self.tag}@{self.digest}"


def look_at_image(client: Any, tag: str) -> ImageFacts:
    """What the image of that tag says of itself.

    Raises:
        MissingError: It is not on this machine.
    """
    with explained(f"image {tag}"):
        image = client.images.get(tag)
        config = image.attrs.get("Config") or {}
        digests: Sequence[str] = image.attrs.get("RepoDigests") or ()
        known = str(image.id)
    environment = dict(entry.split("=", 1) for entry in config.get("Env") or () if "=" in entry)
    labels: Mapping[str, str] = config.get("Labels") or {}
    return ImageFacts(
        tag=tag,
        digest=digests[0].partition("@")[2] if digests else known,
        tensorrt=_first(environment, _TENSORRT) or labels.get(_LABEL),
        triton=_first(environment, _TRITON),
        driver=_first(environment, (_DRIVER,)),
    )


def _first(environment: Mapping[str, str], names: Sequence[str]) -> str | None:
    return next((environment[name] for name in names if environment.get(name)), None)
