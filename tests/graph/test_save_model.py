"""Saving: whole or not there, the same bytes each time, nothing of the exporter's machine inside."""

import errno
import os

import numpy as np
import onnx
import pytest

from jettison.core.errors import ModelError
from jettison.graph.clean import clean
from jettison.graph.model import model_files, open_model
from jettison.graph.save import model_bytes, save_model, weight_bytes
from zoo.session import relative_difference, run
from zoo.table import ZOO


def opened(folder, name):
    path = folder / f"{name}.onnx"
    path.write_bytes(ZOO[name].build().SerializeToString())
    return open_model(path)


@pytest.fixture
def chain(tmp_path):
    (tmp_path / "source").mkdir()
    return opened(tmp_path / "source", "conv_relu_chain")


@pytest.mark.parametrize("name", sorted(set(ZOO) - {"negative_dimensions"}))
def test_saved_model_computes_the_same(name, tmp_path):
    model = opened(tmp_path, name)
    out = tmp_path / "out.onnx"
    save_model(model, out)
    inputs = ZOO[name].inputs()
    reference = run(ZOO[name].build().SerializeToString(), inputs)
    assert relative_difference(reference, run(out.read_bytes(), inputs)) == 0
    assert onnx.load(out).ir_version == 10


def test_opset_that_needs_a_newer_ir_keeps_it(chain, tmp_path):
    newer = clean(chain, opset=23)
    save_model(newer, tmp_path / "out.onnx")
    assert onnx.load(tmp_path / "out.onnx").ir_version == 11


def test_same_model_gives_the_same_bytes(chain, tmp_path):
    for name in ("a.onnx", "b.onnx"):
        save_model(chain, tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes() == model_bytes(chain)
    save_model(open_model(tmp_path / "a.onnx"), tmp_path / "c.onnx")
    assert (tmp_path / "c.onnx").read_bytes() == (tmp_path / "a.onnx").read_bytes()


def test_source_paths_and_doc_strings_are_left_out(tmp_path):
    proto = ZOO["if_on_data"].build()
    source = "/home/someone/model.py"
    proto.doc_string = proto.graph.doc_string = source
    onnx.helper.set_model_props(proto, {"pkg.torch.export": source, "labels": "cat,dog"})
    branches = [a.g for node in proto.graph.node for a in node.attribute if a.HasField("g")]
    for part in (*proto.graph.node, *(node for graph in branches for node in graph.node)):
        part.doc_string = source
        part.metadata_props.add(key="pkg.torch.onnx.stack_trace", value=source)
    for part in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer, *branches):
        part.doc_string = source
    (tmp_path / "in.onnx").write_bytes(proto.SerializeToString())
    save_model(open_model(tmp_path / "in.onnx"), tmp_path / "out.onnx")
    assert source.encode() not in (tmp_path / "out.onnx").read_bytes()
    kept = onnx.load(tmp_path / "out.onnx").metadata_props
    assert [(entry.key, entry.value) for entry in kept] == [("labels", "cat,dog")]


def test_weights_beyond_the_limit_go_to_a_file_beside(chain, tmp_path):
    out = tmp_path / "big.onnx"
    save_model(chain, out, limit_bytes=4096)
    assert [file.name for file in model_files(out)] == ["big.onnx", "big.onnx.data"]
    assert out.stat().st_size < 4096
    inputs = ZOO["conv_relu_chain"].inputs()
    again = open_model(out)
    assert relative_difference(run(model_bytes(chain), inputs), run(model_bytes(again), inputs)) == 0


def test_saving_outside_leaves_the_model_as_it_was(chain, tmp_path):
    before = model_bytes(chain)
    save_model(chain, tmp_path / "big.onnx", limit_bytes=4096)
    assert model_bytes(chain) == before


def test_model_may_be_saved_over_the_files_it_was_opened_from(chain, tmp_path):
    out = tmp_path / "big.onnx"
    save_model(chain, out, limit_bytes=4096)
    first = {file.name: file.read_bytes() for file in model_files(out)}
    save_model(open_model(out), out, limit_bytes=4096)
    assert {file.name: file.read_bytes() for file in model_files(out)} == first


def test_weights_at_the_limit_stay_inside(chain, tmp_path):
    save_model(chain, tmp_path / "out.onnx", limit_bytes=2 * weight_bytes(chain))
    assert model_files(tmp_path / "out.onnx") == (tmp_path / "out.onnx",)


@pytest.mark.parametrize("limit_bytes", [4096, 1 << 30])
def test_failing_disk_leaves_the_old_file_and_no_litter(limit_bytes, chain, tmp_path, monkeypatch):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"old")

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_model(chain, folder / "model.onnx", limit_bytes=limit_bytes)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {"model.onnx": b"old"}


def test_model_that_the_checker_refuses_is_not_written(chain, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    chain.graph.node(0).op_type = "NoSuchOperator"
    with pytest.raises(ModelError, match="ONNX's checker refuses it: No Op registered for NoSuchOperator"):
        save_model(chain, folder / "model.onnx")
    assert list(folder.iterdir()) == []


def test_file_is_readable_by_a_server_of_another_user(chain, tmp_path):
    save_model(chain, tmp_path / "out.onnx", limit_bytes=4096)
    modes = {file.stat().st_mode & 0o777 for file in model_files(tmp_path / "out.onnx")}
    assert modes == {0o644}


def test_bytes_of_a_model_beyond_one_message_are_refused(chain):
    with pytest.raises(ModelError, match=r"bytes of weights do not fit one message of 1000 bytes\. Save it"):
        model_bytes(chain, limit_bytes=1000)


def test_small_types_survive_external_data(tmp_path):
    array = np.arange(-8, 8, dtype=np.int8).reshape(4, 4)
    tensor = onnx.helper.make_tensor("q", onnx.TensorProto.INT4, [4, 4], array.flatten().tolist())
    scale = onnx.numpy_helper.from_array(np.float32(0.5), "s")
    node = onnx.helper.make_node("DequantizeLinear", ["q", "s"], ["y"], name="dequantize")
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [4, 4])
    graph = onnx.helper.make_graph([node], "g", [], [output], [tensor, scale])
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    onnx.save_model(proto, tmp_path / "m.onnx", save_as_external_data=True, location="w", size_threshold=0)
    model = open_model(tmp_path / "m.onnx")
    np.testing.assert_array_equal(model.graph.initializers["q"].const_value.numpy().astype(np.int8), array)
