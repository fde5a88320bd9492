"""`model_repository/` in the repository's root was written by the product; these tests hold it to that.

`pytest tests/pipeline/test_sample_repository.py --update-golden` writes it anew.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from jettison.compress.passes import Workpiece
from jettison.compress.quantization.quantize import QuantizeFull
from jettison.core.samples import open_samples
from jettison.core.targets import parse_target
from jettison.engines.onnxruntime import OnnxRuntimeRunner
from jettison.evaluate.metrics import resolve_metric
from jettison.evaluate.scoring import score
from jettison.graph.clean import clean
from jettison.graph.model import input_specs, open_model
from jettison.graph.save import save_model
from jettison.pipeline.delivery import publish_file
from jettison.triton.client import TritonRunner
from jettison.triton.manifest import read_manifest
from jettison.triton.server import TritonServer

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "fashion"
SAMPLE = ROOT / "model_repository"
CREATED = "2026-11-24T00:00:00+00:00"
MODELS = ("fashion-fp32", "fashion-int8")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The repository as the product writes it now."""
    folder = tmp_path_factory.mktemp("sample")
    model = clean(open_model(EXAMPLE / "fashion.onnx"))
    save_model(model, folder / "fp32.onnx")
    samples = open_samples(EXAMPLE / "calibration.npz", input_specs(model))
    save_model(QuantizeFull()(Workpiece(model, parse_target("cpu")), samples).model, folder / "int8.onnx")
    for kind in ("fp32", "int8"):
        publish_file(folder / f"{kind}.onnx", folder / "models", f"fashion-{kind}", created=CREATED)
    return folder / "models"


@pytest.fixture(scope="module", autouse=True)
def golden(request, written):
    if request.config.getoption("--update-golden"):
        shutil.rmtree(SAMPLE, ignore_errors=True)
        shutil.copytree(written, SAMPLE)


def files_of(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_sample_repository_has_the_files_that_the_product_writes(written):
    assert files_of(SAMPLE) == files_of(written)


@pytest.mark.parametrize("name", MODELS)
def test_sample_configuration_is_what_the_product_writes(written, name):
    assert (SAMPLE / name / "config.pbtxt").read_text() == (written / name / "config.pbtxt").read_text()


@pytest.mark.parametrize("name", MODELS)
def test_sample_model_is_the_one_that_the_product_makes(written, name):
    """Same nodes and integers; scales may differ in the last bits between processors."""
    sample, fresh = (onnx.load(root / name / "1" / "model.onnx") for root in (SAMPLE, written))
    assert [(node.op_type, node.name) for node in sample.graph.node] == [
        (node.op_type, node.name) for node in fresh.graph.node
    ]
    for ours, theirs in zip(sample.graph.initializer, fresh.graph.initializer, strict=True):
        left, right = onnx.numpy_helper.to_array(ours), onnx.numpy_helper.to_array(theirs)
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1 if left.dtype.kind in "iu" else 1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_sample_manifest_names_every_file_unchanged(name):
    folder = SAMPLE / name / "1"
    manifest = read_manifest(folder)
    assert manifest is not None
    assert manifest.changed_files(folder) == []


@pytest.mark.server
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_real_server_answers_from_the_sample_as_local_inference_does(sample_server, protocol):
    inputs = {"image": np.load(EXAMPLE / "evaluation.npz")["image"][:16]}
    url = sample_server.http_url if protocol == "http" else sample_server.grpc_url
    for name in MODELS:
        local = OnnxRuntimeRunner(SAMPLE / name / "1" / "model.onnx").run(inputs)
        with TritonRunner(url, name, protocol=protocol) as served:
            np.testing.assert_allclose(served.run(inputs)["logits"], local["logits"], rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def sample_server(installation):
    with TritonServer(SAMPLE, installation, environment=os.environ) as server:
        yield server


def test_sample_int8_is_small_and_as_good():
    paths = {name: SAMPLE / name / "1" / "model.onnx" for name in MODELS}
    float_runner = OnnxRuntimeRunner(paths["fashion-fp32"])
    samples = open_samples(EXAMPLE / "evaluation.npz", float_runner.inputs)
    top1 = {
        name: score(OnnxRuntimeRunner(path), samples, metric=resolve_metric("top1"))
        for name, path in paths.items()
    }
    assert paths["fashion-int8"].stat().st_size < 0.3 * paths["fashion-fp32"].stat().st_size
    assert top1["fashion-int8"].mean > top1["fashion-fp32"].mean - 0.005
