"""Weights stored in blocks, each with a scale of its own, as a graph edit.

Source: ONNX operator DequantizeLinear, `block_size`, since opset 21.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from jettison.graph.edit import free_name
from jettison.graph.qdq import Editor

BLOCK_OPSET = 21
"""The first opset whose DequantizeLinear knows 4 bits and blocks. Source: onnx/docs/Changelog.md."""


class BlockEditor(Editor):
    """An editor that can store blocks."""

    def store_blocks(
        self, stem: str, stored: np.ndarray[Any, Any], scales: np.ndarray[Any, Any], *, axis: int, block: int
    ) -> ir.Value:
        """The float value behind blocks along `axis`: initializers and their DequantizeLinear.

        There is no zero point: it is 0, which is the default.
        """
        inputs = [self.constant(f"{stem}_quantized", stored), self.constant(f"{stem}_scale", scales)]
        name = free_name(f"{stem}_DequantizeLinear", self._taken_nodes)
        node = ir.node("DequantizeLinear", inputs, {"axis": axis, "block_size": block}, name=name)
        output = node.outputs[0]
        output.name, output.shape = free_name(f"{stem}_dequantized", self._taken), inputs[0].shape
        output.type = ir.TensorType(inputs[1].dtype or ir.DataType.FLOAT)
        self._place(node, inputs[0])
        return output
