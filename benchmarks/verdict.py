"""The A/B verdict: how often it errs, how soon it comes, and what goes wrong without it.

    python benchmarks/verdict.py [--json] [--scale 1.0]

Every experiment is drawn by seed and looked at after every item. Exit code 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

from verdict_cells import CELLS, Check
from verdict_oracles import oracles


def main() -> int:
    """Run all cells, print the table or JSON; 1 where a target is missed."""
    arguments = _arguments()
    started = time.perf_counter()
    checks: list[Check] = []
    for cell in _chosen(arguments.cells):
        checks += cell(arguments.scale)
    checks += oracles()
    seconds = time.perf_counter() - started
    if arguments.json:
        found = [asdict(check) for check in checks]
        print(json.dumps({"seconds": round(seconds, 1), "scale": arguments.scale, "checks": found}, indent=1))
    else:
        print(table(checks))
    print(f"{seconds:.0f} s", file=sys.stderr)
    return 0 if all(check.held for check in checks) else 1


def table(checks: Sequence[Check]) -> str:
    """The checks as Markdown."""
    lines = ["| what | experiments | asked | found | held |", "|---|---|---|---|---|"]
    lines += [
        f"| {check.what} | {check.experiments:,} | {check.asked} | {check.found} | {_held(check)} |"
        for check in checks
    ]
    return "\n".join(lines)


def _held(check: Check) -> str:
    """Whether it holds; nothing where nothing is asked."""
    return ("yes" if check.held else "NO") if check.asked else ""


def _chosen(names: Sequence[str]) -> list[Callable[[float], list[Check]]]:
    return [CELLS[name] for name in names or CELLS]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the experiments, for a quick look")
    parser.add_argument("--cells", nargs="*", default=[], choices=CELLS, help="only some of them")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
