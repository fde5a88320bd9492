"""What a model is trained to make small: its distance from labels, or from another model's answers.

    classes     cross-entropy of softmax(y) with the label
    yes or no   binary cross-entropy of the first float output, one number a sample, with labels 0 and 1
    numbers     mean squared error against the labels
    baseline    T^2 KL(softmax(y_0 / T) || softmax(y / T)) for class scores, and |y - y_0|^2 / |y_0|^2 for
                any other float output, which is 1 - the metric `sqnr`; y_0 is the baseline's output
Source: Hinton et al. 2015, Distilling the Knowledge in a Neural Network (arXiv 1503.02531), section 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional

from jettison.compress.distillation.batches import Loss, Outputs, TensorBatch, tensors_of
from jettison.compress.passes import Refusal
from jettison.core.errors import RecipeError, SamplesError
from jettison.core.samples import USER_ERRORS, Batch, Samples, load_function
from jettison.core.tensors import Arrays, TensorSpec
from jettison.evaluate.classes import looks_like_classes
from jettison.evaluate.labels import check_labels
from jettison.evaluate.metrics import default_metric
from jettison.graph.model import output_specs

_SMALLEST_SHARE = 1e-7
"""Probabilities below this count as this: float32 has 0 where the logarithm has none."""
_SMALLEST_ENERGY = 1e-12
_LEAST_ENERGY_SHARE = 0.1
"""Of the batch's mean energy, what a sample's counts as at least."""

Answering = Callable[[Batch], Arrays]
"""A model that answers without being trained, such as a teacher in ONNX Runtime."""

_MOVES = (
    "Identity",
    "Reshape",
    "Flatten",
    "Squeeze",
    "QuantizeLinear",
    "DequantizeLinear",
    "Cast",
    "Transpose",
    "Unsqueeze",
)


def labels_loss(model: ir.Model, samples: Samples) -> Loss | Refusal:
    """Cross-entropy or mean squared error, by labels and outputs, as the default metric reads them.

    Raises:
        SamplesError: Labels that the loss cannot read: a class that the model does not know, NaN.
    """
    specs = output_specs(model)
    metric = default_metric(samples, specs).name
    check_labels(metric, samples, specs)
    if metric == "top1" and any(spec.dtype.is_float for spec in specs):
        return class_loss(is_softmax=ends_in_softmax(model.graph))
    if metric == "mae":
        return _squared_error
    if _is_yes_or_no(samples, specs):
        return yes_or_no_loss(is_sigmoid=ends_in(model.graph, "Sigmoid"))
    facts = samples.labels
    found = "no labels" if facts is None else f"labels of {facts.dtype}, {facts.row_shape} each"
    return Refusal(
        reasons=(f"no loss fits the outputs {[spec.name for spec in specs]} and {found}",),
        instead="Give class numbers, 0 and 1 for a model of one output, or numbers in the shape of the first "
        "output, or your own loss: package.module:function, or use {train: baseline}",
    )


def class_loss(*, is_softmax: bool = False) -> Loss:
    """Cross-entropy of the class scores with class numbers or with one row of class shares each."""

    def loss(outputs: Outputs, batch: TensorBatch) -> Tensor:
        scores = class_scores(outputs)
        if scores is None or batch.labels is None:
            raise SamplesError(
                "training samples", detail="expected labels and class scores", fix="Add an array 'labels'"
            )
        labels = batch.labels
        is_shares = labels.ndim > 1 and labels.shape[1] > 1
        target = labels.to(scores.dtype) if is_shares else labels.reshape(-1)
        return functional.cross_entropy(logs(scores) if is_softmax else scores, target)

    return loss


def yes_or_no_loss(*, is_sigmoid: bool = False) -> Loss:
    """Binary cross-entropy of the first float output, one number a sample, with whole labels 0 and 1."""

    def loss(outputs: Outputs, batch: TensorBatch) -> Tensor:
        scores, labels = _first_float_and_labels(outputs, batch)
        found, target = scores.reshape(-1), labels.reshape(-1)
        if is_sigmoid:
            shares = found.clamp(_SMALLEST_SHARE, 1 - _SMALLEST_SHARE)
            return functional.binary_cross_entropy(shares, target)
        return functional.binary_cross_entropy_with_logits(found, target)

    return loss


def _is_yes_or_no(samples: Samples, specs: Sequence[TensorSpec]) -> bool:
    """Whether labels are all 0 or 1, and the first float output gives one number a sample."""
    facts, first = samples.labels, next((spec for spec in specs if spec.dtype.is_float), None)
    if facts is None or first is None or facts.lowest is None or facts.highest is None:
        return False
    return facts.lowest[0] >= 0 and facts.highest[0] <= 1 and all(size == 1 for size in first.shape[1:])


def baseline_loss(
    baseline: Answering,
    specs: Sequence[TensorSpec],
    *,
    temperature: float,
    is_softmax: bool = False,
) -> Loss:
    """The distance from a baseline's answers to the same samples.

    Args:
        baseline: Answers, without a gradient.
        specs: Outputs of the model; the first one may be class scores.
        temperature: T, above 0: the higher, the more the order of wrong classes counts.
        is_softmax: Whether the class scores are probabilities.
    """
    decides = looks_like_classes(specs)

    def loss(outputs: Outputs, batch: TensorBatch) -> Tensor:
        device = next(iter(outputs.values())).device
        targets = tensors_of(baseline(batch.source), device)
        scores, wanted = (class_scores(found) if decides else None for found in (outputs, targets))
        decided = None if scores is None or wanted is None else _class_output(targets)
        errors = [
            relative_error(outputs[name], target)
            for name, target in targets.items()
            if target.is_floating_point() and name != decided
        ]
        if scores is not None and wanted is not None:
            pair = (logs(scores), logs(wanted)) if is_softmax else (scores, wanted)
            errors.append(divergence(*pair, temperature=temperature))
        return torch.stack(errors).sum()

    return loss


def divergence(scores: Tensor, wanted: Tensor, *, temperature: float) -> Tensor:
    """T^2 KL(softmax(wanted / T) || softmax(scores / T)), the mean over samples; (rows, classes) both."""
    found, target = (functional.log_softmax(values / temperature, 1) for values in (scores, wanted))
    return functional.kl_div(found, target, reduction="batchmean", log_target=True) * temperature**2


def relative_error(found: Tensor, target: Tensor) -> Tensor:
    """|y - y_0|^2 / |y_0|^2 of each sample, the mean over samples.

    A sample whose target is nearly 0 is measured by the mean energy of the batch: by its own, one answer that
    should be 0 would count more than all others together.
    """
    rows = len(target)
    difference = (found - target).reshape(rows, -1).square().sum(1)
    energy = target.reshape(rows, -1).square().sum(1)
    least = max(_LEAST_ENERGY_SHARE * float(energy.mean()), _SMALLEST_ENERGY)
    return (difference / energy.clamp(min=least)).mean()


def class_scores(outputs: Outputs) -> Tensor | None:
    """(rows, classes) from the first float output that holds some, or None.

    As `evaluate.classes.class_scores` picks them, with their gradient.
    """
    name = _class_output(outputs)
    return None if name is None else outputs[name].reshape(len(outputs[name]), -1)


def _class_output(outputs: Outputs) -> str | None:
    """The name of the first float output with one row of scores for each sample."""
    for name, found in outputs.items():
        sizes = [size for size in found.shape[1:] if size != 1]
        if found.is_floating_point() and len(sizes) == 1:
            return name
    return None


def logs(shares: Tensor) -> Tensor:
    """Logarithms of probabilities: scores whose softmax they are."""
    return shares.clamp(min=_SMALLEST_SHARE).log()


def ends_in_softmax(graph: ir.Graph) -> bool:
    """Whether the first float output is made by a Softmax, so that it holds probabilities."""
    return ends_in(graph, "Softmax")


def ends_in(graph: ir.Graph, kind: str) -> bool:
    """Whether the first float output is made by an operator of that kind, with only moves behind it."""
    value = next((value for value in graph.outputs if value.dtype == ir.DataType.FLOAT), None)
    while value is not None and (node := value.producer()) is not None:
        if node.op_type == kind:
            return True
        if node.op_type not in _MOVES:
            return False
        value = node.inputs[0]
    return False


def _squared_error(outputs: Outputs, batch: TensorBatch) -> Tensor:
    found, labels = _first_float_and_labels(outputs, batch)
    return functional.mse_loss(found, labels.reshape(found.shape))


def _first_float_and_labels(outputs: Outputs, batch: TensorBatch) -> tuple[Tensor, Tensor]:
    """The first float output, and the labels in its element type."""
    found = next(value for value in outputs.values() if value.is_floating_point())
    if batch.labels is None:
        raise SamplesError("training samples", detail="expected labels", fix="Add an array 'labels'")
    return found, batch.labels.to(found.dtype)


def own_loss(name: str) -> Loss:
    """The user's own loss, `package.module:function`, called with outputs by name and labels as tensors.

    Raises:
        RecipeError: There is no such function.
    """
    try:
        function = load_function(name)
    except SamplesError as error:
        raise RecipeError(f"loss {name!r}", detail=error.detail, fix=error.fix) from error

    def loss(outputs: Outputs, batch: TensorBatch) -> Tensor:
        try:
            found = function(dict(outputs), batch.labels)
        except USER_ERRORS as error:
            raise RecipeError(
                f"loss {name!r}", detail=f"it failed with {type(error).__name__}: {error}", fix="Correct it"
            ) from error
        if not isinstance(found, Tensor) or found.numel() != 1 or not found.is_floating_point():
            shown = f"a tensor of {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise RecipeError(
                f"loss {name!r}",
                detail=f"expected a tensor of one number, found {shown}",
                fix="Return the mean loss of the batch, such as torch.nn.functional.mse_loss(...)",
            )
        if torch.is_grad_enabled() and not found.requires_grad:
            raise RecipeError(
                f"loss {name!r}",
                detail="expected a number that follows from the outputs, found one without a gradient",
                fix="Compute it in torch from the outputs, without .detach(), .item() or numpy",
            )
        return found.reshape(())

    return loss
