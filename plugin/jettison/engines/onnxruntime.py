"""The one door to ONNX Runtime: sessions with honest threads, and a runner over them.

Threads never spin here: after a run they would hold the cores for a while, which falsifies the time of
every other session on the machine by up to a factor of three.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import onnx_ir as ir

from jettison.core import dtypes
from jettison.core.errors import MissingError, ModelError
from jettison.core.tensors import Arrays, Dimension, TensorSpec
from jettison.graph.message import message_of
from jettison.graph.model import input_specs
from jettison.graph.save import PROTOBUF_LIMIT_BYTES, fits_one_message, save_model
from jettison.graph.shapes import ShapeTable, example_inputs, infer_shapes

if TYPE_CHECKING:
    from types import ModuleType

_ONNX_FLOAT = 1
_ERRORS_ONLY = 3
_LONGEST_MESSAGE = 400
_FEW_OUTPUTS = 8
"""A graph with more of them reports on its inside, and is run in its own order."""
_DYNAMIC = b"DynamicQuantize"
"""How the names of operators begin that take one scale from a whole batch: ONNX's DynamicQuantizeLinear, and
those of ONNX Runtime itself."""


Thrift = Literal["none", "unplanned", "ordered"]
"""What a session does to hold less memory; none of it changes a result.

`none`: it runs as a server runs it, which is what times are measured on. `unplanned`: activations are laid
out as they come, not in one block per input shape, which comes on top of what the first run has taken (86
instead of 100 MB for EfficientNet-Lite0 in batches of 8, in the same time). `ordered`: nodes run in the
graph's order, too; by itself ONNX Runtime begins with what the last output needs, so that every activation
that another one reports on waits for the end (71 instead of 167 MB for its bias corrections).
"""


class DynamicQuantizer(Protocol):
    """Writes the dynamically quantized form of a model file."""

    def __call__(self, source: Path, result: Path, *, op_types: Sequence[str]) -> None:
        """Read `source`, quantize its operators of these types, write `result`."""
        ...


def runtime() -> ModuleType:
    """The onnxruntime module.

    Raises:
        MissingError: It cannot be imported.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingError("ONNX Runtime", detail=str(error), fix="Run: pip install onnxruntime") from error
    onnxruntime.set_default_logger_severity(_ERRORS_ONLY)  # of what it says outside of sessions
    return onnxruntime  # type: ignore[no-any-return]


def failures() -> tuple[type[Exception], ...]:
    """The exceptions of ONNX Runtime's binding, which have no common ancestor of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as binding

    classes = (value for value in vars(binding).values() if isinstance(value, type))
    return tuple(found for found in classes if issubclass(found, Exception))


def session_of(
    model: Path | bytes,
    *,
    threads: int = 0,
    optimize: bool = True,
    thrift: Thrift = "none",
    optimized_path: Path | None = None,
    profile_prefix: Path | None = None,
) -> Any:
    """A CPU session whose threads do not spin.

    Args:
        model: A file (external data is found beside it) or a serialized model.
        threads: Threads within an operator; 0 lets ONNX Runtime take one for each core.
        optimize: False runs the graph as it is written: Q/DQ pairs in exact float arithmetic, the
            simulation against which kernels are judged.
        thrift: What it does to hold less memory.
        optimized_path: Where to write the graph that really runs.
        profile_prefix: Where to write a profile, which `end_profiling` of the session names.

    Raises:
        ModelError: ONNX Runtime refuses the model.
    """
    onnxruntime = runtime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = thrift == "none"
    if thrift == "ordered":
        options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    if optimized_path is not None:
        options.optimized_model_filepath = str(optimized_path)
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile_prefix)
    source = str(model) if isinstance(model, Path) else model
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except failures() as error:
        raise ModelError(
            f"model {model}" if isinstance(model, Path) else "the model in memory",
            detail=f"ONNX Runtime refuses it: {str(error)[:_LONGEST_MESSAGE]}",
            fix="Check it with onnx.checker, or export it again with a newer exporter",
        ) from error


class OnnxRuntimeRunner:
    """An ONNX model run on the CPU."""

    def __init__(
        self, model: Path | bytes, *, threads: int = 0, optimize: bool = True, thrift: Thrift = "none"
    ) -> None:
        self.session = session_of(model, threads=threads, optimize=optimize, thrift=thrift)
        self.inputs = tuple(_spec(argument) for argument in self.session.get_inputs())
        self.outputs = tuple(_spec(argument) for argument in self.session.get_outputs())
        self.mixes_samples = _holds(model, _DYNAMIC)
        self._names = [spec.name for spec in self.outputs]
        self._scalars = [spec.name for spec in self.inputs if not spec.shape]

    def run(self, arrays: Arrays) -> Arrays:
        """All outputs for these inputs, by name.

        Raises:
            ModelError: ONNX Runtime cannot run the model on these inputs.
        """
        return self.fetch(self._names, arrays)

    def fetch(self, names: Sequence[str], arrays: Arrays) -> Arrays:
        """Only the named outputs; an input without dimensions takes the only row of its array."""
        scalars = {name: arrays[name].reshape(()) for name in self._scalars if name in arrays}
        try:
            values = self.session.run(list(names), {**arrays, **scalars})
        except failures() as error:
            raise ModelError(
                "running the model",
                detail=str(error)[:_LONGEST_MESSAGE],
                fix="Check the input shapes against the model's inputs",
            ) from error
        return dict(zip(names, values, strict=True))


def dynamic_quantizer() -> DynamicQuantizer:
    """ONNX Runtime's dynamic quantizer: per-channel INT8 weights of 7 bits.

    Raises:
        MissingError: ONNX Runtime is not installed.
    """
    runtime()
    from onnxruntime.quantization import QuantType, quantize_dynamic

    def quantize(source: Path, result: Path, *, op_types: Sequence[str]) -> None:
        with _quiet_root_logger():
            quantize_dynamic(
                source,
                result,
                op_types_to_quantize=list(op_types),
                per_channel=True,
                reduce_range=True,
                weight_type=QuantType.QInt8,
                extra_options={"DefaultTensorType": _ONNX_FLOAT},
            )

    return quantize


@contextlib.contextmanager
def _quiet_root_logger() -> Iterator[None]:
    """Keep the quantizer from advising a pre-processing that has been done: it logs to the root logger."""
    root = logging.getLogger()
    root.addFilter(_is_error)
    try:
        yield
    finally:
        root.removeFilter(_is_error)


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def _spec(argument: Any) -> TensorSpec:
    text = argument.type.removeprefix("tensor(").removesuffix(")")
    names = {"float": "float32", "double": "float64", "float8e4m3fn": "float8_e4m3fn"}
    row = dtypes.of_name(names.get(text, text))
    if row is None:
        raise ModelError(
            f"{argument.name!r}",
            detail=f"expected a tensor of a known element type, found {argument.type}",
            fix="Leave inputs and outputs that are sequences or maps out of the export",
        )
    return TensorSpec(name=argument.name, dtype=row, shape=tuple(_dimension(size) for size in argument.shape))


def _holds(model: Path | bytes, word: bytes) -> bool:
    """Whether the word stands in the serialized model, where names of operators stand as they are."""
    if isinstance(model, bytes):
        return word in model
    with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(word) >= 0


def _dimension(size: object) -> Dimension:
    return size if isinstance(size, int | str) and size != "" else None


def runner_of(
    model: ir.Model,
    *,
    threads: int = 0,
    optimize: bool = True,
    limit_bytes: int = PROTOBUF_LIMIT_BYTES,
) -> OnnxRuntimeRunner:
    """A runner of a model in memory; one beyond `limit_bytes` goes through a file that is gone afterwards.

    It holds as little memory as it can, so its times are not those of a server.

    Raises:
        ModelError: ONNX Runtime refuses the model.
    """
    thrift = _thrift_of(model)
    if fits_one_message(model, limit_bytes=limit_bytes):
        return OnnxRuntimeRunner(message_of(model), threads=threads, optimize=optimize, thrift=thrift)
    with tempfile.TemporaryDirectory(prefix="jettison-") as folder:
        path = Path(folder) / "model.onnx"
        save_model(model, path, limit_bytes=limit_bytes)
        return OnnxRuntimeRunner(path, threads=threads, optimize=optimize, thrift=thrift)


def _thrift_of(model: ir.Model) -> Thrift:
    return "ordered" if len(model.graph.outputs) > _FEW_OUTPUTS else "unplanned"


def shapes_of(model: ir.Model, *, sizes: Mapping[str, int] | None = None) -> ShapeTable:
    """Concrete shapes of the model's values, by one real inference where they cannot be derived.

    `sizes` gives the dynamic dimensions by name; the batch is 1 and others 32 unless told.

    Raises:
        ModelError: ONNX Runtime cannot run the model.
    """
    arrays = example_inputs(input_specs(model), sizes=sizes)

    def probe(source: bytes, names: Sequence[str]) -> Arrays:
        return OnnxRuntimeRunner(source, optimize=False).fetch(names, arrays)

    return infer_shapes(model.clone(), sizes=sizes, probe=probe)
