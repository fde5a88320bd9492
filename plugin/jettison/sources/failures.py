"""What torch says when it cannot export a model, in words: which input, line or operator, and what to try."""

from __future__ import annotations

import re

from jettison.core.errors import ModelError
from jettison.sources.subject import Subject
from jettison.sources.words import first_line, user_place

_AXIS = r"L(?:\['?\w+'?\])*\['?(?P<key>\w+)'?\]\.size\(\)\[(?P<axis>\d+)\]"
"""How torch names the axis of an input: `L['x'].size()[0]`, `L['values'][0]` for the first of a list, and
`L['args'][1]['x']` until 2.6."""
_FIXED = re.compile(
    _AXIS + r"[^[]*?(?:specialized it to be a constant|inferred to be a constant) \((?P<size>\d+)\)",
)
"""How torch tells of an axis that shall be open and is not. Source: torch/_export and
torch/fx/experimental/symbolic_shapes.py of 2.6 to 2.14."""
_RELATED = re.compile(_AXIS)
_OPERATOR = re.compile(
    r"OpOverload\(op='(?P<missing>[\w.]+)'|translating node.*?target=torch\.ops\.(?P<failing>\w+\.\w+)"
)
_BY_HAND = "or export it to ONNX yourself and give that file as `path`"


def trace_error(error: BaseException, subject: Subject) -> ModelError:
    """Why torch.export could not trace the model."""
    text, place = str(error), user_place(error)
    where = f" at {place}" if place else ""
    fixed = _FIXED.search(text)
    if fixed is not None:
        return _fixed_axis(fixed, subject)
    if "data-dependent" in text or type(error).__name__.startswith("GuardOnDataDependent"):
        return ModelError(
            subject.what,
            detail=f"its forward branches or takes sizes by values of tensors{where}, which a graph cannot",
            fix=f"Use torch.where, torch.cond or masks instead of Python's if and .item(), {_BY_HAND}",
        )
    related = _RELATED.search(text)
    if related is not None and "Constraints violated" in text:
        name, axis = _axis(related, subject)
        return ModelError(
            subject.what,
            detail=f"axis {axis} of {name!r} cannot stay open as it is asked: {first_line(error)}",
            fix=f"Give samples of one size along it, {_BY_HAND}",
        )
    return ModelError(
        subject.what,
        detail=f"torch.export cannot trace it{where}: {type(error).__name__}: {first_line(error)}",
        fix=f"Write its forward with operators of torch on tensors only, {_BY_HAND}",
    )


def conversion_error(error: BaseException, what: str) -> ModelError:
    """Why torch's exporter could not write the model as ONNX, with the operator where one is to blame."""
    found = next((match for link in _chain(error) if (match := _OPERATOR.search(str(link)))), None)
    if found is None:
        last = _chain(error)[-1]
        return ModelError(
            what,
            detail=f"torch's exporter cannot write it as ONNX: {type(last).__name__}: {first_line(last)}",
            fix=f"Run: pip install -U torch onnxscript, {_BY_HAND}",
        )
    if found["missing"]:
        return ModelError(
            what,
            detail=f"torch's exporter has no ONNX for the operator {found['missing']}",
            fix=f"Write that part with other operators, {_BY_HAND}",
        )
    return ModelError(
        what,
        detail=f"torch's exporter fails on the operator {found['failing']}",
        fix=f"Run: pip install -U torch onnxscript, {_BY_HAND}",
    )


def _fixed_axis(found: re.Match[str], subject: Subject) -> ModelError:
    name, axis = _axis(found, subject)
    size = found["size"]
    if axis == 0:
        return ModelError(
            subject.what,
            detail=f"the batch cannot stay open: its forward fixes axis 0 of {name!r} at {size}",
            fix=f"Take the size from the tensor (x.shape[0]), or use -1 in view and reshape, {_BY_HAND}",
        )
    return ModelError(
        subject.what,
        detail=f"axis {axis} of {name!r} cannot stay open: its forward fixes it at {size}, as a loop over it "
        "does, and LSTM, GRU and the like are traced as loops",
        fix=f"Give samples of one size along it, rewrite the loop, {_BY_HAND}",
    )


def _axis(found: re.Match[str], subject: Subject) -> tuple[str, int]:
    """The input by the name that the user knows, and the axis."""
    key, axis = found["key"], int(found["axis"])
    if len(subject.inputs) == 1:
        return subject.inputs[0], axis
    return subject.inputs[int(key)] if key.isdigit() else key, axis


def _chain(error: BaseException) -> list[BaseException]:
    """The error and what it was raised from, outermost first."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    return chain
