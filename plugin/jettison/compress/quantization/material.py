"""All that a search over layers needs, gathered once: calibration, repairs, damages and costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import onnx_ir as ir

from jettison.compress.passes import Figures, Workpiece
from jettison.compress.quantization.cost import CostModel, LayerTime, Workshop, elements_of, fit_cost
from jettison.compress.quantization.damage import layer_damages
from jettison.compress.quantization.layers import find_layers
from jettison.compress.quantization.objective import Objective, Price, bits_price, size_price
from jettison.compress.quantization.placement import Placement
from jettison.compress.quantization.quantize import place
from jettison.compress.quantization.ranges import RangeMethod
from jettison.compress.quantization.repairs import (
    MEASURED_RANGES,
    Candidate,
    Effort,
    Repairs,
    choose_repairs,
)
from jettison.compress.quantization.roofline import Peaks, peaks_of
from jettison.compress.quantization.static import RangeChoice, quantize_static
from jettison.core.batching import one_batch
from jettison.core.memory import release
from jettison.core.progress import silent
from jettison.core.samples import Samples
from jettison.core.tensors import Arrays
from jettison.engines.onnxruntime import shapes_of
from jettison.graph.judged import is_blind
from jettison.graph.macs import macs_by_node
from jettison.graph.model import input_specs
from jettison.graph.shapes import ShapeTable

_BLIND = (
    "no output of the model holds floats or comes from an ArgMax or TopK over floats, so what a layer costs "
    "in accuracy could not be measured: the search told choices apart by their price alone"
)


@dataclass
class Material:
    """A graph with everything measured that a choice of layers depends on.

    `order` holds the layers that may be quantized, in the graph's order; `damages` what each costs in
    accuracy; `price` what a choice of them costs, in the objective's unit and by `cost_source`. Figures
    belong to `candidate`, the repairs under which they were measured. `is_cut_short`: not all repairs were
    tried, for want of time.
    """

    piece: Workpiece
    repairs: Repairs
    candidate: Candidate
    order: Sequence[str]
    layers: frozenset[str]
    damages: Mapping[str, float] = field(default_factory=dict)
    price: Price | None = None
    cost_source: str = ""
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    is_cut_short: bool = False

    def recalled(self, key: str, compute: Callable[[], Figures]) -> Figures:
        """The figures under that key for these repairs, computed only where they are not kept yet.

        A run that is resumed may choose other repairs, where it has time for more of them.
        """
        return self.piece.recalled(f"{key} {self.candidate}", compute)

    def place(self, quantized: frozenset[str]) -> Placement:
        """The placement with exactly these layers in integers."""
        return place(self.repairs.model.graph, self.piece.target.dialect, self.layers - quantized)

    def quantize(self, quantized: frozenset[str]) -> ir.Model:
        """The model with exactly these layers in integers, repaired."""
        return self.repairs.quantize(self.place(quantized))

    def cost(self, quantized: frozenset[str]) -> float:
        """What the choice costs by the objective."""
        if self.price is None:
            raise ValueError("costs were not gathered")
        return self.price(quantized)


def gather(
    piece: Workpiece,
    samples: Samples,
    ranges: RangeMethod | Literal["measure"],
    keep_in_float: frozenset[str],
    *,
    objective: Objective = "latency",
    effort: Effort = "all",
) -> Material:
    """Calibrate, choose repairs by held-out samples, measure damages and costs.

    Raises:
        SamplesError: The samples make the float model overflow.
    """
    everything = place(piece.model.graph, piece.target.dialect, keep_in_float)
    order = [layer.node for layer in everything.layers if layer.quantized]
    names = frozenset(layer.node for layer in everything.layers)
    chosen = choose_repairs(
        piece,
        samples,
        lambda graph: place(graph, piece.target.dialect, keep_in_float),
        choices=[RangeChoice(method) for method in (MEASURED_RANGES if ranges == "measure" else (ranges,))],
        effort=effort,
    )
    release()
    material = Material(
        piece,
        chosen.repairs,
        chosen.candidate,
        order,
        names,
        notes=chosen.notes,
        warnings=(*((_BLIND,) if is_blind(piece.model) else ()), *chosen.warnings),
        is_cut_short=chosen.left_out > 0,
    )
    material.damages = material.recalled("damages", lambda: _damages(material, samples))
    release()
    _price(material, samples, objective)
    return material


def _damages(material: Material, samples: Samples) -> Figures:
    piece = material.piece
    return layer_damages(
        piece.model,
        material.order,
        samples,
        quantize=material.quantize,
        exact=piece.target.is_gpu,
        progress=piece.progress or silent(""),
    )


def _price(material: Material, samples: Samples, objective: Objective) -> None:
    model = material.repairs.model
    layers = [layer for layer in find_layers(model.graph) if layer.name in material.order]
    if objective == "size":
        material.price, material.cost_source = size_price(model.graph, layers), "as the weights are stored"
        return
    inputs = one_batch(samples, input_specs(model))
    shapes = _shapes(model, inputs)
    if objective == "bits":
        material.price = bits_price(macs_by_node(model, shapes))
        material.cost_source = "of a weight over all multiply-accumulates"
        return
    costs, material.cost_source = _costs(material, inputs, shapes)
    material.price = lambda quantized: costs.time_us(material.place(quantized))


def _costs(material: Material, inputs: Arrays, shapes: ShapeTable) -> tuple[CostModel, str]:
    """The cost model and where its times come from."""
    if material.piece.target.is_gpu:
        peaks = peaks_of(material.piece.target.compute_capability)
        return _estimate(material, shapes, peaks), f"estimated from the rates of {peaks.board}"
    figures = material.recalled("costs", lambda: _figures_of(_fit(material, inputs, shapes)))
    return _model_of(figures, elements_of(shapes)), "measured on this machine"


def _fit(material: Material, inputs: Arrays, shapes: ShapeTable) -> CostModel:
    model, calibration = material.repairs.model, material.repairs.calibration
    workshop = Workshop(
        inputs=inputs,
        shapes=shapes,
        place=material.place,
        quantize=lambda placement: quantize_static(model, calibration, placement),
        threads=material.piece.threads,
    )
    return fit_cost(model, workshop)


def _shapes(model: ir.Model, inputs: Arrays) -> ShapeTable:
    sizes = {
        size: found
        for spec in input_specs(model)
        for size, found in zip(spec.shape, inputs[spec.name].shape, strict=True)
        if isinstance(size, str)
    }
    return shapes_of(model, sizes=sizes)


def _estimate(material: Material, shapes: ShapeTable, peaks: Peaks) -> CostModel:
    """Times by roofline: float is FP16; a border writes and reads its elements once more.

    Products that stay in float in any case are the base; operators without products are taken to be fused.
    """
    model, base, times = material.repairs.model, 0.0, {}
    macs, elements = macs_by_node(model, shapes), elements_of(shapes)
    for node in model.graph:
        name = node.name or ""
        if name not in macs:
            continue
        touched = sum(elements.get(value.name or "", 0) for value in (*node.inputs, *node.outputs) if value)
        of_float, of_integer = (
            peaks.time_us(macs[name], size * touched, integer=integer)
            for size, integer in ((2.0, False), (1.0, True))
        )
        if name in material.order:
            times[name] = LayerTime(of_float, of_integer)
        else:
            base += of_float
    per_element = 3.0 / (peaks.memory_gbs * 1e3)
    return CostModel(times, base, per_element, per_element, elements)


def _figures_of(costs: CostModel) -> Figures:
    figures = {"base": costs.base_us, "quantize": costs.quantize_us, "dequantize": costs.dequantize_us}
    for name, times in costs.layers.items():
        figures[f"float {name}"], figures[f"integer {name}"] = times.float_us, times.integer_us
    return figures


def _model_of(figures: Figures, elements: Mapping[str, int]) -> CostModel:
    names = [key.removeprefix("float ") for key in figures if key.startswith("float ")]
    times = {name: LayerTime(figures[f"float {name}"], figures[f"integer {name}"]) for name in names}
    return CostModel(times, figures["base"], figures["quantize"], figures["dequantize"], elements)
