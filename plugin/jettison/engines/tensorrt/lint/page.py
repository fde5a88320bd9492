"""Writes docs/lint.md from the table of checks.

Run: `python -m jettison.engines.tensorrt.lint.page > docs/lint.md`
"""

from __future__ import annotations

import sys

from jettison.engines.tensorrt.lint.finding import Check, Severity
from jettison.engines.tensorrt.lint.table import CHECKS

_HEAD = """# Lint: will TensorRT take this ONNX

`jettison lint MODEL --target sm89` reads an ONNX file of any tool and names, node by node, what keeps
TensorRT from taking it, or from running it as fast as it could. No compiler is needed for that; where the
extra `rtx` is installed, its answer is asked for too ([preflight.md](preflight.md)). `--fix OUT.onnx`
writes a copy in which everything is mended that can be without the float model and samples, and compares
the answers of both.

```
jettison lint quantized.onnx --target sm89 --fix mended.onnx --samples calibration.npz
```

Exit code 1 says that something hard is left, or that the compiler refuses the result. The model that is
given is never changed.

## What mending does to the answers

- The report gives the SQNR of the mended file's answers against those of the file before, both computed as
  the files say, without a kernel's shortcuts: on 8 of the `--samples`, drawn by a fixed seed (as many as the
  batch, where that is fixed), else on random inputs; the output says on how many. That is no measure of
  accuracy: where the file before was bad, a good one is far from it too. Below 25 dB the report names the
  reason.
- An unsigned or shifted range becomes one around 0 that covers it. That costs up to one bit of each such
  activation, which only calibration on samples could win back: where the float model is at hand, `jettison
  compress` gives better files than any mending.
- ONNX Runtime's quantizer leaves out a Relu or Clip whose work the pair behind it does. Where a range
  begins at 0 the Relu is put back, and a Clip where both ends are whole or half numbers.
- Dynamic quantization and the operators of integers cannot be mended: the scales of the one are not in the
  file, and the other is to be quantized again in the Q/DQ form.
- Pairs are looked for in subgraphs too, not in functions of the model: inline those first.

## The checks

This part is made from the table in `plugin/jettison/engines/tensorrt/lint/table.py`.
"""

_PARTS: dict[Severity, str] = {
    "hard": "Hard: the build fails, or the model means something else, or falls back to float throughout",
    "soft": "Soft: it builds, and runs slower than it could",
}


def page() -> str:
    """The page as Markdown."""
    parts = [_HEAD]
    for severity, title in _PARTS.items():
        rows = [_row(check) for check in CHECKS if check.severity == severity]
        head = "| check | rule | why | what to do | `--fix` |\n|---|---|---|---|---|"
        parts.append("\n".join([f"### {title}\n", head, *rows, ""]))
    return "\n".join(parts)


def _row(check: Check) -> str:
    mends = "no" if check.mend is None else f"yes; {check.cost}" if check.cost else "yes, answers unchanged"
    return f"| {check.code} | {check.title} | {check.reason} | {check.fix} | {mends} |"


if __name__ == "__main__":
    sys.stdout.write(page())
