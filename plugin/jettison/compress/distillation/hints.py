"""What a student learns from inside a teacher: layers paired with layers, and how far apart they are.

    features    |A(f) - f_0|^2 / |f_0|^2, A a learned linear map of channels     (arXiv 1412.6550, FitNets)
    attention   |q/|q| - q_0/|q_0||^2, q the mean over channels of f^2           (arXiv 1612.03928, eq. 2)
    relation    the Huber distance of d_ij / mean(d) from that of the teacher, d_ij = |f_i - f_j|
                                                                                 (arXiv 1904.05068, eq. 4)
f and f_0 are the values of a pair, of student and teacher; maps of different sizes are averaged down to the
smaller one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from jettison.compress.distillation.batches import Outputs, TensorBatch
from jettison.compress.distillation.graph_taps import Tap
from jettison.compress.distillation.losses import relative_error

LAYER = "teacher layer "
"""Before the number of a pair: the name under which a batch carries what the teacher's layer gave."""
MOST_PAIRS = 3
"""Pairs that are chosen by depth. More cost time, and layers near the input differ for good reasons."""
_POOLS = {
    1: functional.adaptive_avg_pool1d,
    2: functional.adaptive_avg_pool2d,
    3: functional.adaptive_avg_pool3d,
}
_SMALLEST = 1e-6


@dataclass(frozen=True)
class Pair:
    """A layer of the student and the one of the teacher that it is compared with."""

    student: Tap
    teacher: Tap

    def __str__(self) -> str:
        return f"{self.student.name} by {self.teacher.name}"


class Hinted(nn.Module):  # type: ignore[misc]
    """A student with the adapters that make its channels comparable with its teacher's; these are not kept.

    Args:
        student: Gives outputs and taps by name.
        pairs: Which taps are compared.
        adapters: One for each pair, from the student's channels to the teacher's; or none at all.
    """

    def __init__(self, student: nn.Module, pairs: Sequence[Pair], adapters: Sequence[nn.Module] = ()) -> None:
        super().__init__()
        self.student, self.pairs = student, tuple(pairs)
        self.adapters = nn.ModuleList(adapters)

    def forward(self, *inputs: Tensor) -> Outputs:
        """What the student gives."""
        found: Outputs = self.student(*inputs)
        return found


HintLoss = Callable[[Outputs, TensorBatch], Tensor]


def paired(students: Sequence[Tap], teachers: Sequence[Tap]) -> list[Pair]:
    """Pairs of equal rank and like depth, at most three, the deepest among them."""
    found = []
    for rank in dict.fromkeys(tap.rank for tap in students):
        mine = [tap for tap in students if tap.rank == rank]
        theirs = [tap for tap in teachers if tap.rank == rank]
        for index, tap in enumerate(mine if theirs else ()):
            place = round((index + 1) / len(mine) * len(theirs)) - 1
            found.append(Pair(tap, theirs[max(place, 0)]))
    if len(found) <= MOST_PAIRS:
        return found
    return [found[round((index + 1) / MOST_PAIRS * len(found)) - 1] for index in range(MOST_PAIRS)]


def features_loss(hinted: Hinted) -> HintLoss:
    """The mean over all pairs of the relative error behind the adapter."""

    def loss(outputs: Outputs, batch: TensorBatch) -> Tensor:
        errors = []
        for index, pair in enumerate(hinted.pairs):
            found, wanted = _aligned(outputs, batch, index, pair)
            adapted = hinted.adapters[index](found.movedim(1, -1)).movedim(-1, 1)
            errors.append(relative_error(adapted, wanted))
        return torch.stack(errors).mean()

    return loss


def attention_loss(pairs: Sequence[Pair]) -> HintLoss:
    """The mean over all pairs that have places of the distance between maps of attention."""

    def loss(outputs: Outputs, batch: TensorBatch) -> Tensor:
        errors = []
        for index, pair in enumerate(pairs):
            if pair.student.rank > 2:
                found, wanted = (_attention(some) for some in _aligned(outputs, batch, index, pair))
                errors.append((found - wanted).square().sum(1).mean())
        return torch.stack(errors).mean()

    return loss


def relation_loss(pairs: Sequence[Pair]) -> HintLoss:
    """How differently the samples of a batch lie to each other at the deepest pair."""
    index = len(pairs) - 1

    def loss(outputs: Outputs, batch: TensorBatch) -> Tensor:
        found, wanted = outputs[pairs[index].student.name], batch.inputs[f"{LAYER}{index}"]
        if len(found) < 2:
            return found.sum() * 0.0
        return functional.smooth_l1_loss(_distances(found), _distances(wanted))

    return loss


def adapters_of(pairs: Sequence[Pair], outputs: Outputs, layers: Outputs) -> list[nn.Linear]:
    """A linear map of channels for each pair, by one example of both."""
    found = []
    for index, pair in enumerate(pairs):
        mine, theirs = outputs[pair.student.name], layers[f"{LAYER}{index}"]
        found.append(nn.Linear(mine.shape[pair.student.axis], theirs.shape[pair.teacher.axis]))
    return found


def _aligned(outputs: Outputs, batch: TensorBatch, index: int, pair: Pair) -> tuple[Tensor, Tensor]:
    """Both values of a pair as (batch, channels, places), with as many places."""
    found = outputs[pair.student.name].movedim(pair.student.axis, 1)
    wanted = batch.inputs[f"{LAYER}{index}"].movedim(pair.teacher.axis, 1)
    places = [min(sizes) for sizes in zip(found.shape[2:], wanted.shape[2:], strict=True)]
    return _pooled(found, places), _pooled(wanted, places)


def _pooled(values: Tensor, places: Sequence[int]) -> Tensor:
    if list(values.shape[2:]) == list(places):
        return values
    pooled: Tensor = _POOLS[len(places)](values, places)
    return pooled


def _attention(values: Tensor) -> Tensor:
    """Where a map is strong, as a vector of length 1 for each sample."""
    return functional.normalize(values.square().mean(1).flatten(1), dim=1)


def _distances(values: Tensor) -> Tensor:
    """Distances between the samples of a batch in units of their mean, each pair once."""
    found = functional.pdist(values.flatten(1))
    return found / found.mean().clamp(min=_SMALLEST)
