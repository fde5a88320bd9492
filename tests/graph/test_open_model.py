"""Opening: what is no model, or reaches outside its folder, is refused with a text that helps."""

import contextlib
import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from jettison.core.errors import ModelError
from jettison.graph.clean import clean
from jettison.graph.model import (
    input_specs,
    model_digest,
    model_files,
    model_size_bytes,
    open_model,
    opset_of,
    output_specs,
)
from zoo.table import ZOO

CHAIN = ZOO["conv_relu_chain"]


def write(folder, proto, name="model.onnx"):
    path = folder / name
    path.write_bytes(proto.SerializeToString())
    return path


def write_external(folder, proto=None, location="weights.bin"):
    path = folder / "model.onnx"
    onnx.save_model(
        proto or CHAIN.build(), path, save_as_external_data=True, location=location, size_threshold=0
    )
    return path


def point_to(path, location, **entries):
    """Rewrite where every external tensor of the file points to."""
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
            elif entry.key in entries:
                entry.value = entries[entry.key]
    path.write_bytes(proto.SerializeToString())


def refusal(path):
    with pytest.raises(ModelError) as caught:
        open_model(path)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 2
    return caught.value


@pytest.mark.parametrize("name", ZOO)
def test_every_zoo_model_opens_with_its_inputs_and_outputs(name, tmp_path):
    proto = ZOO[name].build()
    model = open_model(write(tmp_path, proto))
    assert [spec.name for spec in input_specs(model)] == list(ZOO[name].inputs())
    assert [spec.name for spec in output_specs(model)] == [value.name for value in proto.graph.output]
    assert opset_of(model) == proto.opset_import[0].version


def test_missing_file_and_folder_are_named(tmp_path):
    assert "found no such file" in str(refusal(tmp_path / "none.onnx"))
    assert "found a folder" in str(refusal(tmp_path))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "found an empty file"),
        (b"hello, this is a text file\n" * 20, "it is no ONNX file"),
        (np.random.default_rng(0).bytes(4096), "it is no ONNX file"),
        (onnx.ModelProto(ir_version=8, producer_name="x").SerializeToString(), "a message without a graph"),
    ],
)
def test_what_is_no_onnx_file_is_refused(content, text, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert text in str(refusal(path))


def test_truncated_file_is_refused(tmp_path):
    path = write(tmp_path, CHAIN.build())
    path.write_bytes(path.read_bytes()[:-700])
    assert "truncated" in str(refusal(path))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 1), flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8))
def test_damaged_file_opens_or_is_refused_but_never_crashes(cut, flips, tmp_path):
    content = bytearray(ZOO["if_on_data"].build().SerializeToString())
    for place, byte in flips:
        content[int(place * (len(content) - 1))] = byte
    path = tmp_path / "damaged.onnx"
    path.write_bytes(bytes(content[: int(cut * len(content))]))
    with contextlib.suppress(ModelError):
        output_specs(open_model(path))


def test_old_opset_is_refused_with_both_numbers(tmp_path):
    proto = CHAIN.build()
    proto.opset_import[0].version = 8
    error = refusal(write(tmp_path, proto))
    assert "found opset 8, expected 9 or newer" in error.detail
    assert "onnx.version_converter" in error.fix


def test_unknown_future_opset_is_refused(tmp_path):
    proto = CHAIN.build()
    proto.opset_import[0].version = 99
    error = refusal(write(tmp_path, proto))
    assert "found opset 99" in error.detail
    assert "pip install -U onnx" in error.fix


def test_file_without_opset_is_refused(tmp_path):
    proto = CHAIN.build()
    del proto.opset_import[:]
    assert "found no opset of the default domain" in str(refusal(write(tmp_path, proto)))


def test_default_domain_may_be_written_out(tmp_path):
    proto = CHAIN.build()
    proto.opset_import[0].domain = "ai.onnx"
    model = open_model(write(tmp_path, proto))
    assert opset_of(model) == 17
    assert opset_of(clean(model)) == 19


def test_model_without_outputs_is_refused(tmp_path):
    proto = CHAIN.build()
    del proto.graph.output[:]
    assert "expected at least one output, found none" in str(refusal(write(tmp_path, proto)))


def test_output_that_nothing_produces_is_refused(tmp_path):
    proto = CHAIN.build()
    proto.graph.output[0].name = "nowhere"
    assert "output 'nowhere' is produced by no node" in str(refusal(write(tmp_path, proto)))


def test_output_of_a_branch_that_nothing_produces_is_refused(tmp_path):
    proto = ZOO["if_on_data"].build()
    branch = next(node for node in proto.graph.node if node.op_type == "If").attribute[0].g
    branch.output[0].name = "nowhere"
    assert "output 'nowhere' is produced by no node" in str(refusal(write(tmp_path, proto)))


def test_node_input_that_nothing_produces_is_refused(tmp_path):
    proto = CHAIN.build()
    proto.graph.node[1].input[0] = "nowhere"
    assert "reads 'nowhere', which nothing produces" in str(refusal(write(tmp_path, proto)))


def test_circle_of_nodes_is_refused(tmp_path):
    proto = CHAIN.build()
    proto.graph.node[0].input[0] = proto.graph.node[1].output[0]
    assert "the graph is broken" in str(refusal(write(tmp_path, proto)))


def test_nodes_out_of_order_are_sorted(tmp_path):
    proto = CHAIN.build()
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(reversed(nodes))
    model = open_model(write(tmp_path, proto))
    assert [node.name for node in model.graph] == [node.name for node in nodes]


def test_name_that_is_no_text_is_refused(tmp_path):
    path = write(tmp_path, CHAIN.build())
    path.write_bytes(path.read_bytes().replace(b"GlobalAveragePool", b"GlobalAverage\xff\xfe\xfd\xfc"))
    assert "is no UTF-8" in refusal(path).detail


def test_weight_with_too_few_bytes_is_refused(tmp_path):
    proto = CHAIN.build()
    proto.graph.initializer[0].dims[0] = 10**9
    assert "does not hold as many values" in str(refusal(write(tmp_path, proto)))


def test_negative_size_of_a_weight_is_refused(tmp_path):
    proto = CHAIN.build()
    proto.graph.initializer[0].dims[0] = -16
    assert "has the shape [-16" in str(refusal(write(tmp_path, proto)))


def test_dynamic_dimensions_are_told_apart_from_fixed_ones(tmp_path):
    for name, shape in (
        ("conv_relu_chain", ("batch", 8, 16, 16)),
        ("unnamed_dimensions", (None, 16, None, None)),
        ("negative_dimensions", (None, 16, None, None)),
        ("fixed_batch", (2, 16, 16, 16)),
    ):
        model = open_model(write(tmp_path, ZOO[name].build()))
        assert input_specs(model)[0].shape == shape


def test_initializers_are_no_inputs_even_where_the_file_lists_them(tmp_path):
    model = open_model(write(tmp_path, ZOO["initializers_as_inputs"].build()))
    assert [spec.name for spec in input_specs(model)] == ["image"]


def test_output_without_a_declared_shape_gets_the_inferred_one(tmp_path):
    proto = CHAIN.build()
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    assert output_specs(open_model(write(tmp_path, proto)))[0].shape == ("batch", 16)


def test_input_that_is_no_tensor_is_refused(tmp_path):
    value = helper.make_tensor_sequence_value_info("items", TensorProto.FLOAT, None)
    output = helper.make_tensor_value_info("joined", TensorProto.FLOAT, None)
    node = helper.make_node("ConcatFromSequence", ["items"], ["joined"], axis=0)
    graph = helper.make_graph([node], "sequence", [value], [output])
    model = open_model(write(tmp_path, helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])))
    with pytest.raises(ModelError, match=r"input 'items': expected a tensor, found SequenceType\. Export"):
        input_specs(model)
    with pytest.raises(ModelError, match=r"output 'joined': its number of dimensions is not known"):
        output_specs(model)


def test_complex_input_is_refused_with_the_types_that_work(tmp_path):
    value, output = (helper.make_tensor_value_info(name, TensorProto.COMPLEX64, [2]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "complex", [value], [output])
    model = open_model(write(tmp_path, helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])))
    with pytest.raises(ModelError, match=r"element type COMPLEX64 is not supported.*float32"):
        input_specs(model)


def test_external_weights_read_like_weights_inside(tmp_path):
    inside = open_model(write(tmp_path, CHAIN.build(), "inside.onnx"))
    outside = open_model(write_external(tmp_path))
    assert list(inside.graph.initializers) == list(outside.graph.initializers)
    for name, value in inside.graph.initializers.items():
        other = outside.graph.initializers[name].const_value
        assert not isinstance(other, ir.ExternalTensor)
        np.testing.assert_array_equal(value.const_value.numpy(), other.numpy())


def test_external_tensor_in_an_attribute_is_read(tmp_path):
    proto = ZOO["indirect_weights"].build()
    onnx.save_model(
        proto,
        tmp_path / "model.onnx",
        save_as_external_data=True,
        location="w.bin",
        size_threshold=0,
        convert_attribute=True,
    )
    model = open_model(tmp_path / "model.onnx")
    constant = next(node for node in model.graph if node.op_type == "Constant")
    expected = onnx.numpy_helper.to_array(ZOO["indirect_weights"].build().graph.node[0].attribute[0].t)
    np.testing.assert_array_equal(constant.attributes["value"].as_tensor().numpy(), expected)


def test_missing_external_data_is_named(tmp_path):
    path = write_external(tmp_path)
    (tmp_path / "weights.bin").unlink()
    error = refusal(path)
    assert "external data file 'weights.bin'" in error.detail
    assert "is missing" in error.detail
    assert "beside the model" in error.fix


def test_truncated_external_data_is_named_with_its_size(tmp_path):
    path = write_external(tmp_path)
    data = tmp_path / "weights.bin"
    data.write_bytes(data.read_bytes()[:-4])
    error = refusal(path)
    assert f"found a file of {data.stat().st_size} bytes" in error.detail
    assert "is truncated" in error.detail


@pytest.mark.parametrize(
    "location", ["/etc/hostname", "../secret.bin", "sub/../../secret.bin", "C:\\x.bin", "\\x"]
)
def test_external_data_outside_the_folder_is_refused_unread(location, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    path = write_external(folder)
    (tmp_path / "secret.bin").write_bytes(bytes(1 << 20))
    point_to(path, location)
    error = refusal(path)
    assert "expected external data inside the model's folder" in error.detail
    assert repr(location) in error.detail


@pytest.mark.parametrize("link", ["file", "folder"])
def test_link_that_leads_outside_is_refused(link, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    path = write_external(folder)
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    (folder / "weights.bin").rename(outside / "weights.bin")
    if link == "file":
        (folder / "weights.bin").symlink_to(outside / "weights.bin")
    else:
        (folder / "data").symlink_to(outside)
        point_to(path, "data/weights.bin")
    assert "expected external data inside the model's folder" in refusal(path).detail


def test_link_within_the_folder_is_followed(tmp_path):
    path = write_external(tmp_path)
    (tmp_path / "weights.bin").rename(tmp_path / "real.bin")
    (tmp_path / "weights.bin").symlink_to("real.bin")
    assert len(open_model(path).graph.initializers) == 6


def test_hard_linked_data_is_read(tmp_path):
    path = write_external(tmp_path)
    os.link(tmp_path / "weights.bin", tmp_path / "copy.bin")
    assert all(value.const_value.numpy().size for value in open_model(path).graph.initializers.values())


@pytest.mark.parametrize("offset", ["-4", "1e3", "9" * 30, "٣"])
def test_external_offset_that_is_no_whole_number_is_refused(offset, tmp_path):
    path = write_external(tmp_path)
    point_to(path, "weights.bin", offset=offset)
    assert "expected a whole number" in refusal(path).detail


def test_external_tensor_larger_than_its_file_is_refused_before_memory_is_taken(tmp_path):
    path = write_external(tmp_path)
    proto = onnx.load(path, load_external_data=False)
    proto.graph.initializer[0].dims[0] = 10**12
    path.write_bytes(proto.SerializeToString())
    assert "is truncated" in refusal(path).detail


def test_relative_path_finds_external_data(tmp_path, monkeypatch):
    write_external(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert len(open_model(Path("model.onnx")).graph.initializers) == 6


def test_files_and_size_include_external_data(tmp_path):
    path = write_external(tmp_path)
    assert [file.name for file in model_files(path)] == ["model.onnx", "weights.bin"]
    assert model_size_bytes(path) == path.stat().st_size + (tmp_path / "weights.bin").stat().st_size


def test_digest_follows_weights_in_external_data_and_not_the_models_name(tmp_path):
    path = write_external(tmp_path)
    before = model_digest(path)
    assert model_digest(path.rename(tmp_path / "renamed.onnx")) == before
    data = tmp_path / "weights.bin"
    content = bytearray(data.read_bytes())
    content[0] ^= 1
    data.write_bytes(bytes(content))
    assert model_digest(tmp_path / "renamed.onnx") != before
