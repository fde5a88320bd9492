"""The examples that train, in a small form: real images, few of them, the committed recipes and functions."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.torch, pytest.mark.slow]

EXAMPLES = Path(__file__).parents[2] / "examples"
COUNT = 300


@pytest.fixture
def images():
    """Real images of ten classes, some to learn from and some to judge by."""
    with np.load(EXAMPLES / "fashion" / "evaluation.npz") as stored:
        image, labels = stored["image"], stored["labels"]
    return (image[:COUNT], labels[:COUNT]), (image[COUNT : 2 * COUNT], labels[COUNT : 2 * COUNT])


@pytest.fixture
def example(tmp_path, monkeypatch):
    """Copies an example, makes its modules importable, and gives its recipe with few epochs."""
    own = {"mnist", "network", "networks", "train"}

    def copied(name, epochs=1, leave_out=()):
        folder = tmp_path / name
        shutil.copytree(
            EXAMPLES / name, folder, ignore=shutil.ignore_patterns(".data", "runs", "__pycache__")
        )
        (folder / ".data").mkdir()
        monkeypatch.syspath_prepend(str(folder))
        document = yaml.safe_load((folder / "recipe.yaml").read_text())
        document["variants"] = [each for each in document["variants"] if each["name"] not in leave_out]
        for variant in document["variants"]:
            for step in variant["passes"]:
                if "epochs" in step:
                    step["epochs"] = epochs
        document["explain"] = False
        document["gate"] = {"tolerance": 1.0, "min_speedup": 0.01}
        (folder / "recipe.yaml").write_text(yaml.safe_dump(document))
        return folder, importlib.import_module("train")

    yield copied
    for name in own & sys.modules.keys():
        del sys.modules[name]


def test_a_cnn_is_trained_pruned_and_published(jettison, example, images):
    folder, train = example("prune_cnn", epochs=10)
    assert train.make(folder / ".data", *images, epochs=4) > 0.4
    document = jettison("run", folder / "recipe.yaml", "--json").document
    cut, tuned, integers = document["variants"]
    assert tuned["score"] > cut["score"], "the weights that stayed make up for those that went"
    for variant in (cut, tuned):
        assert variant["compressed_bytes"] < 0.3 * variant["size_bytes"]
    assert integers["size_bytes"] < 0.4 * document["baseline"]["size_bytes"]
    assert document["published"][0]["model"] == "mnist-fp32"


def test_a_student_of_two_convolutions_learns_from_a_vgg_and_is_published(jettison, example, images):
    folder, train = example("distill_vgg", leave_out=["student-int8"])
    train.make(folder / ".data", *images, epochs=1)
    answer = jettison("run", folder / "recipe.yaml", "--json")
    document = answer.document
    assert answer.code == 0, answer.out
    sizes = {variant["name"]: variant["size_bytes"] for variant in document["variants"]}
    assert sizes["student"] < 0.1 * document["baseline"]["size_bytes"]
    assert sizes["half"] < 0.4 * document["baseline"]["size_bytes"]
    assert all(
        "learned from the model before all passes" in " ".join(v["notes"]) for v in document["variants"]
    )
    chosen = document["chosen"]
    assert [found["model"] for found in document["published"]] == ["vgg-fp32", f"vgg-{chosen}"]


def test_networks_have_the_sizes_that_their_texts_tell(example):
    for name, module, sizes in (
        ("prune_cnn", "network", {"make": 34_826}),
        ("distill_vgg", "networks", {"teacher": 940_410, "student": 20_490}),
    ):
        example(name)
        found = importlib.import_module(module)
        for function, count in sizes.items():
            assert sum(value.numel() for value in getattr(found, function)().parameters()) == count
        sys.modules.pop("train", None)
