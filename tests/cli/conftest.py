"""A small model with samples on disk, and the command line run in this process."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

from jettison.cli.main import main
from zoo.builder import image_net
from zoo.session import run as run_model

SAMPLES = 400


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def document(self):
        """The one JSON document on stdout; anything else there is an error."""
        return json.loads(self.out)


@pytest.fixture
def jettison(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["jettison", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


def conv_model():
    """Two convolutions and a head, wide enough that integers pay."""
    net, x = image_net("conv_model", 16)
    x = net.op("Relu", net.conv(x, (16, 64)))
    x = net.op("Relu", net.conv(x, (64, 64)))
    net.head(x, 64)
    return net.model()


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    model = conv_model()
    onnx.save(model, folder / "model.onnx")
    rng = np.random.default_rng(7)
    name = model.graph.input[0].name
    shape = [SAMPLES, *(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:])]
    images = rng.standard_normal(shape, dtype=np.float32)
    logits = run_model(model.SerializeToString(), {name: images}, [model.graph.output[0].name])
    labels = np.asarray(next(iter(logits.values())) if isinstance(logits, dict) else logits[0]).argmax(1)
    np.savez(folder / "calibration.npz", **{name: images[:32]})
    np.savez(folder / "evaluation.npz", **{name: images, "labels": labels.astype(np.int64)})
    return folder


@pytest.fixture
def workspace(prepared, tmp_path):
    for path in prepared.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


RECIPE = """
model: {name: small, path: model.onnx}
samples: {calibration: calibration.npz, evaluation: evaluation.npz}
metric: top1
targets: [cpu]
variants:
  - {name: int8, passes: [{quantize: full}]}
gate: {tolerance: 0.1}
publish: {repository: models}
"""


@pytest.fixture
def recipe(workspace) -> Path:
    path = workspace / "recipe.yaml"
    path.write_text(RECIPE)
    return path
