"""`keep_float` and `keep_dense`: the layers that a recipe's patterns leave as they are."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

import onnx_ir as ir

from jettison.compress.passes import Refusal
from jettison.compress.quantization.layers import find_layers

_NAMED = 20
"""Layers that a refusal names at most."""


def kept_layers(graph: ir.Graph, patterns: Sequence[str]) -> frozenset[str]:
    """Names of the weighted layers that any of the shell patterns matches."""
    names = _names(graph)
    return frozenset(name for pattern in patterns for name in fnmatch.filter(names, pattern))


def unmatched(graph: ir.Graph, patterns: Sequence[str], *, key: str = "keep_float") -> Refusal | None:
    """A refusal of the first pattern under that key that matches no weighted layer, with those there are."""
    names = _names(graph)
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            return Refusal(
                reasons=(f"{key}: {pattern!r} matches no weighted layer",),
                instead=f"Layers are {', '.join(names[:_NAMED])}{' ...' if len(names) > _NAMED else ''}",
            )
    return None


def _names(graph: ir.Graph) -> list[str]:
    return [layer.name for layer in find_layers(graph)]
