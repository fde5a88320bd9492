"""The teacher, a VGG16 with narrow layers, and the student, two convolutions; both for 28 x 28 pixels."""

from __future__ import annotations

from torch import nn

VGG16 = (16, 16, "pool", 32, 32, "pool", 64, 64, 64, "pool", 128, 128, 128, "pool", 128, 128, 128)
"""Channels of VGG16's 13 convolutions, a quarter and less of the original's. Source: Simonyan and Zisserman
2014 (arXiv 1409.1556), table 1, column D; its last pooling is left out, the maps are one pixel there."""
CLASSES = 10


def teacher() -> nn.Module:
    """13 convolutions and two dense layers: 940,410 parameters."""
    layers: list[nn.Module] = []
    channels = 1
    for entry in VGG16:
        if isinstance(entry, str):
            layers.append(nn.MaxPool2d(2))
            continue
        layers += [nn.Conv2d(channels, entry, 3, padding=1), nn.BatchNorm2d(entry), nn.ReLU()]
        channels = entry
    head = [nn.Flatten(), nn.Linear(channels, 128), nn.ReLU(), nn.Dropout(), nn.Linear(128, CLASSES)]
    return nn.Sequential(*layers, *head)


def student() -> nn.Module:
    """Two convolutions and a dense layer: 20,490 parameters. The recipe calls it by its name."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, CLASSES),
    )
