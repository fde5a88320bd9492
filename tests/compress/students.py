"""Torch modules that tests name as students and teachers, for images of 16 x 16 or 16 features, 4 classes."""

from __future__ import annotations

import torch
from torch import nn

CLASSES = 4


def small():
    """A dense student with BatchNormalization, which a lone sample in a batch would break."""
    return nn.Sequential(nn.Linear(16, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, CLASSES))


def wrong_classes():
    return nn.Linear(16, 5)


def two_outputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(16, CLASSES)

        def forward(self, features):
            found = self.layer(features)
            return found, found

    return Two()


def no_module():
    return 3


def unexportable():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(16, CLASSES)

        def forward(self, features):
            if features.sum().item() > 1e9:
                return self.layer(features) * 2
            return self.layer(features)

    return Odd()


def known():
    """A teacher that knows the quarters without learning: the class of (x_0 > 0, x_1 > 0)."""
    layer = nn.Linear(16, CLASSES)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
        for label in range(CLASSES):
            layer.weight[label, 0] = 4.0 if label & 2 else -4.0
            layer.weight[label, 1] = 4.0 if label & 1 else -4.0
    return layer


def by_name():
    """Its outputs in another order than the baseline's, by name."""

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(16, CLASSES)

        def forward(self, features):
            found = self.layer(features)
            return {"sum": found.sum(1, keepdim=True), "scores": found}

    return Named()


def convolution():
    return nn.Sequential(
        nn.Conv2d(8, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 16),
    )
