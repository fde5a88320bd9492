"""A model that torch can run and trace, whatever form it came in: names at its border, tensors inside."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jettison.core.errors import ModelError, SamplesError
from jettison.core.samples import USER_ERRORS
from jettison.core.tensors import Arrays
from jettison.sources.doors import load_torch
from jettison.sources.words import first_line

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional arguments and those by name."""


@dataclass(frozen=True)
class Subject:
    """What is exported, and how it is called.

    Args:
        what: Names the model in errors.
        module: What is called: a torch module, or one that an exported program gives.
        inputs: The names of the arrays, in the order of the model's inputs.
        arguments: Makes arguments of one value for each input.
        program: The exported program itself, where the model is one.
        outputs: Names that the model has for its outputs; empty where they come from what it returns.
        fixed: For each input the sizes that are fixed, by axis; known of a program only.
        declared_open: For each input the axes beside the batch that the model itself calls open.
        notes: Remarks for the report.
    """

    what: str
    module: Any
    inputs: tuple[str, ...]
    arguments: Callable[[Sequence[Any]], Arguments]
    program: Any = None
    outputs: tuple[str, ...] = ()
    fixed: dict[str, dict[int, int]] = field(default_factory=dict)
    declared_open: dict[str, tuple[int, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def call(self, arrays: Arrays, *, is_made_up: bool = False) -> Any:
        """What the model returns for these arrays, in evaluation mode and without gradients.

        Args:
            arrays: The inputs by name.
            is_made_up: Whether their sizes are no sample's, so that samples are not to blame.

        Raises:
            ModelError: It fails on them.
        """
        torch = load_torch()
        args, kwargs = self.arguments([torch.from_numpy(arrays[name].copy()) for name in self.inputs])
        try:
            with torch.no_grad():
                return self.module(*args, **kwargs)
        except USER_ERRORS as error:
            raise ModelError(
                self.what,
                detail=f"it fails on samples of {_described(arrays)} with {type(error).__name__}: "
                f"{first_line(error)}",
                fix=_OTHER_SIZE if is_made_up else _AS_TAKEN,
            ) from error


_AS_TAKEN = "Give samples as its forward takes them: names, shapes and element types"
_OTHER_SIZE = (
    "No sample has that size: it was made up, to try the axes under `dynamic` at a second one. Give samples "
    "of two sizes that its forward takes, or leave those axes out of `dynamic`"
)


def checked_names(what: str, expected: Sequence[str], found: Collection[str]) -> tuple[str, ...]:
    """The names of the arrays in the order of the inputs; a single array may be called anything.

    Raises:
        SamplesError: The samples have other arrays than the model has inputs.
    """
    if len(expected) == len(found) == 1:
        return tuple(found)
    if set(expected) != set(found):
        raise SamplesError(
            "samples",
            detail=f"expected arrays {sorted(expected)}, the inputs of {what}, found {sorted(found)}",
            fix="Name the arrays after the model's inputs (and `labels`)",
        )
    return tuple(expected)


def _described(arrays: Arrays) -> str:
    return ", ".join(
        f"{name} {array.dtype} {'x'.join(map(str, array.shape))}" for name, array in arrays.items()
    )


def answers_of(result: Any, subject: Subject, *, names: Sequence[str] = ()) -> Arrays:
    """The tensors in what a model returned, by name and in their order; None among them is left out.

    Names are those given, else the model's own, else made of keys and places: a dict's keys, `output` for a
    single tensor, `output_0` and so on.

    Raises:
        ModelError: It returned something that is no tensor, or one of bfloat16; names do not fit in number.
    """
    torch = load_torch()
    leaves = torch.utils._pytree.tree_flatten_with_path(result)[0]
    wrong = next((leaf for _, leaf in leaves if not isinstance(leaf, torch.Tensor | None)), None)
    if wrong is not None or all(leaf is None for _, leaf in leaves):
        raise ModelError(
            subject.what,
            detail=f"expected tensors from its forward, found {type(wrong).__name__}",
            fix="Return tensors, or tuples or dicts of them",
        )
    tensors = [(path, leaf) for path, leaf in leaves if leaf is not None]
    found = tuple(names) or _free(subject.outputs or [_name(path) for path, _ in tensors], subject.inputs)
    if len(found) != len(tensors) or len({*found, *subject.inputs}) != len(found) + len(subject.inputs):
        raise ModelError(
            subject.what,
            detail=f"expected a name for each of its {len(tensors)} outputs, other than those of its inputs "
            f"({', '.join(subject.inputs)}), found {', '.join(found)}",
            fix="Name them under `outputs`, each once",
        )
    return {
        name: _array(leaf, f"{subject.what}, output {name!r}")
        for name, (_, leaf) in zip(found, tensors, strict=True)
    }


def _name(path: Sequence[Any]) -> str:
    """Keys and places that lead to an output, joined; a place alone would be no name."""
    parts = [str(getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", "")))) for entry in path]
    return "_".join(parts if parts and not parts[0].isdigit() else ["output", *parts])


def _free(names: Sequence[str], inputs: Collection[str]) -> tuple[str, ...]:
    """The names, of which none may be an input's: values of an ONNX graph have one name each."""
    return tuple(f"{name}_output" if name in inputs else name for name in names)


_NUMPY_KNOWS = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
"""Element types in which answers of torch and of ONNX Runtime can be compared."""


def _array(tensor: Any, what: str) -> np.ndarray[Any, np.dtype[Any]]:
    kind = str(tensor.dtype).removeprefix("torch.")
    if kind not in _NUMPY_KNOWS:
        raise ModelError(
            what,
            detail=f"expected an element type that numpy knows, found {kind}",
            fix="Return float32: .float() at the end of its forward",
        )
    return np.array(tensor.detach().cpu().contiguous().numpy())
