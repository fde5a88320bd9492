"""Where a model shall run: `cpu`, `tensorrt`, or one NVIDIA compute capability such as `sm89`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from jettison.core.errors import TargetError

CAPABILITIES: dict[int, str] = {
    75: "Turing (T4)",
    80: "Ampere (A100)",
    86: "Ampere (A10, RTX 30)",
    87: "Ampere (Jetson Orin)",
    89: "Ada (L4, RTX 40)",
    90: "Hopper (H100)",
    100: "Blackwell (B200)",
    103: "Blackwell (B300)",
    110: "Blackwell (Jetson Thor)",
    120: "Blackwell (RTX 50)",
    121: "Blackwell (GB10)",
}
"""Compute capabilities that the project supports. Source: NVIDIA's CUDA GPU compute capability table."""
GPU_TARGETS = ("tensorrt", *(f"sm{capability}" for capability in CAPABILITIES))
TARGETS = ("cpu", *GPU_TARGETS)


class Target(BaseModel):
    """A place where a model shall run."""

    model_config = ConfigDict(frozen=True)

    name: str
    dialect: Literal["cpu", "tensorrt"]
    compute_capability: int | None = None

    @property
    def is_gpu(self) -> bool:
        """Whether TensorRT will run the model."""
        return self.dialect == "tensorrt"

    def __str__(self) -> str:
        return self.name


def parse_target(text: str, *, suggested: Sequence[str] = TARGETS) -> Target:
    """The target of that name.

    Args:
        text: The name.
        suggested: What an error names as targets.

    Raises:
        TargetError: There is no such target.
    """
    if text in ("cpu", "tensorrt"):
        return Target(name=text, dialect="cpu" if text == "cpu" else "tensorrt")
    match = re.fullmatch(r"sm_?([1-9]\d{1,2})", text)
    if match and int(match.group(1)) in CAPABILITIES:
        return Target(name=f"sm{match.group(1)}", dialect="tensorrt", compute_capability=int(match.group(1)))
    raise TargetError(f"target {text!r}", detail="there is no such target", fix=_suggestion(text, suggested))


def _suggestion(text: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(text, names, n=1, cutoff=0.75)
    hint = f"Did you mean {near[0]}? " if near else ""
    return f"{hint}Targets are {', '.join(names)}"
