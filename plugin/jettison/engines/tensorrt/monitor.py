"""Hands the builder's progress on, from its own threads into a file that the parent reads."""

from __future__ import annotations

import threading
from pathlib import Path
from types import ModuleType
from typing import Any

from jettison.engines.tensorrt.build_exchange import BuildStep


def monitor(trt: ModuleType, path: Path) -> Any:
    """A progress monitor that appends a line for each step of the outermost phases.

    The class can only be made once the module is there. Inner phases are passed over: their steps are many.
    """
    lock = threading.Lock()
    totals: dict[str, int] = {}

    def tell(phase: str, done: int) -> None:
        with lock, path.open("a", encoding="utf-8") as file:
            file.write(BuildStep(phase=phase, done=done, total=totals[phase]).model_dump_json() + "\n")

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if not parent_phase:
                totals[phase_name] = num_steps
                tell(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in totals:
                tell(phase_name, step + 1)
            return True

        def phase_finish(self, phase_name: str) -> None:
            if phase_name in totals:
                tell(phase_name, totals[phase_name])

    return Monitor()
