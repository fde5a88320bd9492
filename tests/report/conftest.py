"""Runs on disk, and their pages."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

from jettison.evaluate.picture import picture_of
from jettison.report.course import Course, EValue, Look
from jettison.report.page import page_of

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="session")
def report_run():
    """The benchmark's maker of runs, which is no part of the package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return importlib.import_module("report_run")


@pytest.fixture(scope="session")
def run(report_run, tmp_path_factory):
    """A small hostile run with pictures of its first samples."""
    folder = report_run.write_run(tmp_path_factory.mktemp("runs") / "small", layers=12, targets=2)
    (folder / "pictures").mkdir()
    images = np.random.default_rng(3).random((5, 1, 3, 16, 16), np.float32)
    for number, image in enumerate(images):
        (folder / "pictures" / f"{number}.png").write_bytes(picture_of({"x": image}))
    return folder


@pytest.fixture(scope="session")
def experiment(report_run):
    tests = (
        EValue("quality", "promote", report_run.HOSTILE, 4.0, 20.0, True),
        EValue(report_run.HOSTILE, "guard", "slower", -1.0, 40.0, False),
    )
    looks = tuple(
        Look("2026-11-24T10:00:00", 100 * n, {"quality": 0.4 * n, report_run.HOSTILE: -0.1 * n})
        for n in range(11)
    )
    return Course(report_run.HOSTILE, "promote", (report_run.HOSTILE,), 1000, 3, tests, looks)


@pytest.fixture(scope="session")
def page(run, experiment, tmp_path_factory):
    file = tmp_path_factory.mktemp("pages") / "report.html"
    file.write_text(page_of(run, experiment=experiment), encoding="utf-8")
    return file
