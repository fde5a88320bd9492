"""Models of torch and Keras on the whole road, by a recipe and by one word of a command line."""

from __future__ import annotations

import importlib
import importlib.util
import os

import numpy as np
import onnx
import pytest

from jettison.sources.doors import KERAS_SETTINGS

NETWORK = """
import torch


def make():
    torch.manual_seed(4)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(16, 16, 3, padding=1),
        torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(16, 4),
    )
"""
RECIPE = """
model: {name: net, torch: "road_network:make", state: weights.pt, outputs: [logits]}
samples: {calibration: calibration.npz, evaluation: evaluation.npz}
metric: sqnr
variants:
  - {name: int8, passes: [{quantize: full}]}
gate: {tolerance: 0.5, min_speedup: 0.01}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    rng = np.random.default_rng(8)
    for name, rows in (("calibration", 16), ("evaluation", 32)):
        np.savez(tmp_path / f"{name}.npz", image=rng.standard_normal((rows, 3, 8, 8), dtype=np.float32))
    (tmp_path / "road_network.py").write_text(NETWORK)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def save_weights(folder, factor):
    import torch

    torch.manual_seed(9)
    layers = {"0": (16, 3, 3, 3), "2": (16, 16, 3, 3), "6": (4, 16)}
    state = {f"{name}.weight": torch.randn(shape) * factor for name, shape in layers.items()}
    state |= {f"{name}.bias": torch.randn(shape[0]) for name, shape in layers.items()}
    torch.save(state, folder / "weights.pt")


def exports(folder):
    return {
        path.name: path.stat().st_mtime_ns for path in (folder / "runs" / "net" / "steps").glob("export-*")
    }


@pytest.mark.slow
@pytest.mark.torch
def test_a_torch_module_walks_the_road_and_is_exported_once(jettison, folder):
    pytest.importorskip("torch")
    save_weights(folder, 0.2)
    answer = jettison("run", folder / "recipe.yaml", "--json")
    assert answer.code == 0, answer.err
    assert answer.document["chosen"] == "int8"
    baseline = onnx.load(answer.document["baseline"]["path"])
    assert [value.name for value in (*baseline.graph.input, *baseline.graph.output)] == ["image", "logits"]
    first = exports(folder)
    assert len(first) == 1
    assert jettison("run", folder / "recipe.yaml").code == 0
    assert exports(folder) == first, "nothing changed, so nothing was exported"
    save_weights(folder, 0.3)
    jettison("run", folder / "recipe.yaml")
    assert len(exports(folder)) == 2, "other weights are another model"
    (folder / "road_network.py").write_text(NETWORK.replace("ReLU", "Tanh"))
    jettison("run", folder / "recipe.yaml")
    assert len(exports(folder)) == 3, "other code is another model"


@pytest.mark.slow
@pytest.mark.torch
def test_a_program_is_compressed_and_judged_by_one_word(jettison, folder):
    torch = pytest.importorskip("torch")
    make = importlib.import_module("road_network").make
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(make().eval(), (torch.zeros(2, 3, 8, 8),), dynamic_shapes=shapes)
    torch.export.save(program, folder / "net.pt2")
    answer = jettison(
        "compress", folder / "net.pt2", "--calibration", folder / "calibration.npz", "--evaluation",
        folder / "evaluation.npz", "--target", "cpu", "--variant", "int8=[{quantize: full}]",
        "--tolerance", 0.5, "--min-speedup", 0.01, "-o", folder / "out", "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert answer.document["model"] == "net"
    judged = jettison(
        "evaluate", answer.document["variants"][0]["path"], "--baseline", "road_network:make", "--evaluation",
        folder / "evaluation.npz", "--metric", "sqnr", "--tolerance", 0.5, "--min-speedup", 0.01, "--json",
    )  # fmt: skip
    assert judged.code == 0, judged.err
    assert judged.document["model"] == "road_network-make"


@pytest.mark.torch
@pytest.mark.keras
def test_a_keras_file_is_compressed_by_one_word(jettison, folder):
    pytest.importorskip("torch")
    os.environ.update(KERAS_SETTINGS)
    keras = pytest.importorskip("keras")
    net = keras.Sequential(
        [keras.Input((3, 8, 8), name="image"), keras.layers.Flatten(), keras.layers.Dense(4, name="scores")]
    )
    net.save(folder / "net.keras")
    answer = jettison(
        "compress", folder / "net.keras", "--calibration", folder / "calibration.npz", "--target", "cpu",
        "--variant", "int8=[{quantize: full}]", "--tolerance", 0.5, "--min-speedup", 0.01,
        "-o", folder / "out", "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert onnx.load(answer.document["baseline"]["path"]).graph.output[0].name == "scores"


def compress(jettison, folder, model, *more):
    return jettison(
        "compress", model, "--calibration", folder / "calibration.npz", "--target", "cpu",
        "-o", folder / "out", "--json", *more,
    )  # fmt: skip


def test_a_missing_library_is_exit_code_3_with_the_extra(jettison, folder, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "torch" else find(name, *more)
    )
    answer = compress(jettison, folder, "road_network:make")
    assert answer.code == 3
    assert answer.document["error"]["fix"].startswith("Run: pip install -e '.[train]'")


@pytest.mark.parametrize(
    ("model", "more", "words"),
    [
        (
            "net.onnx",
            ("--state", "w.pt"),
            "expected package.module:function beside a state dict, found a file",
        ),
        ("w.pt", (), "found a file of weights"),
        ("absent.keras", (), "expected a file, found no such file"),
        ("road_network:make", ("--state", "absent.pt"), "expected a file, found no such file"),
    ],
)
def test_wrong_sources_are_exit_code_2(jettison, folder, model, more, words, monkeypatch):
    monkeypatch.setattr("jettison.pipeline.entrance.check_installed", lambda _: None)
    answer = compress(jettison, folder, model, *more)
    assert answer.code == 2
    assert words in answer.document["error"]["detail"]
