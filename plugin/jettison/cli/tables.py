"""The table of variants that `run`, `compress` and `evaluate` print."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from rich.table import Table
from rich.text import Text

from jettison.cli.console import table_console
from jettison.engines.tensorrt.report import RefusedNode
from jettison.evaluate.figures import counted
from jettison.pipeline.results import TargetResult, VariantResult

_KIB, _MIB = 1 << 10, 1 << 20
_SMALL = 0.1
"""Less than that of a unit is told in the next smaller one, so that two digits stay."""
_SILENCE = {
    r"TensorRT's compiler is not installed": "not installed",
    r"\w+ is installed but does not load": "does not load",
    r"TensorRT's compiler crashed": "crashed",
    r"the compiler gave no answer within": "no answer",
}
"""Why TensorRT gave no answer, by how its preflight begins the note on it."""
_STAND_IN = re.compile(r": compiled for (the nearest, )?sm\d+, ")
"""In the note of a preflight whose target has another GPU stand in for it."""


def refusals_table(refusals: Iterable[RefusedNode]) -> Table:
    """What TensorRT refuses, and why."""
    table = Table("code", "node", "operator", "reason")
    for refused in refusals:
        table.add_row(refused.code, refused.node or "", refused.operator or "", refused.description)
    return table


def print_result(result: TargetResult) -> None:
    """One target's variants, the choice, and the reasons of every verdict."""
    console = table_console()
    table = Table(
        title=f"{result.model} on {result.target}, {counted(result.evaluation_samples, 'sample')}",
        title_justify="left",
    )
    on_gpu = result.target != "cpu"
    share = "8-bit MACs" if any(variant.fp8_mac_share for variant in result.variants) else "INT8 MACs"
    headings = ("variant", "size", result.metric, "change, at worst", "SQNR", "latency", "speed-up")
    for heading in (*headings, *(("TensorRT", share) if on_gpu else ()), "verdict"):
        table.add_column(
            heading, justify="left" if heading in ("variant", "verdict") else "right", no_wrap=True
        )
    base = result.baseline
    figures = [_size(base.size_bytes), f"{base.score:.4f}", "", "", _milliseconds(base.latency_ms), ""]
    table.add_row("baseline", *figures, *(["", ""] if on_gpu else []), "")
    for variant in result.variants:
        table.add_row(*_row(variant, on_gpu=on_gpu))
    console.print(table)
    for variant in result.variants:
        if not variant.accepted:
            console.print(f"{variant.name}: {'; '.join(variant.reasons)}", highlight=False)
    for note in (*dict.fromkeys(_of_the_compiler(result)), *result.notes):
        console.print(f"note: {note}", highlight=False)
    console.print(Text.assemble((f"chosen: {result.chosen}", "bold"), f" ({'; '.join(result.reasons)})"))


def _row(variant: VariantResult, *, on_gpu: bool) -> list[str | Text]:
    change = ""
    if variant.score_delta is not None and variant.score_delta_low is not None:
        change = f"{variant.score_delta:+.4f}, {variant.score_delta_low:+.4f}"
    row: list[str | Text] = [
        variant.name,
        _size(variant.size_bytes),
        "" if variant.score is None else f"{variant.score:.4f}",
        change,
        "" if variant.sqnr_db is None else f"{variant.sqnr_db:.1f} dB",
        _milliseconds(variant.latency_ms),
        "" if variant.speedup is None else f"{variant.speedup:.2f}x",
    ]
    if on_gpu:
        row += [_compiler_answer(variant), _eight_bit_share(variant)]
    return [*row, _verdict(variant)]


def _eight_bit_share(variant: VariantResult) -> str:
    """The share of the products in INT8, and in FP8 where there is any; empty where it is not known."""
    if variant.int8_mac_share is None:
        return ""
    told = f"{variant.int8_mac_share:.0%}"
    if not variant.fp8_mac_share:
        return told
    of_float = f"FP8 {variant.fp8_mac_share:.0%}"
    return f"INT8 {told}, {of_float}" if variant.int8_mac_share else of_float


def _compiler_answer(variant: VariantResult) -> str:
    """What TensorRT said, or why it said nothing; empty where there is no model to ask about."""
    if variant.path is None:
        return ""
    if variant.compiles is not None:
        return "compiles" if variant.compiles else "refuses"
    return next((words for note in variant.notes if (words := _silence(note))), "not asked")


def _of_the_compiler(result: TargetResult) -> Iterator[str]:
    """Why TensorRT gave no answer, and which GPU it compiled for in place of the target."""
    for variant in result.variants:
        yield from (note for note in variant.notes if _silence(note) or _STAND_IN.search(note))


def _silence(note: str) -> str:
    """Why TensorRT gave no answer, where the note tells that, else nothing."""
    return next((words for begins, words in _SILENCE.items() if re.match(begins, note)), "")


def _verdict(variant: VariantResult) -> Text:
    if variant.accepted:
        return Text("accepted", style="green")
    return Text("refused" if variant.path is None else "rejected", style="yellow")


def _size(size_bytes: int | None) -> str:
    if size_bytes is None:
        return ""
    mebibytes = size_bytes / _MIB
    return f"{mebibytes:.2f} MiB" if mebibytes >= _SMALL else f"{size_bytes / _KIB:.2f} KiB"


def _milliseconds(latency_ms: float | None) -> str:
    if latency_ms is None:
        return ""
    return f"{latency_ms:.2f} ms" if latency_ms >= _SMALL else f"{1000 * latency_ms:.2f} µs"
