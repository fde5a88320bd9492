"""A whole build, with the module `tensorrt_rtx` standing in where it shares its interface with `tensorrt`."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from jettison.core.engine import EngineRecord
from jettison.core.errors import InputError, MissingError, TargetError
from jettison.core.progress import Progress
from jettison.core.targets import parse_target
from jettison.engines.tensorrt import build as door
from jettison.engines.tensorrt.build import build
from jettison.engines.tensorrt.build_report import BuildOptions, BuildReport, profiles_of
from jettison.engines.tensorrt.gpu import gpu_here
from jettison.engines.tensorrt.settings import BuildSettings
from jettison.engines.tensorrt.shapes import ShapeRange, parse_shape_range

TARGET = parse_target("sm89")
STAND_IN = BuildOptions(module="tensorrt_rtx", limit_s=300)
SHAPES = "x=1x8,4x8,8x8"


def product(folder: Path, *, operator: str = "MatMul", batch: int | str = "N") -> Path:
    weight = np.random.default_rng(1).normal(size=(8, 4)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", "w"], ["y"], name="product")],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 4])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
    path = folder / "model.onnx"
    onnx.save(model, path)
    return path


def ranges(*texts: str) -> tuple[tuple[ShapeRange, ...], ...]:
    return profiles_of([parse_shape_range(text) for text in texts])


def built(report: BuildReport) -> EngineRecord:
    assert report.engine is not None, report
    return report.engine


@pytest.mark.rtx
def test_a_build_leaves_a_plan_with_its_record(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []

    def reporter(title: str) -> Progress:
        return lambda done, total: told.append((title, done, total))

    options = STAND_IN.model_copy(update={"report": reporter})
    report = build(product(tmp_path), TARGET, tmp_path / "out", profiles=ranges(SHAPES), options=options)
    engine = built(report)
    assert report.outcome == "built"
    assert (tmp_path / "out/sm89/model.plan").stat().st_size > 0
    assert EngineRecord.model_validate_json((tmp_path / "out/sm89/engine.json").read_bytes()) == engine
    assert engine.compute == "8.9"
    assert [str(spec) for spec in engine.inputs] == ["x float32 Nx8"]
    assert engine.profiles[0][0].maximum == (8, 8)
    assert engine.seconds > 0
    assert told
    assert all(0 <= done <= total for _, done, total in told)
    assert report.notes == ("a plan of tensorrt_rtx: Triton does not load it",)
    assert not (tmp_path / "out/sm89/timing.cache").exists()  # rtx would want a GPU for it


@pytest.mark.rtx
def test_an_engine_of_the_same_identity_is_not_built_again(tmp_path: Path) -> None:
    model = product(tmp_path)
    first = build(model, TARGET, tmp_path, profiles=ranges(SHAPES), options=STAND_IN)
    again = build(model, TARGET, tmp_path, profiles=ranges(SHAPES), options=STAND_IN)
    assert (first.outcome, again.outcome) == ("built", "standing")
    other = BuildSettings(level=1)
    changed = build(model, TARGET, tmp_path, profiles=ranges(SHAPES), settings=other, options=STAND_IN)
    assert changed.outcome == "built"
    assert changed.identity != first.identity
    (tmp_path / "sm89/model.plan").write_bytes(b"torn")
    mended = build(model, TARGET, tmp_path, profiles=ranges(SHAPES), settings=other, options=STAND_IN)
    assert (mended.outcome, mended.identity) == ("built", changed.identity)


@pytest.mark.rtx
def test_two_ranges_of_an_input_make_two_profiles(tmp_path: Path) -> None:
    profiles = ranges("x=1x8,1x8,1x8", "x=2x8,8x8,16x8")
    engine = built(build(product(tmp_path), TARGET, tmp_path, profiles=profiles, options=STAND_IN))
    assert [one[0].maximum for one in engine.profiles] == [(1, 8), (16, 8)]
    engine.check_shapes({"x": (16, 8)})
    with pytest.raises(
        InputError, match=r"expected shapes inside of a profile .*found x=17x8. Build it with a range"
    ):
        engine.check_shapes({"x": (17, 8)})


@pytest.mark.rtx
def test_an_open_input_without_a_range_is_an_error_and_no_guess(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"input 'x': expected a range of shapes, .* found none. Give the smallest"
    ):
        build(product(tmp_path), TARGET, tmp_path, options=STAND_IN)


@pytest.mark.rtx
def test_a_model_without_open_dimensions_needs_no_profile(tmp_path: Path) -> None:
    engine = built(build(product(tmp_path, batch=2), TARGET, tmp_path, options=STAND_IN))
    assert engine.profiles == ()


@pytest.mark.rtx
def test_a_refused_node_is_told_and_no_plan_is_left(tmp_path: Path) -> None:
    path = product(tmp_path, operator="Mystery")
    report = build(path, TARGET, tmp_path / "out", profiles=ranges(SHAPES), options=STAND_IN)
    assert report.outcome == "refused"
    assert report.refusals[0].node == "product"
    assert not (tmp_path / "out/sm89/model.plan").exists()


@pytest.mark.rtx
def test_a_setting_that_the_builder_only_logs_against_is_a_refusal(tmp_path: Path) -> None:
    settings = BuildSettings(
        version_compatible=True
    )  # tensorrt_rtx knows the flag, and does not build with it
    report = build(
        product(tmp_path), TARGET, tmp_path, profiles=ranges(SHAPES), settings=settings, options=STAND_IN
    )
    assert report.outcome == "refused"
    assert report.refusals


def test_without_the_module_the_three_ways_out_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "find_module", lambda _: None)
    with pytest.raises(MissingError) as error:
        build(product(tmp_path), TARGET, tmp_path)
    assert error.value.exit_code == 3
    for way in ("jettison preflight MODEL --target sm89", "--image TAG", "on the node itself"):
        assert way in error.value.fix


@pytest.mark.skipif(gpu_here() is not None, reason="a GPU is here")
def test_without_a_gpu_the_module_builds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "fake"
    place.mkdir()
    (place / "tensorrt.py").write_text("__version__ = '10.13.3'\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(place), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(door, "find_module", lambda _: "tensorrt")
    with pytest.raises(MissingError, match=r"there is none here\. Three ways"):
        build(product(tmp_path), TARGET, tmp_path)


def test_an_engine_is_for_one_gpu(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="expected one compute capability"):
        build(product(tmp_path), parse_target("tensorrt"), tmp_path)


def test_uneven_ranges_are_refused() -> None:
    texts = ("x=1x8", "x=2x8", "x=3x8", "z=1x8", "z=2x8")
    with pytest.raises(
        InputError, match="shapes for 'z': expected one range, or 3 as other inputs have, found 2"
    ):
        ranges(*texts)
