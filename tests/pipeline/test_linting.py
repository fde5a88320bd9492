"""Lint of a file: the report, the mended copy beside it, and what is told of its answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from jettison.core.errors import InputError
from jettison.core.targets import parse_target
from jettison.pipeline.linting import EXPECTED_DB, LintReport, lint_file
from zoo.builder import Net, image_net

ANY = parse_target("tensorrt")


def quantized(
    *, bits: type = np.uint8, zero: int = 113, scale: float = 0.0323, batch: int | str = "batch"
) -> onnx.ModelProto:
    """A product whose activation is quantized like that, and whose weight is right."""
    net = Net("net", opset=21, ir_version=10)
    x = net.input("x", [batch, 32])
    parameters = [net.const(np.float32(scale)), net.const(bits(zero))]
    x = net.op("DequantizeLinear", net.op("QuantizeLinear", x, *parameters, name="quantize"), *parameters)
    scales = [net.const(np.full(32, 0.001, np.float32)), net.const(np.zeros(32, np.int8))]
    integers = net.const(np.random.default_rng(0).integers(-127, 128, (32, 32)).astype(np.int8))
    weight = net.op("DequantizeLinear", integers, *scales, axis=1)
    net.named("MatMul", x, weight, to="y")
    net.output("y", [batch, 32])
    return net.model()


def saved(folder: Path, model: onnx.ModelProto) -> Path:
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def linted(path: Path, **settings: object) -> LintReport:
    return lint_file(path, ANY, **{"compiles": False, **settings})  # type: ignore[arg-type]


def test_a_file_is_told_what_breaks_it(tmp_path: Path) -> None:
    report = linted(saved(tmp_path, quantized()))
    assert [(found.code, found.node) for found in report.findings][:1] == [("T113", "quantize")]
    assert (report.fixed, report.is_accepted, report.outcome) == (None, False, None)


def test_a_mended_copy_is_written_and_compared(tmp_path: Path) -> None:
    path = saved(tmp_path, quantized())
    before = path.read_bytes()
    report = linted(path, fix=tmp_path / "mended.onnx")
    assert (report.fixed, report.mended, report.remaining) == (tmp_path / "mended.onnx", ("T113",), ())
    assert report.is_accepted
    assert report.sqnr_db is not None
    assert report.sqnr_db > EXPECTED_DB
    assert (report.compared_on, report.notes) == ("random inputs", ())
    assert path.read_bytes() == before
    assert linted(tmp_path / "mended.onnx").findings == ()


@pytest.mark.parametrize(("batch", "rows"), [("batch", 8), (4, 4)])
def test_answers_are_compared_on_samples(tmp_path: Path, batch: int | str, rows: int) -> None:
    np.savez(tmp_path / "s.npz", x=np.random.default_rng(0).normal(0, 1, (20, 32)).astype(np.float32))
    path = saved(tmp_path, quantized(batch=batch))
    report = linted(path, fix=tmp_path / "mended.onnx", samples=str(tmp_path / "s.npz"))
    assert report.compared_on == f"{rows} of 20 samples"
    assert report.sqnr_db is not None


def test_answers_that_move_far_get_the_reason(tmp_path: Path) -> None:
    """A range from -0.1 to 25: most of what is left lies in a few of the 127 steps."""
    path = saved(tmp_path, quantized(zero=1, scale=0.1))
    report = linted(path, fix=tmp_path / "mended.onnx")
    assert report.sqnr_db is not None
    assert report.sqnr_db < EXPECTED_DB
    assert report.notes == (
        "the answers moved by more than 25 dB allow: unsigned and shifted integers keep 7 of their 8 bits, "
        "and weights among them are rounded anew. Where the float model is at hand, quantize that: jettison "
        "compress --target tensorrt",
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("model.onnx", "expected another path than the model's own. Give the path of a new file"),
        ("sub/../model.onnx", "expected another path than the model's own. Give the path of a new file"),
        (
            "mended.bin",
            "expected an .onnx file in a folder that exists. Make the folder first, and name a file in it",
        ),
        ("none/mended.onnx", "expected an .onnx file in a folder that exists. Make the folder first"),
    ],
)
def test_a_place_that_cannot_be_written_to_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "sub").mkdir()
    path = saved(tmp_path, quantized())
    with pytest.raises(InputError) as caught:
        linted(path, fix=tmp_path / name)
    assert text in str(caught.value)
    assert str(caught.value).startswith("--fix ")


def test_another_name_of_the_same_file_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, quantized())
    (tmp_path / "link.onnx").symlink_to(path)
    with pytest.raises(InputError, match="expected another path than the model's own"):
        linted(path, fix=tmp_path / "link.onnx")


def test_nothing_is_written_where_nothing_can_be_mended(tmp_path: Path) -> None:
    net, x = image_net("net")
    parts = [net.fresh(name) for name in ("q", "s", "z")]
    net.nodes.append(helper.make_node("DynamicQuantizeLinear", [x], parts, name="dynamic"))
    net.nodes.append(helper.make_node("Cast", [parts[0]], ["y"], name="cast", to=TensorProto.FLOAT))
    net.output("y", ["batch", 16, 16, 16])
    report = linted(saved(tmp_path, net.model()), fix=tmp_path / "mended.onnx")
    assert [(found.code, found.node) for found in report.findings] == [("T101", "dynamic")]
    assert report.notes == ("nothing that is left can be mended by --fix, so no file was written",)
    assert not (tmp_path / "mended.onnx").exists()


def test_external_data_is_read_and_goes_into_the_copy(tmp_path: Path) -> None:
    net = Net("net", opset=21, ir_version=10)
    x = net.input("x", ["batch", 64])
    points = [net.const(np.float32(0.01)), net.const(np.uint8(128))]
    stored = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    net.initializers.append(numpy_helper.from_array(stored, "stored"))
    net.named("MatMul", x, net.op("DequantizeLinear", "stored", *points), to="y")
    net.output("y", ["batch", 64])
    path = tmp_path / "model.onnx"
    onnx.save(net.model(), path, save_as_external_data=True, location="weights.bin", size_threshold=100)
    report = linted(path, fix=tmp_path / "mended.onnx")
    assert report.mended == ("T113",)
    (tmp_path / "weights.bin").unlink()
    onnx.checker.check_model(onnx.load(tmp_path / "mended.onnx"))
    assert report.sqnr_db is not None
    assert report.sqnr_db >= 120  # the integers are only shifted
