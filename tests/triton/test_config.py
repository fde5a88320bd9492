"""config.pbtxt: complete from the graph's specifications, and the same after writing and parsing."""

from __future__ import annotations

import re
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from served_models import spec

from jettison.core.errors import MissingError, ModelError, RepositoryError
from jettison.triton import config as c
from jettison.triton.pbtxt import parse, write
from jettison.triton.serving import Serving, config_of, is_batched

GOLDEN = """\
name: "fashion-int8"
backend: "onnxruntime"
max_batch_size: 16
input {
  name: "images"
  data_type: TYPE_FP32
  dims: [ 1, 28, 28 ]
}
input {
  name: "ids"
  data_type: TYPE_INT64
  dims: [ -1 ]
}
output {
  name: "scores"
  data_type: TYPE_FP32
  dims: [ 10 ]
}
output {
  name: "entropy"
  data_type: TYPE_FP32
  dims: [ 1 ]
  reshape { }
}
dynamic_batching {
  max_queue_delay_microseconds: 100
}
instance_group {
  kind: KIND_CPU
  count: 2
}
default_model_filename: "model.onnx"
parameters {
  key: "intra_op_thread_count"
  value {
    string_value: "1"
  }
}
"""


def test_batched_model_gets_a_complete_config_without_the_batch_axis() -> None:
    config = config_of(
        "fashion-int8",
        [spec("images", "float32", "batch", 1, 28, 28), spec("ids", "int64", "batch", "length")],
        [spec("scores", "float32", "batch", 10), spec("entropy", "float32", None)],
        serving=Serving(
            max_batch_size=16, instances=2, max_queue_delay_us=100, parameters={"intra_op_thread_count": "1"}
        ),
    )
    assert write(config) == GOLDEN
    assert parse(GOLDEN) == config


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ([(1, 3)], [(1, 2)]),
        ([("batch", 3)], [(1, 2)]),
        ([("batch", 3), (4,)], [("batch", 2)]),
        ([("batch", 3)], [("detections", 7)]),
        ([("batch", 3)], [()]),
    ],
)
def test_without_one_open_axis_on_all_sides_the_whole_shape_is_written(
    inputs: list[tuple[int | str, ...]], outputs: list[tuple[int | str, ...]]
) -> None:
    ins = [spec(f"x{i}", "float32", *shape) for i, shape in enumerate(inputs)]
    outs = [spec(f"y{i}", "float32", *shape) for i, shape in enumerate(outputs)]
    assert not is_batched(ins, outs)
    config = config_of("m", ins, outs)
    assert config.max_batch_size == 0
    assert config.dynamic_batching is None
    expected = [
        tuple(-1 if isinstance(size, str) else size for size in shape) or (1,)
        for shape in (*inputs, *outputs)
    ]
    assert [tensor.dims for tensor in (*config.input, *config.output)] == expected
    assert all(tensor.reshape is None for tensor in (*config.input, *config.output))


def test_batching_can_be_switched_off() -> None:
    config = config_of(
        "m", [spec("x", "float32", "b", 3)], [spec("y", "float32", "b")], serving=Serving(max_batch_size=0)
    )
    assert (config.max_batch_size, config.input[0].dims, config.output[0].dims) == (0, (-1, 3), (-1,))


@pytest.mark.parametrize("dtype", ["bfloat16", "int4", "uint4", "float8_e4m3fn", "float4_e2m1fn"])
def test_types_that_triton_cannot_carry_are_refused(dtype: str) -> None:
    with pytest.raises(ModelError, match=f"tensor 'x': .* cannot carry {dtype} .*Cast it to float16"):
        config_of("m", [spec("x", dtype, 1)], [spec("y", "float32", 1)])


def test_bfloat16_passes_for_tensorrt() -> None:
    serving = Serving(backend="tensorrt", filename="model.plan", kind="KIND_GPU")
    config = config_of("m", [spec("x", "bfloat16", 1)], [spec("y", "float32", 1)], serving=serving)
    assert config.input[0].data_type == "TYPE_BF16"


def test_empty_dimensions_and_missing_sides_are_refused() -> None:
    x = spec("x", "float32", 1)
    with pytest.raises(ModelError, match=r"expected sizes of 1 and more, found 0 in x float32 1x0"):
        config_of("m", [spec("x", "float32", 1, 0)], [x])
    with pytest.raises(ModelError, match="it has no input"):
        config_of("m", [], [x])
    with pytest.raises(ModelError, match="it has no output"):
        config_of("m", [x], [])


@pytest.mark.parametrize(
    "name", ["", "a/b", "../a", ".staging", "3", "3a", "2_bak", "a b", "-a", "ä", "a" * 129, "a\n"]
)
def test_names_that_triton_would_misread_are_refused(name: str) -> None:
    x = spec("x", "float32", 1)
    with pytest.raises(
        RepositoryError, match=re.escape(f"model name {name!r}: expected a letter or _ first")
    ):
        config_of(name, [x], [x])
    with pytest.raises(ValidationError):
        c.ModelConfig(name=name)
    with pytest.raises(ValidationError):
        c.ModelConfig(name="m", default_model_filename=name or "/")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('name: "m" sequence_batching { }', "sequence_batching: Extra inputs are not permitted"),
        ('name: "m" model_operations { }', "model_operations: Extra"),
        (
            'name: "m" input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] is_shape_tensor: true }',
            "is_shape_tensor",
        ),
        ('name: "m" input { name: "x" data_type: TYPE_FP32 dims: [ -2 ] }', "input.0.dims.0"),
        ('name: "m" max_batch_size: -1', "max_batch_size"),
        ('name: "m" unheard_of: 1', "it is no Triton model configuration: 1:11"),
        ('name: "m" input {', "it is no Triton model configuration"),
        ('name: "../m"', "name: String should match"),
    ],
)
def test_what_is_not_modelled_or_broken_is_refused_by_name(text: str, problem: str) -> None:
    with pytest.raises(RepositoryError) as caught:
        parse(text, source="models/m/config.pbtxt")
    assert str(caught.value).startswith("models/m/config.pbtxt: ")
    assert problem in str(caught.value)


def test_hand_written_forms_of_the_same_config_are_read() -> None:
    text = (
        'name: "m" # comment\ninput [ { name: "x", data_type: TYPE_FP32, dims: [ 3 ] } ]\nmax_batch_size: 4'
    )
    config = parse(text)
    assert config.input == (c.Input(name="x", data_type="TYPE_FP32", dims=(3,)),)
    assert config.wire_shape(config.input[0]) == (-1, 3)


def test_reading_without_tritonclient_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tritonclient.grpc", None)
    with pytest.raises(MissingError, match=r"Run: pip install -e '\.\[triton\]' in a clone of Jettison"):
        parse('name: "m"')


def drawn(message: type[c.Message], **fields: st.SearchStrategy[object]) -> st.SearchStrategy[c.Message]:
    """The message with every one of its fields drawn, so that the law cannot be silent about a new one."""
    assert set(fields) == set(message.model_fields), message
    return st.builds(message, **fields)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SOME_TEXT = TEXT.filter(bool)
NAME = st.from_regex(f"^{c.SAFE_NAME}$", fullmatch=True).filter(lambda name: not name.endswith("\n"))
SIZES = st.lists(st.integers(-1, 2**40), max_size=3).map(tuple)
DIMS = SIZES.filter(bool)
TYPE = st.sampled_from(["TYPE_FP32", "TYPE_INT64", "TYPE_STRING", "TYPE_BOOL", "TYPE_BF16"])
RESHAPE = st.none() | st.builds(c.Reshape, shape=SIZES)
COUNT = st.integers(0, 2**31 - 1)
SOURCE = st.sampled_from([{"zero_data": True}, {"random_data": True}, {"input_data_file": "data"}])
WARMUP_INPUT = st.builds(lambda t, d, s: c.WarmupInput(data_type=t, dims=d, **s), TYPE, SIZES, SOURCE)
POLICY = st.one_of(
    st.builds(c.VersionPolicy, latest=st.builds(c.Latest, num_versions=st.integers(1, 9))),
    st.just(c.VersionPolicy(all=c.All())),
    st.builds(
        c.VersionPolicy,
        specific=st.builds(c.Specific, versions=st.lists(st.integers(1, 2**40), max_size=3).map(tuple)),
    ),
)
GROUP = drawn(
    c.InstanceGroup,
    name=TEXT,
    kind=st.sampled_from(["KIND_AUTO", "KIND_GPU", "KIND_CPU", "KIND_MODEL"]),
    count=COUNT,
    gpus=st.lists(COUNT, max_size=2).map(tuple),
    profile=st.lists(TEXT, max_size=2).map(tuple),
    rate_limiter=st.none()
    | drawn(
        c.RateLimiter,
        priority=COUNT,
        resources=st.lists(
            drawn(c.Resource, name=SOME_TEXT, is_global=st.booleans(), count=COUNT), max_size=2
        ).map(tuple),
    ),
    passive=st.booleans(),
    host_policy=TEXT,
)
ACCELERATORS = st.lists(
    drawn(c.Accelerator, name=SOME_TEXT, parameters=st.dictionaries(TEXT, TEXT, max_size=2)), max_size=2
).map(tuple)
CONFIG = drawn(
    c.ModelConfig,
    name=NAME,
    platform=TEXT,
    backend=TEXT,
    version_policy=st.none() | POLICY,
    max_batch_size=COUNT,
    input=st.lists(
        drawn(
            c.Input,
            name=SOME_TEXT,
            data_type=TYPE,
            dims=DIMS,
            reshape=RESHAPE,
            optional=st.booleans(),
            allow_ragged_batch=st.booleans(),
        ),
        max_size=2,
    ).map(tuple),
    output=st.lists(
        drawn(
            c.Output,
            name=SOME_TEXT,
            data_type=TYPE,
            dims=DIMS,
            reshape=RESHAPE,
            label_filename=st.just("") | NAME,
        ),
        max_size=2,
    ).map(tuple),
    optimization=st.none()
    | drawn(
        c.Optimization,
        graph=st.none() | drawn(c.GraphOptimization, level=st.integers(-1, 2)),
        execution_accelerators=st.none()
        | drawn(
            c.ExecutionAccelerators,
            gpu_execution_accelerator=ACCELERATORS,
            cpu_execution_accelerator=ACCELERATORS,
        ),
    ),
    dynamic_batching=st.none()
    | drawn(
        c.DynamicBatching,
        preferred_batch_size=st.lists(st.integers(1, 64), max_size=2).map(tuple),
        max_queue_delay_microseconds=st.integers(0, 2**40),
        preserve_ordering=st.booleans(),
    ),
    instance_group=st.lists(GROUP, max_size=2).map(tuple),
    default_model_filename=st.just("") | NAME,
    cc_model_filenames=st.dictionaries(TEXT, NAME, max_size=2),
    parameters=st.dictionaries(TEXT, drawn(c.Parameter, string_value=TEXT), max_size=2),
    model_warmup=st.lists(
        drawn(
            c.ModelWarmup,
            name=SOME_TEXT,
            batch_size=COUNT,
            count=COUNT,
            inputs=st.dictionaries(TEXT, WARMUP_INPUT, max_size=2),
        ),
        max_size=2,
    ).map(tuple),
    model_transaction_policy=st.none() | drawn(c.TransactionPolicy, decoupled=st.booleans()),
    response_cache=st.none() | drawn(c.ResponseCache, enable=st.booleans()),
)


@settings(max_examples=100, deadline=None)
@given(CONFIG)
def test_parsing_what_was_written_gives_the_same_config(config: c.ModelConfig) -> None:
    assert parse(write(config)) == config
