"""What single weights are worth to a loss, by its gradient: w dL/dw, the first term of Taylor's series.

    L(0) - L(w) = -w dL/dw + ...
Source: Molchanov et al. 2019, Importance Estimation for Neural Network Pruning (arXiv 1906.10771), eq. 8.

Without labels the model's own answers stand in for them. Their distance from themselves has no gradient, so
labels are drawn: a class by the model's own probabilities, or a direction r of +1 and -1 for other outputs.
The mean of (w dL/dw)^2 is then w^2 times the diagonal of Fisher's matrix: twice what removing w alone would
change in KL(y_0 || y), or in |y - y_0|^2, to second order.
Source: Theis et al. 2018, Faster gaze prediction with dense networks and Fisher pruning (arXiv 1801.05787).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional

from jettison.compress.distillation import losses
from jettison.compress.distillation.batches import Loss, Outputs, TensorBatch, answers_of, as_tensors, cut
from jettison.compress.distillation.graph_module import GraphModule
from jettison.compress.passes import Refusal
from jettison.core.batching import fixed_batch_size
from jettison.core.samples import Samples
from jettison.evaluate.classes import looks_like_classes
from jettison.graph.model import input_specs, output_specs

Products = Mapping[str, np.ndarray[Any, np.dtype[np.float32]]]
"""w dL/dw of a batch by the initializer's name, in the initializer's own shape."""

_BATCH = 8
"""Gradients of single samples tell most and those of all together nothing, since a trained model's are 0 on
average; eight at a time cost little more than a forward run of each."""


def judging_loss(model: ir.Model, samples: Samples, *, seed: int) -> tuple[Loss, str]:
    """The loss that weights are judged by, and what it is in words.

    Labels where the samples have some that fit the outputs, else the model's own answers.

    Raises:
        SamplesError: Labels that the loss cannot read: a class that the model does not know, NaN.
    """
    found = losses.labels_loss(model, samples) if samples.has_labels else None
    if found is not None and not isinstance(found, Refusal):
        return found, "by labels"
    return _own_loss(model, seed), "by the model's own answers"


def first_order(
    model: ir.Model, module: GraphModule, samples: Samples, loss: Loss, *, batch_size: int = _BATCH
) -> Iterator[Products]:
    """Of every float weight, batch by batch, w dL/dw, with L the mean loss of the batch.

    Args:
        model: The model that the module was made from.
        module: Its module.
        samples: What the loss is measured on.
        loss: The loss.
        batch_size: Samples in a batch, where the model leaves it open.
    """
    fixed = fixed_batch_size(input_specs(model))
    module.eval()
    for batch in samples.batches(fixed or batch_size):
        for piece in cut(batch, fixed, is_fixed=fixed is not None):
            tensors = as_tensors(piece, torch.device("cpu"))
            module.zero_grad(set_to_none=True)
            answers = answers_of(module, tensors, module.input_names, module.output_names)
            torch.autograd.backward(loss(answers, tensors))
            yield _products(module)
    module.zero_grad(set_to_none=True)


def _products(module: GraphModule) -> Products:
    found = {}
    for origin in module.origins:
        weight = module.get_parameter_or_buffer(origin.path)
        if weight.grad is not None:
            product = (weight.detach() * weight.grad).numpy()
            found[origin.name] = np.ascontiguousarray(product.T if origin.is_turned else product)
    return found


def _own_loss(model: ir.Model, seed: int) -> Loss:
    """A loss with the gradient that the model's own answers have, against labels that are drawn from them."""
    is_softmax, decides = losses.ends_in_softmax(model.graph), looks_like_classes(output_specs(model))
    generator = torch.Generator().manual_seed(seed)

    def loss(outputs: Outputs, batch: TensorBatch) -> Tensor:
        del batch
        scores = losses.class_scores(outputs) if decides else None
        if scores is None:
            return _in_a_direction(outputs, generator)
        logits = losses.logs(scores) if is_softmax else scores
        drawn = torch.multinomial(functional.softmax(logits.detach(), 1), 1, generator=generator)
        return functional.cross_entropy(logits, drawn.reshape(-1))

    return loss


def _in_a_direction(outputs: Outputs, generator: torch.Generator) -> Tensor:
    """The mean over samples of r . y / |y|, summed over float outputs; r is +1 or -1 throughout."""
    parts = []
    for found in outputs.values():
        if found.is_floating_point():
            rows = found.reshape(len(found), -1)
            signs = torch.randint(0, 2, rows.shape, generator=generator).to(rows.dtype) * 2 - 1
            norms = rows.detach().norm(dim=1).clamp(min=torch.finfo(rows.dtype).tiny)
            parts.append(((signs * rows).sum(1) / norms).mean())
    return torch.stack(parts).sum()
