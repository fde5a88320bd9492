"""Several processes that train one model, started by torchrun; one process otherwise.

Every process reads the same batches and takes its own rows of each, so a step is that of the whole batch,
up to the order in which gradients are summed. Nothing here decides where processes run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import distributed, nn


@dataclass(frozen=True)
class Group:
    """This process's number among all, and the device that it trains on."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes what all of them know."""
        return self.rank == 0

    def rows(self, count: int) -> slice | None:
        """This process's part of so many rows, None where there are too few for all."""
        return slice(self.rank, count, self.size) if count >= self.size else None

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by the sum over all processes."""
        if self.size > 1:
            for parameter in parameters:
                if parameter.grad is not None:
                    distributed.all_reduce(parameter.grad)

    def total(self, *numbers: float) -> list[float]:
        """The sums of these numbers over all processes."""
        if self.size == 1:
            return list(numbers)
        found = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        distributed.all_reduce(found)
        return [float(number) for number in found.tolist()]


def group_of() -> Group:
    """The processes that torchrun started, or this one alone."""
    has_gpu = torch.cuda.is_available()
    if not distributed.is_available() or not (
        distributed.is_initialized() or distributed.is_torchelastic_launched()
    ):
        return Group(0, 1, torch.device("cuda" if has_gpu else "cpu"))
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if has_gpu else "gloo")
    local = distributed.get_node_local_rank(fallback_rank=0)
    device = torch.device("cuda", local) if has_gpu else torch.device("cpu")
    return Group(distributed.get_rank(), distributed.get_world_size(), device)
