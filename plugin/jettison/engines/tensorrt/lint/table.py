"""The literal table of checks, in the order in which they are mended. `docs/lint.md` is made from it.

Sources: TensorRT's operator reference and its guide to quantized types; what tensorrt_rtx 1.7 was seen to
refuse, or to take for something else, in constructs compiled one by one.
"""

from __future__ import annotations

import onnx
import onnx.version_converter
import onnx_ir as ir

from jettison.engines.tensorrt.lint import mend_numbers, mend_path, mend_weights, numbers, operators, path
from jettison.engines.tensorrt.lint.finding import Check, Subject
from jettison.graph.dimensions import name_dimensions


def _name_dimensions(subject: Subject) -> None:
    name_dimensions(subject.model)


def _lower_opset(subject: Subject) -> ir.Model | None:
    """The model at the newest opset that TensorRT reads; None where onnx has no way down."""
    if subject.opset <= operators.LATEST_OPSET:
        return None
    try:
        proto = onnx.version_converter.convert_version(ir.to_proto(subject.model), operators.LATEST_OPSET)
    except (onnx.version_converter.ConvertError, RuntimeError, ValueError):
        return None
    return ir.from_proto(proto)


_SEVEN_BITS = "unsigned and shifted integers keep 7 of their 8 bits, and weights among them are rounded anew"

CHECKS: tuple[Check, ...] = (
    Check(
        code="T101",
        severity="hard",
        title="no dynamic quantization",
        reason="TensorRT has no integers whose scale is found as the model runs",
        fix="Serve it with the ONNX Runtime backend on the CPU, or quantize statically: {quantize: full}",
        find=operators.dynamic,
    ),
    Check(
        code="T102",
        severity="hard",
        title="pairs around float operators",
        reason="TensorRT reads Q/DQ pairs only, and no operators of integers",
        fix="Quantize again in the Q/DQ form (ONNX Runtime: quant_format=QuantFormat.QDQ)",
        find=operators.integer_forms,
    ),
    Check(
        code="T103",
        severity="hard",
        title="operators that TensorRT reads",
        reason="its parser has no such operator, and no plugin for it comes with it",
        fix="Leave the operator out of the export, run it before or behind the engine, or bring a plugin",
        find=operators.unknown,
    ),
    Check(
        code="T104",
        severity="soft",
        title="operators that all versions read",
        reason="TensorRT-RTX refuses it; whether TensorRT takes it depends on the version",
        fix="Compile it with the version that will serve, or run it behind the engine",
        find=operators.unsure,
    ),
    Check(
        code="T105",
        severity="hard",
        title=f"opset {operators.OLDEST_OPSET} to {operators.LATEST_OPSET}",
        reason="its parser reads no other (TensorRT 10.0: up to 20)",
        fix="Export at opset 20, or let --fix convert it",
        find=operators.opset,
        mend=_lower_opset,
    ),
    Check(
        code="T106",
        severity="hard",
        title="dimensions with names",
        reason="open dimensions of one name, `?` too, are taken for equal, and profiles contradict that",
        fix="Give each open dimension a name of its own, or let --fix do it",
        find=operators.nameless_dimensions,
        mend=_name_dimensions,
    ),
    Check(
        code="T110",
        severity="hard",
        title="a bias in float",
        reason="DequantizeLinear of INT32 is refused; the bias is added to the sums in float",
        fix="Keep the bias in float (ONNX Runtime: QuantizeBias=False), or let --fix do it",
        find=numbers.stored_biases,
        mend=mend_weights.float_biases,
    ),
    Check(
        code="T111",
        severity="hard",
        title="element types that pairs know",
        reason="pairs store INT8, FP8 E4M3, INT4 or FP4 and nothing else",
        fix="Quantize to INT8, or let --fix keep these values in float",
        find=numbers.strange_types,
        mend=mend_numbers.without_strange_types,
        cost="values of other types are rounded no more",
    ),
    Check(
        code="T112",
        severity="hard",
        title="single numbers in float",
        reason="a stored integer without dimensions is refused where no weight is read",
        fix="Keep the operand in float, or let --fix do it",
        find=numbers.stored_operands,
        mend=mend_weights.float_operands,
    ),
    Check(
        code="T113",
        severity="hard",
        title="zero points of 0",
        reason="TensorRT's integers are symmetric",
        fix="Quantize symmetrically (ONNX Runtime: ActivationSymmetric, WeightSymmetric), or let --fix do it",
        find=numbers.shifted,
        mend=mend_numbers.make_symmetric,
        cost=_SEVEN_BITS,
    ),
    Check(
        code="T114",
        severity="hard",
        title="INT8, not UINT8",
        reason="it is refused, or read as INT8 with a warning or none: numbers above 127 then mean others",
        fix="Quantize to INT8, or let --fix do it",
        find=numbers.unsigned,
        mend=mend_numbers.make_symmetric,
        cost=_SEVEN_BITS,
    ),
    Check(
        code="T115",
        severity="hard",
        title="scales above 0",
        reason="the build refuses zero, negative and NaN, and does not see infinity",
        fix="Find out which samples made it; --fix raises scales of 0, as dead channels have",
        find=numbers.bad_scales,
        mend=mend_weights.floor_scales,
    ),
    Check(
        code="T116",
        severity="hard",
        title="constant scales",
        reason="a scale that is computed crashes the compiler, or is refused",
        fix="Quantize statically, and store scales and zero points as constants",
        find=numbers.computed_scales,
    ),
    Check(
        code="T117",
        severity="hard",
        title="scales of their values' type",
        reason="TensorRT types networks strongly: a scale has the type of what it scales",
        fix="Cast the scales, or let --fix do it; scales of 16 bits need opset 19",
        find=numbers.scale_types,
        mend=mend_weights.cast_scales,
        cost="scales are rounded to the type of their values",
    ),
    Check(
        code="T118",
        severity="hard",
        title="one scale on an activation",
        reason="scales for each channel are for weights; elsewhere the layer falls back to float",
        fix="Quantize activations per tensor, or let --fix take the largest scale",
        find=numbers.channels_of_activations,
        mend=mend_numbers.one_scale_for_activations,
        cost="channels with small values are rounded by the scale of the largest",
    ),
    Check(
        code="T119",
        severity="hard",
        title="scales along the channels of a weight",
        reason="0 for Conv, 1 for ConvTranspose, Gemm's by transB; along another one it falls back to float",
        fix="Quantize the weights again, or let --fix do it",
        find=numbers.weight_axes,
        mend=mend_weights.turn_weight_axes,
        cost="weights are rounded twice",
    ),
    Check(
        code="T120",
        severity="hard",
        title="blocks as TensorRT has them",
        reason="blocks are for INT4, FP4 and MXFP8, from opset 21, and fill their axis",
        fix="Quantize again with a block size that divides the inner dimension, scales along that axis",
        find=numbers.blocks,
    ),
    Check(
        code="T121",
        severity="hard",
        title="types that the target computes in",
        reason="FP8 begins with sm89, FP4 with sm100, INT4 with sm80",
        fix="Choose another format for this target",
        find=numbers.missing_on_target,
    ),
    Check(
        code="T201",
        severity="soft",
        title="one pair a value",
        reason="each further one is a kernel and a copy of its own",
        fix="Share the pair among all readers, or let --fix do it",
        find=path.repeated,
        mend=mend_path.merge_twins,
    ),
    Check(
        code="T202",
        severity="soft",
        title="a pair on the shortcut only",
        reason="the sum is fused into the layer before it where that layer's own branch has no pair",
        fix="Quantize the other branch only, or let --fix do it",
        find=path.behind_layers,
        mend=mend_path.move_shortcuts,
        cost="the branch is rounded no more",
    ),
    Check(
        code="T203",
        severity="soft",
        title="layer and activation together",
        reason="a pair between the two keeps them from being fused",
        fix="Place the pair behind the activation, or let --fix take it away",
        find=path.before_activations,
        mend=mend_path.join_activations,
        cost="the value is rounded no more",
    ),
    Check(
        code="T204",
        severity="soft",
        title="no pair on an output",
        reason="a caller gets floats anyway, so that it costs a kernel and accuracy",
        fix="Leave outputs in float, or let --fix do it",
        find=path.on_outputs,
        mend=mend_path.bare_outputs,
        cost="the output is rounded no more",
    ),
    Check(
        code="T205",
        severity="soft",
        title="no pair before what runs in float",
        reason="these operators are computed in float whatever stands before them",
        fix="Leave their inputs in float, or let --fix do it",
        find=path.before_float,
        mend=mend_path.leave_float,
        cost="the value is rounded no more",
    ),
    Check(
        code="T206",
        severity="soft",
        title="one scale on a Concat",
        reason="branches of different scales are quantized anew, one kernel each",
        fix="Calibrate the branches together, or let --fix give all the largest scale",
        find=path.concatenated,
        mend=mend_path.share_scales,
        cost="branches with small values are rounded by the scale of the largest",
    ),
    Check(
        code="T207",
        severity="soft",
        title="BatchNormalization folded",
        reason="a scale between a layer and its pair keeps the layer from running in integers",
        fix="Fold it before quantization, or let --fix fold it into float weights",
        find=path.batch_norms,
        mend=mend_path.fold_norms,
    ),
    Check(
        code="T208",
        severity="soft",
        title="pairs on both inputs of a layer",
        reason="with one of the two in float the layer runs in float",
        fix="Quantize both inputs, or neither",
        find=path.half_quantized,
    ),
    Check(
        code="T209",
        severity="soft",
        title="wide layers",
        reason="narrower ones gain nothing from integers, and pay for the way in and out",
        fix="Leave the layer in float: keep_float of {quantize: full}",
        find=path.narrow,
    ),
    Check(
        code="T210",
        severity="soft",
        title="no lone integers",
        reason="each border between integers and float is a kernel of its own",
        fix="Quantize its neighbours too, or leave it in float",
        find=path.lone,
    ),
    Check(
        code="T211",
        severity="soft",
        title="INT4 and FP4 on products",
        reason="on a convolution they are decompressed to float: that saves memory and no time",
        fix="Quantize convolutions to INT8, and MatMul and Gemm to INT4",
        find=numbers.blocks_of_convolutions,
    ),
)
