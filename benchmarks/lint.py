"""Lint against the files of other tools: how many compile for TensorRT before and after `--fix`.

Three models (a classifier of images, a sentence encoder, the example) by ONNX Runtime's static quantizer in
four settings, its dynamic one, ModelOpt in INT8 and FP8, and NNCF. Asked: all files compile after mending but
the dynamic ones, which are refused with the way out, and answer within 25 dB of the file before, or the
report says why not. Ends with 1 where that is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from jettison.compress.quantization.modelopt_environment import find_python
from jettison.core.errors import MissingError
from jettison.core.samples import draw, open_samples
from jettison.core.targets import parse_target
from jettison.engines.onnxruntime import runner_of
from jettison.engines.tensorrt.preflight import preflight
from jettison.engines.tensorrt.shapes import ShapeRange, parse_shape_range
from jettison.evaluate.sqnr import sqnr_db
from jettison.graph.model import input_specs, open_model
from jettison.pipeline.linting import COMPARED, EXPECTED_DB, LintReport, lint_file
from lint_peers import TOOLS, make
from prepared import HERE, efficientnet, minilm, parser_of

TARGET = parse_target("sm89")
NNCF_PYTHON = "JETTISON_NNCF_PYTHON"
"""Names the Python of an environment that has nncf, onnx and onnxruntime."""


@dataclass(frozen=True)
class Case:
    """A float model, and samples for calibration and comparison."""

    name: str
    model: Path
    calibration: Path
    evaluation: Path
    shapes: tuple[ShapeRange, ...] = ()


@dataclass(frozen=True)
class Row:
    """One file of one tool. `failed` are the tool's own last words where it made none.

    `before_db` and `after_db` are against the float model: where the file before has lost it, what mending
    moves is noise.
    """

    model: str
    tool: str
    failed: str | None = None
    hard: int = 0
    soft: int = 0
    before: str | None = None
    after: str | None = None
    mended: tuple[str, ...] = ()
    sqnr_db: float | None = None
    before_db: float | None = None
    after_db: float | None = None
    way_out: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether what is asked of such a file was found."""
        if self.failed is not None:
            return True
        if self.tool == "ort-dynamic":
            return self.after is None and self.way_out is not None
        moved = self.sqnr_db is not None and self.sqnr_db < EXPECTED_DB
        return self.after == "compiles" and (not moved or bool(self.notes))


def main() -> int:
    """Print the figures; 1 where a file does not end as asked."""
    arguments = _parser().parse_args()
    cases = [case for case in _cases(arguments) if arguments.only in (None, case.name)]
    rows = [_row(case, tool, arguments.cache) for case in cases for tool in TOOLS]
    if arguments.json:
        print(json.dumps({"target": TARGET.name, "rows": [asdict(row) for row in rows]}, indent=1))
    else:
        print("\n".join(_table(rows)))
    return 0 if all(row.holds for row in rows) else 1


def _parser() -> argparse.ArgumentParser:
    parser = parser_of(__doc__)
    parser.add_argument(
        "--models", type=Path, default=None, help="where models and samples are; else --cache"
    )
    parser.add_argument("--only", default=None, help="one model: EfficientNet-Lite0, MiniLM or Fashion")
    return parser


def _cases(arguments: argparse.Namespace) -> list[Case]:
    cache = arguments.models or arguments.cache
    images, sentences, example = efficientnet(cache), minilm(cache), HERE.parent / "examples" / "fashion"
    tokens = ("input_ids", "attention_mask")
    ranges = tuple(parse_shape_range(f"{name}=1x32,8x64,8x128") for name in tokens)
    images_of, sentences_of = images / f"{images.name}.onnx", sentences / f"{sentences.name}.onnx"
    return [
        Case("EfficientNet-Lite0", images_of, images / "calibration-128", images / "evaluation"),
        Case("MiniLM", sentences_of, sentences / "calibration-128", sentences / "evaluation", ranges),
        Case("Fashion", example / "fashion.onnx", example / "calibration.npz", example / "evaluation.npz"),
    ]


def _python(tool: str) -> Path:
    if tool == "nncf":
        if NNCF_PYTHON not in os.environ:
            detail = f"expected ${NNCF_PYTHON}"
            raise MissingError("NNCF", detail=detail, fix="Give the Python of an environment that has it")
        return Path(os.environ[NNCF_PYTHON])
    return find_python() if tool.startswith("modelopt") else Path(sys.executable)


def _row(case: Case, tool: str, cache: Path) -> Row:
    path = (cache / "lint" / case.name / f"{tool}.onnx").absolute()
    try:
        failed = make(_python(tool), tool, case.model.absolute(), case.calibration.absolute(), path)
    except MissingError as error:
        failed = str(error)
    if failed is not None:
        print(f"{case.name}, {tool}: no file: {failed}", file=sys.stderr)
        return Row(case.name, tool, failed=failed)
    before = preflight(path, TARGET, shapes=case.shapes).outcome
    fixed = path.with_name(f"{tool}-fixed.onnx")
    report = lint_file(path, TARGET, fix=fixed, samples=str(case.evaluation), shapes=case.shapes)
    row = replace(_found(case, tool, before, report), **_against_float(case, path, report))
    print(f"{case.name}, {tool}: {before} -> {row.after}, {row.sqnr_db}", file=sys.stderr)
    return row


def _against_float(case: Case, path: Path, report: LintReport) -> dict[str, float | None]:
    """The files' answers against the float model's, in exact arithmetic, on a few samples."""
    model = open_model(case.model)
    samples = draw(open_samples(str(case.evaluation), input_specs(model)), COMPARED)
    inputs = next(samples.batches(COMPARED)).inputs
    truth = runner_of(model, optimize=False).run(inputs)
    files = {"before_db": path, **({"after_db": report.fixed} if report.fixed else {})}
    return {
        name: sqnr_db(truth, runner_of(open_model(file), optimize=False).run(inputs))
        for name, file in files.items()
    }


def _found(case: Case, tool: str, before: str, report: LintReport) -> Row:
    hard = [finding for finding in report.findings if finding.severity == "hard"]
    way_out = next((finding.fix for finding in hard if finding.code == "T101"), None)
    return Row(
        case.name,
        tool,
        hard=len(hard),
        soft=len(report.findings) - len(hard),
        before=before,
        after=report.outcome if report.fixed else None,
        mended=report.mended,
        sqnr_db=report.sqnr_db,
        way_out=way_out,
        notes=tuple(note for note in report.notes if note.startswith("the answers")),
    )


def _both(row: Row) -> str:
    figures = [figure for figure in (row.before_db, row.after_db) if figure is not None]
    return ", ".join(f"{figure:.1f}" for figure in figures)


def _table(rows: list[Row]) -> list[str]:
    lines = [
        "| model | file | before | findings | after `--fix` | mended | SQNR | to float: before, after |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row.failed is not None:
            lines.append(f"| {row.model} | {row.tool} | none: {row.failed} | | | | | |")
            continue
        figure = "" if row.sqnr_db is None else f"{row.sqnr_db:.1f} dB"
        after = row.after or "refused"
        found = f"{row.hard} hard, {row.soft} soft"
        cells = [row.model, row.tool, row.before, found, after, " ".join(row.mended), figure, _both(row)]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    made = [row for row in rows if row.failed is None]
    counts = [sum(getattr(row, when) == "compiles" for row in made) for when in ("before", "after")]
    return [*lines, "", f"{len(made)} files: {counts[0]} compile before, {counts[1]} after."]


if __name__ == "__main__":
    sys.exit(main())
