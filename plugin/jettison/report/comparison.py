"""Two variants side by side: the figures of all, from which the page's script takes two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jettison.report.run_file import Target, Variant
from jettison.report.words import NOTHING, figures, is_known, number, percent, signed, size

How = Literal["ratio", "difference", "none"]


@dataclass(frozen=True)
class Figure:
    """One figure of a variant: as it is written, and as it is computed with."""

    text: str
    value: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Figures by name of variant, in the order of `rows`: each a title and how two are compared."""

    rows: tuple[tuple[str, How], ...]
    figures: dict[str, tuple[Figure, ...]]
    first: str
    second: str

    @property
    def data(self) -> dict[str, object]:
        """The same as JSON can hold it: no NaN, no infinity."""
        return {
            "rows": [list(row) for row in self.rows],
            "figures": {
                name: [[figure.text, figure.value if is_known(figure.value) else None] for figure in some]
                for name, some in self.figures.items()
            },
        }


_ROWS: tuple[tuple[str, How], ...] = (
    ("score", "difference"),
    ("lower bound of its change", "none"),
    ("SQNR of the outputs", "none"),
    ("latency, median", "ratio"),
    ("latency, 99 %", "ratio"),
    ("size", "ratio"),
    ("decisions changed", "none"),
    ("layers in integers", "none"),
    ("verdict", "none"),
)


def comparison_of(target: Target, compare: tuple[str, str] | None) -> Comparison:
    """All variants of a target; the two that are asked for where it has both, else baseline and choice."""
    found = {variant.name: _figures(variant, target) for variant in target.everyone}
    first, second = target.baseline.name, target.chosen
    if compare is not None and all(name in found for name in compare):
        first, second = compare
    elif second == first or second not in found:
        second = next((variant.name for variant in target.variants), first)
    return Comparison(_ROWS, found, first, second)


def _figures(variant: Variant, target: Target) -> tuple[Figure, ...]:
    return (
        Figure(number(variant.score), variant.score),
        Figure(signed(variant.score_delta_low)),
        Figure(f"{figures(variant.sqnr_db)} dB" if is_known(variant.sqnr_db) else NOTHING),
        Figure(_ms(variant.latency_ms), variant.latency_ms),
        Figure(_ms(variant.latency_p99_ms), variant.latency_p99_ms),
        Figure(size(variant.size_bytes), variant.size_bytes),
        Figure(_changed(variant)),
        Figure(_integers(variant)),
        Figure(_verdict(variant, target)),
    )


def _ms(value: float | None) -> str:
    return NOTHING if not is_known(value) else f"{figures(value)} ms"


def _changed(variant: Variant) -> str:
    told = variant.explanation.decisions if variant.explanation is not None else None
    if told is None or not told.applies or told.changed is None or not told.samples:
        return NOTHING
    return f"{told.changed:,} of {told.samples:,} ({percent(told.changed / told.samples)})"


def _integers(variant: Variant) -> str:
    layers = variant.explanation.layers if variant.explanation is not None else ()
    return f"{sum(layer.quantized for layer in layers):,} of {len(layers):,}" if layers else NOTHING


def _verdict(variant: Variant, target: Target) -> str:
    if variant is target.baseline:
        return "the float model"
    said = "accepted" if variant.accepted else "not accepted"
    return f"{said}, chosen" if variant.name == target.chosen else said
