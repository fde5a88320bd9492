"""A search that dies at any moment and is started again ends with the answer that it would have given.

The law holds for what is computed; what a machine measures differs from run to run, so the objective here is
the size of the file and not its speed.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest

DEADLINE_S = 120


def command(folder, output, *more):
    """The search as a process of its own: few samples, so that layers differ in what they cost."""
    return [
        sys.executable, "-m", "jettison", "compress", str(folder / "model.onnx"),
        "--calibration", str(folder / "calibration.npz"), "--evaluation", str(folder / "evaluation.npz"),
        "--metric", "sqnr", "--tolerance", "0.000001", "--target", "cpu",
        "--variant", "part=[{quantize: partial, objective: size, max_evaluations: 4}]",
        "-o", str(output), "--json", *more,
    ]  # fmt: skip


def answer_of(document):
    """What a search answers, without what a machine measures."""
    variant = document["variants"][0]
    return {key: variant[key] for key in ("sha256", "score", "layers_kept_in_float", "size_bytes")}


def document_of(folder, output, *more):
    done = subprocess.run(
        command(folder, output, *more), capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


def whole_run(folder, output):
    return answer_of(document_of(folder, output))


@pytest.fixture(scope="module")
def undisturbed(prepared, tmp_path_factory):
    """The answer of a run that nothing disturbed, and the seconds that it took."""
    started = time.monotonic()
    answer = whole_run(prepared, tmp_path_factory.mktemp("undisturbed") / "out")
    return answer, time.monotonic() - started


@pytest.mark.parametrize("share", [0.5, 0.65, 0.8])
def test_search_killed_at_any_moment_ends_with_the_same_answer(share, undisturbed, prepared, tmp_path):
    answer, seconds = undisturbed
    process = subprocess.Popen(
        command(prepared, tmp_path / "out"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        process.wait(timeout=share * seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert whole_run(prepared, tmp_path / "out") == answer


def test_search_out_of_time_says_so_and_goes_on_when_it_is_started_again(undisturbed, prepared, tmp_path):
    answer, _ = undisturbed
    hurried = document_of(prepared, tmp_path / "out", "--time-budget", "0.001")
    assert any(
        note.startswith("part: ") and "and 7 repairs were not tried" in note for note in hurried["notes"]
    )
    patient = document_of(prepared, tmp_path / "out", "--time-budget", "1000")
    assert answer_of(patient) == answer
    assert not any("time for the search" in note for note in patient["notes"])


def test_the_answer_under_test_is_a_choice_of_layers(undisturbed):
    answer, _ = undisturbed
    assert 0 < len(answer["layers_kept_in_float"]) < 3
