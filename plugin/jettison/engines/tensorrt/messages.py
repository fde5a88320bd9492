"""Reads the compiler's log: which messages are worth keeping, and what they say.

The texts are undocumented and were learnt from tensorrt_rtx 1.7; where one is not found, the answer is None
or empty and never an error.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from jettison.engines.tensorrt.exchange import LogLine, Severity
from jettison.engines.tensorrt.report import MemoryEstimate, RefusedNode

LAYERS_HEAD = "Layers:"

_ACTIVATION = re.compile(r"Total Activation Memory: (\d+) bytes")
_WEIGHTS = re.compile(r"Total Weights Memory: (\d+) bytes")
_OPERATION = re.compile(r"operation '([^']+)'")

_NOISE = ("cudaError", "CUDA initialization failure", "(foreignNode) Converting")
"""Lines without meaning here: there is no GPU (cudaError 35), and remarks about scales kept in FP32."""

_PARSER_ECHO = re.compile(r"^\S+\.(cpp|hpp):\d+: (While parsing node|--- (Begin|End) node|ERROR: )")
"""The parser logs what its error objects say better."""

_SOURCE_PLACE = re.compile(r"^\S+\.(cpp|hpp):\d+: ")
_INSIDES = re.compile(r"^IBuilder::\w+: |(?<=\()\[[^\]]*\] |\.?\s+In \w+ at /\S+:\d+(?=\)?\s*$)")
"""Where in its own sources the compiler stood: of use to its makers only."""


def is_kept(severity: Severity, text: str) -> bool:
    """Whether a message is worth keeping; a large model logs tens of thousands that are not."""
    if any(noise in text for noise in _NOISE):
        return False
    if severity == "verbose":
        return text.startswith(LAYERS_HEAD)
    if severity == "info":
        return bool(_ACTIVATION.search(text) or _WEIGHTS.search(text))
    return not _PARSER_ECHO.match(text)


def layers_text(log: Sequence[LogLine]) -> str:
    """The message that lists the engine's layers, or an empty text."""
    return next((line.text for line in log if line.text.startswith(LAYERS_HEAD)), "")


def memory_estimate(log: Sequence[LogLine]) -> MemoryEstimate | None:
    """The compiler's estimate of GPU memory, or None where it gave none."""
    text = "\n".join(line.text for line in log if line.severity == "info")
    activation, weights = _ACTIVATION.search(text), _WEIGHTS.search(text)
    if not (activation or weights):
        return None
    return MemoryEstimate(
        activation_bytes=int(activation.group(1)) if activation else None,
        weights_bytes=int(weights.group(1)) if weights else None,
    )


def warnings(log: Sequence[LogLine]) -> tuple[str, ...]:
    """Each warning once, without the place in the compiler's sources."""
    texts = (_SOURCE_PLACE.sub("", line.text).strip() for line in log if line.severity == "warning")
    return tuple(dict.fromkeys(texts))


def builder_refusals(log: Sequence[LogLine]) -> tuple[RefusedNode, ...]:
    """Errors of the build, with the ONNX node where the text names one."""
    texts = dict.fromkeys(line.text for line in log if line.severity == "error")
    return tuple(_builder_refusal(text) for text in texts)


def _builder_refusal(text: str) -> RefusedNode:
    named = _OPERATION.search(text)
    return RefusedNode(
        code="BUILDER", description=_INSIDES.sub("", text).strip(), node=named.group(1) if named else None
    )
