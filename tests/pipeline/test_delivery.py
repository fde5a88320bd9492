"""From files and runs into a repository: whole models under names of their own, or a reason why not."""

from __future__ import annotations

import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from pydantic import ValidationError

from jettison.core.errors import ModelError, RepositoryError
from jettison.graph.model import model_digest
from jettison.pipeline.delivery import chosen_model, publish_file, publish_results
from jettison.pipeline.results import BaselineResult, RunResult, TargetResult, VariantResult
from jettison.recipe import ModelSource, Publication, Recipe, SampleSources
from jettison.report.run_file import REPORT_FILE

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
        assert done.published[0].is_new is (len(versions) != 2)
        assert done.notes == ()
    assert versions == [1, 1, 2]


def test_a_standing_version_with_the_evidence_of_another_run_says_so(tmp_path):
    path = saved(tmp_path / "net.onnx", affine())
    notes = []
    for score, tolerance in ((1.0, "0.1"), (1.0, "0.1"), (0.9, "0.1"), (1.0, "0.2")):
        reasons = (f"within the tolerance of {tolerance}; {len(notes)} times the baseline's speed",)
        found = result_of("cpu", path)
        variant = found.variants[0].model_copy(update={"score": score, "reasons": reasons})
        run = run_of(found.model_copy(update={"variants": (variant,)}))
        notes.append(publish_results(run, recipe_of(tmp_path / "models"), created=CREATED).notes)
    words = (
        "m-int8: it stood there already: the evidence in its manifest is of the run that published it, "
        "whose score or tolerance was another"
    )
    assert notes == [(), (), (words,), (words,)]


def test_a_variant_that_bears_the_baselines_published_name_is_refused(tmp_path):
    variant = {"name": "fp32", "passes": ({"quantize": "full"},)}
    given = dict(recipe_of(tmp_path)) | {"variants": (variant,)}
    with pytest.raises(ValidationError, match=r"m-fp32 is the name under which the baseline is published"):
        Recipe(**given)
    assert Recipe(**(given | {"publish": None})).variants[0].name == "fp32"


def test_a_published_name_that_would_be_too_long_is_refused_before_the_work(tmp_path):
    given = dict(recipe_of(tmp_path))
    longest = ModelSource(name="m" * 123, path=tmp_path)
    assert Recipe(**(given | {"model": longest})).model == longest
    with pytest.raises(ValidationError, match="expected published names of 128 characters at most"):
        Recipe(**(given | {"model": ModelSource(name="m" * 124, path=tmp_path)}))


def test_results_for_gpus_are_not_published_and_the_answer_says_so(tmp_path):
    path = saved(tmp_path / "net.onnx", affine())
    done = publish_results(run_of(result_of("sm89", path)), recipe_of(tmp_path / "models"), created=CREATED)
    assert done.published == ()
    assert "results for GPUs need an engine" in done.notes[-1]


def test_a_baseline_that_is_published_alone_is_said_to_be(tmp_path):
    path = saved(tmp_path / "net.onnx", affine())
    run = run_of(result_of("cpu", path).model_copy(update={"chosen": "baseline"}))
    done = publish_results(run, recipe_of(tmp_path / "models"), created=CREATED)
    assert [found.model for found in done.published] == ["m-fp32"]
    assert done.notes[-1] == "the baseline was chosen, and it alone is published"


@pytest.fixture
def finished(tmp_path):
    """A run folder as `run` leaves it, with a baseline and a variant for each target."""

    def make(*names, chosen="int8"):
        folder, targets = tmp_path / "run", []
        for number, name in enumerate(names):
            (folder / name).mkdir(parents=True)
            float_, small = (
                saved(folder / name / variant / "model.onnx", affine(bias=bias + 10 * number))
                for variant, bias in (("baseline", 0.0), ("int8", 1.0))
            )
            target = result_of(name, float_, other=small)
            baseline = target.baseline.model_copy(update={"sha256": model_digest(float_)})
            variant = target.variants[0].model_copy(update={"sha256": model_digest(small)})
            targets.append(
                target.model_copy(
                    update={
                        "baseline": baseline,
                        "variants": (variant,),
                        "chosen": chosen,
                        "reasons": ("why",),
                    }
                )
            )
        (folder / REPORT_FILE).write_text(run_of(*targets).model_dump_json())
        return folder

    return make


def test_the_model_of_a_run_is_the_one_for_the_cpu_whatever_came_first(finished):
    folder = finished("sm89", "cpu")
    path, evidence = chosen_model(folder)
    assert (path, evidence.target) == (folder / "cpu" / "int8" / "model.onnx", "cpu")
    assert chosen_model(folder).note is None


def test_a_run_for_gpus_only_is_refused_with_the_way_out(finished):
    folder = finished("sm89", "sm90")
    with pytest.raises(RepositoryError) as caught:
        chosen_model(folder)
    assert str(caught.value) == (
        f"run {folder}: expected a result for cpu, found sm89, sm90: a model for GPUs is in TensorRT's "
        "dialect and is published once its engine is built, on the GPU or in its Triton image. Run with "
        f"target cpu too, or publish {folder}/sm89/int8/model.onnx by its path if ONNX Runtime shall serve "
        "it anyway"
    )


def test_a_run_that_chose_the_baseline_says_so_with_its_reasons(finished):
    folder = finished("cpu", chosen="baseline")
    found = chosen_model(folder)
    assert found.path == folder / "cpu" / "baseline" / "model.onnx"
    assert found.evidence.reasons == ("baseline", "why")
    assert found.note == "the run chose the baseline, the float model: why"


@pytest.mark.parametrize("chosen", ["int8", "baseline"])
def test_a_moved_run_is_published_from_where_it_is(finished, tmp_path, chosen):
    finished("cpu", chosen=chosen).rename(tmp_path / "elsewhere")
    path = chosen_model(tmp_path / "elsewhere").path
    assert path == tmp_path / "elsewhere" / "cpu" / chosen / "model.onnx"
    done = publish_file(path, tmp_path / "models", "net", created=CREATED)
    assert (done.path / "model.onnx").read_bytes() == path.read_bytes()


def test_a_copied_run_does_not_depend_on_the_first_one(finished, tmp_path):
    folder = finished("cpu")
    shutil.copytree(folder, tmp_path / "copy")
    saved(folder / "cpu" / "int8" / "model.onnx", affine(bias=99.0))
    assert chosen_model(tmp_path / "copy").path == tmp_path / "copy" / "cpu" / "int8" / "model.onnx"


def test_a_report_alone_still_finds_the_model_where_it_was(finished, tmp_path):
    folder = finished("cpu")
    (tmp_path / "report").mkdir()
    shutil.copyfile(folder / REPORT_FILE, tmp_path / "report" / REPORT_FILE)
    assert chosen_model(tmp_path / "report").path == folder / "cpu" / "int8" / "model.onnx"


def test_a_run_whose_model_is_gone_is_told_where_it_should_be(finished):
    folder = finished("cpu")
    model = folder / "cpu" / "int8" / "model.onnx"
    model.unlink()
    with pytest.raises(RepositoryError) as caught:
        chosen_model(folder)
    assert caught.value.detail == f"expected its model at {model} or {model}, found neither"


def test_a_model_that_was_changed_after_the_run_is_not_published_with_its_evidence(finished):
    folder = finished("cpu")
    saved(folder / "cpu" / "int8" / "model.onnx", affine(bias=99.0))
    with pytest.raises(RepositoryError, match=r"expected the file that the run measured, found another"):
        chosen_model(folder)
