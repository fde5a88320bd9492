"""THE table of the zoo: every small model, what it shows, and inputs for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx

from zoo import convolutions, folding, legacy, odd, transformers


@dataclass(frozen=True)
class ZooModel:
    """A small model and what it is there for.

    `shows` names operators that must be in it, `features` the patterns. `quantizable` says whether a
    static INT8 quantizer must find something in it.
    """

    build: Callable[[], onnx.ModelProto]
    features: tuple[str, ...]
    shows: tuple[str, ...] = ()
    quantizable: bool = True

    @property
    def name(self) -> str:
        return self.build.__name__

    def inputs(self, batch: int = 2, seed: int = 0) -> dict[str, np.ndarray]:
        """Standard normal arrays, ids below 50 for integers; open dimensions after the first are 16."""
        rng = np.random.default_rng(seed)
        graph = self.build().graph
        constants = {tensor.name for tensor in graph.initializer}
        return {v.name: _array(v, batch, rng) for v in graph.input if v.name not in constants}

    def check(self, model: onnx.ModelProto) -> None:
        """That the model is valid and still shows what it is there for."""
        if "negative dimension" not in self.features:
            onnx.checker.check_model(model, full_check=True)
        found = Counter(node.op_type for node in model.graph.node)
        missing = [operator for operator in self.shows if not found[operator]]
        assert not missing, f"{self.name} shows no {missing}"


def _array(value: onnx.ValueInfoProto, batch: int, rng: np.random.Generator) -> np.ndarray:
    tensor = value.type.tensor_type
    sizes = [size.dim_value if size.dim_value > 0 else 16 for size in tensor.shape.dim]
    if sizes and tensor.shape.dim[0].dim_value <= 0:
        sizes[0] = batch
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    if dtype.kind in "iu":
        return rng.integers(0, 50, sizes).astype(dtype)
    return rng.normal(0, 1, sizes).astype(dtype)


_CONVOLUTIONS = (
    ZooModel(convolutions.conv_relu_chain, ("chain", "gemm head"), ("Conv", "Relu", "Gemm")),
    ZooModel(
        convolutions.strided_dilated_asymmetric,
        ("stride", "dilation", "asymmetric pads", "auto_pad"),
        ("Conv",),
    ),
    ZooModel(convolutions.grouped_conv, ("groups",), ("Conv",)),
    ZooModel(convolutions.conv_1d, ("one dimension",), ("Conv", "MaxPool")),
    ZooModel(
        convolutions.depthwise_clip, ("depthwise", "clip bounds as initializers", "residual"), ("Clip", "Add")
    ),
    ZooModel(convolutions.residual_add, ("residual", "relu after add"), ("Add", "Relu")),
    ZooModel(convolutions.residual_projection, ("residual", "projection shortcut"), ("Add",)),
    ZooModel(convolutions.inception_concat, ("concat of branches",), ("Concat", "MaxPool")),
    ZooModel(convolutions.dense_concat, ("dense concat",), ("Concat",)),
    ZooModel(convolutions.squeeze_excite, ("squeeze-and-excite",), ("GlobalAveragePool", "Sigmoid", "Mul")),
    ZooModel(
        convolutions.squeeze_excite_hard,
        ("squeeze-and-excite", "hard sigmoid", "hard swish"),
        ("HardSwish", "HardSigmoid", "Clip", "Div"),
    ),
    ZooModel(convolutions.silu, ("silu",), ("Sigmoid", "Mul")),
    ZooModel(convolutions.leaky_and_prelu, ("leaky relu", "prelu"), ("LeakyRelu", "PRelu")),
    ZooModel(convolutions.conv_transpose, ("transposed convolution", "map output"), ("ConvTranspose",)),
    ZooModel(convolutions.resize_nearest_linear, ("resize", "map output"), ("Resize",)),
    ZooModel(
        convolutions.pools_and_shapes,
        ("pools", "shape operators"),
        ("Pad", "Split", "Slice", "AveragePool", "MaxPool", "Transpose", "Reshape", "Flatten"),
    ),
    ZooModel(convolutions.nhwc_input, ("channels last input",), ("Transpose",)),
    ZooModel(convolutions.dynamic_size, ("dynamic height and width", "several outputs")),
    ZooModel(convolutions.many_consumers, ("several consumers", "shared relu"), ("Sigmoid",)),
    ZooModel(convolutions.output_consumed_inside, ("output consumed inside", "convolution is an output")),
    ZooModel(convolutions.dead_channel, ("dead channel",), ("Conv",)),
)

_FOLDING = (
    ZooModel(folding.batchnorm_after_conv, ("batchnorm",), ("BatchNormalization",)),
    ZooModel(folding.batchnorm_alone, ("batchnorm that stays",), ("BatchNormalization",)),
    ZooModel(
        folding.batchnorm_transpose_gemm, ("batchnorm",), ("BatchNormalization", "ConvTranspose", "Gemm")
    ),
    ZooModel(
        folding.batchnorm_through_constants, ("batchnorm", "constants"), ("BatchNormalization", "Identity")
    ),
    ZooModel(folding.batchnorm_shared_weight, ("batchnorm", "shared weights"), ("BatchNormalization",)),
    ZooModel(folding.shared_weight, ("shared weights",), ("Conv",)),
    ZooModel(folding.identity_chain, ("identity", "dropout"), ("Identity", "Dropout")),
    ZooModel(
        folding.indirect_weights, ("indirect weights",), ("Constant", "Identity", "Transpose", "Reshape")
    ),
    ZooModel(folding.if_constant, ("constant if",), ("If",)),
    ZooModel(folding.if_on_data, ("if on data",), ("If",)),
    ZooModel(folding.shape_arithmetic, ("shape arithmetic",), ("Shape", "Gather", "Concat")),
    ZooModel(folding.local_function, ("functions",), ("ConvRelu",)),
    ZooModel(folding.unused_parts, ("dead parts", "no node names"), ("Sigmoid", "MaxPool")),
)

_TRANSFORMERS = (
    ZooModel(transformers.gemm_only, ("only gemm",), ("Gemm",)),
    ZooModel(transformers.gemm_forms, ("gemm attributes",), ("Gemm",)),
    ZooModel(transformers.matmul_bias, ("matmul with constant weights",), ("MatMul", "Add")),
    ZooModel(
        transformers.attention_layernorm,
        ("attention", "layer normalization"),
        ("LayerNormalization", "Softmax"),
    ),
    ZooModel(
        transformers.attention_decomposed, ("attention", "decomposed layer normalization"), ("Pow", "Softmax")
    ),
    ZooModel(transformers.embedding, ("integer input", "embedding"), ("Gather", "MatMul")),
    ZooModel(transformers.lstm, ("recurrent",), ("LSTM", "Gemm")),
    ZooModel(transformers.gru, ("recurrent",), ("GRU", "Gemm")),
)

_LEGACY = (
    ZooModel(legacy.opset_9, ("opset 9", "upsample", "batchnorm"), ("Upsample", "Clip", "Dropout")),
    ZooModel(legacy.opset_11, ("opset 11",), ("Split", "Squeeze", "Unsqueeze", "ReduceSum")),
    ZooModel(legacy.initializers_as_inputs, ("initializers as inputs", "batchnorm"), ("BatchNormalization",)),
    ZooModel(legacy.question_mark_dimensions, ("unnamed dimensions",)),
    ZooModel(legacy.unnamed_dimensions, ("unnamed dimensions",)),
    ZooModel(legacy.negative_dimensions, ("unnamed dimensions", "negative dimension")),
    ZooModel(legacy.double_precision_constant, ("float64 inside",), ("Cast",)),
)

_ODD = (
    ZooModel(odd.unused_input, ("unused scalar input",)),
    ZooModel(odd.many_inputs_outputs, ("several inputs", "several outputs"), ("ArgMax",)),
    ZooModel(odd.no_weighted_op, ("nothing to quantize",), quantizable=False),
    ZooModel(odd.dynamic_weights, ("weights that are not constant", "several inputs"), ("Conv",)),
    ZooModel(odd.half_precision, ("float16",), ("Conv", "Gemm")),
    ZooModel(odd.fixed_batch, ("fixed batch",)),
    ZooModel(odd.narrow_layers, ("narrow layers",)),
    ZooModel(odd.data_dependent_shape, ("data-dependent shape",), ("NonZero", "GatherND")),
)

ZOO: dict[str, ZooModel] = {
    model.name: model for model in (*_CONVOLUTIONS, *_FOLDING, *_TRANSFORMERS, *_LEGACY, *_ODD)
}
"""Every model by its name."""
