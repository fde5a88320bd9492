"""The weights of a torch module from a file: tensors only, and exactly those that the module has.

Reading a state dict runs no code: torch.load with `weights_only` refuses whatever is no tensor.
Source: https://pytorch.org/docs/stable/generated/torch.load.html
"""

from __future__ import annotations

import pickle
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jettison.core.errors import MissingError, ModelError
from jettison.sources.doors import load_torch
from jettison.sources.words import first_line

if TYPE_CHECKING:
    from torch import nn

_MOST_NAMES = 3
_WRAPPERS = {
    "module.": "it was saved from DataParallel: save model.module.state_dict()",
    "_orig_mod.": "it was saved from a compiled module: save model._orig_mod.state_dict()",
}
"""What stands before every key where a wrapper around the module was saved, and what to do."""


def load_state(module: nn.Module, path: Path) -> None:
    """Put the weights in the file into the module.

    Raises:
        ModelError: No such file; more than tensors in it; keys or shapes that are not the module's.
        MissingError: The file is .safetensors, and that library is not installed.
    """
    given = _read(path)
    expected = {key: tuple(value.shape) for key, value in module.state_dict().items() if _is_tensor(value)}
    missing, unexpected = sorted(expected.keys() - given.keys()), sorted(given.keys() - expected.keys())
    if missing or unexpected:
        raise _bad(path, _difference(missing, unexpected), _fix(given))
    for key, shape in expected.items():
        if tuple(given[key].shape) != shape:
            raise _bad(
                path,
                f"expected {key!r} of shape {list(shape)}, found {list(given[key].shape)}",
                "Make the module with the sizes that it was trained with",
            )
    module.load_state_dict(given, strict=False)  # what is no tensor in it (`_extra_state`) stays as it is


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise _bad(
            path, "there is no such file", "Give the file that torch.save(model.state_dict(), ...) wrote"
        )
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    torch = load_torch()
    try:
        found: object = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _bad(
            path,
            f"expected a state dict of tensors only, found {_refused(str(error))}",
            "Save it with torch.save(model.state_dict(), path)",
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        raise _bad(
            path, f"torch cannot read it: {first_line(error)}", "Save it again with torch.save"
        ) from error
    if isinstance(found, dict) and found and all(_is_tensor(value) for value in found.values()):
        return found
    raise _bad(
        path,
        f"expected a state dict of tensors, found {_described(found)}",
        "Save the state dict alone: torch.save(model.state_dict(), path)",
    )


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise MissingError(
            "the module safetensors", detail=str(error), fix="Run: pip install safetensors"
        ) from error
    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise _bad(path, f"it is no .safetensors file: {error}", "Save it again with safetensors") from error


def _is_tensor(value: object) -> bool:
    return isinstance(value, load_torch().Tensor)


def _refused(text: str) -> str:
    """What the unpickler met, out of its long advice to load it all the same, which is none here."""
    for mark in ("GLOBAL ", "Unsupported class ", "Unsupported global: GLOBAL "):
        if mark in text:
            return f"pickled code or objects ({text.partition(mark)[2].split()[0]})"
    return "pickled code or objects"


def _described(found: object) -> str:
    if isinstance(found, dict):
        keys = sorted(str(key) for key in found)
        return f"a dict with {_some(keys)}" if keys else "an empty dict"
    return f"a {type(found).__name__}"


def _difference(missing: Collection[str], unexpected: Collection[str]) -> str:
    parts = [
        f"{len(keys)} {word} ({_some(keys)})"
        for word, keys in (("missing", missing), ("unexpected", unexpected))
        if keys
    ]
    return f"expected the module's keys, found {' and '.join(parts)}"


def _fix(given: Collection[str]) -> str:
    for prefix, advice in _WRAPPERS.items():
        if all(key.startswith(prefix) for key in given):
            return f"All keys begin with {prefix!r}, so {advice}"
    return "Give the state dict of this very module"


def _some(names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:_MOST_NAMES])
    return shown if len(names) <= _MOST_NAMES else f"{shown}, ..."


def _bad(path: Path, detail: str, fix: str) -> ModelError:
    return ModelError(f"state dict {path}", detail=detail, fix=fix)
