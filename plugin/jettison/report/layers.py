"""What became of each layer: which rows a page has room for, and what a row shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jettison.report.run_file import Layer
from jettison.report.strips import Profile, Spark, profile_of, spark_of
from jettison.report.words import is_known, ratio

ROWS = 900
"""Of all layer tables of a page together: 1.2 MB of HTML where each reason is 100 characters of markup."""
_FEWEST, _MOST = 20, 300
_SCALE_DB = 60.0
"""Of a full bar: more than an 8-bit layer reaches, and enough to tell 20 from 40."""
_BAR = 70


@dataclass(frozen=True)
class Row:
    """One layer: its figures, its bar of noise in units of the drawing, its histogram."""

    layer: Layer
    bar: float | None
    spark: Spark | None
    speedup: float | None

    @property
    def format(self) -> str:
        """How weight and input are stored."""
        return format_of(self.layer)


@dataclass(frozen=True)
class Layers:
    """A variant's layers: the rows that are shown, how many there are, and the line over all of them."""

    rows: tuple[Row, ...]
    count: int
    quantized: int
    profile: Profile | None

    @property
    def is_part(self) -> bool:
        """Whether only the noisiest ones are shown."""
        return len(self.rows) < self.count


def format_of(layer: Layer) -> str:
    """How a layer's weight and input are stored."""
    return f"{layer.weight.element_type or '?'} \N{MULTIPLICATION SIGN} {layer.input.element_type or '?'}"


def room_for(tables: int) -> int:
    """Rows for each of so many tables."""
    return min(_MOST, max(_FEWEST, ROWS // max(tables, 1)))


def layers_of(layers: Sequence[Layer], *, most: int) -> Layers:
    """The noisiest layers, as many as there is room for, in the order of the model."""
    shown = layers
    if len(layers) > most:
        noisiest = sorted(range(len(layers)), key=lambda index: _noise(layers[index]))[:most]
        shown = [layers[index] for index in sorted(noisiest)]
    rows = tuple(_row(layer) for layer in shown)
    return Layers(rows, len(layers), sum(layer.quantized for layer in layers), profile_of(layers))


def _noise(layer: Layer) -> float:
    return layer.sqnr_db if is_known(layer.sqnr_db) else float("inf")


def _row(layer: Layer) -> Row:
    noise, time = _noise(layer), layer.time
    return Row(
        layer,
        bar=round(_BAR * min(max(noise, 0.0), _SCALE_DB) / _SCALE_DB, 1) if is_known(noise) else None,
        spark=spark_of(layer.input),
        speedup=None if time is None else ratio(time.baseline_us, time.variant_us),
    )
