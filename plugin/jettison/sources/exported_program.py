"""A program that torch.export.save wrote: open axes and inputs are its own, decided when it was exported."""

from __future__ import annotations

import contextlib
import inspect
import os
import pickle
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jettison.core.errors import ModelError
from jettison.core.samples import USER_ERRORS
from jettison.sources.archive import check_archive
from jettison.sources.doors import load_torch
from jettison.sources.subject import Arguments, Subject, checked_names
from jettison.sources.words import first_line

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_TENSORS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
"""The environment variable by which torch refuses pickled code even where its callers ask for it.
Source: torch.load in torch/serialization.py."""


def open_program(path: Path) -> ExportedProgram:
    """The program in a .pt2 file, loaded without running code from it.

    Raises:
        ModelError: No such file; another format or version; code in it.
        MissingError: torch is not installed.
    """
    check_archive(path)
    torch = load_torch()
    what = f"model {path}"
    try:
        with _tensors_only():
            return torch.export.load(path)
    except pickle.UnpicklingError as error:
        raise ModelError(
            what,
            detail="expected tensors only, found pickled objects in it, which may be code",
            fix="Export a module whose constants and example inputs are tensors",
        ) from error
    except USER_ERRORS as error:
        raise ModelError(
            what,
            detail=f"torch {torch.__version__} cannot load it: {type(error).__name__}: {first_line(error)}",
            fix="Install the torch that exported it, or export it again with this one",
        ) from error


def program_subject(program: ExportedProgram, what: str, found: Collection[str]) -> Subject:
    """The program with its inputs by name.

    Raises:
        ModelError: An input is no tensor.
        SamplesError: The arrays are not the program's inputs.
    """
    torch = load_torch()
    shapes = _input_shapes(program, what)
    names = checked_names(what, tuple(shapes), found)
    spec = program.call_spec.in_spec

    def unflattened(values: Sequence[Any]) -> Arguments:
        args, kwargs = torch.utils._pytree.tree_unflatten(list(values), spec)
        return tuple(args), dict(kwargs)

    fixed = {
        name: {axis: size for axis, size in enumerate(shape) if isinstance(size, int)}
        for name, shape in zip(names, shapes.values(), strict=True)
    }
    batches = {sizes[0] for sizes in fixed.values() if 0 in sizes}
    notes = tuple(
        f"the exported program takes batches of {size} only; export it with an open batch "
        "(dynamic_shapes) to serve others"
        for size in sorted(batches)
    )
    return Subject(
        what=what,
        module=_unguarded(program),
        inputs=names,
        arguments=unflattened,
        program=program,
        fixed=fixed,
        notes=notes,
    )


@contextlib.contextmanager
def _tensors_only() -> Iterator[None]:
    before = os.environ.get(_TENSORS_ONLY)
    os.environ[_TENSORS_ONLY] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_TENSORS_ONLY]
        else:
            os.environ[_TENSORS_ONLY] = before


def _input_shapes(program: ExportedProgram, what: str) -> dict[str, tuple[Any, ...]]:
    """For each input of the user its sizes: numbers, or symbols where they are open."""
    torch = load_torch()
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    names = program.graph_signature.user_inputs
    wrong = next((name for name in names if not isinstance(values.get(name), torch.Tensor)), None)
    if wrong is not None or not names:
        raise ModelError(
            what,
            detail=f"expected inputs that are tensors, found {wrong!r}" if names else "it has no input",
            fix="Export the module with tensors as its only inputs",
        )
    return {name: tuple(values[name].shape) for name in names}


def _unguarded(program: ExportedProgram) -> Any:
    """The program as a module; newer torch adds checks of input shapes, which the trials shall not meet."""
    takes = inspect.signature(program.module).parameters
    return program.module(check_guards=False) if "check_guards" in takes else program.module()
