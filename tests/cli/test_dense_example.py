"""The example in Keras: exported, proven, published, and a network too small to gain is told so."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from jettison.sources.doors import load_keras

ABSENT = [name for name in ("torch", "keras") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.torch,
    pytest.mark.keras,
    pytest.mark.slow,
    pytest.mark.skipif(bool(ABSENT), reason=f"not installed: {', '.join(ABSENT)}"),
]

EXAMPLE = Path(__file__).parents[2] / "examples" / "quantize_dense"
FILES = ("dense.keras", "calibration.npz", "evaluation.npz", "recipe.yaml")


@pytest.fixture
def folder(tmp_path):
    for name in FILES:
        shutil.copy(EXAMPLE / name, tmp_path)
    return tmp_path


def test_files_of_the_example_are_small():
    assert sum((EXAMPLE / name).stat().st_size for name in FILES) < 200_000


def test_the_small_network_is_as_right_in_integers_and_no_smaller(jettison, folder):
    answer = jettison("run", folder / "recipe.yaml", "--json")
    document = answer.document
    assert answer.code == 1, "the evidence says no"
    assert document["chosen"] == "baseline"
    baseline = onnx.load(document["baseline"]["path"])
    assert [value.name for value in (*baseline.graph.input, *baseline.graph.output)] == [
        "features",
        "probability",
    ]
    assert document["baseline"]["score"] > -0.1, "it is trained: the probability is near the label"
    for variant in document["variants"]:
        assert variant["score_delta_low"] > -0.01
        assert variant["size_bytes"] > document["baseline"]["size_bytes"]
    assert [found["model"] for found in document["published"]] == ["dense-fp32"]


def test_a_wider_network_gets_smaller_and_is_published(jettison, folder, monkeypatch):
    load_keras()
    spec = importlib.util.spec_from_file_location("dense_example", EXAMPLE / "train.py")
    train = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(train)
    monkeypatch.setattr(train, "EPOCHS", 1)
    given = {name: (EXAMPLE / name).read_bytes() for name in FILES}
    folder = folder / "new"
    assert train.make(folder, hidden=400) > 0.7, "a constant answer is right in half of the samples"
    assert {name: (EXAMPLE / name).read_bytes() for name in FILES} == given, "what git holds stays as it is"
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("min_speedup: 0.5", "min_speedup: 0.01"))
    answer = jettison("run", recipe, "--json")
    assert answer.code == 0, answer.err
    chosen = answer.document["chosen"]
    assert chosen in ("int8", "dynamic")
    assert [found["model"] for found in answer.document["published"]] == ["dense-fp32", f"dense-{chosen}"]
    sizes = {variant["name"]: variant["size_bytes"] for variant in answer.document["variants"]}
    assert sizes[chosen] < 0.6 * answer.document["baseline"]["size_bytes"]


def test_files_go_where_git_looks_at_nothing(monkeypatch):
    spec = importlib.util.spec_from_file_location("dense_example", EXAMPLE / "train.py")
    train = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(train)
    written = []
    monkeypatch.setattr(train, "make", lambda folder, hidden: written.append((folder, hidden)) or 1.0)
    monkeypatch.setattr("sys.argv", ["train.py", "--hidden", "30"])
    train.main()
    assert written == [(EXAMPLE / ".data", 30)]


def test_data_follow_the_seed():
    spec = importlib.util.spec_from_file_location("dense_example", EXAMPLE / "train.py")
    train = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(train)
    (first, labels), (again, _) = (train.draw(500, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first, again)
    assert first.shape == (500, 20)
    assert 0.35 < labels.mean() < 0.65, "both classes are there"
