"""What a layer costs on a GPU that is not here: the larger of its arithmetic and its traffic.

An estimate from published peaks, labelled so wherever it is shown. Only ratios between layers and formats
matter to a search; launch overheads and caches are left out.
Source: NVIDIA's data sheets of the named boards, dense tensor rates.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Peaks:
    """Peak rates of one board: tera-operations a second in FP16 and INT8, and gigabytes a second."""

    board: str
    fp16_tops: float
    int8_tops: float
    memory_gbs: float

    def time_us(self, macs: int, traffic_bytes: float, *, integer: bool) -> float:
        """Microseconds of a layer: max(2 * macs / peak, bytes / bandwidth)."""
        peak = self.int8_tops if integer else self.fp16_tops
        return max(2.0 * macs / (peak * 1e6), traffic_bytes / (self.memory_gbs * 1e3))


PEAKS: dict[int, Peaks] = {
    75: Peaks("T4", 65, 130, 320),
    80: Peaks("A100", 312, 624, 1555),
    86: Peaks("A10", 125, 250, 600),
    87: Peaks("Jetson AGX Orin", 43, 85, 205),
    89: Peaks("L4", 121, 242, 300),
    90: Peaks("H100", 989, 1979, 3350),
    100: Peaks("B200", 2250, 4500, 8000),
}
"""Boards by compute capability; a capability that is not here is stood in for by `GENERIC`."""

GENERIC = PEAKS[86]
"""For the target `tensorrt`, which names no board, and for boards whose INT8 rate is not published."""


def peaks_of(compute_capability: int | None) -> Peaks:
    """The rates to estimate with for that capability."""
    return PEAKS.get(compute_capability or 0, GENERIC)
