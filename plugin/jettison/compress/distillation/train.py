"""The one training loop: any torch module, a loss, samples; seeded, resumable, judged by held-out samples.

Equal modules, samples and plans give equal weights on a CPU with one thread, also where a training was
broken off at any moment and went on from its checkpoint. The weights that are kept are those of the epoch
with the least loss on the held-out samples; the beginning counts as epoch 0.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from jettison.compress.distillation.batches import Loss, answers_of, as_tensors, cut, rows_of
from jettison.compress.distillation.checkpoint import State, read_checkpoint, write_checkpoint
from jettison.compress.distillation.feed import Feed
from jettison.compress.distillation.parallel import Group, group_of
from jettison.core.errors import SamplesError
from jettison.core.progress import Progress
from jettison.core.samples import Batch, Samples

OptimizerName = Literal["adamw", "sgd"]

_WARM_UP_SHARE = 0.05
"""Of a training, over which the learning rate rises: Adam's first steps are whole ones, however small the
gradient. Source: Goyal et al. 2017 (arXiv 1706.02677), section 2.2."""
_MOMENTUM = 0.9


@dataclass(frozen=True)
class Plan:
    """How a training goes on.

    `micro_batch` is how many samples the module takes at once, `is_fixed` that it takes no other number;
    gradients of a batch are summed over them. `patience` is how many epochs may bring nothing.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    optimizer: OptimizerName = "adamw"
    weight_decay: float = 0.0
    seed: int = 0
    patience: int | None = None
    micro_batch: int | None = None
    is_fixed: bool = False
    checkpoint_steps: int = 200


@dataclass(frozen=True)
class Lesson:
    """What is learned, from what, and by what it is judged.

    `inputs` and `outputs` are names, in the order in which the module takes and gives tensors. `after_step`
    is called with the share of the training that is done (0 to 1) and puts back what no step may move.
    `key` says what the loss and the samples are, so that no other training's checkpoint is taken up.
    `first_epoch` is the first whose weights may be kept: 0, the start, unless the training has to reach
    something.
    """

    samples: Samples
    held_out: Samples
    inputs: Sequence[str]
    outputs: Sequence[str]
    loss: Loss
    key: str = ""
    after_step: Callable[[float], None] | None = None
    first_epoch: int = 0


@dataclass
class Training:
    """How a training went: mean losses by epoch; the held-out ones begin with epoch 0, the start.

    `is_diverged` where a loss was no number any more: the training ended there. `best_epoch` is 0 where none
    that may be kept was finite and better, and the weights are then those that it began with.
    """

    steps: int = 0
    train_losses: list[float] = field(default_factory=list)
    held_out_losses: list[float] = field(default_factory=list)
    best_epoch: int = 0
    is_diverged: bool = False


def train(
    module: nn.Module,
    lesson: Lesson,
    plan: Plan,
    *,
    checkpoints: Path | None = None,
    progress: Progress | None = None,
) -> Training:
    """Train the module in place, and leave it with the weights that did best on the held-out samples.

    Args:
        module: Called with the inputs in order; gives a tensor, several in order, or several by name.
        lesson: What is learned.
        plan: How.
        checkpoints: A folder of this training alone, from which it goes on where it was broken off.
        progress: Called with samples seen and samples in all.

    Raises:
        ModelError: The module gives another number of outputs than the lesson names.
        SamplesError: The module takes more samples at once than there are.
    """
    _check_counts(lesson, plan)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        run = _Run(module, lesson, plan, checkpoints, progress)
        run.resume()
        run.go()
        return run.finish()


def _check_counts(lesson: Lesson, plan: Plan) -> None:
    counts = {"to learn from": lesson.samples.count, "to judge by": lesson.held_out.count}
    for what, count in counts.items():
        if plan.is_fixed and count < (plan.micro_batch or 1):
            raise SamplesError(
                "training samples",
                detail=f"expected at least the {plan.micro_batch} {what} that a batch has, found {count}",
                fix="Give more training samples, or export the model with an open batch",
            )


class _Run:
    """One training under way. What a checkpoint holds is what `_state` gives."""

    def __init__(
        self,
        module: nn.Module,
        lesson: Lesson,
        plan: Plan,
        checkpoints: Path | None,
        progress: Progress | None,
    ) -> None:
        self.group: Group = group_of()
        self.module = module.to(self.group.device)
        self.lesson, self.plan = lesson, plan
        self.checkpoints, self.progress = checkpoints, progress
        self.parameters = [value for value in module.parameters() if value.requires_grad]
        self.optimizer = _optimizer(self.parameters, plan)
        self.feed = Feed(lesson.samples, plan.batch_size, plan.seed)
        self.total = plan.epochs * lesson.samples.count
        self.key = _key(module, lesson, plan)
        self.epoch = self.batch = self.seen = 0
        self.sums = [0.0, 0.0]
        self.found = Training()
        self.best = _copied(module)

    def resume(self) -> None:
        """Go on from the checkpoint, where there is one of this training."""
        state = None if self.checkpoints is None else read_checkpoint(self.checkpoints, key=self.key)
        if state is None:
            return
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        self.epoch, self.batch, self.seen = state["epoch"], state["batch"], state["seen"]
        self.sums, self.best = state["sums"], state["best"]
        self.found = Training(**state["found"])

    def go(self) -> None:
        """All epochs that are left."""
        if not self.found.held_out_losses:
            self._judge()
            self._save()
        while self.epoch < self.plan.epochs and not self._is_over():
            self._epoch()

    def finish(self) -> Training:
        """The module with its best weights, and how it went."""
        self.module.load_state_dict(self.best)
        self.module.eval()
        return self.found

    def _epoch(self) -> None:
        for batch in itertools.islice(self.feed.epoch(self.epoch), self.batch, None):
            self._step(batch)
            self.batch += 1
            if self.found.is_diverged:
                return
            if self.found.steps % self.plan.checkpoint_steps == 0:
                self._save()
        self.epoch, self.batch = self.epoch + 1, 0
        self.found.train_losses.append(self.sums[0] / max(self.sums[1], 1.0))
        self.sums = [0.0, 0.0]
        self._judge()
        self._save()

    def _step(self, batch: Batch) -> None:
        rows = self.group.rows(len(batch))
        pieces = [] if rows is None else list(self._pieces(rows_of(batch, rows)))
        count = self.group.total(sum(len(piece) for piece in pieces))[0]
        self.seen += len(batch)
        if pieces:
            self._set_rate()
            self.module.train()
            self.optimizer.zero_grad(set_to_none=True)
            part = sum(self._backward(piece, len(piece) / count) for piece in pieces)
            self.group.sum_gradients(self.parameters)
            loss = self.group.total(part)[0]
            if not math.isfinite(loss):
                self.found.is_diverged = True
                return
            self.optimizer.step()
            if self.lesson.after_step is not None:
                self.lesson.after_step(self.seen / self.total)
            self.sums = [self.sums[0] + loss * count, self.sums[1] + count]
            self.found.steps += 1
        if self.progress is not None:
            self.progress(self.seen, self.total)

    def _pieces(self, batch: Batch) -> list[Batch]:
        return list(cut(batch, self.plan.micro_batch, is_fixed=self.plan.is_fixed))

    def _backward(self, piece: Batch, share: float) -> float:
        loss = self._loss(piece) * share
        torch.autograd.backward(loss)
        return float(loss.item())

    def _loss(self, piece: Batch) -> Tensor:
        tensors = as_tensors(piece, self.group.device)
        answers = answers_of(self.module, tensors, self.lesson.inputs, self.lesson.outputs)
        return self.lesson.loss(answers, tensors)

    def _judge(self) -> None:
        """The mean loss on the held-out samples; the weights are kept where it is the least so far."""
        self.module.eval()
        sums = [0.0, 0.0]
        with torch.no_grad():
            for batch in self.lesson.held_out.batches(self.plan.batch_size):
                rows = self.group.rows(len(batch))
                for piece in [] if rows is None else self._pieces(rows_of(batch, rows)):
                    sums = [sums[0] + float(self._loss(piece).item()) * len(piece), sums[1] + len(piece)]
        total, count = self.group.total(*sums)
        loss, first = total / max(count, 1.0), self.lesson.first_epoch
        rivals = [rival for rival in self.found.held_out_losses[first:] if math.isfinite(rival)]
        if self.epoch >= first and math.isfinite(loss) and (not rivals or loss < min(rivals)):
            self.best, self.found.best_epoch = _copied(self.module), self.epoch
        self.found.held_out_losses.append(loss)
        self.found.is_diverged |= self.epoch > 0 and not math.isfinite(loss)

    def _is_over(self) -> bool:
        waited = self.epoch - max(self.found.best_epoch, self.lesson.first_epoch)
        return self.found.is_diverged or (self.plan.patience is not None and waited >= self.plan.patience)

    def _set_rate(self) -> None:
        share = (self.seen - 1) / self.total
        rate = self.plan.learning_rate * learning_rate_share(share)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _save(self) -> None:
        if self.checkpoints is not None and self.group.is_first:
            write_checkpoint(self.checkpoints, self._state())

    def _state(self) -> State:
        return {
            "key": self.key,
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "epoch": self.epoch,
            "batch": self.batch,
            "seen": self.seen,
            "sums": self.sums,
            "best": self.best,
            "found": vars(self.found),
        }


def learning_rate_share(share: float) -> float:
    """The learning rate as a share of the highest, where `share` of the training is done.

    A linear rise over the first twentieth, then cos(pi/2 ...) down to 0: (1 + cos(pi * share)) / 2.
    Source: Loshchilov and Hutter 2016, SGDR (arXiv 1608.03983), equation 5.
    """
    rise = min(share / _WARM_UP_SHARE, 1.0)
    return rise * 0.5 * (1.0 + math.cos(math.pi * min(share, 1.0)))


def _optimizer(parameters: Sequence[nn.Parameter], plan: Plan) -> torch.optim.Optimizer:
    """The optimizer; weight decay is of matrices alone."""
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": plan.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    filled = [group for group in groups if group["params"]]
    if plan.optimizer == "sgd":
        return torch.optim.SGD(filled, lr=plan.learning_rate, momentum=_MOMENTUM, nesterov=True)
    return torch.optim.AdamW(filled, lr=plan.learning_rate)


def _copied(module: nn.Module) -> State:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _key(module: nn.Module, lesson: Lesson, plan: Plan) -> str:
    """What identifies a training: its lesson, samples, plan and the weights that it begins with."""
    parts = (lesson.key, lesson.samples.sha256, lesson.held_out.sha256, repr(plan))
    digest = hashlib.sha256("\n".join(parts).encode())
    for name, value in module.state_dict().items():
        digest.update(f"\n{name} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
