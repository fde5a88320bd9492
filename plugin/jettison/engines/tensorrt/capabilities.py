"""Which GPU a target is compiled for: itself, or the nearest one that TensorRT-RTX can name.

TensorRT-RTX compiles for consumer and workstation GPUs only. Embedded and data-centre GPUs are stood in
for by the relative that knows the same element types.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from jettison.core.errors import TargetError
from jettison.core.targets import CAPABILITIES, Target

NAMEABLE = (75, 80, 86, 89, 120, 121)
"""Compute capabilities that TensorRT-RTX compiles for. Source: `ComputeCapability` of tensorrt_rtx 1.7."""

NEAREST: dict[int, int] = {87: 86, 90: 89, 100: 120, 103: 120, 110: 120}
"""Stand-ins with the same element types: Orin as its desktop Ampere relative, Hopper as Ada (INT8 and FP8),
data-centre and embedded Blackwell as RTX 50 (FP8 and FP4)."""

GENERIC = 86
"""What the target `tensorrt` is compiled for: the oldest generation without gaps of TensorRT-RTX's own.

It knows INT8, FP16, BF16 and INT4 but neither FP8 nor FP4, so what compiles is portable from Ampere on;
Turing (75) would refuse FP32 Gemm and BF16, which is a limit of TensorRT-RTX and not of TensorRT there.
"""


class CompiledFor(BaseModel):
    """The GPU that is really compiled for."""

    model_config = ConfigDict(frozen=True)

    compute_capability: int
    nearest: bool
    note: str | None

    @property
    def name(self) -> str:
        """The name as a target, such as `sm86`."""
        return f"sm{self.compute_capability}"


def compiled_for(target: Target) -> CompiledFor:
    """What stands in for the target.

    Raises:
        TargetError: TensorRT does not run there.
    """
    if not target.is_gpu:
        raise TargetError(
            f"preflight for target {target.name!r}",
            detail="expected a GPU, found a target without TensorRT",
            fix="Use --target tensorrt, or a compute capability such as sm89",
        )
    asked = target.compute_capability
    if asked is None:
        return CompiledFor(compute_capability=GENERIC, nearest=True, note=_generic_note())
    if asked in NAMEABLE:
        return CompiledFor(compute_capability=asked, nearest=False, note=_TURING if asked == 75 else None)
    return CompiledFor(compute_capability=NEAREST[asked], nearest=True, note=_nearest_note(asked))


_TURING = (
    "TensorRT-RTX refuses FP32 Gemm and BF16 on Turing, quantized Gemm with FP32 outputs too; "
    "TensorRT itself takes FP32 Gemm there"
)


def _generic_note() -> str:
    return (
        f"the target `tensorrt` names no GPU: compiled for sm{GENERIC}, {CAPABILITIES[GENERIC]}, which knows "
        "INT8, FP16, BF16 and INT4 but neither FP8 nor FP4"
    )


def _nearest_note(asked: int) -> str:
    stand_in = NEAREST[asked]
    return (
        f"TensorRT-RTX does not compile for sm{asked}, {CAPABILITIES[asked]}: compiled for the nearest, "
        f"sm{stand_in}, {CAPABILITIES[stand_in]}"
    )
