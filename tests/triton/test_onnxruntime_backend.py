"""Our backend without a server: a fake of the stub's module stands in, the session is real."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import sys
import threading
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest
import served_models as zoo

from jettison.triton.config import ModelConfig
from jettison.triton.runtime import OUR_BACKENDS
from jettison.triton.serving import Serving, config_of

TYPES = {"TYPE_FP32": np.float32, "TYPE_INT64": np.int64, "TYPE_STRING": np.object_, "TYPE_BOOL": np.bool_}


class Tensor:
    """The stub's tensor; `from_dlpack` takes what the real one takes."""

    def __init__(self, name: str, array: np.ndarray) -> None:
        self.label, self.array = name, array

    @classmethod
    def from_dlpack(cls, name: str, source: Any) -> Tensor:
        return cls(name, np.from_dlpack(source))

    def as_numpy(self) -> np.ndarray:
        return self.array

    def __dlpack__(self, **_: object) -> Any:
        return self.array.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


class Request:
    def __init__(
        self, *outputs: str, parameter: dict[str, object] | None = None, **arrays: np.ndarray
    ) -> None:
        self.arrays, self.outputs, self.parameter = arrays, outputs, parameter

    def parameters(self) -> str:
        return json.dumps(self.parameter) if self.parameter else ""

    def requested_output_names(self) -> Sequence[str]:
        return self.outputs


class Response:
    def __init__(self, tensors: Sequence[Tensor] = (), error: str | None = None) -> None:
        self.arrays, self.error = {tensor.label: tensor.array for tensor in tensors}, error


def _tensor(request: Request, name: str) -> Tensor | None:
    return Tensor(name, request.arrays[name]) if name in request.arrays else None


@pytest.fixture(params=["numpy 1", "numpy 2"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    if request.param == "numpy 2" and not hasattr(onnxruntime.OrtValue, "__dlpack__"):
        pytest.skip("numpy 2 is the way of Python 3.13, whose ONNX Runtime hands its values on by DLPack")
    stub = ModuleType("triton_python_backend_utils")
    stub.__dict__.update(
        Tensor=Tensor, InferenceResponse=Response, TritonError=str, TritonModelException=RuntimeError,
        get_input_tensor_by_name=_tensor, triton_string_to_numpy=TYPES.__getitem__,
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", stub)
    path = OUR_BACKENDS / "onnxruntime" / "model.py"
    specification = importlib.util.spec_from_file_location("onnxruntime_backend_model", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, specification.name, module)
    specification.loader.exec_module(module)
    monkeypatch.setattr(module, "_NUMPY_1", request.param == "numpy 1")
    return module


def instance(backend: ModuleType, folder: Path, tiny: zoo.Tiny, kind: str = "CPU", **serving: object) -> Any:
    model, inputs, outputs = tiny
    (folder / "1").mkdir(exist_ok=True)
    zoo.save(model, folder / "1" / "model.onnx")
    config = config_of("m", inputs, outputs, serving=Serving.model_validate(serving))
    return initialized(backend, folder, config, kind)


def initialized(backend: ModuleType, folder: Path, config: ModelConfig, kind: str = "CPU") -> Any:
    model = backend.TritonPythonModel()
    model.initialize(
        {
            "model_config": config.model_dump_json(exclude_none=True),
            "model_instance_kind": kind,
            "model_repository": str(folder),
            "model_version": "1",
        }
    )
    return model


def spied(model: Any) -> list[dict[str, np.ndarray]]:
    """Feeds of each run of the session from now on."""
    feeds: list[dict[str, np.ndarray]] = []
    session = model._session

    class Spy:
        def run(self, names: list[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
            feeds.append(feed)
            found: list[np.ndarray] = session.run(names, feed)
            return found

    model._session = Spy()
    return feeds


def rows(*values: float) -> np.ndarray:
    return np.float32([[value] * 3 for value in values])


def test_requests_of_one_shape_run_as_one_batch_and_get_their_own_rows(
    backend: ModuleType, tmp_path: Path
) -> None:
    model = instance(backend, tmp_path, zoo.affine(2.0))
    feeds = spied(model)
    requests = [Request("y", x=rows(1)), Request("y", x=rows(2, 3)), Request("y", x=rows(4))]
    answers = model.execute(requests)
    assert [len(feed["x"]) for feed in feeds] == [4]
    for request, answer in zip(requests, answers, strict=True):
        np.testing.assert_array_equal(answer.arrays["y"], 2 * request.arrays["x"])


@pytest.mark.parametrize(("batch_s", "alone_s"), [(1.0, 0.3), (1.0, 1.5)])
def test_a_group_runs_the_way_that_was_faster(
    backend: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_s: float, alone_s: float
) -> None:
    """Two requests by a clock of the test's own: a batch takes one second, each run alone what is given."""
    model = instance(backend, tmp_path, zoo.affine())
    feeds = spied(model)
    requests = [Request("y", x=rows(1)), Request("y", x=rows(2))]

    def clock() -> float:
        return sum(batch_s if len(feed["x"]) == 2 else alone_s for feed in feeds)

    monkeypatch.setattr(backend.time, "perf_counter", clock)
    ways = []
    for _ in range(450):
        before = len(feeds)
        answers = model.execute(requests)
        assert [float(answer.arrays["y"][0, 0]) for answer in answers] == [2.0, 4.0]
        ways.append("batch" if len(feeds) - before == 1 else "alone")
    faster = "batch" if batch_s < 2 * alone_s else "alone"
    assert ways[:10].count("batch") == 5, "both ways are tried first"
    assert [at for at, way in enumerate(ways) if way != faster and at >= 10] == [199, 399], "and asked again"


def test_the_pace_follows_what_changes(backend: ModuleType) -> None:
    pace = backend.Pace()
    for _ in range(1000):
        is_batch = pace.is_batch_next()
        pace.add(1.0 if is_batch else 2.0, is_batch=is_batch)
    chosen = []
    for _ in range(3000):
        is_batch = pace.is_batch_next()
        pace.add(3.0 if is_batch else 2.0, is_batch=is_batch)
        chosen.append(is_batch)
    assert sum(chosen[-200:]) == 1, "but for the one time that it is asked again"


def test_a_single_request_passes_its_array_through_without_a_copy(
    backend: ModuleType, tmp_path: Path
) -> None:
    model = instance(backend, tmp_path, zoo.affine())
    feeds, x = spied(model), rows(1)
    model.execute([Request("y", x=x)])
    assert np.shares_memory(feeds[0]["x"], x)


def test_other_shapes_run_apart_and_answers_keep_their_places(backend: ModuleType, tmp_path: Path) -> None:
    model = instance(backend, tmp_path, zoo.embedding())
    feeds = spied(model)
    ids = [np.int64([[1, 2]]), np.int64([[3, 4, 5]]), np.int64([[6, 7]])]
    answers = model.execute([Request("y", ids=item) for item in ids])
    assert sorted(feed["ids"].shape for feed in feeds) == [(1, 3), (2, 2)]
    for item, answer in zip(ids, answers, strict=True):
        np.testing.assert_array_equal(answer.arrays["y"], zoo.TABLE[item])


def test_a_bad_request_fails_alone(backend: ModuleType, tmp_path: Path) -> None:
    model = instance(backend, tmp_path, zoo.embedding())
    answers = model.execute([Request("y", ids=np.int64([[i]])) for i in (1, 99, 3)])
    assert [answer.error is None for answer in answers] == [True, False, True]
    assert "InvalidArgument" in answers[1].error
    assert "idx=99" in answers[1].error
    np.testing.assert_array_equal(answers[2].arrays["y"], zoo.TABLE[[[3]]])


def test_unbatched_models_never_join_requests(backend: ModuleType, tmp_path: Path) -> None:
    model = instance(backend, tmp_path, zoo.affine(), max_batch_size=0)
    feeds = spied(model)
    model.execute([Request("y", x=rows(1)), Request("y", x=rows(2))])
    assert len(feeds) == 2


def test_each_request_gets_only_the_outputs_that_it_asked_for(backend: ModuleType, tmp_path: Path) -> None:
    model = instance(backend, tmp_path, zoo.pair())
    x = np.float32([[1, 2]])
    answers = model.execute([Request("first", x=x), Request("second", x=x), Request("second", "first", x=x)])
    assert [sorted(answer.arrays) for answer in answers] == [["first"], ["second"], ["first", "second"]]
    assert sorted(model.execute([Request("second", x=x)])[0].arrays) == ["second"]


def test_a_scalar_travels_as_one_number(backend: ModuleType, tmp_path: Path) -> None:
    model = instance(backend, tmp_path, zoo.total())
    (answer,) = model.execute([Request("y", x=np.float32([1, 2, 3, 4]))])
    np.testing.assert_array_equal(answer.arrays["y"], np.float32([10]))


def test_an_output_without_the_batch_axis_is_told_instead_of_cut(backend: ModuleType, tmp_path: Path) -> None:
    inputs, outputs = [zoo.spec("x", "float32", "n", 4)], [zoo.spec("y", "float32", "n")]
    node = zoo.helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)
    tiny = (zoo.model_of([node], inputs, outputs, constants={"axes": np.int64([0])}), inputs, outputs)
    model = instance(backend, tmp_path, tiny)
    x = np.ones((1, 4), np.float32)
    backend._check_rows({"y": np.ones(2)}, 2)
    with pytest.raises(
        ValueError, match=r"output 'y' has shape \(4,\) for a batch of 2: set max_batch_size to 0"
    ):
        model._run([backend.Call(0, {"x": x}, frozenset({"y"})), backend.Call(1, {"x": x}, frozenset({"y"}))])


def test_text_is_decoded_for_the_graph_and_refused_where_the_stub_cannot_carry_it(
    backend: ModuleType, tmp_path: Path
) -> None:
    inputs, outputs = [zoo.spec("x", "string", "n", 1)], [zoo.spec("y", "string", "n", 1)]
    tiny = (zoo.model_of([zoo.helper.make_node("Identity", ["x"], ["y"])], inputs, outputs), inputs, outputs)
    if not backend._NUMPY_1:
        with pytest.raises(RuntimeError, match=r"'x' is text, which needs numpy 1: .* Python 3\.10 to 3\.12"):
            instance(backend, tmp_path, tiny)
        return
    model = instance(backend, tmp_path, tiny)
    x = np.array([["жар".encode()], [b"\xff"]], dtype=np.object_)
    answers = model.execute([Request("y", x=x[:1]), Request("y", x=x[1:])])
    assert answers[0].arrays["y"].tolist() == [["жар"]]
    assert answers[1].error.startswith("UnicodeDecodeError")


def test_a_configuration_that_does_not_fit_the_graph_is_refused(backend: ModuleType, tmp_path: Path) -> None:
    tiny = zoo.affine()
    instance(backend, tmp_path, tiny)
    config = config_of("m", tiny[1], tiny[2])
    for update, problem in (
        ({"name": "z"}, r"the configuration has output 'z', the model has \['y'\]"),
        (
            {"data_type": "TYPE_INT64"},
            r"output 'y' is TYPE_INT64 in the configuration and tensor\(float\) in the model",
        ),
    ):
        output = config.output[0].model_copy(update=update)
        with pytest.raises(RuntimeError, match=problem):
            initialized(backend, tmp_path, config.model_copy(update={"output": (output,)}))
    with pytest.raises(RuntimeError, match=r"set instance_group \{ kind: KIND_CPU \}"):
        initialized(backend, tmp_path, config, kind="GPU")
    (tmp_path / "1" / "model.onnx").write_bytes(b"no model")
    with pytest.raises(RuntimeError, match=r"cannot open .*model\.onnx"):
        initialized(backend, tmp_path, config)


def test_session_options_are_read_by_the_stock_backend_s_names(backend: ModuleType) -> None:
    serving = Serving(
        parameters={
            "intra_op_thread_count": "3",
            "inter_op_thread_count": "2",
            "execution_mode": "1",
            "enable_mem_arena": "0",
            "enable_mem_pattern": "false",
            "session.intra_op.allow_spinning": "1",
        }
    )
    config = config_of("m", [zoo.spec("x", "float32", 1)], [zoo.spec("y", "float32", 1)], serving=serving)
    fields = json.loads(config.model_dump_json(exclude_none=True))
    fields["optimization"] = {"graph": {"level": -1}}
    options = backend.session_options(fields)
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 2)
    assert options.execution_mode == onnxruntime.ExecutionMode.ORT_PARALLEL
    assert not options.enable_cpu_mem_arena
    assert not options.enable_mem_pattern
    assert options.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "1"


def test_without_parameters_instances_share_the_cores_and_do_not_spin(backend: ModuleType) -> None:
    cores = len(os.sched_getaffinity(0))
    options = backend.session_options({"instance_group": [{"count": 1}]})
    assert options.intra_op_num_threads == cores
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    shared = backend.session_options({"instance_group": [{"count": cores}, {"count": cores}]})
    assert shared.intra_op_num_threads == 1


def test_the_model_s_file_is_the_configured_one_else_model_onnx(backend: ModuleType, tmp_path: Path) -> None:
    assert backend.model_path(tmp_path, {}) == tmp_path / "model.onnx"
    assert backend.model_path(tmp_path, {"default_model_filename": "a.onnx"}) == tmp_path / "a.onnx"
    (tmp_path / "folder").mkdir()
    assert (
        backend.model_path(tmp_path, {"default_model_filename": "folder"})
        == tmp_path / "folder" / "model.onnx"
    )


def test_backends_import_nothing_of_ours() -> None:
    """The stub has no Jettison; what only a type checker reads may name it."""
    for source in OUR_BACKENDS.rglob("*.py"):
        assert not any(name.split(".")[0] == "jettison" for name in imported(ast.parse(source.read_text())))


def imported(tree: ast.AST) -> Iterator[str]:
    """The modules that running the code imports."""
    if isinstance(tree, ast.If) and ast.unparse(tree.test) == "TYPE_CHECKING":
        children = tree.orelse
    else:
        children = list(ast.iter_child_nodes(tree))
    if isinstance(tree, ast.Import):
        yield from (alias.name for alias in tree.names)
    elif isinstance(tree, ast.ImportFrom):
        yield tree.module or ""
    for child in children:
        yield from imported(child)


def test_requests_that_nobody_waits_for_run_at_the_lowest_priority(
    backend: ModuleType, tmp_path: Path
) -> None:
    """Others do not, also where both come together: a thread that stood back cannot come forward again."""
    model = instance(backend, tmp_path, zoo.affine(2.0))
    run, seen = model._session.run, []

    def spy(*arguments: Any) -> Any:
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return run(*arguments)

    model._session = types.SimpleNamespace(run=spy)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    x = np.ones((1, 3), np.float32)
    shadow = Request("y", x=x, parameter={"jettison_background": True, "unit": "a"})
    other = Request("y", x=x, parameter={"unit": "a"})
    for requests in ([shadow], [other], [shadow], [Request("y", x=x)]):
        (response,) = model.execute(requests)
        np.testing.assert_array_equal(response.arrays["y"], 2 * x)
    assert seen == [19, own, 19, own]
    seen.clear()
    assert len(model.execute([shadow, other])) == 2
    assert set(seen) == {own}
    seen.clear()
    assert len(model.execute([shadow, shadow])) == 2
    assert set(seen) == {19}
