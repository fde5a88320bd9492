"""`jettison lint` on the command line: exit codes, the document, the table."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from jettison.engines.tensorrt.module import find_module
from zoo.builder import image_net


@pytest.fixture
def unsigned(tmp_path):
    """A convolution whose activation is UINT8."""
    net, x = image_net("net")
    parameters = [net.const(np.float32(0.03)), net.const(np.uint8(3))]
    x = net.op("DequantizeLinear", net.op("QuantizeLinear", x, *parameters, name="quantize"), *parameters)
    net.conv(x, (16, 16), to="y")
    net.output("y", ["batch", 16, 16, 16])
    onnx.save(net.model(), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_findings_end_with_1(jettison, unsigned):
    answer = jettison("lint", unsigned, "--no-compile", "--json")
    assert answer.code == 1
    found = [(each["code"], each["severity"], each["node"]) for each in answer.document["findings"]]
    assert found[0] == ("T113", "hard", "quantize")
    assert answer.document["outcome"] is None


def test_a_mended_copy_ends_with_0(jettison, unsigned):
    copy = unsigned.with_name("mended.onnx")
    answer = jettison("lint", unsigned, "--no-compile", "--fix", copy)
    assert answer.code == 0
    assert f"mended: T113; written to {copy}" in answer.out
    assert "answers against the file before:" in answer.out
    assert "T208" in answer.out  # what is left, which only costs speed


def test_the_own_path_as_copy_is_wrong_input(jettison, unsigned):
    answer = jettison("lint", unsigned, "--fix", unsigned)
    assert answer.code == 2
    assert "expected another path than the model's own" in answer.err


def test_a_target_without_tensorrt_is_wrong_input(jettison, unsigned):
    answer = jettison("lint", unsigned, "--target", "cpu")
    assert answer.code == 2
    assert "lint for target 'cpu'" in answer.err


def test_a_target_that_is_none_is_told_with_the_gpus_alone(jettison, unsigned):
    told = jettison("lint", unsigned, "--target", "nobody", "--json").document["error"]
    assert told["fix"].startswith("Targets are tensorrt, sm75")


@pytest.mark.rtx
@pytest.mark.skipif(find_module() is None, reason="the extra 'rtx' is not installed")
def test_the_compiler_is_asked(jettison, unsigned):
    assert jettison("lint", unsigned, "--json").document["outcome"] == "refused"
    copy = unsigned.with_name("mended.onnx")
    answer = jettison("lint", unsigned, "--json", "--fix", copy)
    assert (answer.code, answer.document["outcome"]) == (0, "compiles")


@pytest.mark.rtx
@pytest.mark.skipif(find_module() is None, reason="the extra 'rtx' is not installed")
def test_bisection_names_the_pair_and_the_pass(jettison, unsigned):
    answer = jettison("preflight", unsigned, "--bisect", "--json")
    assert answer.code == 1
    found = answer.document["bisection"]
    assert "quantize" in found["nodes"]
    assert found["is_smallest"]
    assert found["leave_out"].startswith("{quantize: full} for target cpu; leave it out")
    words = jettison("preflight", unsigned, "--bisect").out
    assert "the smallest part that breaks it: quantize" in words
