"""How much of a model's arithmetic really runs in INT8, by the compiler's own list of layers.

A quantized node is not always a quantized layer: ConvTranspose, a scale along the wrong axis or weights
quantized alone are compiled to float arithmetic without a word. The layer list tells.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

from jettison.core import dtypes
from jettison.engines.tensorrt.report import LayerPrecision

UNKNOWN = "unknown"

_MATRIX_KIND = re.compile(r"correlation|conv|gemm|matmul|matrix", re.IGNORECASE)
"""Kinds of layers that multiply matrices in the element type of their operands: `correlation`, `deconv` and
`gemm` of tensorrt_rtx 1.7, and the words that other versions use."""

_FUSED_ATTENTION = "_gemm_"
"""Generated attention kernels (`_gemm_mha_v2_myl0_3`), which are listed as kind `kgen`."""

_WIDE = ("float32", "bfloat16", "float16")
"""Floating point types, the widest first."""


def precision_by_node(layers: Sequence[LayerPrecision], nodes: Iterable[str]) -> dict[str, str]:
    """The element type in which each of these ONNX nodes computes; nodes that no layer names are left out.

    Args:
        layers: The compiled layers.
        nodes: Names of Conv, ConvTranspose, Gemm and MatMul nodes; one without a name is called
            `node_of_<its first output>` by the parser.
    """
    wanted = set(nodes)
    by_node: dict[str, list[LayerPrecision]] = {}
    for layer in layers:
        for name in wanted.intersection(layer.onnx_nodes):
            by_node.setdefault(name, []).append(layer)
    return {name: _precision(found) for name, found in by_node.items()}


def mac_shares(layers: Sequence[LayerPrecision], macs: Mapping[str, int]) -> dict[str, float]:
    """Shares of the MACs by element type, largest first, and `unknown` for nodes that no layer names.

    Args:
        layers: The compiled layers.
        macs: Multiply-accumulates of each Conv, Gemm and MatMul node, by node name.
    """
    total = sum(macs.values())
    if total <= 0:
        return {}
    precisions = precision_by_node(layers, macs)
    sums: dict[str, int] = {}
    for name, count in macs.items():
        dtype = precisions.get(name, UNKNOWN)
        sums[dtype] = sums.get(dtype, 0) + count
    ordered = sorted(sums.items(), key=lambda item: (-item[1], item[0]))
    return {dtype: count / total for dtype, count in ordered if count}


def int8_mac_share(layers: Sequence[LayerPrecision], macs: Mapping[str, int]) -> float | None:
    """The share of MACs that run in INT8, 0 to 1; None where no layer could be matched to any node.

    MACs of nodes that no layer names count as not INT8, so the share never flatters.
    """
    return _share(mac_shares(layers, macs), ("int8",))


def low_precision_mac_share(layers: Sequence[LayerPrecision], macs: Mapping[str, int]) -> float | None:
    """The share of MACs that run in fewer than 32 bits (FP16, BF16, FP8, INT8, ...), as `int8_mac_share`."""
    return _share(mac_shares(layers, macs), tuple(row.name for row in dtypes.TABLE if 0 < row.bits < 32))


def _share(shares: Mapping[str, float], names: tuple[str, ...]) -> float | None:
    if not shares or set(shares) == {UNKNOWN}:
        return None
    return math.fsum(share for dtype, share in shares.items() if dtype in names)


def _precision(layers: Sequence[LayerPrecision]) -> str:
    """The type in which a node computes that these layers name.

    A node is also named by the layers that prepare its input and finish its output, so the matrix layers
    decide where there are any; of several, the widest (a name that two nodes bear, an unrolled loop).
    """
    matrix = [layer for layer in layers if _is_matrix(layer)]
    return min((_arithmetic(layer) for layer in matrix or layers), key=_narrowness)


def _is_matrix(layer: LayerPrecision) -> bool:
    return bool(_MATRIX_KIND.search(layer.kind)) or layer.name.startswith(_FUSED_ATTENTION)


def _narrowness(dtype: str) -> int:
    return _WIDE.index(dtype) if dtype in _WIDE else len(_WIDE)


def _arithmetic(layer: LayerPrecision) -> str:
    """The type in which a layer computes.

    A matrix layer computes in the type of its operands, and in a narrow type only if both have it. A
    generated layer (`kgen`, `runtime_fusion`) may cast narrow operands up before it multiplies, as
    `__myl_CastMulFc` does with INT8 weights: its widest floating point tensor tells.
    """
    operands = layer.inputs + layer.constants
    if _is_matrix(layer) and operands:
        first, others = operands[0], operands[1:]
        if first in _WIDE or first in others:
            return first
    floats = [dtype for dtype in operands if dtype in _WIDE] or [d for d in layer.outputs if d in _WIDE]
    return min(floats, key=_narrowness, default=UNKNOWN)
