"""Passes as a recipe writes them: from a mapping to its pass, and the order that several passes have.

The literal tables here are the only place that knows which passes there are.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator

from jettison.compress.distillation.distill_pass import DistillShrink, DistillStudent
from jettison.compress.distillation.train_pass import TrainModel
from jettison.compress.passes import Pass
from jettison.compress.pruning.channels import PruneChannels
from jettison.compress.pruning.two_to_four import PruneTwoToFour
from jettison.compress.pruning.unstructured import PruneDynamic, PruneFixed, PruneSparsity
from jettison.compress.quantization.cast import CastBfloat16, CastFloat16
from jettison.compress.quantization.float8 import QuantizeFloat8
from jettison.compress.quantization.modelopt import QuantizeModelopt
from jettison.compress.quantization.partial import QuantizePartial
from jettison.compress.quantization.quantize import QuantizeDynamic, QuantizeFull
from jettison.compress.quantization.weight_only import QuantizeInt4
from jettison.core.validation import ImpossibleValueError, nearest, refuse_truth, shown

PASSES: dict[tuple[str, str], type[BaseModel]] = {
    ("quantize", "full"): QuantizeFull,
    ("quantize", "partial"): QuantizePartial,
    ("quantize", "dynamic"): QuantizeDynamic,
    ("quantize", "float16"): CastFloat16,
    ("quantize", "bfloat16"): CastBfloat16,
    ("quantize", "float8"): QuantizeFloat8,
    ("quantize", "int4"): QuantizeInt4,
    ("prune", "fixed"): PruneFixed,
    ("prune", "dynamic"): PruneDynamic,
    ("prune", "sparsity"): PruneSparsity,
    ("prune", "two-to-four"): PruneTwoToFour,
    ("prune", "channels"): PruneChannels,
    ("distill", "student"): DistillStudent,
    ("distill", "shrink"): DistillShrink,
    ("train", "labels"): TrainModel,
    ("train", "baseline"): TrainModel,
}
"""Each pass by its verb and kind, as in `{quantize: full}`; kinds that a nested key tells are in `NESTED`."""

BACKENDS: dict[tuple[str, str, str], type[BaseModel]] = {
    ("quantize", "full", "modelopt"): QuantizeModelopt,
}
"""Other makers of a pass's result, by its verb, kind and `backend`."""

SEARCHING: tuple[type[BaseModel], ...] = (QuantizePartial,)
"""Passes whose result depends on joint evaluations: on search samples, metric, tolerance and machine."""

TRAINING: tuple[type[BaseModel], ...] = (DistillStudent, DistillShrink, TrainModel)
"""Passes that learn from training samples."""

COUNTS_ONLY_WITH: dict[str, tuple[str, str]] = {
    "percentile": ("ranges", "percentile"),
    "temperature": ("train", "baseline"),
    "loss": ("train", "labels"),
}
"""Keys that have no effect unless another key of their pass has that value: refused where they are given."""

NESTED: dict[tuple[str, str], str | None] = {
    ("prune", "threshold"): None,
    ("prune", "sparsity"): "sparsity",
    ("prune", "channels"): "channels",
    ("distill", "student"): "student",
    ("distill", "shrink"): "shrink",
}
"""Keys under a verb that tell the kind, as in `{prune: {threshold: fixed, value: 0.1}}`, by verb and key: the
kind that the key stands for, None where it is the key's value."""

FORMS: dict[tuple[str, str], str] = {
    ("prune", "fixed"): "{prune: {threshold: fixed}}",
    ("prune", "dynamic"): "{prune: {threshold: dynamic}}",
    ("prune", "sparsity"): "{prune: {sparsity: ...}}",
    ("prune", "channels"): "{prune: {channels: ...}}",
    ("distill", "student"): "{distill: {student: ...}}",
    ("distill", "shrink"): "{distill: {shrink: {width: ...}}}",
}
"""How passes with nested keys are written in short, by verb and kind; others are `{verb: kind}`."""

STAGES: dict[tuple[str, str], tuple[int, int]] = {
    ("distill", ""): (1, 1),
    ("prune", "channels"): (1, 1),
    ("train", ""): (0, 4),
    ("prune", "fixed"): (2, 3),
    ("prune", "dynamic"): (2, 3),
    ("prune", "sparsity"): (2, 3),
    ("prune", "two-to-four"): (3, 3),
    ("quantize", ""): (4, 4),
    ("quantize", "float16"): (5, 5),
    ("quantize", "bfloat16"): (5, 5),
}
"""The stage to which a pass brings a variant, and the last stage at which it may begin, by verb and kind. The
kind "" stands for all others of the verb.

What changes the graph comes first (1), then zeros without a pattern (2), then zeros in the pattern 2:4 (3),
then integers (4), then casts of what is left (5). Training may stand anywhere before the casts: zeros stay,
and behind integers it trains through their rounding. Source: NVIDIA, "Accelerating Inference with Sparsity
Using the NVIDIA Ampere Architecture and NVIDIA TensorRT": prune, fine-tune, and quantize last with the zeros
kept.
"""

_ORDER = "smaller graphs first (distill, prune channels), then zeros, 2:4 the last of them, integers, casts"
_OTHER_WORDS = {"{quantize: int8}": ["{quantize: full}"]}
"""What is meant by spellings to which another pass only looks nearer."""


def parse_pass(value: object) -> Pass:
    """The pass that a mapping like `{quantize: full, ranges: mse}` describes.

    Raises:
        ValueError: It is no mapping.
        ImpossibleValueError: There is no such pass, or it has no such key.
        ValidationError: A key has an impossible value, or is missing.
    """
    if isinstance(value, BaseModel):
        return value  # type: ignore[return-value]
    if not isinstance(value, dict) or not value:
        raise ValueError(f"a pass is a mapping such as {{quantize: full}}, found {shown(value)}")
    verbs = {verb for verb, _ in PASSES}
    verb = next((key for key in value if key in verbs), next(iter(value)))
    value, spelled = _flat(value, verb)
    known = PASSES.get((str(verb), str(value[verb])))
    if known is None:
        every = [_spelled(*key) for key in PASSES]
        near = _OTHER_WORDS.get(spelled, difflib.get_close_matches(spelled, every, n=1))
        hint = f"Did you mean {near[0]}? " if near else ""
        raise ImpossibleValueError(f"there is no pass {spelled}", fix=f"{hint}Passes are {', '.join(every)}")
    if "backend" in value:
        known = _backend_of(value, str(verb), spelled)
    _check_keys(value, known, spelled)
    return known.model_validate(value)  # type: ignore[return-value]


PassField = Annotated[Any, BeforeValidator(parse_pass)]


def check_order(passes: Sequence[Pass]) -> None:
    """Nothing, where each pass stands where it leaves the work of those before it whole.

    Raises:
        ImpossibleValueError: One stands too late; the right order is named.
    """
    reached, before = 0, ""
    for step in passes:
        verb, kind = _verb_and_kind(step)
        stage = STAGES.get((verb, kind), STAGES.get((verb, "")))
        if stage is None:
            continue
        if reached > stage[1]:
            right = ", ".join(_spelled(*_verb_and_kind(other)) for other in _sorted(passes))
            raise ImpossibleValueError(
                f"expected {_spelled(verb, kind)} before {before}, found it behind",
                fix=f"Write [{right}]: {_ORDER}",
            )
        if stage[0] > reached:
            reached, before = stage[0], _spelled(verb, kind)


def _sorted(passes: Sequence[Pass]) -> list[Pass]:
    """The passes in an order that is taken: by stage, and as given within one."""

    def stage(step: Pass) -> int:
        verb, kind = _verb_and_kind(step)
        found = STAGES.get((verb, kind), STAGES.get((verb, ""), (0, 0)))
        return found[1]

    return sorted(passes, key=stage)


def _verb_and_kind(step: Pass) -> tuple[str, str]:
    """The verb and kind of a pass, which are its first field's name and value."""
    fields = type(step).model_fields if isinstance(step, BaseModel) else {}
    verb = next(iter(fields), "")
    return verb, str(getattr(step, verb, ""))


def _flat(value: Mapping[Any, Any], verb: object) -> tuple[dict[Any, Any], str]:
    """The keys below the verb beside it, with the kind that they tell as its value; and the pass in short."""
    inner = value[verb]
    if not isinstance(inner, dict):
        return dict(value), _spelled(str(verb), str(inner))
    keys = [key for of, key in NESTED if of == verb]
    key = next((key for key in inner if key in keys), None)
    if key is None:
        either = f"{', '.join(keys[:-1])} or {keys[-1]}" if keys else ""
        expected = f"a kind, or a mapping with {either}" if keys else "a kind"
        raise ImpossibleValueError(
            f"{verb}: expected {expected}, found {shown(inner)}", fix=_nearest_key(inner, keys)
        )
    twice = [name for name in inner if name in value]
    if twice:
        raise ImpossibleValueError(f"{verb}: found {twice[0]} twice", fix="Write it once")
    beside = {name: entry for name, entry in {**inner, **value}.items() if name not in (key, verb)}
    kind = NESTED[str(verb), str(key)]
    if kind is None:
        return {verb: inner[key], **beside}, f"{{{verb}: {{{key}: {inner[key]}}}}}"
    return {verb: kind, key: inner[key], **beside}, _spelled(str(verb), kind)


def _nearest_key(inner: Mapping[object, object], keys: Sequence[str]) -> str:
    near = (found for name in inner for found in difflib.get_close_matches(str(name), keys, n=1))
    found = next(near, None)
    return "Correct it" if found is None else f"Did you mean {found!r}?"


def _spelled(verb: str, kind: str) -> str:
    """The pass in short, as a recipe writes it."""
    return FORMS.get((verb, kind), f"{{{verb}: {kind}}}")


def _backend_of(value: Mapping[object, object], verb: str, spelled: str) -> type[BaseModel]:
    """The pass that stands in for the one of that verb and kind."""
    there = {key[2]: found for key, found in BACKENDS.items() if key[:2] == (verb, str(value[verb]))}
    found = there.get(str(value["backend"]))
    if found is None:
        raise ImpossibleValueError(
            f"{spelled} has no backend {shown(value['backend'])}",
            fix=f"Leave it out for Jettison's own{''.join(f', or write backend: {name}' for name in there)}",
        )
    return found


def _check_keys(value: Mapping[object, object], known: type[BaseModel], spelled: str) -> None:
    """Refuses keys that the pass does not have, that have no effect, and `yes` where a number belongs."""
    for key in value:
        if key not in known.model_fields:
            fix = nearest(str(key), known.model_fields)
            raise ImpossibleValueError(f"{spelled} has no key {shown(key)}", fix=fix)
    for key in value.keys() & COUNTS_ONLY_WITH.keys():
        other, needed = COUNTS_ONLY_WITH[str(key)]
        chosen = (
            value.get(other, known.model_fields[other].default) if other in known.model_fields else needed
        )
        if chosen != needed:
            raise ImpossibleValueError(
                f"{key} has no effect with {other}: {chosen}",
                fix=f"Leave it out, or write {other}: {needed}",
            )
    refuse_truth(value, known)
