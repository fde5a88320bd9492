"""Programs of torch.export.save: taken as they are, and refused where torch would run code from them."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile

import numpy as np
import pytest
from exporting import exported

from jettison.core.errors import ModelError, SamplesError
from jettison.sources.archive import check_archive
from jettison.sources.exported_program import open_program
from jettison.sources.source import Source

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

OPEN = torch.export.Dim.DYNAMIC


class Affine(torch.nn.Module):
    """A product, a sum with a buffer, and a size that is computed."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.linspace(-1, 1, 12).reshape(4, 3))
        self.register_buffer("shift", torch.tensor([1.0, 2.0, 3.0]))

    def forward(self, x, scale):
        doubled = torch.cat([x, x], 1).reshape(x.shape[0] * 2, -1)
        return (doubled @ self.weight + self.shift)[: x.shape[0]] * scale


def save(path, *, batch=OPEN, module=None, kwargs=None):
    args = (torch.zeros(2, 4),)
    kwargs = kwargs or {"scale": torch.ones(2, 1)}
    shapes = None if batch is None else {"x": {0: batch}, "scale": {0: batch}}
    program = torch.export.export(
        module or Affine().eval(), args, kwargs, dynamic_shapes=shapes, strict=False
    )
    torch.export.save(program, path)
    return path


def arrays(rows=3):
    x = np.random.default_rng(3).standard_normal((rows, 4)).astype(np.float32)
    return {"x": x, "scale": np.full((rows, 1), 2, np.float32)}


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return save(tmp_path_factory.mktemp("programs") / "affine.pt2")


def test_a_program_goes_through_a_file_with_any_batch(program, tmp_path):
    found = exported(Source(exported=program), tmp_path, arrays())
    assert found.inputs == [("x", ["batch", 4]), ("scale", ["batch", 1])]
    assert [name for name, _ in found.outputs] == ["output"]
    assert found.sizes == [(3, 4), (1, 4)]
    assert found.notes == ()
    twice = np.repeat(arrays()["x"], 2, axis=0)[:3]
    expected = (twice @ Affine().weight.detach().numpy() + [1, 2, 3]) * 2
    assert np.allclose(found.trials[0][1]["output"], expected, atol=1e-5), "float32 resolves 1e-6 of it"


def test_a_fixed_batch_stays_and_is_told(tmp_path):
    found = exported(Source(exported=save(tmp_path / "fixed.pt2", batch=None)), tmp_path, arrays())
    assert found.inputs == [("x", [2, 4]), ("scale", [2, 1])]
    assert found.sizes == [(2, 4)]
    assert found.notes[0].startswith("the exported program takes batches of 2 only; export it with an open")


class Lengths(torch.nn.Module):
    def forward(self, x):
        return x.cumsum(1)[:, 3:]


def test_bounds_of_open_axes_are_kept_to(tmp_path):
    """Cutting samples of eight in half would leave the bounds of the program: that trial is left out."""
    length = torch.export.Dim("length", min=5, max=64)
    shapes = {"x": {0: OPEN, 1: length}}
    kept = torch.export.export(Lengths(), (torch.zeros(2, 8),), dynamic_shapes=shapes, strict=False)
    torch.export.save(kept, tmp_path / "lengths.pt2")
    source = Source(exported=tmp_path / "lengths.pt2")
    found = exported(
        source, tmp_path, {"x": np.ones((2, 8), np.float32)}, {"x": np.ones((2, 12), np.float32)}
    )
    assert found.inputs == [("x", ["batch", "x_dim1"])]
    assert {(3, 8), (3, 12)} <= {*found.sizes}


def test_arrays_that_are_no_inputs_are_told(program, tmp_path):
    with pytest.raises(
        SamplesError, match=r"expected arrays \['scale', 'x'\], the inputs of model .*pt2, found"
    ):
        exported(Source(exported=program), tmp_path, {"x": arrays()["x"]})


class Payload:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def changed(program, path, *, graph=None, blobs=(), added=()):
    """A copy of the program with another graph, other parts, and further ones."""
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as new:
        root = old.namelist()[0].split("/")[0]
        for name in old.namelist():
            content = old.read(name)
            if graph is not None and name.endswith(("models/model.json", "serialized_exported_program.json")):
                document = json.loads(content)
                graph(document)
                content = json.dumps(document).encode()
            for end, change in blobs:
                content = change(content) if name.endswith(end) else content
            new.writestr(name, content)
        for name, content in added:
            new.writestr(f"{root}/{name}", content)
    return path


def evil_guard(command):
    def change(document):
        document["guards_code"] = [f"__import__('os').system({command!r}) == 0"]

    return change


def evil_size(command):
    def change(document):
        tensors = document["graph_module"]["graph"]["tensor_values"]
        sizes = [size for tensor in tensors.values() for size in tensor["sizes"] if "as_expr" in size]
        assert sizes
        sizes[0]["as_expr"]["expr_str"] = f"__import__('os').system({command!r})"

    return change


def evil_name(document):
    signature = document["graph_module"]["signature"]
    document["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = '[1, "\'] or exit() or ["]'
    assert signature


def calling(operator):
    """The first node calls another operator."""

    def change(document):
        document["graph_module"]["graph"]["nodes"][0]["target"] = operator

    return change


def pickled(command):
    buffer = io.BytesIO()
    torch.save({"a": Payload(command)}, buffer)
    return buffer.getvalue()


def as_pickle(config):
    document = json.loads(config)
    next(iter(document["config"].values()))["use_pickle"] = True
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda c: {"graph": evil_guard(c)}, "a size or a guard that is no arithmetic: \"__import__('os')"),
        (lambda c: {"graph": evil_size(c)}, "a size or a guard that is no arithmetic: \"__import__('os')"),
        (lambda _: {"graph": evil_name}, "arguments that are no names"),
        (
            lambda _: {"graph": calling("torch.ops.aten.from_file.default")},
            "an operator that is no arithmetic of torch's: 'torch.ops.aten.from_file.default'",
        ),
        (lambda _: {"graph": calling("os.system")}, "an operator that is no arithmetic of torch's"),
        (
            lambda c: {"added": [("data/constants/opaque_obj_0", pickle.dumps(Payload(c)))]},
            "data/constants/opaque_obj_0', which torch would run or load as code",
        ),
        (lambda _: {"added": [("data/aotinductor/model/x.so", b"ELF")]}, "data/aotinductor/model/x.so'"),
        (
            lambda c: {
                "blobs": [
                    ("sample_inputs/model.pt", lambda _: pickled(c)),
                    ("serialized_example_inputs.pt", lambda _: pickled(c)),  # of torch 2.7
                ]
            },
            "expected tensors only, found pickled objects in it",
        ),
        (
            lambda c: {
                "blobs": [
                    ("model_weights_config.json", as_pickle),
                    ("weights/weight_0", lambda _: pickled(c)),
                    ("weights/model.pt", lambda _: pickled(c)),  # of torch 2.8
                    ("serialized_state_dict.pt", lambda _: pickled(c)),  # of torch 2.7
                ]
            },
            "expected tensors only, found pickled objects in it",
        ),
    ],
    ids=["guard", "size", "name", "file", "module", "opaque", "library", "inputs", "weights"],
)
def test_a_program_with_code_in_it_is_refused_and_not_run(program, tmp_path, make, words):
    path = changed(program, tmp_path / "evil.pt2", **make(f"touch {tmp_path / 'ran'}"))
    with pytest.raises(ModelError) as caught:
        open_program(path)
    assert words in str(caught.value)
    assert not (tmp_path / "ran").exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_parts_of_one_name_are_refused(program, tmp_path):
    """Which of them torch would read is another question than which one the fence has read."""
    with zipfile.ZipFile(program) as archive:
        name = archive.namelist()[0].partition("/")[2]
        content = archive.read(archive.namelist()[0])
    path = changed(program, tmp_path / "twice.pt2", added=[(name, content)])
    with pytest.raises(ModelError, match="parts of one name, which torch would run or load as code"):
        open_program(path)


def test_an_honest_program_passes_the_fence(program):
    """Guards and sizes as torch itself writes them are no code."""
    length = torch.export.Dim("length", min=2, max=64)
    shapes = {"x": {0: OPEN, 1: 4 * length}}

    class Quarters(torch.nn.Module):
        def forward(self, x):
            return x.reshape(x.shape[0], 4, -1).mean(2)[:, : max(x.shape[1] // 8, 1)]

    buffer = io.BytesIO()
    kept = torch.export.export(Quarters(), (torch.zeros(2, 16),), dynamic_shapes=shapes, strict=False)
    torch.export.save(kept, buffer)
    path = program.with_name("quarters.pt2")
    path.write_bytes(buffer.getvalue())
    check_archive(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"no archive", "expected a file of torch.export.save"), (None, "there is no such file")],
)
def test_what_is_no_program_is_told(tmp_path, content, words):
    if content is not None:
        (tmp_path / "p.pt2").write_bytes(content)
    with pytest.raises(ModelError, match=words):
        open_program(tmp_path / "p.pt2")


def test_an_archive_of_something_else_is_told(tmp_path):
    with zipfile.ZipFile(tmp_path / "p.pt2", "w") as archive:
        archive.writestr("version", "1")
    with pytest.raises(ModelError, match="found no program in it"):
        open_program(tmp_path / "p.pt2")
