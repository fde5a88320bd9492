"""A torch module from the function that makes it.

The recipe names code, and that code runs: whoever can write a recipe can run anything, as with functions for
samples and metrics. The weights beside it are only data (`state.py`).
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jettison.core.errors import JettisonError, ModelError, SamplesError
from jettison.core.samples import USER_ERRORS, load_function
from jettison.sources.doors import load_torch
from jettison.sources.state import load_state
from jettison.sources.subject import Arguments, Subject, checked_names
from jettison.sources.words import first_line, user_place

if TYPE_CHECKING:
    from torch import nn

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def open_module(factory: str, state: Path | None = None, *, role: str = "model") -> nn.Module:
    """The module that `package.module:function` gives, with its weights, on the CPU and in evaluation mode.

    Args:
        factory: Names the function.
        state: Its weights, where the function does not load them.
        role: What the recipe calls it, for errors.

    Raises:
        ModelError: No such function, it fails, it gives something else; the state dict does not fit.
        MissingError: torch is not installed.
    """
    torch = load_torch()
    what = f"{role} {factory}"
    module = _made(factory, what)
    if not isinstance(module, torch.nn.Module) or isinstance(module, torch.jit.ScriptModule):
        raise ModelError(
            what,
            detail=f"expected a function that gives a torch.nn.Module in Python, found one that gives a "
            f"{type(module).__name__}",
            fix="Return the module itself; its weights may be given as `state`",
        )
    if state is not None:
        load_state(module, state)
    return module.to("cpu").eval()


def module_subject(module: nn.Module, what: str, found: Collection[str]) -> Subject:
    """The module with its forward's arguments bound by the names of the arrays.

    Raises:
        SamplesError: An array is no argument, or a needed argument has no array.
        ModelError: The forward has no arguments by name.
    """
    parameters = inspect.signature(module.forward).parameters.values()
    named = [parameter for parameter in parameters if parameter.kind in _NAMED]
    if not named:
        raise ModelError(
            what,
            detail="expected a forward whose arguments have names, found forward(*inputs)",
            fix="Wrap it in a module whose forward names each input",
        )
    arguments = _bound(named, found, what)
    inputs = checked_names(what, arguments, found)

    def by_name(values: Sequence[Any]) -> Arguments:
        return (), dict(zip(arguments, values, strict=True))

    return Subject(what=what, module=module, inputs=inputs, arguments=by_name)


def _made(factory: str, what: str) -> object:
    try:
        function = load_function(factory)
        return function if isinstance(function, load_torch().nn.Module) else function()
    except SamplesError as error:
        raise ModelError(what, detail=error.detail, fix=error.fix) from error
    except JettisonError:
        raise
    except USER_ERRORS as error:
        place = user_place(error)
        where = f" ({place})" if place else ""
        raise ModelError(
            what,
            detail=f"the function failed with {type(error).__name__}: {first_line(error)}{where}",
            fix="It is called without arguments and gives the module: correct it",
        ) from error


def _bound(named: Sequence[inspect.Parameter], found: Collection[str], what: str) -> tuple[str, ...]:
    """The arguments that get arrays, in order; one array and one needed argument need no common name."""
    needed = [parameter.name for parameter in named if parameter.default is inspect.Parameter.empty]
    if len(found) == 1 and len(needed) <= 1 and not set(found) & {parameter.name for parameter in named}:
        return (needed[0] if needed else named[0].name,)
    lacking, known = set(needed) - set(found), {parameter.name for parameter in named}
    if lacking or set(found) - known:
        raise SamplesError(
            "samples",
            detail=f"expected arrays {sorted(known)}, the arguments of the forward of {what}, of which "
            f"{sorted(needed)} are needed, found {sorted(found)}",
            fix="Name the arrays after the arguments (and `labels`)",
        )
    return tuple(parameter.name for parameter in named if parameter.name in found)
