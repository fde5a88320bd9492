"""Pruned, distilled, trained: what each way to a lighter model keeps, with seeds and targets.

    python benchmarks/lighten.py [--json] [--parts distill,qat] [--seeds 0,1,2] [--quick]

Every part and seed is kept in benchmarks/.cache/lighten as it is done: a run that was broken off goes on
there; `--anew` measures again. One thread each. Exit code 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lighten_data import CHECKPOINTS

CACHE = Path(__file__).parent / ".cache" / "lighten"


@dataclass(frozen=True)
class Part:
    """A function of a module, called with each seed; `<function>_checks` beside it judges all seeds."""

    module: str
    function: str
    seeds: tuple[int, ...] = (0,)

    @property
    def is_there(self) -> bool:
        """Whether its module is."""
        return importlib.util.find_spec(self.module) is not None

    def measure(self, *, seed: int, quick: bool) -> dict[str, Any]:
        """The figures of one seed."""
        found: dict[str, Any] = getattr(importlib.import_module(self.module), self.function)(
            seed=seed, quick=quick
        )
        return found

    def checks(self, found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The targets over all seeds: of the function beside it, or those that each seed brought itself."""
        judge = getattr(importlib.import_module(self.module), f"{self.function}_checks", None)
        if judge is not None:
            return list(judge(found))
        return [each for figures in found for each in figures.get("checks", ())]


PARTS: dict[str, Part] = {
    "mnist_sparsity": Part("lighten_prune", "mnist_sparsity"),
    "two_to_four": Part("lighten_prune", "two_to_four"),
    "channels": Part("lighten_prune", "channels"),
    "distill": Part("lighten_distill", "distill", (1, 2, 3)),
    "qat": Part("lighten_distill", "qat", (0, 1, 2)),
    "combined": Part("lighten_road", "combined"),
    "resume": Part("lighten_road", "resume"),
}


def main() -> int:
    """Measure what is not kept yet, print all; 1 where a target is missed."""
    given = _arguments()
    document: dict[str, Any] = {}
    for name in given.parts:
        part = PARTS[name]
        if not part.is_there:
            print(f"{name}: left out, there is no {part.module}.py", file=sys.stderr)
            continue
        seeds = given.seeds or part.seeds
        found = {seed: _kept(name, seed, quick=given.quick, anew=given.anew) for seed in seeds}
        checks = part.checks([each["figures"] for each in found.values()])
        document[name] = {"seeds": found, "checks": checks}
    print(json.dumps(document, indent=1) if given.json else _markdown(document))
    return 0 if all(check["held"] for part in document.values() for check in part["checks"]) else 1


def _kept(name: str, seed: int, *, quick: bool, anew: bool) -> dict[str, Any]:
    """The figures of a part and seed, measured where they are not kept."""
    path = CACHE / f"{name}-{seed}{'-quick' if quick else ''}.json"
    if anew or not path.is_file():
        started = time.perf_counter()
        figures = PARTS[name].measure(seed=seed, quick=quick)
        seconds = round(time.perf_counter() - started, 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        stage = path.with_suffix(".new")
        stage.write_text(json.dumps({"seconds": seconds, "figures": figures}, indent=1))
        stage.replace(path)
        for folder in CHECKPOINTS.glob(f"{name}-*-{seed}"):
            shutil.rmtree(folder)
        print(f"{name}, seed {seed}: {seconds} s", file=sys.stderr, flush=True)
    kept: dict[str, Any] = json.loads(path.read_text())
    return kept


def _markdown(document: dict[str, Any]) -> str:
    lines = []
    for name, part in document.items():
        lines += [f"### {name}", ""]
        figures = {seed: each["figures"] for seed, each in part["seeds"].items()}
        names = [key for key, value in next(iter(figures.values())).items() if isinstance(value, int | float)]
        lines += [f"| seed | {' | '.join(names)} |", f"|{'---|' * (len(names) + 1)}"]
        lines += [
            f"| {seed} | {' | '.join(_word(found[key]) for key in names)} |"
            for seed, found in figures.items()
        ]
        lines += ["", "| target | asked | found | held |", "|---|---|---|---|"]
        for check in part["checks"]:
            held = "yes" if check["held"] else "NO"
            lines.append(f"| {check['what']} | {check.get('asked', '')} | {check['found']} | {held} |")
        lines.append("")
    return "\n".join(lines)


def _word(value: float) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--parts", type=_names, default=list(PARTS), help="which parts, separated by commas")
    parser.add_argument("--seeds", type=_numbers, default=(), help="other seeds than each part's own")
    parser.add_argument(
        "--quick", action="store_true", help="few images and epochs: that it runs, no figures"
    )
    parser.add_argument("--anew", action="store_true", help="measure again what is kept")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    found = text.split(",")
    unknown = [name for name in found if name not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no part {unknown[0]}; parts are {', '.join(PARTS)}")
    return found


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
