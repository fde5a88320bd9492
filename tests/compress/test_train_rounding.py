"""Rounding while training: exact forward, the gradients of LSQ backward, ties between scales."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from one_node import answers, one_node
from small_models import features, image, quantized, residual_network, run, two_convolutions
from zoo_cases import zoo_case, zoo_result

from jettison.compress.passes import Refusal, Workpiece
from jettison.compress.quantization.quantize import QuantizeFull
from jettison.compress.quantization.weight_only import QuantizeInt4
from jettison.compress.quantization.weights import kernel_order, mend_pairs, pair_excess
from jettison.core.targets import parse_target
from jettison.evaluate.sqnr import sqnr_db
from jettison.graph.save import model_bytes
from zoo.table import ZOO

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from jettison.compress.distillation import rounding  # noqa: E402
from jettison.compress.distillation.graph_module import GraphModule, graph_module  # noqa: E402
from jettison.compress.distillation.rounding import (  # noqa: E402
    mended,
    round_through,
    scaled_gradient,
)
from jettison.compress.distillation.scale_ties import scale_ties  # noqa: E402
from jettison.compress.distillation.write_back import trained_model  # noqa: E402

TIE_DB = 45.0
"""Sums in another order put a few activations on the other side of a tie: 49 dB and more were seen, and
140 where there is none. A wrong axis, zero point or rounding leaves under 30."""

HALVES = np.array([-1.5, -0.5, 0.5, 1.5, 2.5, 126.5, 127.5, 400, -128.5, -400, 0.49, 3.2], np.float32)


@pytest.mark.parametrize("zero", [np.uint8(3), np.int8(0), np.int16(-7)], ids=lambda zero: zero.dtype.name)
@pytest.mark.parametrize("scale", [np.float32(1), np.float32(0.1)])
def test_rounding_is_that_of_onnx_runtime_ties_and_saturation_included(zero, scale):
    x = HALVES * scale
    model = one_node("QuantizeLinear", "x", scale, zero, feeds={"x": x})
    module = GraphModule(model, learn_scales=False)
    np.testing.assert_array_equal(module(torch.from_numpy(x))[0].numpy(), answers(model, {"x": x})[0])


def test_axes_and_blocks_are_those_of_onnx_runtime():
    x = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    scales = np.array([0.1, 0.2, 0.05, 0.4], np.float32)
    zeros = np.array([0, 3, 100, 255], np.uint8)
    for inputs, attributes in (
        (("x", scales, zeros), {"axis": 0}),
        (("x", np.abs(x[:, :3]) + np.float32(0.01), np.zeros((4, 3), np.int8)), {"axis": 1, "block_size": 2}),
        (("x", np.abs(x[:2]) + np.float32(0.01), np.zeros((2, 6), np.int8)), {"axis": 0, "block_size": 3}),
    ):
        model = one_node("QuantizeLinear", *inputs, feeds={"x": x}, **attributes)
        found = GraphModule(model)(torch.from_numpy(x))[0].detach().numpy()
        np.testing.assert_array_equal(found, answers(model, {"x": x})[0])


@pytest.mark.parametrize(
    ("step", "target"),
    [(QuantizeFull(), "cpu"), (QuantizeFull(), "tensorrt"), (QuantizeInt4(block=32), "cpu")],
    ids=["cpu", "tensorrt", "int4"],
)
@pytest.mark.parametrize("name", ZOO)
def test_a_quantized_model_computes_what_its_simulation_does_and_comes_back_as_it_was(name, step, target):
    result = zoo_result(name, target, step)
    if isinstance(result, Refusal):
        return
    module = graph_module(result.model)
    if isinstance(module, Refusal):
        assert isinstance(graph_module(zoo_case(name).model), Refusal)
        return
    inputs = zoo_case(name).inputs
    with torch.no_grad():
        found = module(*(torch.from_numpy(inputs[key]) for key in module.input_names))
    outputs = dict(zip(module.output_names, (tensor.numpy() for tensor in found), strict=True))
    expected = run(result.model, inputs, optimize=False)
    assert sqnr_db(expected, outputs) > TIE_DB
    assert model_bytes(trained_model(result.model, module)) == model_bytes(result.model)


def test_gradients_of_rounding_are_those_of_lsq():
    """dy/dx is 1 inside and 0 outside; dy/ds is round(x/s) - x/s inside and the bound outside."""
    x = torch.tensor([0.34, -0.72, 5.0, -5.0], requires_grad=True)
    s = torch.tensor(0.2, requires_grad=True)
    y = rounding.quantized(x, s, torch.tensor(0.0), -8, 7) * s
    y.sum().backward()
    assert x.grad.tolist() == pytest.approx([1, 1, 0, 0])
    inside = (2 - 1.7) + (-4 + 3.6)
    assert s.grad.item() == pytest.approx(inside + 7 - 8, abs=1e-5)


def test_scaled_gradients_and_rounding_leave_values_exact():
    x = torch.tensor([0.1, 2.5, -0.5], requires_grad=True)
    scaled_gradient(round_through(x), 0.25).sum().backward()
    assert round_through(x).tolist() == [0.0, 2.0, -0.0]
    assert x.grad.tolist() == [0.25] * 3


@settings(max_examples=60)
@given(
    st.integers(0, 2**32 - 1), st.sampled_from([((5, 7), 1), ((4, 6), 0), ((3, 5, 3, 3), 0), ((4, 3, 2), 1)])
)
def test_mending_pairs_is_that_of_the_quantizer(seed, form):
    shape, axis = form
    values = np.random.default_rng(seed).integers(-127, 128, shape).astype(np.float32)
    found = mended(torch.from_numpy(values), axis).numpy()
    expected = mend_pairs(kernel_order(values, axis).copy())
    np.testing.assert_array_equal(kernel_order(found, axis), expected)
    assert not pair_excess(kernel_order(found, axis)).any()


def trained_a_little(model, inputs, *, steps=3, rate=0.02, **given):
    module = graph_module(model, **given)
    optimizer = torch.optim.SGD(module.parameters(), lr=rate)
    tensors = [torch.from_numpy(inputs[name]) for name in module.input_names]
    for _ in range(steps):
        optimizer.zero_grad()
        sum(found.square().mean() for found in module(*tensors)).backward()
        for value in module.parameters():
            value.grad = torch.sign(value.grad) * value.detach().abs().mean().clamp(min=0.5)
        optimizer.step()
        module.project()
    return module


def scales_of(model):
    names = {node.inputs[1].name for node in model.graph if node.op_type.endswith("quantizeLinear")}
    names |= {node.inputs[1].name for node in model.graph if node.op_type == "QuantizeLinear"}
    return {name: model.graph.initializers[name].const_value.numpy() for name in names}


@pytest.mark.parametrize("target", ["cpu", "tensorrt"])
def test_trained_integers_and_scales_are_in_the_file_and_kernels_compute_with_them(target):
    model = quantized(residual_network(), image(count=32), target=target).model
    module = trained_a_little(model, image(count=8, seed=1))
    found = trained_model(model, module)
    inputs = image(count=8, seed=2)
    with torch.no_grad():
        outputs = {"logits": module(torch.from_numpy(inputs["image"]))[0].numpy()}
    assert sqnr_db(run(model, inputs), outputs) < 20
    assert sqnr_db(run(found, inputs, optimize=False), outputs) > TIE_DB
    assert sqnr_db(run(found, inputs), outputs) > 30  # of kernels; for `tensorrt` the CPU has no fast ones
    before, after = scales_of(model), scales_of(found)
    assert all((value > 0).all() for value in after.values())
    moved = sum(not np.array_equal(before[name], after[name]) for name in before)
    assert moved == len(before)


def test_trained_weights_are_safe_for_kernels_that_sum_pairs_in_16_bits():
    model = quantized(residual_network(), image(count=32)).model
    found = trained_model(model, trained_a_little(model, image(count=8, seed=1)))
    weights = [v.const_value.numpy() for v in found.graph.initializers.values() if v.dtype.name == "INT8"]
    weights = [array for array in weights if array.ndim > 1]
    assert len(weights) > 5
    for array in weights:
        axis = 0 if array.ndim == 4 or array.shape[0] == 16 else 1
        assert not pair_excess(kernel_order(array.astype(np.float32), axis)).any()


def test_scales_that_stand_for_one_another_stay_equal():
    model = quantized(residual_network(), image(count=32)).model
    found = trained_model(model, trained_a_little(model, image(count=8, seed=1)))
    after = scales_of(found)
    for name, roots in scale_ties(model.graph).follows.items():
        same = [other for other, found in scale_ties(model.graph).follows.items() if found == roots]
        assert len(roots) == 2 or all(after[other].flat[0] == after[name].flat[0] for other in same)
    biases = 0
    for node in found.graph:
        if node.op_type in ("Conv", "Gemm") and len(node.inputs) > 2:
            activation, weight, bias = (after[value.producer().inputs[1].name] for value in node.inputs)
            np.testing.assert_allclose(bias, activation * weight, rtol=1e-5)
            biases += 1
    assert biases == 8


def test_a_scale_behind_a_clip_does_not_rise_beyond_its_bound():
    """Else the Clip stays in the graph that runs, and the convolution before it in float."""
    inputs = {"image": 3 * image(count=16)["image"]}
    model = quantized(two_convolutions("Clip", 0.0, 6.0), inputs).model
    capped = scale_ties(model.graph).capped
    assert len(capped) == 1
    module = graph_module(model)
    with torch.no_grad():
        for value in module.scales.logs.values():
            value.fill_(0.5)
    module.project()
    after = scales_of(trained_model(model, module))
    before = scales_of(model)
    risen = {name for name in before if (after[name] > before[name] * 1.01).all()}
    assert capped.isdisjoint(risen)
    assert len(risen) >= 4


def test_scales_are_kept_where_none_shall_be_learned():
    model = quantized(residual_network(), image(count=32)).model
    module = trained_a_little(model, image(count=8, seed=1), learn_scales=False)
    assert not module.scales.logs
    before, after = scales_of(model), scales_of(trained_model(model, module))
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_four_bits_are_written_back_as_four_bits():
    case = zoo_case("gemm_only")
    target = parse_target("cpu")
    model = QuantizeInt4(block=32)(Workpiece(case.model, target), case.samples).model
    found = trained_model(model, trained_a_little(model, features(count=16)))
    stored = [v for v in found.graph.initializers.values() if v.dtype.name == "INT4"]
    assert len(stored) == 2
    assert {node.attributes.get_int("block_size", 0) for node in found.graph} >= {32}
    inputs = features(count=8, seed=3)
    module = graph_module(found)
    with torch.no_grad():
        outputs = {"scores": module(torch.from_numpy(inputs["features"]))[0].numpy()}
    assert sqnr_db(run(found, inputs, optimize=False), outputs) > 100
