"""Settings of the passes `{distill: ...}`: who learns, and the weight of each term of what is learned."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from jettison.core.samples import names_function
from jettison.core.validation import ImpossibleValueError, shown

HINTS = ("features", "attention", "relation")
"""Terms that look at layers inside student and teacher."""
_LABELS_WEIGHT = 0.1
"""Of labels beside the teacher's answers, where the recipe gives no losses. Source: Hinton et al. 2015
(arXiv 1503.02531), section 2: "a considerably lower weight" than that of the teacher's answers."""


def _factory(value: str) -> str:
    if not names_function(value):
        raise ImpossibleValueError(
            f"expected package.module:function, found {shown(value)}",
            fix="Name the function that makes the student, a torch module",
        )
    return value


Factory = Annotated[str, AfterValidator(_factory)]
"""The function that makes a student, `package.module:function`."""
Weight = Annotated[float, Field(ge=0, strict=True, allow_inf_nan=False)]


class Losses(BaseModel):
    """The weight of each term of the loss; 0 leaves it out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    logits: Weight = 0.0
    labels: Weight = 0.0
    features: Weight = 0.0
    attention: Weight = 0.0
    relation: Weight = 0.0

    @property
    def counted(self) -> dict[str, float]:
        """The terms that count."""
        return {name: weight for name, weight in self if weight > 0}


class Shrink(BaseModel):
    """How much narrower each layer gets."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: float = Field(gt=0, lt=1, allow_inf_nan=False)


DEFAULT_LOSSES = Losses(logits=1.0, labels=_LABELS_WEIGHT)
"""Where the recipe gives none."""
