"""Whether a student can take its baseline's place: the same inputs and outputs by name, type and shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from jettison.core.errors import ModelError
from jettison.core.tensors import Arrays, Dimension, TensorSpec, format_shape
from jettison.graph.model import input_specs, output_specs

_SHARES_OFF = 1e-3
"""By how much the sum of probabilities may miss 1: far more than float32 rounds off a thousand classes."""


def check_borders(baseline: ir.Model, student: ir.Model, *, what: str) -> None:
    """Nothing, where whoever calls the baseline can call the student.

    Raises:
        ModelError: A name, element type or shape differs.
    """
    pairs = (
        ("inputs", input_specs(baseline), input_specs(student)),
        ("outputs", output_specs(baseline), output_specs(student)),
    )
    for word, expected, found in pairs:
        theirs = {spec.name: spec for spec in found}
        fits = {*theirs} == {spec.name for spec in expected} and all(
            _fits(spec, theirs[spec.name], opens=word == "inputs") for spec in expected
        )
        if not fits:
            raise ModelError(
                what,
                detail=f"expected the {word} of the model, {_shown(expected)}, found {_shown(found)}",
                fix="A student takes the model's place: let it take and give the same",
            )


def check_answers(expected: Arrays, found: Arrays, *, is_shares: bool, what: str) -> None:
    """Nothing, where the untrained student answers an example in the baseline's types and shapes.

    Raises:
        ModelError: An output has another element type or shape, or scores where probabilities are expected.
    """
    wanted, given = _described(expected), _described(found)
    if wanted != given:
        raise ModelError(
            what,
            detail=f"expected outputs as the model gives them, {wanted}, found {given}",
            fix="A student takes the model's place: let its forward give these, in this order or by name",
        )
    name = next(iter(expected))
    if is_shares and not holds_shares(found[name]):
        raise ModelError(
            what,
            detail=f"expected probabilities in {name!r}, as the model gives them, found scores that are none",
            fix="End its forward with a softmax",
        )


def holds_shares(scores: np.ndarray[Any, np.dtype[Any]]) -> bool:
    """Whether rows are probabilities: not negative, and 1 in sum."""
    rows = scores.reshape(len(scores), -1)
    return bool((rows >= 0).all() and np.allclose(rows.sum(axis=1), 1.0, atol=_SHARES_OFF))


def in_order(student: ir.Model, baseline: ir.Model) -> ir.Model:
    """The student with its inputs and outputs in the baseline's order, in place."""
    for values, specs in (
        (student.graph.inputs, input_specs(baseline)),
        (student.graph.outputs, output_specs(baseline)),
    ):
        found = {value.name: value for value in values}
        values.clear()
        values.extend(found[spec.name] for spec in specs)
    return student


def _fits(expected: TensorSpec, found: TensorSpec, *, opens: bool) -> bool:
    same = expected.dtype == found.dtype and len(expected.shape) == len(found.shape)
    return same and all(
        _matches(*sizes, opens=opens) for sizes in zip(expected.shape, found.shape, strict=True)
    )


def _matches(expected: Dimension, found: Dimension, *, opens: bool) -> bool:
    """Whether sizes agree; an input that is open in the baseline must be open in the student."""
    if not isinstance(found, int):
        return True
    return found == expected if isinstance(expected, int) else not opens


def _shown(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(map(str, specs))


def _described(arrays: Arrays) -> str:
    return ", ".join(
        f"{name} {array.dtype} {format_shape(('batch', *array.shape[1:]))}"
        for name, array in sorted(arrays.items())
    )
