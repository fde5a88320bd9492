"""The user's own metric: `package.module:function`, called by the names of its parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jettison.core.errors import RecipeError, SamplesError
from jettison.core.files import sha256_of
from jettison.core.samples import USER_ERRORS, load_function
from jettison.evaluate.answers import Answers

_OUTPUTS = "outputs"
_EXTRAS = ("labels", "baseline")


@dataclass(frozen=True)
class Parameters:
    """A metric function, how it takes the outputs, and which of `labels` and `baseline` it takes.

    `source_sha256` is of the file that defines it, empty where there is none: an edited metric is another.
    """

    name: str
    function: Callable[..., Any]
    takes: tuple[str, ...]
    outputs_by_name: bool
    needs_labels: bool
    needs_baseline: bool
    source_sha256: str


def parameters_of(name: str) -> Parameters:
    """The function of that name and what it takes.

    Raises:
        RecipeError: There is no such function, or it has a parameter that nothing is known for.
    """
    try:
        function = load_function(name)
        parameters = list(inspect.signature(function).parameters.values())
    except SamplesError as error:
        raise RecipeError(f"metric {name!r}", detail=error.detail, fix=error.fix) from error
    except (TypeError, ValueError) as error:
        raise RecipeError(
            f"metric {name!r}",
            detail=f"expected a function, found {error}",
            fix="Give package.module:function",
        ) from error
    by_name = any(parameter.name == _OUTPUTS for parameter in parameters)
    rest = parameters if by_name else parameters[1:]
    needed = [parameter.name for parameter in rest if _is_required(parameter)]
    first_is_extra = not by_name and parameters[:1] != [] and parameters[0].name in _EXTRAS
    if not parameters or first_is_extra or not set(needed) <= {_OUTPUTS, *_EXTRAS}:
        raise RecipeError(
            f"metric {name!r}",
            detail=f"expected parameters outputs, labels and baseline, found {[p.name for p in parameters]}",
            fix="Take the outputs first, then any of `labels` and `baseline` by these names",
        )
    takes = tuple(parameter.name for parameter in rest if parameter.name in _EXTRAS)
    return Parameters(
        name=name,
        function=function,
        takes=takes,
        outputs_by_name=by_name,
        needs_labels="labels" in needed,
        needs_baseline="baseline" in needed,
        source_sha256=_source_sha256(function),
    )


def custom_scores(parameters: Parameters, answers: Answers) -> np.ndarray[Any, Any]:
    """The function's scores as float64, checked.

    Raises:
        RecipeError: It failed, or did not give one finite score per sample; sample numbers count from 0.
    """
    last = answers.first + len(answers) - 1
    try:
        scores = np.asarray(_call(parameters, answers), dtype=np.float64)
    except USER_ERRORS as error:
        raise RecipeError(
            f"metric {parameters.name!r}",
            detail=f"it failed on samples {answers.first} to {last} with {type(error).__name__}: {error}",
            fix="Correct the function",
        ) from error
    if scores.shape != (len(answers),):
        raise RecipeError(
            f"metric {parameters.name!r}",
            detail=f"expected {len(answers)} scores for samples {answers.first} to {last}, "
            f"found shape {scores.shape}",
            fix="Return one score per sample, in the samples' order",
        )
    bad = np.flatnonzero(~np.isfinite(scores))
    if bad.size:
        row = int(bad[0])
        raise RecipeError(
            f"metric {parameters.name!r}",
            detail=f"expected finite scores, found {scores[row]} at sample {answers.first + row}",
            fix="Return a finite number for every sample",
        )
    return scores


def _call(parameters: Parameters, answers: Answers) -> Any:
    extras = {name: answers.labels if name == "labels" else answers.baseline for name in parameters.takes}
    if parameters.outputs_by_name:
        return parameters.function(outputs=answers.outputs, **extras)
    return parameters.function(answers.outputs, **extras)


def _source_sha256(function: Callable[..., Any]) -> str:
    try:
        path = inspect.getsourcefile(inspect.unwrap(function))
    except TypeError:
        return ""
    return sha256_of(Path(path)) if path and Path(path).is_file() else ""


def _is_required(parameter: inspect.Parameter) -> bool:
    variable = parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return parameter.default is inspect.Parameter.empty and not variable
