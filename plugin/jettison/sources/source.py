"""Where a model comes from: an ONNX file, a function that makes a module, an exported program, Keras."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from jettison.core.errors import ModelError
from jettison.core.samples import names_function
from jettison.core.validation import ImpossibleValueError, shown

Kind = Literal["path", "torch", "exported", "keras"]

KINDS: tuple[Kind, ...] = ("path", "torch", "exported", "keras")
"""The keys of which a model has exactly one."""

_ONLY_WITH: dict[str, tuple[Kind, ...]] = {
    "state": ("torch",),
    "dynamic": ("torch", "keras"),
    "outputs": ("torch", "exported", "keras"),
}
"""Keys that mean something only beside one of these."""

_SUFFIXES: dict[str, Kind] = {".pt2": "exported", ".keras": "keras"}
_WEIGHTS = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
_OLD_KERAS = (".h5", ".hdf5")


def _factory(value: str) -> str:
    if not names_function(value):
        raise ImpossibleValueError(
            f"expected package.module:function, found {shown(value)}",
            fix="Name the function that makes the module",
        )
    return value


class Source(BaseModel):
    """One model in one of four forms; the fields are keys of a recipe's `model`.

    Args:
        path: An ONNX file.
        torch: `package.module:function`, which gives a `torch.nn.Module` or a Keras model.
        state: The weights of that module: a state dict, by torch.save or as .safetensors.
        exported: A program that torch.export.save wrote.
        keras: A model that Keras 3 saved as .keras.
        dynamic: Axes beside the batch that stay open, with their names, by input: `{ids: {1: length}}`.
        outputs: Names of the outputs, in their order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path | None = None
    torch: Annotated[str, AfterValidator(_factory)] | None = None
    state: Path | None = None
    exported: Path | None = None
    keras: Path | None = None
    dynamic: dict[str, dict[Annotated[int, Field(ge=1)], str]] = {}
    outputs: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _is_one_model(self) -> Source:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            found = f"found {' and '.join(given)}" if given else "found none"
            raise ImpossibleValueError(
                f"expected exactly one of {', '.join(KINDS)}, {found}",
                fix="Keep the one that names the model" if given else "Add the one that names the model",
            )
        for key, kinds in _ONLY_WITH.items():
            if getattr(self, key) and given[0] not in kinds:
                raise ImpossibleValueError(
                    f"{key} has no effect with {given[0]}",
                    fix=f"Leave it out: it belongs to {' or '.join(kinds)}",
                )
        return self

    @property
    def kind(self) -> Kind:
        """The form that the model is in."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def file(self) -> Path | None:
        """The file that holds the model, or None where a function makes it."""
        return self.path or self.exported or self.keras

    @property
    def stem(self) -> str:
        """A short name: the file's, or of module and function."""
        if self.file is not None:
            return self.file.stem
        module, _, function = (self.torch or "").partition(":")
        return f"{module.rpartition('.')[2]}-{function}"

    def located(self, folder: Path) -> dict[str, Path]:
        """The fields that are paths, taken from that folder where they are relative."""
        paths = {name: getattr(self, name) for name in ("path", "state", "exported", "keras")}
        return {name: folder / path for name, path in paths.items() if path is not None}

    def __str__(self) -> str:
        return str(self.file or self.torch)


def source_from(text: str, *, state: Path | None = None) -> Source:
    """The source that a command line names by one word, by its ending or its form.

    Raises:
        ModelError: A file of weights without the code that makes their module, or a state dict beside a file.
    """
    if names_function(text):
        return Source(torch=text, state=state)
    path = Path(text)
    if state is not None:
        raise ModelError(
            f"model {text}",
            detail="expected package.module:function beside a state dict, found a file",
            fix="Leave --state out, or name the function that makes the module",
        )
    if path.suffix in _WEIGHTS:
        raise ModelError(
            f"model {text}",
            detail="expected .onnx, .pt2, .keras or package.module:function, found a file of weights",
            fix="Give the function that makes the module as the model, and this file with --state",
        )
    if path.suffix in _OLD_KERAS:
        raise ModelError(
            f"model {text}",
            detail="expected .onnx, .pt2, .keras or package.module:function, found an HDF5 file, from which "
            "Keras loads code unasked",
            fix="Load it with Keras 3 and save it as .keras",
        )
    return Source.model_validate({_SUFFIXES.get(path.suffix, "path"): path})
