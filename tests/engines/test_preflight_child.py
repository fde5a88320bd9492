"""The parent's side of a preflight: whatever becomes of the child, an answer comes, and no traceback.

The compiler is faked by a module of its name that stands earlier on the child's path.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from jettison.core.errors import ExternalError, MissingError, ModelError
from jettison.core.targets import parse_target
from jettison.engines.tensorrt import preflight as door
from jettison.engines.tensorrt.exchange import CompileAnswer, CompileRequest, LogLine
from jettison.engines.tensorrt.messages import (
    builder_refusals,
    is_kept,
    layers_text,
    memory_estimate,
    warnings,
)
from jettison.engines.tensorrt.module import find_module, load_module
from jettison.engines.tensorrt.preflight import preflight
from jettison.engines.tensorrt.report import PreflightReport

TARGET = parse_target("sm86")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"")
    return path


def with_compiler(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = folder / "fake"
    place.mkdir()
    (place / "tensorrt_rtx.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(place), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(door, "find_module", lambda: "tensorrt_rtx")


def test_without_the_module_the_answer_is_unavailable_and_names_the_extra(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "find_module", lambda: None)
    report = preflight(model, TARGET)
    assert (report.outcome, report.compiles, report.module) == ("unavailable", None, None)
    assert "Run: pip install -e '.[rtx]' in a clone of Jettison" in report.notes[-1]


def test_a_module_that_does_not_load_is_unavailable_with_its_reason(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_compiler("raise ImportError('libtensorrt_rtx.so is missing')", tmp_path, monkeypatch)
    report = preflight(model, TARGET)
    assert (report.outcome, report.compiles) == ("unavailable", None)
    assert report.notes[-1] == "tensorrt_rtx is installed but does not load: libtensorrt_rtx.so is missing"


@pytest.mark.parametrize("built", [True, False])
def test_only_what_compiled_is_called_evidence(
    model: Path, monkeypatch: pytest.MonkeyPatch, built: bool
) -> None:
    def child(request: CompileRequest, **_: object) -> subprocess.CompletedProcess[str]:
        request.answer.write_text(CompileAnswer(built=built).model_dump_json())
        return subprocess.CompletedProcess([], 0, stderr="")

    monkeypatch.setattr(door, "find_module", lambda: "tensorrt_rtx")
    monkeypatch.setattr(door, "_run_child", child)
    report = preflight(model, TARGET)
    assert report.outcome == ("compiles" if built else "refused")
    assert any("strong evidence" in note for note in report.notes) is built


@pytest.mark.parametrize(
    ("sparse", "words"), [(True, "compiled with SPARSE_WEIGHTS"), (False, "has no flag")]
)
def test_two_to_four_asks_for_sparse_kernels_and_tells_whether_they_were_allowed(
    model: Path, monkeypatch: pytest.MonkeyPatch, sparse: bool, words: str
) -> None:
    asked = []

    def child(request: CompileRequest, **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(request.sparse)
        request.answer.write_text(CompileAnswer(built=True, sparse=sparse).model_dump_json())
        return subprocess.CompletedProcess([], 0, stderr="")

    monkeypatch.setattr(door, "find_module", lambda: "tensorrt_rtx")
    monkeypatch.setattr(door, "_run_child", child)
    assert preflight(model, TARGET).sparse_layers == 0
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 8]) for name in ("x", "y")]
    weight = numpy_helper.from_array(np.tile(np.float32([0, 1, 0, 2]), (8, 2)).T, "w")
    onnx.save(helper.make_model(helper.make_graph([node], "one", ends[:1], ends[1:], [weight])), model)
    report = preflight(model, TARGET)
    assert asked == [False, True]
    assert (report.sparse_layers, report.sparse_weights) == (1, sparse)
    assert words in report.notes[-1]


def test_a_death_by_signal_is_a_crash(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_compiler("import os, signal\nos.kill(os.getpid(), signal.SIGABRT)", tmp_path, monkeypatch)
    report = preflight(model, TARGET)
    assert (report.outcome, report.compiles) == ("crashed", None)
    assert report.notes[-1] == "TensorRT's compiler crashed (SIGABRT): neither pass nor fail"


def test_a_kill_is_told_as_perhaps_a_lack_of_memory(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_compiler("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", tmp_path, monkeypatch)
    assert "SIGKILL, perhaps for lack of memory" in preflight(model, TARGET).notes[-1]


def test_a_compiler_that_hangs_is_stopped(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_compiler("import time\ntime.sleep(120)", tmp_path, monkeypatch)
    report = preflight(model, TARGET, timeout_s=1.5)
    assert (report.outcome, report.compiles) == ("timeout", None)
    assert 1.5 <= report.seconds < 60
    assert report.notes[-1] == "the compiler gave no answer within 1.5 s and was stopped"


def test_a_broken_compiler_program_is_an_external_error_without_its_traceback(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_compiler("raise RuntimeError('boom')", tmp_path, monkeypatch)
    with pytest.raises(ExternalError, match=r"exit code 1 and on stderr 'RuntimeError: boom'") as caught:
        preflight(model, TARGET)
    assert "Traceback" not in str(caught.value)


def test_files_beside_the_user_do_not_shadow_the_childs_modules(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_compiler("raise ImportError('the fake')", tmp_path, monkeypatch)
    (tmp_path / "numpy.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    assert preflight(Path("model.onnx"), TARGET).outcome == "unavailable"


def test_a_missing_model_is_an_error() -> None:
    with pytest.raises(ModelError, match="there is no such file"):
        preflight(Path("absent.onnx"), TARGET)


def test_the_stand_in_is_told_whatever_the_outcome(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "find_module", lambda: None)
    report = preflight(model, parse_target("sm87"))
    assert (report.target, report.compiled_for, report.nearest) == ("sm87", "sm86", True)
    assert "compiled for the nearest, sm86" in report.notes[0]


def test_the_report_survives_json_and_carries_the_verdict(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "find_module", lambda: None)
    report = preflight(model, TARGET)
    assert '"compiles":null' in report.model_dump_json()
    assert PreflightReport.model_validate_json(report.model_dump_json()) == report


def test_modules_are_found_without_being_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorrt.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_module(("tensorrt",)) == "tensorrt"


def test_a_module_that_is_not_there_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingError, match=r"Run: pip install -e '\.\[tensorrt\]' in a clone of Jettison"):
        load_module("tensorrt")


def test_noise_about_the_missing_gpu_is_dropped() -> None:
    assert not is_kept("error", "CUDA initialization failure with error: 35 (cudaError 35)")
    assert not is_kept("verbose", "Parsing node: conv1 [Conv]")
    assert not is_kept("info", "ONNX IR version:  0.0.10")
    assert not is_kept(
        "error", 'ModelImporter.cpp:140: While parsing node number 0 [QuantizeLinear -> "xq"]:'
    )
    assert is_kept("error", "IBuilder::buildSerializedNetwork: Error Code 1: Myelin")


LOG = (
    LogLine(severity="warning", text="onnxOpImporters.cpp:1980: Defaulting to INT8 instead."),
    LogLine(severity="warning", text="onnxOpImporters.cpp:1980: Defaulting to INT8 instead."),
    LogLine(severity="info", text="Total Activation Memory: 8357888 bytes"),
    LogLine(severity="info", text="Total Weights Memory: 4864 bytes"),
    LogLine(severity="verbose", text="Layers:\nName: a"),
    LogLine(
        severity="error",
        text="IBuilder::buildSerializedNetwork: Error Code 1: Myelin ([pass.cpp:337: check] Cannot compile "
        "operation 'fc' for Turing (SM75): FP32 GEMM is not supported. In compileGraph at /_src/a.cpp:2012)",
    ),
)


def test_messages_are_read() -> None:
    assert warnings(LOG) == ("Defaulting to INT8 instead.",)
    assert layers_text(LOG) == "Layers:\nName: a"
    memory = memory_estimate(LOG)
    assert memory is not None
    assert (memory.activation_bytes, memory.weights_bytes) == (8357888, 4864)


def test_a_build_error_is_told_without_the_compilers_insides_and_with_the_node() -> None:
    (refusal,) = builder_refusals(LOG)
    assert refusal.node == "fc"
    assert refusal.description == (
        "Error Code 1: Myelin (Cannot compile operation 'fc' for Turing (SM75): FP32 GEMM is not supported)"
    )


def test_a_log_without_the_messages_gives_nothing() -> None:
    assert (warnings(()), layers_text(()), memory_estimate(()), builder_refusals(())) == ((), "", None, ())
