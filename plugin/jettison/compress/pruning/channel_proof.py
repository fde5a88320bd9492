"""Whether a graph without some channels computes what it should, told by running it.

A channel that no weight reads makes no difference to any output. So the smaller graph has to answer what the
whole one answers with zeros in the columns that read the channels. A cut that took the wrong columns, or that
left a graph which does not fit together, shows there; so does whatever mixes channels (a normalization, a
mean over them), where leaving some out is another computation than reading none of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from jettison.compress.pruning.channel_choice import Removed
from jettison.compress.pruning.channel_groups import ChannelGroup
from jettison.core.errors import ModelError
from jettison.core.tensors import Arrays
from jettison.engines.onnxruntime import runner_of
from jettison.graph.shrink import emptied, shrunk

_CLOSE = 1e-4
"""Of an output's largest number. Sums in another order differ by 1e-6 a layer, wrong channels by tenths."""


def cut_model(model: ir.Model, groups: Sequence[ChannelGroup], removed: Removed) -> ir.Model:
    """The model without these channels, whether or not it fits together."""
    return shrunk(model, [cut for index, lost in removed.items() for cut in groups[index].cuts(lost)])


def disproof(
    model: ir.Model, groups: Sequence[ChannelGroup], removed: Removed, inputs: Arrays, *, threads: int = 0
) -> str | None:
    """Why the model without these channels must not be used, None where it computes what it should.

    Args:
        model: The whole model.
        groups: Its channel groups.
        removed: The channels that go.
        inputs: Real samples, one batch.
        threads: Of ONNX Runtime.
    """
    columns = [cut for index, lost in removed.items() for cut in groups[index].cuts(lost, roles=("reads",))]
    expected = runner_of(emptied(model, columns), threads=threads).run(inputs)
    try:
        found = runner_of(cut_model(model, groups, removed), threads=threads).run(inputs)
    except (ModelError, ValueError) as error:
        return f"the graph breaks without them: {_first_line(error)}"
    return _difference(expected, found)


def _difference(expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> str | None:
    for name, answer in expected.items():
        if found[name].shape != answer.shape:
            return f"output {name!r} became {list(found[name].shape)}, expected {list(answer.shape)}"
        if answer.dtype.kind != "f" or not answer.size:
            continue
        largest = float(np.abs(answer).max())
        error = float(np.abs(found[name] - answer).max())
        if not error <= _CLOSE * largest:
            return (
                f"without them {name!r} is not what it is where nothing reads them: something mixes channels"
            )
    return None


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200]
