"""Known messages of Triton and TensorRT: recognized in real logs, with cause, fix and source."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from jettison.core.errors import JettisonError
from jettison.core.tensors import TensorSpec
from jettison.engines.tensorrt.module import find_module
from jettison.pipeline.explain_log import LONGEST_LINE, LogExplanation, explain_log
from jettison.pipeline.known_messages import KNOWN
from jettison.triton.publish import Release, publish
from jettison.triton.runtime import Installation
from jettison.triton.server import TritonServer
from jettison.triton.serving import config_of

REPORTED = {
    "plan-version": (
        "E0518 logging.cc:43] 6: The engine plan file is not compatible with this version of TensorRT, "
        "expecting library version 8.6.1.2 got 8.6.0.12, please rebuild."
    ),
    "plan-version-tag": (
        "E0912 02:00:56.166591 1 logging.cc:40] 1: "
        "[stdArchiveReader.cpp::StdArchiveReaderInitCommon::46] Error Code 1: Serialization "
        "(Serialization assertion stdVersionRead == serializationVersion failed.Version tag does not "
        "match. Note: Current Version: 236, Serialized Engine Version: 239)"
    ),
    "plan-device": (
        "[TensorRT] ERROR: INVALID_CONFIG: The engine plan file is generated on an incompatible device, "
        "expecting compute 6.1 got compute 7.5, please rebuild."
    ),
    "plan-batch": (
        "UNAVAILABLE: Internal: autofill failed for model 'abc': configuration specified max-batch 8 but"
        " TensorRT engine only supports max-batch 0"
    ),
    "plan-profile": (
        "3: [executionContext.cpp::setInputShape::2309] Error Code 3: API Usage Error (Parameter check "
        "failed, condition: satisfyProfile Runtime dimension does not satisfy any optimization profile.)"
    ),
    "shared-memory": (
        "Internal: Unable to initialize shared memory key 'triton_python_backend_shm_region_3' to "
        "requested size (67108864 bytes). If you are running Triton inside docker, use '--shm-size' flag"
    ),
    "shape-of-request": (
        "[StatusCode.INVALID_ARGUMENT] unexpected shape for input 'images' for model 'yolo'. Expected "
        "[-1,3,640,640], got [1,3,384,640]. NOTE: Setting a non-zero max_batch_size"
    ),
    "dims-of-config": (
        "UNAVAILABLE: Invalid argument: model 'pose', tensor 'input.1': the model expects 4 dimensions "
        "(shape [1,3,224,224]) but the model configuration specifies 4 dimensions (shape [1,3,224,244])"
    ),
}
"""Messages as others reported them, at the places that the table names as their sources."""


def explained(text: str) -> LogExplanation:
    return explain_log(io.BytesIO(text.encode()), "log")


@pytest.mark.parametrize("name", REPORTED)
def test_a_reported_message_is_known(name: str) -> None:
    causes = explained(f"I0001 something\n{REPORTED[name]}\n").causes
    assert [(cause.name, cause.line, cause.count) for cause in causes] == [(name, 2, 1)]
    assert causes[0].source.startswith("https://")
    assert "{" not in causes[0].cause + causes[0].fix
    assert "?" not in causes[0].cause


def test_what_the_message_names_stands_in_the_cause() -> None:
    cause = explained(REPORTED["plan-device"]).causes[0].cause
    assert cause == "the plan was built for compute capability 7.5, and this GPU has 6.1"


def test_names_are_there_once_and_texts_can_be_filled() -> None:
    assert len({known.name for known in KNOWN}) == len(KNOWN)
    for known in KNOWN:
        groups = dict.fromkeys(re.compile(known.pattern).groupindex, "x")
        assert known.cause.format(**groups)
        assert known.fix.format(**groups)
        assert known.source


def test_repeated_lines_are_told_once_with_their_number() -> None:
    causes = explained("\n".join([REPORTED["plan-version"]] * 3 + [REPORTED["plan-device"]])).causes
    assert [(cause.name, cause.line, cause.count) for cause in causes] == [
        ("plan-version", 1, 3),
        ("plan-device", 4, 1),
    ]


def test_what_only_follows_is_told_where_it_stands_alone() -> None:
    echo = "error: creating server: Internal - failed to load all models"
    assert [cause.name for cause in explained(f"{REPORTED['plan-version']}\n{echo}\n").causes] == [
        "plan-version"
    ]
    assert [cause.name for cause in explained(echo).causes] == ["all-models"]
    assert [cause.name for cause in explained("failed to load all models").causes] == ["all-models"]


@pytest.mark.server
def test_a_model_that_fails_for_a_reason_of_its_own_is_told_in_its_words(
    tmp_path: Path, installation: Installation
) -> None:
    version, log = tmp_path / "repository/strange/1", tmp_path / "server.log"
    version.mkdir(parents=True)
    raising = "    def initialize(self, args):\n        raise ValueError('no weights today')\n"
    (version / "model.py").write_text(f"class TritonPythonModel:\n{raising}")
    (version.parent / "config.pbtxt").write_text('backend: "python"\nmax_batch_size: 0\n')
    server = TritonServer(tmp_path / "repository", installation, environment=os.environ, log=log)
    with pytest.raises(JettisonError), server:
        pass
    assert "failed to load all models" in log.read_text()
    with log.open("rb") as stream:
        causes = {cause.name: cause.cause for cause in explain_log(stream, "log").causes}
    assert "version 1 of strange did not load" in causes["model-failed"]
    assert "no weights today" in causes["model-failed"]
    assert "all-models" in causes


def test_a_log_without_known_messages_has_no_causes() -> None:
    found = explained("I1124 all is well\n" * 5)
    assert (found.causes, found.lines, found.is_whole) == ((), 5, True)


def test_bytes_that_are_no_text_and_endless_lines_are_read() -> None:
    long = b"\xff" * (LONGEST_LINE * 3) + b"\n" + REPORTED["plan-version"].encode()
    found = explain_log(io.BytesIO(long), "log")
    assert ([(cause.name, cause.line) for cause in found.causes], found.lines) == ([("plan-version", 2)], 2)


def test_a_log_is_read_up_to_a_bound() -> None:
    log = b"line\n" * 10 + REPORTED["plan-version"].encode()
    found = explain_log(io.BytesIO(log), "log", most_bytes=50)
    assert (found.lines, found.is_whole, found.causes) == (10, False, ())
    assert explain_log(io.BytesIO(log), "log", most_bytes=len(log)).is_whole


def test_a_long_message_is_shown_in_part() -> None:
    text = explained(REPORTED["plan-version"] + "x" * 1000).causes[0].text
    assert len(text) == 403
    assert text.endswith("...")


COMPILE = """
import sys
import tensorrt_rtx as trt


class Logger(trt.ILogger):
    def __init__(self):
        trt.ILogger.__init__(self)

    def log(self, severity, text):
        print(text)


logger = Logger()
builder = trt.Builder(logger)
network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
if trt.OnnxParser(network, logger).parse_from_file(sys.argv[1]):
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    builder.build_serialized_network(network, config)
"""


def quantized(zero: np.ndarray, *, scale: float = 0.03, rows: int | str = 4) -> onnx.ModelProto:
    """A pair and a Relu."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="q"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], name="d"),
        helper.make_node("Relu", ["d"], ["y"], name="y"),
    ]
    tensors = [numpy_helper.from_array(np.float32(scale), "s"), numpy_helper.from_array(zero, "z")]
    return wrapped(nodes, tensors, rows)


def wrapped(
    nodes: list[onnx.NodeProto], tensors: list[onnx.TensorProto], rows: int | str = 4
) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, 16]) for name in "xy"]
    graph = helper.make_graph(nodes, "graph", values[:1], values[1:], tensors)
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("strange", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def dynamic() -> onnx.ModelProto:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"], name="q"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], name="y"),
    ]
    return wrapped(nodes, [])


def strange() -> onnx.ModelProto:
    return wrapped([helper.make_node("Strange", ["x"], ["y"], name="y", domain="strange")], [])


def bias() -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(value, name) for name, value in
               (("b", np.ones(16, np.int32)), ("s", np.float32(0.1)), ("z", np.int32(0)))]  # fmt: skip
    read = helper.make_node("DequantizeLinear", ["b", "s", "z"], ["d"], name="d")
    return wrapped([read, helper.make_node("Add", ["x", "d"], ["y"], name="y")], tensors)


@pytest.mark.rtx
@pytest.mark.skipif(find_module() is None, reason="the extra 'rtx' is not installed")
@pytest.mark.parametrize(
    ("model", "names"),
    [
        (quantized(np.uint8(3)), {"zero-point", "unsigned"}),
        (quantized(np.uint8(0)), {"unsigned"}),
        (quantized(np.int16(0)), {"element-type"}),
        (quantized(np.int8(0), scale=-1), {"scale"}),
        (quantized(np.int8(0), rows="N"), {"profile-missing"}),
        (dynamic(), {"dynamic-quantization"}),
        (strange(), {"plugin"}),
        (bias(), {"integer-bias"}),
    ],
    ids=lambda value: "-".join(sorted(value)) if isinstance(value, set) else "model",
)
def test_real_logs_of_tensorrt_are_explained(tmp_path: Path, model: onnx.ModelProto, names: set[str]) -> None:
    onnx.save(model, tmp_path / "model.onnx")
    command = [sys.executable, "-c", COMPILE, str(tmp_path / "model.onnx")]
    done = subprocess.run(command, capture_output=True, check=True)
    causes = explain_log(io.BytesIO(done.stdout), "log").causes
    assert {cause.name for cause in causes} == names
    assert all("seen in tensorrt_rtx" in cause.source or cause.name == "profile-missing" for cause in causes)


def replaced(old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = folder / "config.pbtxt"
        assert old in config.read_text()
        config.write_text(config.read_text().replace(old, new))

    return change


def without_version(folder: Path) -> None:
    (folder / "1" / "model.onnx").unlink()
    (folder / "1" / "manifest.json").unlink(missing_ok=True)
    for path in (folder / "1").iterdir():
        path.unlink()
    (folder / "1").rmdir()


@pytest.mark.server
@pytest.mark.parametrize(
    ("change", "name", "cause"),
    [
        (
            replaced('name: "relu"', 'name: "other"'),
            "folder-name",
            "the folder is called relu, and",
        ),
        (
            replaced('backend: "onnxruntime"', 'backend: "tensorrt"'),
            "backend",
            "this server has no backend",
        ),
        (
            replaced("max_batch_size", "most_batches"),
            "config-field",
            "config.pbtxt has the field most_",
        ),
        (
            replaced('name: "relu"', 'name: "relu'),
            "config-text",
            "config.pbtxt cannot be read at",
        ),
        (
            lambda folder: (folder.parent / "notes").mkdir(),
            "stray-folder",
            "the folder notes in the",
        ),
        (
            lambda folder: (folder / "1" / "model.onnx").unlink(),
            "model-missing",
            "the version folder has no",
        ),
        (
            lambda folder: (folder / "1" / "model.onnx").write_bytes(b"x"),
            "model-torn",
            "the model file is no",
        ),
        (without_version, "version-missing", "the version policy of relu names version 1"),
    ],
    ids=["folder", "backend", "field", "text", "stray", "missing", "torn", "version"],
)
def test_real_logs_of_triton_are_explained(
    tmp_path: Path, installation: Installation, change: Callable[[Path], None], name: str, cause: str
) -> None:
    root, log = tmp_path / "repository", tmp_path / "server.log"
    onnx.save(
        wrapped([helper.make_node("Relu", ["x"], ["y"], name="y")], [], "batch"), tmp_path / "model.onnx"
    )
    specs = [(TensorSpec(name=each, dtype="float32", shape=("batch", 16)),) for each in "xy"]
    release = Release(
        config_of("relu", *specs), {"model.onnx": tmp_path / "model.onnx"}, "2026-01-01T00:00:00+00:00"
    )
    publish(release, root)
    change(root / "relu")
    server = TritonServer(root, installation, environment=os.environ, log=log)
    with pytest.raises(JettisonError), server:
        pass
    with log.open("rb") as stream:
        causes = explain_log(stream, "log").causes
    assert [found.name for found in causes] == [name]
    assert causes[0].cause.startswith(cause)
