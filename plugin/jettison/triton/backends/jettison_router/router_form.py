"""Whether an answer has the form that the configuration promises, before a client sees it.

Triton hands on whatever shape and type a Python model gives. A client that asked the router, and not the
candidate, gets the baseline's answer instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from jettison.triton.backends.jettison_router.router_calls import NUMPY_1, Asked, Types, types_of
else:
    from router_calls import NUMPY_1, Asked, Types, types_of


class Form:
    """Shapes and types of the outputs.

    Args:
        config: The router's configuration, whose outputs are those of both models.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._has_batch = int(config.get("max_batch_size", 0)) > 0
        self._dims = {
            tensor["name"]: [int(size) for size in tensor.get("dims", [-1])]
            for tensor in config.get("output", [])
        }
        self._types: Types = types_of(config)

    def problem(self, asked: Asked, response: Any) -> str:
        """What is wrong with an answer, or nothing."""
        tensors = {tensor.name(): tensor for tensor in response.output_tensors()}
        for name in asked.outputs:
            if name not in tensors:
                return f"output {name!r} is missing"
            found, expected = list(tensors[name].shape()), self._expected(name, asked)
            if not _fits(found, expected):
                return f"output {name!r}: expected the shape {expected}, found {found}"
            if not _is_of(tensors[name], self._types[name]):
                return f"output {name!r}: expected the type {self._types[name]}"
        return ""

    def _expected(self, name: str, asked: Asked) -> list[int]:
        if not self._has_batch:
            return self._dims[name]
        return [int(asked.inputs[0].shape()[0]) if asked.inputs else -1, *self._dims[name]]


def _fits(found: Sequence[int], expected: Sequence[int]) -> bool:
    return len(found) == len(expected) and all(e in (-1, f) for f, e in zip(found, expected, strict=True))


def _is_of(tensor: Any, kind: np.dtype[Any]) -> bool:
    """Whether it is of that type; taken for so where nobody can look: on a GPU, and text by numpy 2."""
    if not tensor.is_cpu() or (kind == np.object_ and not NUMPY_1):
        return True
    found = tensor.as_numpy().dtype if NUMPY_1 else np.from_dlpack(tensor).dtype
    return bool(found == kind or (kind == np.bool_ and found == np.uint8))  # DLPack has no truth values
