"""A copy of a graph that reports second moments of activations, block by block along their last axis.

    H_g = sum over rows of x_g x_g^T        x_g: the elements of a row that block g holds

They are summed in the graph, so that not one activation leaves the session.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from jettison.graph.observe import append, reporting
from jettison.graph.qdq import Editor


@dataclass(frozen=True)
class Moment:
    """Which moments to report: of a value whose last axis has `width` elements, in blocks that divide it."""

    value: str
    width: int
    block: int

    @property
    def output(self) -> str:
        """The output that holds them: float32, (width / block, block, block)."""
        return f"{self.value}:moments{self.block}"


def with_moments(model: ir.Model, moments: Sequence[Moment]) -> ir.Model:
    """A copy whose outputs are the moments only."""
    return reporting(model, lambda editor: [_sum(editor, moment) for moment in moments])


def _sum(editor: Editor, moment: Moment) -> ir.Value:
    stem, source = moment.output, editor.values[moment.value]
    sizes = np.array([-1, moment.width // moment.block, moment.block], np.int64)
    shape = editor.constant(f"{stem}:shape", sizes)
    graph = editor.graph
    rows = append(graph, "Reshape", [source, shape], f"{stem}:rows")
    left = append(graph, "Transpose", [rows], f"{stem}:left", perm=(1, 2, 0))
    right = append(graph, "Transpose", [rows], f"{stem}:right", perm=(1, 0, 2))
    return append(graph, "MatMul", [left, right], stem)
