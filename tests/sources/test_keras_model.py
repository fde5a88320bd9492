"""Keras 3 models on torch: exported as they are laid out, or refused."""

from __future__ import annotations

import numpy as np
import pytest
from exporting import exported

from jettison.core.errors import ModelError, SamplesError
from jettison.sources.source import Source

pytest.importorskip("torch")
pytest.importorskip("keras")
pytestmark = [pytest.mark.torch, pytest.mark.keras]

import keras_nets as nets  # noqa: E402


def floats(*shape):
    return np.random.default_rng(5).standard_normal(shape).astype(np.float32)


def saved(model, folder, **keys):
    model.save(folder / "net.keras")
    return Source(keras=folder / "net.keras", **keys)


def refusal(folder, source, *batches, kind=ModelError):
    with pytest.raises(kind) as caught:
        exported(source, folder, *batches)
    return str(caught.value)


def test_dense_model_keeps_the_names_of_its_layers(tmp_path):
    found = exported(saved(nets.dense(), tmp_path), tmp_path, {"features": floats(4, 20)})
    assert found.inputs == [("features", ["batch", 20])]
    assert found.outputs == [("probability", ["batch", 1])]
    assert found.sizes == [(3, 20), (1, 20)]
    content = found.path.read_bytes()
    assert b"site-packages" not in content
    assert b"keras/src" not in content


def test_images_stay_channels_last_and_layers_infer(tmp_path):
    found = exported(saved(nets.image_net(), tmp_path), tmp_path, {"image": floats(3, 8, 10, 3)})
    assert found.inputs == [("image", ["batch", 8, 10, 3])]
    assert not {"Dropout", "BatchNormalization"} & {node.op_type for node in found.model.graph.node}


def test_inputs_and_outputs_of_a_functional_model_go_by_name(tmp_path):
    arrays = {"right": floats(3, 3), "left": floats(3, 4)}
    found = exported(saved(nets.two_inputs(), tmp_path), tmp_path, arrays)
    assert [name for name, _ in found.inputs] == ["left", "right"]
    assert {name for name, _ in found.outputs} == {"sum", "gate"}
    words = refusal(tmp_path, saved(nets.two_inputs(), tmp_path), {"left": floats(3, 4)}, kind=SamplesError)
    assert "expected arrays ['left', 'right'], the inputs of model" in words


def test_attention_takes_any_length_that_samples_show(tmp_path):
    batches = [{"ids": np.arange(3 * length, dtype=np.int32).reshape(3, length) % 50} for length in (7, 4)]
    found = exported(saved(nets.attention(), tmp_path), tmp_path, *batches)
    assert found.inputs == [("ids", ["batch", "ids_dim1"])]
    assert found.sizes == [(3, 7), (1, 7), (3, 4), (1, 4)]
    assert found.notes == ()


def test_recurrent_layers_are_right_for_one_length_and_refused_for_several(tmp_path):
    """Keras loops over the length while torch traces, so that a graph holds one length."""
    source = saved(nets.recurrent(), tmp_path)
    (tmp_path / "one").mkdir()
    found = exported(source, tmp_path / "one", {"x": floats(3, 7, 4)})
    assert found.inputs == [("x", ["batch", 7, 4])]
    assert found.notes[0].startswith(
        "axis 1 of 'x', open in the source, is fixed at 7, its size in all samples"
    )
    words = refusal(tmp_path, source, {"x": floats(3, 7, 4)}, {"x": floats(3, 5, 4)})
    assert "axis 1 of 'x' cannot stay open: its forward fixes it at 7, as a loop over it does" in words


def test_code_in_a_file_is_refused(tmp_path):
    words = refusal(tmp_path, saved(nets.with_lambda(), tmp_path), {"x": floats(3, 4)})
    assert "it holds code (a Lambda layer), which is never loaded from a file" in words


def test_layers_of_the_user_come_from_a_function_and_not_from_a_file(tmp_path, monkeypatch):
    import keras

    source = saved(nets.with_own_layer(), tmp_path)
    monkeypatch.setattr(keras.saving, "get_custom_objects", dict)
    monkeypatch.delitem(keras.src.saving.object_registration.GLOBAL_CUSTOM_OBJECTS, "tests>Doubled")
    words = refusal(tmp_path, source, {"x": floats(3, 4)})
    assert "expected layers of Keras itself, found the class 'Doubled'" in words
    found = exported(Source(torch="keras_nets:with_own_layer"), tmp_path, {"x": floats(3, 4)})
    assert found.inputs == [("x", ["batch", 4])]


def test_a_model_without_known_inputs_is_told(tmp_path):
    words = refusal(tmp_path, Source(torch="keras_nets:subclassed"), {"x": floats(3, 4)})
    assert "expected a Sequential or functional model with known inputs, found a Net without" in words


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "there is no such file"), (b"hdf5 or so", "expected a zip archive of Keras 3, found none")],
)
def test_what_is_no_keras_file_is_told(tmp_path, content, words):
    path = tmp_path / "net.keras"
    if content is not None:
        path.write_bytes(content)
    assert words in refusal(tmp_path, Source(keras=path), {"x": floats(3, 4)})
