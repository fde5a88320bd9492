"""A Keras 3 model run by torch: from a .keras file, or from a function that gives one.

A .keras file is a zip of a configuration and weights. With `safe_mode` Keras refuses pickled code in it, and
only layers of Keras itself are found, since nothing of the user's was imported. Older releases let through
more than that, hence the least version in the extra `keras`.
Sources: https://keras.io/api/models/model_saving_apis/model_saving_and_loading, CVE-2025-1550, CVE-2025-9906.
"""

from __future__ import annotations

import re
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from jettison.core.errors import JettisonError, ModelError
from jettison.core.samples import USER_ERRORS
from jettison.sources.doors import load_keras, load_torch
from jettison.sources.subject import Subject, checked_names
from jettison.sources.words import first_line

_OWN_LAYERS = (
    "Layers of your own are code: give a function as `torch: package.module:function` that imports them and "
    "loads or builds the model"
)

_UNKNOWN = re.compile(r"Could not locate (class|function|object) '([^']+)'")


def open_keras(path: Path) -> Any:
    """The model in a .keras file.

    Raises:
        ModelError: No such file, no .keras file, code in it, or layers that Keras does not have.
        MissingError: Keras or torch is not installed.
    """
    what = f"model {path}"
    if not path.is_file():
        raise ModelError(what, detail="there is no such file", fix="Give the path of a .keras file")
    if not zipfile.is_zipfile(path):
        raise ModelError(
            what, detail="expected a zip archive of Keras 3, found none", fix="Save it with model.save(path)"
        )
    keras = load_keras()
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except JettisonError:
        raise
    except USER_ERRORS as error:
        raise _refused(what, error) from error


def is_keras(module: object) -> bool:
    """Whether it is a Keras model, for which Keras must have been imported."""
    keras = sys.modules.get("keras")
    return keras is not None and hasattr(keras, "Model") and isinstance(module, keras.Model)


def keras_subject(model: Any, what: str, found: Collection[str]) -> Subject:
    """The model with its inputs by the names of its input layers, its layout as it has it.

    Raises:
        ModelError: It has no inputs and outputs of its own, as one in code has none.
        SamplesError: The arrays are not those of its inputs.
    """
    keras = load_keras()
    tensors = getattr(model, "inputs", None)
    if not tensors or not getattr(model, "outputs", None):
        raise ModelError(
            what,
            detail="expected a Sequential or functional model with known inputs, found a "
            f"{type(model).__name__} without",
            fix="Build it with keras.Input",
        )
    structure = getattr(model, "input", tensors[0])  # a Sequential has no other than its one tensor
    forward = _module(model, lambda values: keras.tree.pack_sequence_as(structure, list(values)))
    names = checked_names(what, [_layer_name(tensor) for tensor in tensors], found)
    return Subject(
        what=what,
        module=forward.eval(),
        inputs=names,
        arguments=lambda values: (tuple(values), {}),
        declared_open={
            name: tuple(axis for axis, size in enumerate(tensor.shape) if axis and size is None)
            for name, tensor in zip(names, tensors, strict=True)
        },
        outputs=() if isinstance(getattr(model, "output", None), dict) else _output_names(model.outputs),
    )


def _module(model: Any, packed: Callable[[Sequence[Any]], Any]) -> Any:
    """A torch module that calls the model for inference; Keras has the mode as an argument."""
    torch = load_torch()

    class Inference(torch.nn.Module):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *values: Any) -> Any:
            return self.model(packed(values), training=False)

    return Inference()


def _output_names(tensors: Sequence[Any]) -> tuple[str, ...]:
    """The names of the layers that the outputs come from; of layers with several, with their number."""
    names = [_layer_name(tensor) for tensor in tensors]
    twice, seen = Counter(names), Counter[str]()
    found = []
    for name in names:
        found.append(f"{name}_{seen[name]}" if twice[name] > 1 else name)
        seen[name] += 1
    return tuple(found)


def _layer_name(tensor: Any) -> str:
    """The name in the model's configuration, unlike a tensor's own, which counts what a process has made."""
    history = getattr(tensor, "_keras_history", None)
    return str(tensor.name if history is None else history.operation.name)


def _refused(what: str, error: BaseException) -> ModelError:
    text, unknown = str(error), _UNKNOWN.search(str(error))
    if "Lambda" in text or "unsafe" in text or "safe_mode" in text:
        return ModelError(
            what,
            detail="it holds code (a Lambda layer), which is never loaded from a file",
            fix=f"Replace it by layers of Keras. {_OWN_LAYERS}",
        )
    if unknown is not None:
        detail = f"expected layers of Keras itself, found the {unknown[1]} {unknown[2]!r}"
        return ModelError(what, detail=detail, fix=_OWN_LAYERS)
    return ModelError(
        what,
        detail=f"Keras cannot load it: {type(error).__name__}: {first_line(error)}",
        fix="Save it again with the Keras that is installed here, or install the one that saved it",
    )
