"""Torch modules that the benchmarks of training begin with; weights are drawn by torch's seed."""

from __future__ import annotations

from torch import nn


def two_convolutions() -> nn.Module:
    """The brief's student: two convolutions and a dense layer, 20,490 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 10),
    )


def dense() -> nn.Module:
    """Three dense layers, so narrow that 4 bits a weight do harm: 13,002 parameters."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 16),
        nn.ReLU(),
        nn.Linear(16, 16),
        nn.ReLU(),
        nn.Linear(16, 10),
    )
