"""How much noise each layer's output carries in a compressed network, against the float network.

SQNR = 10 log10(|y|^2 / |y' - y|^2) with y the layer's output in the float network and y' the output of the
same layer in the compressed one, before it is rounded for the next layer. It includes what all layers before
have lost: a fall from one layer to the next shows where quality goes. Of large activations every n-th element
is taken (`graph/observe.py`). Both networks run without graph optimizations, in exact arithmetic: a value
that is watched would keep ONNX Runtime from using its integer kernels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from jettison.compress.quantization.layers import Layer, find_layers
from jettison.core.batching import fitting_batches
from jettison.core.progress import Progress
from jettison.core.samples import Samples, draw
from jettison.core.tensors import Arrays
from jettison.engines.onnxruntime import OnnxRuntimeRunner, runner_of
from jettison.evaluate.sqnr import SqnrMeter
from jettison.graph.edit import free_name, names_in
from jettison.graph.model import input_specs
from jettison.graph.observe import Observation, append, observed

NOISE_SAMPLES = 16
"""Samples that the energies are summed over: for the 13 layers of a ResNet for Fashion-MNIST 16 gave 28 to
43 dB, and 128 the same within 0.9 dB."""


def layer_sqnr_db(
    baseline: ir.Model,
    variant: ir.Model,
    samples: Samples,
    *,
    most: int = NOISE_SAMPLES,
    threads: int = 0,
    progress: Progress | None = None,
) -> dict[str, float | None]:
    """SQNR of each layer's output in dB, by the layer's name.

    None where the variant has no such layer or gives it another shape, and where the output is all zeros.

    Args:
        baseline: The clean float model.
        variant: The compressed model, in arithmetic that ONNX Runtime's CPU provider knows.
        samples: Of which so many are drawn, by a fixed seed.
        most: How many.
        threads: Threads of ONNX Runtime; 0 for one per core.
        progress: Called with samples done and their number.

    Raises:
        ModelError: ONNX Runtime cannot run one of the models on the samples.
    """
    layers = list(find_layers(baseline.graph))
    found = {layer.name: _output(variant.graph, layer) for layer in layers}
    known = {name: value for name, value in found.items() if value is not None}
    if not known:
        return dict.fromkeys(found)
    own = {layer.name: layer.node.outputs[0] for layer in layers if layer.name in known}
    watches = [_watch(model, values, threads) for model, values in ((baseline, own), (variant, known))]
    meters = {name: SqnrMeter() for name in known}
    drawn, specs = draw(samples, most), input_specs(baseline)
    for batch in fitting_batches(drawn, specs, fill_last=False, progress=progress):
        _add(meters, *(watch.run(batch) for watch in watches))
    return {name: meters[name].db if name in meters else None for name in found}


@dataclass(frozen=True)
class _Watch:
    """A network whose outputs are a part of each layer's output; `outputs` names them by layer."""

    runner: OnnxRuntimeRunner
    outputs: Mapping[str, str]

    def run(self, inputs: Arrays) -> Arrays:
        """By layer, the watched elements, flat."""
        found = self.runner.fetch(list(self.outputs.values()), inputs)
        return {layer: found[output] for layer, output in self.outputs.items()}


def _watch(model: ir.Model, values: Mapping[str, ir.Value], threads: int) -> _Watch:
    wide, names = _widened(model, values)
    observations = {layer: Observation(name, stride=None) for layer, name in names.items()}
    runner = runner_of(observed(wide, list(observations.values())), threads=threads, optimize=False)
    return _Watch(runner, {layer: found.sample for layer, found in observations.items()})


def _widened(model: ir.Model, values: Mapping[str, ir.Value]) -> tuple[ir.Model, dict[str, str]]:
    """A copy that holds these values as float32 too, and by which names."""
    copy, taken = model.clone(), names_in(model)
    inside = {value.name: value for node in copy.graph for value in node.outputs}
    names = {}
    for layer, value in values.items():
        name = value.name or ""
        if value.dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16):
            wide = free_name(f"{name}:float32", taken)
            append(copy.graph, "Cast", [inside[name]], wide, to=int(ir.DataType.FLOAT))
            name = wide
        names[layer] = name
    return copy, names


def _output(graph: ir.Graph, layer: Layer) -> ir.Value | None:
    """The layer's output in a compressed graph: that of the node of its name, or the value of its name."""
    name = layer.node.outputs[0].name
    same = next((node.outputs[0] for node in graph if node.name == layer.name), None)
    return same or next((value for node in graph for value in node.outputs if value.name == name), None)


def _add(meters: dict[str, SqnrMeter], before: Arrays, after: Arrays) -> None:
    """Take in one run; a layer whose output has changed its size is not followed any more."""
    for name in list(meters):
        if before[name].shape == after[name].shape:
            meters[name].add({name: before[name][None]}, {name: after[name][None]})
        else:
            del meters[name]
