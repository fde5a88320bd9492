"""Torch modules become ONNX that answers alike, or are refused in words that help."""

from __future__ import annotations

import re

import numpy as np
import pytest
from exporting import exported

from jettison.core.errors import ModelError, SamplesError
from jettison.sources.source import Source

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch


def floats(*shape):
    return np.random.default_rng(5).standard_normal(shape).astype(np.float32)


def tokens(length):
    return {
        "ids": np.random.default_rng(6).integers(0, 50, (3, length)),
        "mask": np.array([[1] * length, [1] * (length - 1) + [0], [1] * length]),
    }


def net(name, **keys):
    return Source.model_validate({"torch": f"source_nets:{name}", **keys})


def refusal(folder, source, arrays, kind=ModelError):
    with pytest.raises(kind) as caught:
        exported(source, folder, arrays)
    return str(caught.value)


def test_cnn_uses_its_statistics_and_takes_any_batch(tmp_path):
    found = exported(net("cnn"), tmp_path, {"image": floats(4, 3, 8, 8)})
    assert found.inputs == [("image", ["batch", 3, 8, 8])]
    assert found.outputs == [("output", ["batch", 5])]
    assert found.sizes == [(3, 3, 8, 8), (1, 3, 8, 8)]
    operators = [node.op_type for node in found.model.graph.node]
    assert "BatchNormalization" not in operators, "it is folded, so its running statistics were used"
    assert found.model.opset_import[0].version >= 19
    assert found.model.ir_version == 10


def test_inputs_are_bound_by_the_arguments_of_forward(tmp_path):
    arrays = {"right": floats(3, 3), "left": floats(3, 4)}
    found = exported(net("TwoInputs"), tmp_path, arrays)
    assert found.inputs == [("left", ["batch", 4]), ("right", ["batch", 3])]
    more = exported(net("TwoInputs"), tmp_path, arrays | {"scale": floats(3, 1)})
    assert [name for name, _ in more.inputs] == ["left", "right", "scale"]


def test_transformer_block_takes_any_length_that_samples_show(tmp_path):
    found = exported(net("Block"), tmp_path, tokens(7), tokens(5))
    assert found.inputs == [("ids", ["batch", "ids_dim1"]), ("mask", ["batch", "ids_dim1"])]
    assert found.sizes == [(3, 7), (1, 7), (3, 5), (1, 5)]


def test_named_axes_stay_open_where_all_samples_are_of_one_length(tmp_path):
    names = {"ids": {1: "length"}, "mask": {1: "length"}}
    found = exported(net("Block", dynamic=names, outputs=["pooled"]), tmp_path, tokens(8))
    assert found.inputs == [("ids", ["batch", "length"]), ("mask", ["batch", "length"])]
    assert found.outputs == [("pooled", ["batch", 16])]
    assert found.sizes[-1] == (1, 4), "half of the length was tried too"


def test_without_a_name_an_axis_of_one_size_is_fixed(tmp_path):
    assert exported(net("Block"), tmp_path, tokens(7)).inputs[0] == ("ids", ["batch", 7])


def test_outputs_are_named_by_keys_and_places_and_never_like_an_input(tmp_path):
    found = exported(net("ManyOutputs"), tmp_path, {"x": floats(3, 4)})
    assert [name for name, _ in found.outputs] == ["logits", "pair_0", "pair_1", "x_output", "again"]


@pytest.mark.skipif(torch.__version__ < "2.9", reason="torch 2.8 and older cannot write such a model")
def test_none_among_the_outputs_is_left_out(tmp_path):
    found = exported(net("NothingBesides"), tmp_path, {"x": floats(3, 4)})
    assert found.outputs == [("logits", ["batch", 4])]


def test_a_parameter_may_be_called_like_an_output(tmp_path):
    assert exported(net("ParameterNamedOutput"), tmp_path, {"x": floats(3, 4)}).outputs == [
        ("output", ["batch", 4])
    ]


def test_nothing_in_the_file_tells_where_it_was_made(tmp_path):
    """Neither a path of a file nor a line of code, which torch's exporter writes beside every node."""
    model = exported(net("Block"), tmp_path, tokens(7)).model
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")  # numbers, in which any byte may stand
    content = model.SerializeToString()
    assert re.search(rb"(?<!\w)/\w", content) is None, "an absolute path"
    for word in (".py", "site-packages", "pkg.torch", "stack_trace", "namespace", "source_nets"):
        assert word.encode() not in content, word


def test_a_module_itself_may_be_named(tmp_path):
    assert exported(net("A_MODULE"), tmp_path, {"image": floats(2, 3, 8, 8)}).inputs[0][0] == "image"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("absent", "module 'source_nets' has no attribute 'absent'"),
        ("number", "a function that gives a torch.nn.Module in Python, found one that gives a int"),
        ("failing", "the function failed with KeyError: 'no such weights' (source_nets.py, line"),
        ("leaving", "the function failed with SystemExit: 7"),
        ("Unnamed", "expected a forward whose arguments have names, found forward(*inputs)"),
        ("NoTensor", "expected tensors from its forward, found int. Return tensors"),
        ("NeedsFive", "it fails on samples of x float32 3x4 with RuntimeError: mat1 and mat2 shapes"),
    ],
)
def test_wrong_functions_and_modules_are_told(tmp_path, name, words):
    assert words in refusal(tmp_path, net(name), {"x": floats(3, 4)})


def test_a_module_that_is_not_there_is_told(tmp_path):
    source = Source(torch="no_such_package.net:make")
    assert "No module named 'no_such_package'" in refusal(tmp_path, source, {"x": floats(3, 4)})


@pytest.mark.parametrize("arrays", [{"left": floats(3, 4)}, {"left": floats(3, 4), "up": floats(3, 3)}])
def test_arrays_that_are_no_arguments_are_told(tmp_path, arrays):
    words = refusal(tmp_path, net("TwoInputs"), arrays, SamplesError)
    assert "expected arrays ['left', 'right', 'scale'], the arguments of the forward" in words
    assert f"['left', 'right'] are needed, found {sorted(arrays)}" in words


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("Branch", (3, 4), "branches or takes sizes by values of tensors at source_nets.py, line"),
        ("LoopOverBatch", (3, 4), "the batch cannot stay open: its forward fixes axis 0 of 'x' at 3"),
        ("NoOperator", (3, 4, 4), "no ONNX for the operator aten.linalg_eig"),
        ("Counting", (3, 4), "it gives different answers to equal inputs: output 'output' differs by"),
        ("OtherInExport", (3, 4), "answers otherwise than the source on x 3x4: output 'output' differs by"),
    ],
)
def test_what_cannot_be_exported_rightly_is_refused(tmp_path, name, shape, words):
    assert words in refusal(tmp_path, net(name), {"x": floats(*shape)})


def test_a_loop_over_an_open_axis_is_refused_by_name(tmp_path):
    source = net("LoopOverLength", dynamic={"x": {1: "length"}})
    words = refusal(tmp_path, source, {"x": floats(3, 6, 2)})
    assert "axis 1 of 'x' cannot stay open: its forward fixes it at 6" in words
    assert exported(net("LoopOverLength"), tmp_path, {"x": floats(3, 6, 2)}).inputs == [
        ("x", ["batch", 6, 2])
    ]


def test_output_names_have_to_fit_in_number(tmp_path):
    words = refusal(tmp_path, net("cnn", outputs=["a", "b"]), {"image": floats(2, 3, 8, 8)})
    assert "expected a name for each of its 1 outputs" in words
    assert "found a, b" in words


def test_answers_that_numpy_does_not_know_are_refused_with_the_way_out(tmp_path):
    words = refusal(tmp_path, net("Half"), {"x": floats(3, 4)})
    assert words == (
        "model source_nets:Half, output 'output': expected an element type that numpy knows, found bfloat16. "
        "Return float32: .float() at the end of its forward"
    )


def test_a_made_up_size_is_one_that_the_module_takes(tmp_path):
    source = net("Pyramid", dynamic={"image": {2: "height", 3: "width"}})
    found = exported(source, tmp_path, {"image": floats(2, 1, 48, 48)})
    assert found.sizes == [(3, 1, 48, 48), (1, 1, 48, 48), (3, 1, 32, 32), (1, 1, 32, 32)]
    told = "of 'image' holds for sizes from 16 on: traced, smaller ones go another way in its forward"
    assert found.notes == (f"axis 2 {told}", f"axis 3 {told}")


def test_a_made_up_size_is_not_blamed_on_the_samples(tmp_path):
    words = refusal(tmp_path, net("Picky", dynamic={"x": {1: "length"}}), {"x": floats(3, 8)})
    assert "it fails on samples of x float32 3x4 with ValueError: expected a length of 8" in words
    assert "No sample has that size: it was made up" in words
    assert "Give samples of two sizes that its forward takes" in words
