"""ONNX files that ONNX Runtime hands to TensorRT on the node: the delivery without a plan."""

from pathlib import Path

import pytest
import served_models as zoo
from typer.testing import CliRunner

from jettison.cli.verbs import app
from jettison.core.errors import InputError
from jettison.triton.check.check import check
from jettison.triton.provider import check_cache
from jettison.triton.repository import model_folder


def published(tmp_path: Path, *options: str) -> Path:
    model, _, _ = zoo.affine(2.0)
    path = zoo.save(model, tmp_path / "affine.onnx")
    root = tmp_path / "repository"
    command = ["publish", str(path), "--repository", str(root), "--name", "m", "--tensorrt-cache", "/cache/m"]
    done = CliRunner().invoke(app, [*command, *options])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return root


def test_the_provider_gets_its_cache_and_explicit_shapes(tmp_path: Path) -> None:
    _, inputs, _ = zoo.affine(2.0)
    (spec,) = inputs
    rest = "".join(f"x{size}" for size in spec.shape[1:])
    root = published(tmp_path, "--shapes", f"{spec.name}=1{rest},2{rest},4{rest}")
    config = model_folder(root, "m").config()
    assert config.optimization is not None
    assert config.optimization.execution_accelerators is not None
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "tensorrt"
    assert accelerator.parameters == {
        "precision_mode": "FP32",
        "trt_engine_cache_enable": "true",
        "trt_engine_cache_path": "/cache/m",
        "trt_timing_cache_enable": "true",
        "trt_profile_min_shapes": f"{spec.name}:1{rest}",
        "trt_profile_opt_shapes": f"{spec.name}:2{rest}",
        "trt_profile_max_shapes": f"{spec.name}:4{rest}",
    }
    assert config.max_batch_size == 4  # a larger batch would make it build again
    assert config.instance_group[0].kind == "KIND_GPU"
    assert check(root) == ()


def test_an_open_input_without_shapes_is_refused_and_nothing_is_published(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"expected a range of shapes, since .* is open, found none. Give one"
    ):
        published(tmp_path)
    assert not (tmp_path / "repository").exists()


def test_shapes_of_no_input_and_of_another_rank_are_refused(tmp_path: Path) -> None:
    _, (spec,), _ = zoo.affine(2.0)
    with pytest.raises(InputError, match="shapes for 'other': expected one of"):
        published(tmp_path, "--shapes", "other=1x2")
    with pytest.raises(InputError, match=f"shapes for '{spec.name}': expected .* dimensions"):
        published(tmp_path, "--shapes", f"{spec.name}=1x1x1x1x1x1")


@pytest.mark.parametrize(
    ("cache", "words"),
    [
        ("cache", "cache cache: expected an absolute path of the node. Begin it with /"),
        ("{root}/cache", "expected a folder outside of the repository"),
    ],
)
def test_a_cache_that_triton_would_trip_over_is_refused(tmp_path: Path, cache: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_cache(cache.format(root=tmp_path), tmp_path)
    check_cache(f"{tmp_path}-cache", tmp_path)
