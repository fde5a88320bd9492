"""What all explanations share: that one does not apply, and figures that JSON can hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from jettison.core.tensors import TensorSpec, format_shape
from jettison.evaluate.classes import looks_like_classes


class NotApplicable(BaseModel):
    """An explanation that this model or these samples do not allow, and why."""

    model_config = ConfigDict(frozen=True)

    applies: Literal[False] = False
    reason: str


def without_classes(outputs: Sequence[TensorSpec], *, decides_classes: bool | None) -> NotApplicable | None:
    """Why a model with these outputs has no class decisions to explain, or None where it has.

    Args:
        outputs: The model's outputs.
        decides_classes: What the caller knows, for instance from the metric that the user chose; None leaves
            it to the shape and the name of the first output.
    """
    decides = looks_like_classes(outputs) if decides_classes is None else decides_classes
    if decides:
        return None
    found = f"{outputs[0].name!r} {format_shape(outputs[0].shape)}" if outputs else "none"
    return NotApplicable(
        reason=f"the model decides no classes: expected a first output of class scores, found {found}"
    )


def finite(value: float) -> float | None:
    """The number, or None for NaN and infinity, which JSON does not know."""
    return float(value) if math.isfinite(value) else None
