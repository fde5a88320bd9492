"""What compression did to each weighted layer: format and why, range, clipping, noise, size, time.

All of it is read from the two finished models and measured on them, not from the settings that made the
variant, so that it holds for a variant of any origin whose nodes kept their names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir
from pydantic import BaseModel, ConfigDict

from jettison.compress.quantization.calibrate import Calibration
from jettison.compress.quantization.cost import match_layers
from jettison.compress.quantization.layer_format import (
    InputReport,
    WeightReport,
    counterpart,
    input_report,
    weight_report,
)
from jettison.compress.quantization.layer_noise import layer_sqnr_db
from jettison.compress.quantization.layers import find_layers
from jettison.compress.quantization.placement import LayerDecision
from jettison.core.progress import Progress
from jettison.core.samples import Samples
from jettison.core.tensors import Arrays
from jettison.engines.profile import operator_times


class TimeReport(BaseModel):
    """A layer's median time in microseconds, and its share of all operators' time, in both models.

    Times are those of ONNX Runtime's profiler, one sample or one fixed batch at a time. None where no
    operator of the optimized graph could be matched with the layer.
    """

    model_config = ConfigDict(frozen=True)

    baseline_us: float | None
    baseline_share: float | None
    variant_us: float | None
    variant_share: float | None


class LayerReport(BaseModel):
    """One weighted layer of the baseline, and what became of it.

    Args:
        node: Its name.
        kind: Its operator.
        quantized: Whether its weight is stored in integers.
        reason: Why, or why not, in the words of the pass; None where no pass told.
        sqnr_db: Of its output in the compressed network against the float one, all earlier losses included,
            at most 144.5; None where that cannot be compared.
        weight: How its weight is stored.
        input: How its input is rounded.
        time: What it takes; None where that was not measured.
    """

    model_config = ConfigDict(frozen=True)

    node: str
    kind: str
    quantized: bool
    reason: str | None
    sqnr_db: float | None
    weight: WeightReport
    input: InputReport
    time: TimeReport | None


@dataclass(frozen=True)
class Known:
    """What is known of a variant beside its file.

    Args:
        decisions: What its passes said of each layer.
        calibration: The baseline's histograms, for what was seen and what is clipped.
        simulation: The model whose arithmetic stands for the variant's, where the CPU provider cannot run it
            as a GPU does; noise is measured on that.
        inputs: One batch to time both models with; None where this machine is not the target.
        counterpart: The float model whose layers the variant's stand for, where it is not the baseline:
            equalized or with channels in another order, it computes the same by other layers.
    """

    decisions: Sequence[LayerDecision] = ()
    calibration: Calibration | None = None
    simulation: ir.Model | None = None
    inputs: Arrays | None = None
    counterpart: ir.Model | None = None


def report_layers(
    baseline: ir.Model,
    variant: ir.Model,
    samples: Samples,
    *,
    known: Known | None = None,
    threads: int = 0,
    progress: Progress | None = None,
) -> tuple[LayerReport, ...]:
    """Each weighted layer of the baseline in its order, and what became of it in the variant.

    Args:
        baseline: The clean float model.
        variant: The compressed one, which keeps the names of the nodes.
        samples: Of which a few are run through both models, activation by activation.
        known: What else is known of the variant.
        threads: Threads of ONNX Runtime; 0 for one per core.
        progress: Called with samples done and their number.

    Raises:
        ModelError: ONNX Runtime cannot run one of the models on the samples.
    """
    known = known or Known()
    layers, float_model = list(find_layers(baseline.graph)), known.counterpart or baseline
    own = list(find_layers(float_model.graph))
    if {layer.name for layer in own} != {layer.name for layer in layers}:
        baseline, layers = float_model, own  # a student of another make: its layers stand for no others
    noise = layer_sqnr_db(
        float_model, known.simulation or variant, samples, threads=threads, progress=progress
    )
    times = _times(baseline, variant, known.inputs, threads=threads)
    reasons = {decision.node: decision.reason for decision in known.decisions}
    nodes = {node.name or "": node for node in variant.graph}
    reports = []
    for layer in layers:
        node = counterpart(nodes, layer)
        weight = weight_report(layer, node)
        report = LayerReport(
            node=layer.name,
            kind=layer.kind,
            quantized=weight.is_quantized,
            reason=reasons.get(layer.name),
            sqnr_db=noise.get(layer.name),
            weight=weight,
            input=input_report(layer, node, known.calibration),
            time=times.get(layer.name),
        )
        reports.append(report)
    return tuple(reports)


def _times(
    baseline: ir.Model, variant: ir.Model, inputs: Arrays | None, *, threads: int
) -> dict[str, TimeReport]:
    """Both models' time in each layer of the baseline; nothing without inputs to time with."""
    if inputs is None:
        return {}
    layers = list(find_layers(baseline.graph))
    found = []
    for model in (baseline, variant):
        operators = operator_times(model, inputs, threads=threads)
        total = sum(operator.time_us for operator in operators)
        matched = {name: time or None for name, time in match_layers(layers, operators).items()}
        found.append((matched, total))
    (before, before_total), (after, after_total) = found
    return {
        layer.name: TimeReport(
            baseline_us=before[layer.name],
            baseline_share=_share(before[layer.name], before_total),
            variant_us=after[layer.name],
            variant_share=_share(after[layer.name], after_total),
        )
        for layer in layers
    }


def _share(time_us: float | None, total_us: float) -> float | None:
    return None if time_us is None or total_us <= 0 else time_us / total_us
