"""The four forms of a model, as keys of a recipe and as one word of a command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from jettison.core.errors import ModelError
from jettison.sources.source import Source, source_from


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"path": "m.onnx"}, "path"),
        ({"torch": "package.module:make", "state": "weights.pt"}, "torch"),
        ({"exported": "m.pt2", "outputs": ["logits"]}, "exported"),
        ({"keras": "m.keras", "dynamic": {"ids": {1: "length"}}}, "keras"),
    ],
)
def test_a_model_is_in_one_form(given, kind):
    assert Source.model_validate(given).kind == kind


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "expected exactly one of path, torch, exported, keras, found none. Add the one"),
        ({"path": "m", "torch": "m:f"}, "found path and torch. Keep the one that names the model"),
        ({"torch": "network.py"}, "expected package.module:function, found 'network.py'"),
        ({"keras": "m", "state": "s"}, "state has no effect with keras. Leave it out: it belongs to torch"),
        ({"exported": "m", "dynamic": {"x": {1: "n"}}}, "dynamic has no effect with exported"),
        ({"path": "m", "outputs": ["y"]}, "outputs has no effect with path"),
        ({"torch": "m:f", "dynamic": {"x": {0: "n"}}}, "greater than or equal to 1"),
    ],
)
def test_what_is_no_model_is_refused_in_words(given, words):
    with pytest.raises(ValidationError, match=words.replace(".", r"\.").replace("(", r"\(")):
        Source.model_validate(given)


@pytest.mark.parametrize(
    ("word", "kind", "stem"),
    [
        ("models/net.onnx", "path", "net"),
        ("net", "path", "net"),
        ("net.pt2", "exported", "net"),
        ("net.keras", "keras", "net"),
        ("package.vision:make", "torch", "vision-make"),
    ],
)
def test_one_word_names_a_model_by_its_form(word, kind, stem):
    source = source_from(word)
    assert (source.kind, source.stem, str(source)) == (kind, stem, word)


def test_a_state_dict_belongs_to_a_function():
    assert source_from("a.b:make", state=Path("w.pt")).state == Path("w.pt")
    with pytest.raises(
        ModelError, match=r"expected package.module:function beside a state dict, found a file"
    ):
        source_from("net.onnx", state=Path("w.pt"))


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.safetensors"])
def test_weights_alone_are_no_model(name):
    with pytest.raises(ModelError, match=r"found a file of weights. Give the function .* with --state"):
        source_from(name)


def test_old_keras_files_are_refused():
    with pytest.raises(ModelError, match=r"an HDF5 file, from which Keras loads code unasked. Load it with"):
        source_from("net.h5")


def test_paths_are_taken_from_a_folder():
    source = Source.model_validate({"torch": "m:f", "state": "w.pt"})
    assert source.located(Path("/recipes")) == {"state": Path("/recipes/w.pt")}
