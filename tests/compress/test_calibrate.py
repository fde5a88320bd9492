"""Calibration: one lazy pass over the samples, and the same bits however they were split or ordered."""

import dataclasses
import tracemalloc
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import calibrated, conv, feature_net, image, model_of, normal, run

from jettison.compress.quantization.calibrate import Calibration, calibrate, plan_observations
from jettison.compress.quantization.histogram import Histogram
from jettison.compress.quantization.histogram_file import load_calibration, save_calibration
from jettison.compress.quantization.placement import Dialect
from jettison.compress.quantization.quantize import place
from jettison.compress.quantization.ranges import RangeMethod
from jettison.compress.quantization.static import RangeChoice, activation_ranges
from jettison.core.batching import padded
from jettison.core.errors import SamplesError
from jettison.core.samples import Batch, Samples, checked
from jettison.engines.onnxruntime import OnnxRuntimeRunner
from jettison.graph.model import input_specs
from jettison.graph.observe import Observation, observed, stride_of
from jettison.graph.save import model_bytes
from zoo.builder import Net, image_net
from zoo.session import cleaned

COUNT = 24


def small_model() -> ir.Model:
    """Convolution, Relu, pool, Reshape and Gemm: moved tensors, a known zero, and values of both signs."""
    net, x = image_net("small", 4)
    x = net.named("Relu", conv(net, x, "a", (4, 8)), to="relu")
    x = net.named("MaxPool", x, to="pool", kernel_shape=[2, 2], strides=[2, 2])
    x = conv(net, x, "b", (8, 8))
    x = net.named("Reshape", x, net.const(np.array([0, -1])), to="flat")
    net.gemm(x, (8 * 64, 4), to="logits")
    net.output("logits", ["batch", 4])
    return model_of(net)


MODEL = small_model()
IMAGES = normal(COUNT, 4, 16, 16) * np.exp2(np.arange(COUNT) % 7 - 3).reshape(-1, 1, 1, 1).astype(np.float32)


def parts(order: list[int], cuts: list[int], model: ir.Model = MODEL) -> Samples:
    """The images in that order, given as shards that are cut at those places."""
    shards = [shard for shard in np.split(IMAGES[order], sorted(cuts)) if len(shard)]
    return checked(
        lambda: iter([Batch({"image": shard}) for shard in shards]), source="parts", specs=input_specs(model)
    )


def bits(histogram: Histogram) -> tuple[object, ...]:
    fields = (histogram.exponent, histogram.low, histogram.high, histogram.zeros)
    return (*fields, histogram.counts.tobytes())


def all_bits(calibration: Calibration) -> dict[str, tuple[object, ...]]:
    return {name: bits(found) for name, found in calibration.histograms.items()}


WHOLE = calibrate(MODEL, parts(list(range(COUNT)), []), threads=1)


def scales(calibration: Calibration, dialect: Dialect, method: RangeMethod) -> dict[str, tuple[float, float]]:
    ranges = activation_ranges(calibration, place(MODEL.graph, dialect), RangeChoice(method))
    return {name: (found.low, found.high) for name, found in ranges.items()}


@settings(max_examples=12, deadline=None)
@given(order=st.permutations(range(COUNT)), cuts=st.lists(st.integers(1, COUNT - 1), max_size=4))
def test_neither_the_order_nor_the_split_of_samples_changes_a_bit(order: list[int], cuts: list[int]) -> None:
    found = calibrate(MODEL, parts(order, cuts), threads=1)
    assert all_bits(found) == all_bits(WHOLE)
    assert (found.sources, found.samples) == (WHOLE.sources, COUNT)


@pytest.mark.parametrize("cores", [2, 3])
def test_samples_that_run_at_once_change_no_bit(cores: int) -> None:
    assert all_bits(calibrate(MODEL, parts(list(range(COUNT)), []), threads=cores)) == all_bits(WHOLE)


@pytest.mark.parametrize("method", ["max", "percentile", "mse", "kl"])
@pytest.mark.parametrize("dialect", ["cpu", "tensorrt"])
def test_three_orders_and_splits_give_the_same_scales(dialect: Dialect, method: RangeMethod) -> None:
    forward = list(range(COUNT))
    shuffled = list(np.random.default_rng(3).permutation(COUNT))
    for order, cuts in ((forward[::-1], []), (shuffled, [5, 6, 20]), (forward, forward[1:])):
        found = calibrate(MODEL, parts(order, cuts), threads=1)
        assert scales(found, dialect, method) == scales(WHOLE, dialect, method)


@pytest.mark.parametrize("cut", [1, 7, COUNT - 1])
def test_calibrations_of_two_parts_merge_into_that_of_the_whole(cut: int) -> None:
    order = list(range(COUNT))
    first, second = (calibrate(MODEL, parts(part, []), threads=1) for part in (order[:cut], order[cut:]))
    for merged in (first.merged(second), second.merged(first)):
        assert all_bits(merged) == all_bits(WHOLE)
        assert (merged.sources, merged.samples) == (WHOLE.sources, COUNT)


def test_extremes_and_counts_are_those_of_the_activations() -> None:
    values = run_values(["relu", "b", "image"])
    for name, array in values.items():
        found = WHOLE.histogram(name)
        assert (found.low, found.high) == (float(array.min()), float(array.max()))
        assert found.total == array.size
        assert found.zeros == np.count_nonzero(array == 0)


def run_values(names: list[str]) -> dict[str, np.ndarray]:
    model = MODEL.clone()
    wanted = {value.name: value for node in model.graph for value in node.outputs}
    model.graph.outputs.clear()
    model.graph.outputs.extend(wanted[name] for name in names if name in wanted)
    found = [run(model, {"image": IMAGES[index : index + 1]}) for index in range(COUNT)]
    values = {name: np.concatenate([each[name] for each in found]) for name in found[0]}
    return {**values, "image": IMAGES}


def test_moved_tensors_are_observed_once_where_they_come_from() -> None:
    assert {"pool", "flat"}.isdisjoint(WHOLE.histograms)
    assert WHOLE.sources == {"pool": "relu", "flat": "b"}
    assert WHOLE.histogram("pool") is WHOLE.histogram("relu")
    observations, _ = plan_observations(MODEL)
    assert [found.value for found in observations] == ["image", "relu", "b"]


def test_a_chain_of_moves_leads_back_to_its_beginning() -> None:
    net, x = image_net("chain", 16)
    x = net.named("Relu", conv(net, x, "a"), to="relu")
    x = net.named("MaxPool", x, to="pool", kernel_shape=[2, 2], strides=[2, 2])
    x = net.named("Transpose", x, to="turned", perm=[0, 1, 3, 2])
    conv(net, x, "out")
    net.output("out", ["batch", 16, 8, 8])
    found = calibrated(model_of(net), image(16, 3))
    assert found.histogram("turned") is found.histogram("pool") is found.histogram("relu")
    assert set(found.histograms) == {"image", "relu", "out"}


def test_what_a_relu_makes_is_known_to_begin_at_zero() -> None:
    observations, _ = plan_observations(MODEL)
    assert {found.value: found.low for found in observations} == {"b": None, "image": None, "relu": 0.0}
    assert WHOLE.histogram("relu").low == 0.0


class Source:
    """Single images, made when they are asked for and counted."""

    def __init__(self, count: int, size: int = 16) -> None:
        self.count, self.given, self.size = count, 0, size

    def read(self) -> Iterator[Batch]:
        for index in range(self.count):
            self.given += 1
            yield Batch({"image": normal(1, 4, self.size, self.size, seed=index)})

    def samples(self, model: ir.Model) -> Samples:
        return checked(self.read, source="generator", specs=input_specs(model))


def test_samples_are_read_lazily_in_one_pass_after_the_check() -> None:
    source, seen = Source(10), []
    samples = source.samples(MODEL)
    assert source.given == 10
    calibrate(
        MODEL, samples, threads=1, progress=lambda done, total: seen.append((done, total, source.given))
    )
    assert source.given == 20
    assert seen == [(done, 10, 10 + done) for done in range(1, 11)]


def test_memory_does_not_grow_with_the_number_of_samples() -> None:
    net = Net("wide")
    x = net.input("image", ["batch", 4, 64, 64])
    conv(net, net.op("Relu", conv(net, x, "a", (4, 16))), "out", (16, 4))
    net.output("out", ["batch", 4, 64, 64])
    model = model_of(net)
    peaks = []
    for count in (60, 240):
        samples = Source(count, 64).samples(model)
        tracemalloc.start()
        calibrate(model, samples, threads=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0], "180 more samples have 11 MiB of inputs and 45 MiB of activations"


@pytest.mark.parametrize("place_of_nan", [0, 1, 500, 4095])
@pytest.mark.parametrize("relu", [False, True])
def test_nan_in_any_activation_is_told(place_of_nan: int, relu: bool) -> None:
    """ONNX Runtime's ReduceMax and ReduceMin pass over NaN, and most elements are not even sampled."""
    net, x = image_net("nan", 16)
    x = net.named("Sqrt", x, to="root")
    name = "root"
    if relu:
        x, name = net.named("Relu", x, to="relu"), "relu"
    conv(net, x, "out")
    net.output("out", ["batch", 16, 16, 16])
    model = model_of(net)
    images = np.abs(normal(3, 16, 16, 16)) + 1
    images[1].reshape(-1)[place_of_nan] = -1
    with pytest.raises(SamplesError) as caught:
        calibrated(model, {"image": images})
    assert str(caught.value) == (
        f"calibration: value {name!r} became NaN or infinite. "
        "Check the model in float on these samples: it overflows by itself"
    )


def test_an_overflow_in_an_activation_is_told() -> None:
    net, x = feature_net()
    net.gemm(net.named("Exp", x, to="exp"), (32, 16), to="out")
    net.output("out", ["batch", 16])
    model = model_of(net)
    with pytest.raises(SamplesError, match="value 'exp' became NaN or infinite"):
        calibrated(model, {"features": np.full((2, 32), 100, np.float32)})


def test_numbers_whose_sum_overflows_are_no_overflow() -> None:
    net, x = feature_net()
    net.gemm(net.named("Neg", x, to="negative"), (32, 16), to="out")
    net.output("out", ["batch", 16])
    large = np.full((2, 32), 1e38, np.float32)
    assert calibrated(model_of(net), {"features": large}).histogram("negative").low == -float(large[0, 0])


def test_a_fixed_batch_is_filled_up_with_its_last_sample() -> None:
    model = cleaned("fixed_batch")
    pair, three = normal(2, 16, 16, 16), normal(3, 16, 16, 16)
    assert calibrated(model, {"image": pair}).histogram("image").total == pair.size // stride_of(16 * 256) + 1
    found = calibrated(model, {"image": three})
    assert found.samples == 3
    assert (found.histogram("image").low, found.histogram("image").high) == (three.min(), three.max())
    assert [len(array) for array in padded({"a": three[:1], "b": pair}, 2).values()] == [2, 2]


def test_samples_of_different_lengths_are_calibrated_together() -> None:
    model = cleaned("matmul_bias")
    lengths = (16, 5, 9, 16)
    given = [normal(1, length, 32, seed=length) for length in lengths]
    specs = input_specs(model)
    whole = checked(lambda: iter([Batch({"tokens": each}) for each in given]), source="lengths", specs=specs)
    turned = checked(
        lambda: iter([Batch({"tokens": each}) for each in given[::-1]]), source="turned", specs=specs
    )
    found = calibrate(model, whole, threads=1)
    assert found.histogram("tokens").total == sum(lengths) * 32
    assert all_bits(found) == all_bits(calibrate(model, turned, threads=1))


@pytest.mark.parametrize(("elements", "stride"), [(1, 1), (4095, 1), (4096, 11), (45055, 11), (45056, 31)])
def test_large_values_are_counted_in_part_by_a_prime_stride(elements: int, stride: int) -> None:
    assert stride_of(elements) == stride


@pytest.mark.parametrize("size", [1, 100, 4095, 4096, 45056, 50000])
def test_the_stride_of_an_open_size_follows_the_same_rule_when_it_runs(size: int) -> None:
    net = Net("open")
    net.named("Neg", net.input("x", ["batch", "length"]), to="y")
    net.output("y", ["batch", "length"])
    report = OnnxRuntimeRunner(model_bytes(observed(model_of(net), [Observation("y", None)])))
    x = normal(1, size)
    found = report.run({"x": x})
    np.testing.assert_array_equal(found["y:sample"], -x[0, :: stride_of(size)])
    assert (found["y:max"], found["y:min"]) == (-x.min(), -x.max())


@pytest.mark.parametrize("channel", [0, 1, 2, 100, 191])
def test_every_channel_of_a_wide_token_is_sampled(channel: int) -> None:
    """64 tokens of 192 channels: a stride of 3 would see every third channel only."""
    net = Net("tokens")
    x = net.input("tokens", ["batch", 64, 192])
    net.named("MatMul", x, net.const(net.he((192, 16), 192)), to="out")
    net.output("out", ["batch", 64, 16])
    tokens = np.zeros((1, 64, 192), np.float32)
    tokens[0, :, channel] = 1
    found = calibrated(model_of(net), {"tokens": tokens}).histogram("tokens")
    assert 0 < found.total - found.zeros < 12


def test_a_model_without_a_layer_has_nothing_to_calibrate() -> None:
    model = cleaned("no_weighted_op")
    found = calibrated(model, image(16, 2))
    assert found == Calibration({}, {}, 2)


def test_one_calibration_serves_both_dialects_and_every_choice_of_layers() -> None:
    names = [node.name for node in MODEL.graph if node.op_type in ("Conv", "Gemm")]
    for dialect in ("cpu", "tensorrt"):
        for kept in (frozenset(), *(frozenset({name}) for name in names), frozenset(names[:2])):
            for site in place(MODEL.graph, dialect, kept).sites:  # type: ignore[arg-type]
                assert WHOLE.histogram(site.value).total > 0


def test_a_calibration_comes_back_from_its_file_to_the_bit(tmp_path) -> None:
    save_calibration(WHOLE, tmp_path / "calibration.npz")
    found = load_calibration(tmp_path / "calibration.npz")
    assert all_bits(found) == all_bits(WHOLE)
    assert list(found.histograms) == list(WHOLE.histograms)
    assert (found.sources, found.samples) == (WHOLE.sources, WHOLE.samples)


def test_an_empty_calibration_comes_back_from_its_file(tmp_path) -> None:
    save_calibration(Calibration({}, {}, 3), tmp_path / "calibration.npz")
    assert load_calibration(tmp_path / "calibration.npz") == Calibration({}, {}, 3)


def test_a_calibration_file_is_the_same_each_time_and_runs_no_code(tmp_path) -> None:
    for name in ("one", "two"):
        save_calibration(dataclasses.replace(WHOLE), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with np.load(tmp_path / "one", allow_pickle=False) as stored:
        assert all(stored[name].dtype != object for name in stored.files)
