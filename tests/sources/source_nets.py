"""Functions that make torch modules, as a user's package would have them. Needs torch."""

from __future__ import annotations

import os
import sys

import torch
from torch import nn


def cnn():
    """A convolution with BatchNorm whose statistics differ from what a batch has."""
    torch.manual_seed(1)
    norm = nn.BatchNorm2d(4)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2.0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    )


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.left, self.right, self.head = nn.Linear(4, 8), nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, left, right, scale=None):
        hidden = torch.relu(self.left(left) + self.right(right))
        return self.head(hidden if scale is None else hidden * scale)


class Block(nn.Module):
    """An embedding and one transformer block over tokens of any number."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.embedding = nn.Embedding(50, 16)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)

    def forward(self, ids, mask):
        hidden = self.block(self.embedding(ids), src_key_padding_mask=mask == 0)
        weights = mask[..., None].to(hidden.dtype)
        return (hidden * weights).sum(1) / weights.sum(1)


class ManyOutputs(nn.Module):
    def forward(self, x):
        doubled = x * 2
        return {
            "logits": doubled,
            "pair": (doubled + 1, doubled.sum(1)),
            "x": x,
            "again": doubled,
        }


class NothingBesides(nn.Module):
    def forward(self, x):
        return {"cache": None, "logits": x * 2}


class ParameterNamedOutput(nn.Module):
    def __init__(self):
        super().__init__()
        self.output = nn.Parameter(torch.full((4,), 3.0))

    def forward(self, x):
        return x * self.output


class Branch(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x
        return -x


class LoopOverBatch(nn.Module):
    def forward(self, x):
        return torch.stack([x[place] * 2 for place in range(x.shape[0])])


class LoopOverLength(nn.Module):
    def forward(self, x):
        total = torch.zeros_like(x[:, 0])
        for place in range(x.shape[1]):
            total = total * 0.5 + x[:, place]
        return total


class NoOperator(nn.Module):
    def forward(self, x):
        return torch.linalg.eigvals(x).real


class Counting(nn.Module):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return x * self.calls


class OtherInExport(nn.Module):
    """What an exporter's mistake looks like: the graph computes something else than the module."""

    def forward(self, x):
        return x * 1.01 if torch.compiler.is_compiling() else x


class Unnamed(nn.Module):
    def forward(self, *inputs):
        return inputs[0]


class NoTensor(nn.Module):
    def forward(self, x):
        return {"x": x * 2, "size": 3}


class NeedsFive(nn.Module):
    def forward(self, x):
        return x @ torch.ones(5, 2)


A_MODULE = cnn().eval()


def talkative():
    sys.stdout.write("words on stdout that are no JSON\n")
    return cnn()


def number():
    return 5


def failing():
    raise KeyError("no such weights")


def leaving():
    raise SystemExit(7)


def dying():
    sys.stdout.write("out of luck\n")
    sys.stdout.flush()
    os._exit(9)


class BranchOnBatch(nn.Module):
    """Another way for batches above four, which a trace of three never sees."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 3)

    def forward(self, image):
        rows = self.layer(image.mean((1, 2)))
        return rows if image.shape[0] > 4 else rows * 2


class Half(nn.Module):
    """Answers in bfloat16, which numpy does not know."""

    def forward(self, x):
        return (x * 2).to(torch.bfloat16)


class Pyramid(nn.Module):
    """Halves four times and doubles four times, so it takes multiples of 16 only."""

    def forward(self, image):
        small = image
        for _ in range(4):
            small = nn.functional.max_pool2d(small, 2)
        for _ in range(4):
            small = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
        return image + small


class Picky(nn.Module):
    """Takes a length of 8 only, which it does not say."""

    def forward(self, x):
        if x.shape[1] != 8:
            raise ValueError("expected a length of 8")
        return x * 2
