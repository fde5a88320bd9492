"""A graph as a torch module: it computes what ONNX Runtime does, learns, and is written back unchanged."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from small_models import feature_net, image, model_of, run
from zoo_cases import zoo_case

from jettison.compress.passes import Refusal
from jettison.graph.model import input_specs
from jettison.graph.save import model_bytes
from zoo.builder import image_net
from zoo.session import relative_difference
from zoo.table import ZOO

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from jettison.compress.distillation.graph_module import GraphModule, graph_module  # noqa: E402
from jettison.compress.distillation.write_back import trained_model  # noqa: E402

TOLERANCE = 1e-5
"""Of the largest output: float32 sums in another order were seen to differ by 7e-7."""

REFUSED = {
    "if_on_data": "If 'node_if_7' has no gradient here",
    "lstm": "LSTM 'node_lstm_5' has no gradient here",
    "gru": "GRU 'node_gru_5' has no gradient here",
    "data_dependent_shape": "NonZero 'node_nonzero_6' has no gradient here",
    "half_precision": "Conv 'node_conv_3' reads 'bias_2' in FLOAT16",
    "no_weighted_op": "the model has no weights: nothing to train",
}


def answers(module, arrays):
    with torch.no_grad():
        found = module(*(torch.from_numpy(arrays[name]) for name in module.input_names))
    return dict(zip(module.output_names, (tensor.numpy() for tensor in found), strict=True))


def as_module(model, **settings):
    found = graph_module(model, **settings)
    assert not isinstance(found, Refusal), found
    return found


@pytest.mark.parametrize("name", ZOO)
def test_every_model_of_the_zoo_is_equal_or_refused_with_the_node_and_a_way_out(name):
    case = zoo_case(name)
    found = graph_module(case.model)
    if name in REFUSED:
        assert found.reasons == (REFUSED[name],)
        assert found.instead
        return
    assert relative_difference(case.outputs, answers(found, case.inputs)) < TOLERANCE
    assert model_bytes(trained_model(case.model, found)) == model_bytes(case.model)


@pytest.mark.parametrize("name", [name for name in ZOO if name not in REFUSED])
def test_every_weight_of_the_zoo_gets_a_gradient(name):
    case = zoo_case(name)
    module = as_module(case.model)
    inputs = [torch.from_numpy(case.inputs[key]) for key in module.input_names]
    outputs = [found for found in module(*inputs) if found.is_floating_point()]
    sum(
        (found * torch.linspace(0.5, 1.5, found.numel()).reshape(found.shape)).sum() for found in outputs
    ).backward()
    still = [key for key, value in module.named_parameters() if value.grad is None or not value.grad.any()]
    assert all(torch.isfinite(value.grad).all() for value in module.parameters() if value.grad is not None)
    assert not still


def test_constants_that_are_no_weights_are_kept():
    """0.5, sqrt(2) and epsilon of formulas; masks and tables, which vary along several axes."""
    module = as_module(zoo_case("attention_decomposed").model)
    names = {origin.name for origin in module.origins}
    graph = zoo_case("attention_decomposed").model.graph
    kept = {name for name, value in graph.initializers.items() if value.dtype == ir.DataType.FLOAT} - names
    assert {graph.initializers[name].const_value.size for name in kept} == {1}
    net, x = feature_net(4)
    x = net.op("Add", net.gemm(x, (4, 4)), net.const(np.eye(4, dtype=np.float32)[:, None] * 100))
    net.output(x, ["four", "batch", 4])
    assert len(as_module(model_of(net)).origins) == 2


def test_layers_are_modules_of_torch_where_nothing_else_reads_their_weights():
    kinds = [type(layer).__name__ for layer in as_module(zoo_case("conv_relu_chain").model).layers.values()]
    assert kinds == ["Conv2d", "Conv2d", "Linear"]
    assert [*as_module(zoo_case("matmul_bias").model).layers] != []
    shared = as_module(zoo_case("shared_weight").model)
    assert [type(layer).__name__ for layer in shared.layers.values()] == ["Linear"]
    assert len(shared.weights) == 1


def test_batch_normalization_that_stays_keeps_its_statistics_in_training():
    module = as_module(zoo_case("batchnorm_alone").model).train()
    inputs = zoo_case("batchnorm_alone").inputs
    before = answers(module, inputs)
    (norm,) = [layer for layer in module.layers.values() if "BatchNorm" in type(layer).__name__]
    mean = norm.running_mean.clone()
    assert relative_difference(zoo_case("batchnorm_alone").outputs, before) < TOLERANCE
    assert torch.equal(norm.running_mean, mean)
    assert norm.weight.requires_grad


def test_trained_values_come_back_in_the_files_own_shapes():
    """Weights that torch holds transposed, a bias of two axes, a shared weight."""
    for name in ("gemm_forms", "matmul_bias", "shared_weight", "conv_transpose"):
        case = zoo_case(name)
        module = as_module(case.model)
        with torch.no_grad():
            for number, value in enumerate(module.parameters()):
                value.mul_(1.1 + 0.1 * number)
        found = trained_model(case.model, module)
        assert (
            relative_difference(answers(module, case.inputs), run(found, case.inputs, optimize=False))
            < TOLERANCE
        )
        assert input_specs(found) == input_specs(case.model)
        assert model_bytes(case.model) == model_bytes(zoo_case(name).model)


def test_a_copy_of_the_module_has_weights_of_its_own():
    import copy

    module = as_module(zoo_case("strided_dilated_asymmetric").model)
    inputs = zoo_case("strided_dilated_asymmetric").inputs
    other, before = copy.deepcopy(module), answers(module, inputs)
    with torch.no_grad():
        for value in module.parameters():
            value.zero_()
    assert relative_difference(before, answers(other, inputs)) == 0


def test_a_weight_given_as_the_activation_of_a_layer_is_no_crash():
    net, x = image_net("odd", 8)
    y = net.op("Conv", net.const(net.he((1, 8, 4, 4), 8)), net.const(net.he((8, 8, 1, 1), 8)))
    net.output(net.op("Add", net.conv(x, (8, 8)), net.op("GlobalMaxPool", y)), ["batch", 8, 16, 16])
    model = model_of(net)
    assert relative_difference(run(model, image(8)), answers(as_module(model), image(8))) < TOLERANCE


def test_an_untrained_module_needs_no_gradients_to_answer():
    assert isinstance(as_module(zoo_case("gemm_only").model), GraphModule)
