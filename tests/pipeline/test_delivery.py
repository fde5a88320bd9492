"""From files and runs into a repository: whole models under names of their own, or a reason why not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from jettison.core.errors import ModelError, RecipeError
from jettison.pipeline.delivery import REPORT_FILE, chosen_model, publish_file, publish_results
from jettison.pipeline.results import BaselineResult, RunResult, TargetResult, VariantResult
from jettison.recipe import ModelSource, Publication, Recipe, SampleSources

CREATED = "2026-01-01T00:00:00Z"


def affine(factor=2.0, bias=0.0):
    constants = {"factor": np.full(3, factor, np.float32), "bias": np.full(3, bias, np.float32)}
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["m"]), helper.make_node("Add", ["m", "bias"], ["y"])],
        "affine",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def saved(path, model, location=None):
    path.parent.mkdir(exist_ok=True)
    if location is None:
        onnx.save(model, path)
    else:
        (path.parent / location).parent.mkdir(exist_ok=True)
        onnx.save_model(model, path, save_as_external_data=True, location=location, size_threshold=0)
    return path


def result_of(target, path, *, variant="int8", other=None):
    baseline = BaselineResult(path=path, size_bytes=1, score=1.0, latency_ms=None)
    made = VariantResult(name=variant, path=other or path, size_bytes=1, accepted=True)
    return TargetResult(
        model="m", target=target, baseline=baseline, variants=(made,), chosen=variant, evaluations=1,
        seconds=0.0, peak_rss_bytes=0,
    )  # fmt: skip


def run_of(*targets):
    return RunResult(**dict(targets[0]), targets=targets)


def recipe_of(root):
    return Recipe(
        model=ModelSource(name="m", path=root),
        samples=SampleSources(calibration="c"),
        publish=Publication(repository=root),
    )


def test_external_data_beside_the_model_is_published_with_it(tmp_path):
    path = saved(tmp_path / "in" / "net.onnx", affine(), "net.data")
    done = publish_file(path, tmp_path / "models", "net", created=CREATED)
    assert sorted(file.name for file in done.path.iterdir()) == ["manifest.json", "model.onnx", "net.data"]


@pytest.mark.parametrize("location", ["below/net.data", "model.onnx"])
def test_external_data_that_the_published_model_would_not_find_is_refused(tmp_path, location):
    path = saved(tmp_path / "in" / "net.onnx", affine(), location)
    with pytest.raises(ModelError, match=r"expected external data beside it, found .*Save it again"):
        publish_file(path, tmp_path / "models", "net", created=CREATED)
    assert not (tmp_path / "models").exists()


def test_only_an_equal_model_stands_and_other_weights_are_another_version(tmp_path):
    root, path = tmp_path / "models", tmp_path / "in" / "net.onnx"
    versions = []
    for bias in (1.0, 1.0, 2.0):
        (tmp_path / "in" / "net.data").unlink(missing_ok=True)
        saved(path, affine(bias=bias), "net.data")
        done = publish_results(run_of(result_of("cpu", path)), recipe_of(root), created=CREATED)
        versions.append(done.published[0].version)
    assert versions == [1, 1, 2]


def test_a_variant_that_bears_the_baselines_published_name_is_refused(tmp_path):
    path = saved(tmp_path / "net.onnx", affine())
    run = run_of(result_of("cpu", path, variant="fp32"))
    with pytest.raises(RecipeError, match=r"m-fp32 is the name under which the baseline is published"):
        publish_results(run, recipe_of(tmp_path / "models"), created=CREATED)


def test_results_for_gpus_are_not_published_and_the_answer_says_so(tmp_path):
    path = saved(tmp_path / "net.onnx", affine())
    done = publish_results(run_of(result_of("sm89", path)), recipe_of(tmp_path / "models"), created=CREATED)
    assert done.published == ()
    assert "results for GPUs need an engine" in done.notes[-1]


def test_the_model_of_a_run_is_the_one_for_the_cpu_whatever_came_first(tmp_path):
    gpu, cpu = tmp_path / "gpu.onnx", tmp_path / "cpu.onnx"
    run = run_of(result_of("sm89", gpu), result_of("cpu", cpu))
    (tmp_path / REPORT_FILE).write_text(run.model_dump_json())
    path, evidence = chosen_model(tmp_path)
    assert (path, evidence.target) == (cpu, "cpu")
