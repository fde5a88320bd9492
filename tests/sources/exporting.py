"""The export of a source inside this process: what the child does, and the check against it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from jettison.sources.child import export
from jettison.sources.examples import examples_of
from jettison.sources.exchange import EXAMPLES_FILE, MODEL_FILE, TRIALS_FILE, ExportRequest
from jettison.sources.export import check_equal, trials_in, write_clean


@dataclass(frozen=True)
class Exported:
    path: Path
    notes: tuple[str, ...]
    trials: list

    @property
    def model(self):
        return onnx.load(self.path)

    @property
    def inputs(self):
        return [shape_of(value) for value in self.model.graph.input]

    @property
    def outputs(self):
        return [shape_of(value) for value in self.model.graph.output]

    @property
    def sizes(self):
        """The shapes that were tried, of the first input."""
        return [next(iter(given.values())).shape for given, _ in self.trials]


def shape_of(value):
    dims = value.type.tensor_type.shape.dim
    return value.name, [dim.dim_param or dim.dim_value for dim in dims]


def exported(source, folder, *batches):
    """The clean ONNX form of a source, with samples of these batches, proven equal."""
    samples = folder / "samples"
    samples.mkdir(exist_ok=True)
    for index, arrays in enumerate(batches):
        np.savez(samples / f"{index}.npz", **arrays)
    examples = examples_of(str(samples))
    examples.save(folder / EXAMPLES_FILE)
    request = ExportRequest(
        source=source, varying=examples.varying, folder=folder, search_path=(), working_folder=folder,
        answer=folder / "answer.json",
    )  # fmt: skip
    answer = export(request)
    path = folder / "model.onnx"
    write_clean(source, folder / MODEL_FILE, path)
    trials = list(trials_in(folder / TRIALS_FILE, answer.trials))
    check_equal(source, path, trials)
    return Exported(path, answer.notes, trials)
