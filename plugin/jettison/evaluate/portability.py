"""Whether an INT8 file means the same on every CPU: the kernel's outputs against the simulation's.

The simulation is the same file run with graph optimizations disabled: float arithmetic on the quantized
values. A kernel that adds two 8-bit products in 16 bits (VPMADDUBSW, x86 without VNNI) saturates where
the simulation does not, and a CPU with VNNI or ARM's dot product gives a third answer.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

PORTABLE_DB = 0.3
"""Kernel and simulation may differ by that much and no more.

Source: measured with ONNX Runtime 1.24 and 1.32 on AVX2: files without saturation stay within 0.3 dB,
saturating ones lose 8 to 14 dB (EfficientNet-Lite0: 7.1 against 15.6, ResNet-50: 18.5 against 32.2)."""

NEGLIGIBLE_DB = 60.0
"""Above that on both sides a difference is rounding (float16 has 66 dB, 20 log10(2^11)), not saturation."""


_OF_INTEGERS = "8-bit products saturate in 16-bit sums; pair-safe weights avoid it"
_OF_FLOAT8 = (
    "it holds FP8, which is for GPUs and which the CPU kernels do not compute as it is written; judge it "
    "with --target sm89 or newer"
)


class Portability(BaseModel):
    """SQNR of one file against the float baseline, by the kernels of this CPU and by simulation.

    `holds_float8` tells what a difference comes from.
    """

    model_config = ConfigDict(frozen=True)

    kernel_db: float
    simulation_db: float
    holds_float8: bool = False

    @property
    def gap_db(self) -> float:
        """What the kernel loses against the simulation; negative where it happens to be nearer to float."""
        return self.simulation_db - self.kernel_db

    @property
    def is_portable(self) -> bool:
        """Whether other CPUs will give the same answers, up to `PORTABLE_DB`."""
        negligible = min(self.kernel_db, self.simulation_db) >= NEGLIGIBLE_DB
        return negligible or abs(self.gap_db) <= PORTABLE_DB

    @property
    def text(self) -> str:
        """One sentence for the report."""
        figures = (
            f"{self.kernel_db:.1f} dB by this CPU's kernels, {self.simulation_db:.1f} dB in exact arithmetic"
        )
        if self.is_portable:
            return f"portable between CPUs: {figures}"
        return (
            f"not portable between CPUs: {figures}; {abs(self.gap_db):.1f} dB apart, "
            f"where {PORTABLE_DB} dB are allowed ({_OF_FLOAT8 if self.holds_float8 else _OF_INTEGERS})"
        )
