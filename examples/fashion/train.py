"""Train the Fashion-MNIST network, export it and write its sample sets.

    python examples/fashion/train.py --epochs 12

A run that was cut off goes on at the last finished epoch. The accuracy that counts is that
of the last epoch: no epoch is chosen by its accuracy on the test images.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import data
import numpy as np
import torch
from export import check_equal, export, onnx_logits
from network import FashionNetwork
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils import convert_conv2d_weight_memory_format
from torch.optim import SGD
from torch.optim.lr_scheduler import OneCycleLR

HERE = Path(__file__).resolve().parent
BATCH = 128
# One-cycle SGD with label smoothing; usual values for small residual networks at batch 128.
# Source: Smith and Topin, Super-Convergence (arXiv 1708.07120); Szegedy et al. (arXiv 1512.00567).
PEAK_LEARNING_RATE = 0.1
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
LABEL_SMOOTHING = 0.1
LARGEST_SHIFT = 2


@dataclass(frozen=True)
class Images:
    """Images and labels as tensors: uint8, (count, 1, 28, 28), and int64, (count,)."""

    pixels: Tensor
    labels: Tensor


class Training:
    """All that changes while training: the network, its optimizer and schedule, the random state."""

    def __init__(self, seed: int, epochs: int, steps_per_epoch: int) -> None:
        torch.manual_seed(seed)
        self.random = torch.Generator().manual_seed(seed)
        self.network = FashionNetwork()
        convert_conv2d_weight_memory_format(self.network, torch.channels_last)
        self.optimizer = SGD(
            self.network.parameters(),
            lr=PEAK_LEARNING_RATE,
            momentum=MOMENTUM,
            weight_decay=WEIGHT_DECAY,
            nesterov=True,
        )
        self.schedule = OneCycleLR(
            self.optimizer, PEAK_LEARNING_RATE, epochs=epochs, steps_per_epoch=steps_per_epoch
        )
        self.epochs_done = 0

    def save(self, path: Path) -> None:
        """Write a checkpoint by stage and rename: a run that is cut off leaves the last one."""
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": self.random.get_state(),
            "epochs_done": self.epochs_done,
        }
        stage = path.with_suffix(".partial")
        torch.save(state, stage)
        stage.replace(path)

    def resume(self, path: Path) -> None:
        """Take up the state of a checkpoint, where there is one."""
        if not path.exists():
            return
        state = torch.load(path, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.random.set_state(state["random"])
        self.epochs_done = state["epochs_done"]
        print(f"resumed after epoch {self.epochs_done}")

    def step(self, images: Tensor, labels: Tensor) -> float:
        """One step on a batch of float images; gives its loss."""
        self.optimizer.zero_grad()
        logits = self.network(images)
        loss = nn.functional.cross_entropy(logits, labels, label_smoothing=LABEL_SMOOTHING)
        torch.autograd.backward(loss)
        self.optimizer.step()
        self.schedule.step()
        return float(loss.item())


def augment(pixels: Tensor, random: torch.Generator) -> Tensor:
    """Each image moved by up to two pixels each way over black, half of them mirrored."""
    count, _, side, _ = pixels.shape
    padded = pad(pixels[:, 0], (LARGEST_SHIFT,) * 4)
    shifts = torch.randint(0, 2 * LARGEST_SHIFT + 1, (2, count, 1), generator=random)
    rows, columns = shifts + torch.arange(side)
    mirrored = torch.rand(count, 1, generator=random) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    image = torch.arange(count)[:, None, None]
    return padded[image, rows[:, :, None], columns[:, None, :]][:, None]


def run_epoch(training: Training, images: Images) -> float:
    """Train on every image once, in random order; gives the mean loss of the batches."""
    training.network.train()
    order = torch.randperm(len(images.labels), generator=training.random)
    losses = []
    for rows in torch.split(order, BATCH):
        inputs = augment(images.pixels[rows], training.random).float() / 255
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        losses.append(training.step(inputs, images.labels[rows]))
    training.epochs_done += 1
    return sum(losses) / len(losses)


def accuracy(network: nn.Module, images: Images) -> float:
    """The share of `images` that `network` names rightly."""
    network.eval()
    pixels, labels = torch.split(images.pixels, 500), torch.split(images.labels, 500)
    batches = zip(pixels, labels, strict=True)
    with torch.no_grad():
        right = [network(inputs.float() / 255).argmax(1) == named for inputs, named in batches]
    return float(torch.cat(right).float().mean().item())


def train(settings: argparse.Namespace, images: Images, test: Images) -> Training:
    """Train for all epochs, from the checkpoint of the same seed and length where there is one."""
    training = Training(settings.seed, settings.epochs, -(-len(images.labels) // BATCH))
    checkpoint = settings.data / f"seed-{settings.seed}-epochs-{settings.epochs}.pt"
    training.resume(checkpoint)
    while training.epochs_done < settings.epochs:
        start = time.perf_counter()
        loss = run_epoch(training, images)
        training.save(checkpoint)
        print(
            f"epoch {training.epochs_done}/{settings.epochs}: loss {loss:.4f}, "
            f"test accuracy {accuracy(training.network, test):.4f}, "
            f"{time.perf_counter() - start:.0f} s",
            flush=True,
        )
    return training


def select(dataset: data.Dataset, rows: data.Indices) -> Images:
    """The images of a set as tensors."""
    return Images(torch.from_numpy(dataset.images[rows]), torch.from_numpy(dataset.labels[rows]))


def write_model(network: nn.Module, dataset: data.Dataset, rows: data.Split, path: Path) -> None:
    """Export the network to `path` and print what the file computes on the test images."""
    convert_conv2d_weight_memory_format(network, torch.contiguous_format)
    export(network, path)
    difference = check_equal(network, path, data.as_input(dataset.images[rows.search[:64]]))
    print(f"{path.name}: {path.stat().st_size} bytes, within {difference:.1e} of PyTorch")
    print(f"parameters: {sum(parameter.numel() for parameter in network.parameters())}")
    for name, chosen in (("test", rows.test), ("evaluation", rows.evaluation)):
        logits = onnx_logits(path, data.as_input(dataset.images[chosen]), 500)
        share = np.mean(logits.argmax(1) == dataset.labels[chosen])
        print(f"accuracy of {path.name} on the {len(chosen)} {name} images: {share:.4f}")


def parse() -> argparse.Namespace:
    """The settings of the command line."""
    parser = argparse.ArgumentParser(description="Train the Fashion-MNIST example network.")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads for PyTorch")
    parser.add_argument("--data", type=Path, default=HERE / ".data", help="cache, checkpoints")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of the written files")
    return parser.parse_args()


def main() -> None:
    """Fetch, split, write the samples, train, export."""
    settings = parse()
    torch.set_num_threads(settings.threads)
    settings.output.mkdir(parents=True, exist_ok=True)
    dataset = data.load(data.fetch(settings.data))
    rows = data.split(dataset, settings.seed)
    data.write_samples(dataset, rows, settings.output)
    training = train(settings, select(dataset, rows.training), select(dataset, rows.test))
    write_model(training.network, dataset, rows, settings.output / "fashion.onnx")


if __name__ == "__main__":
    main()
