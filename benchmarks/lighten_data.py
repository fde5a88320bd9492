"""Fashion-MNIST for the benchmarks of training: images of the example's own split, drawn by seed."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from jettison.core.samples import Samples, samples_of
from jettison.core.tensors import TensorSpec

EXAMPLE = Path(__file__).parent.parent / "examples" / "fashion"
TEACHER = EXAMPLE / "fashion.onnx"
"""94.21 % right on the test images; 819,690 parameters before folding."""
CACHE = Path(__file__).parent / ".cache"
CHECKPOINTS = CACHE / "lighten" / "checkpoints"
"""Where trainings leave where they stand: gone when the figures that they are for are kept."""


@dataclass(frozen=True)
class Images:
    """float32 (count, 1, 28, 28), 0 to 1, and int64 labels (count,)."""

    image: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]

    def first(self, count: int) -> Images:
        """The first of them, which are drawn by seed already."""
        return Images(self.image[:count], self.labels[:count])

    def samples(self, specs: tuple[TensorSpec, ...]) -> Samples:
        """They as samples with labels."""
        return samples_of({specs[0].name: self.image}, labels=self.labels, specs=specs)

    def save(self, path: Path, *, labels: bool = True) -> str:
        """Write them as an .npz file; its path."""
        named = {"labels": self.labels} if labels else {}
        np.savez(path, image=self.image, **named)
        return str(path)


def fashion(count: int, *, seed: int = 0) -> tuple[Images, Images]:
    """So many images of the example's training side, drawn by seed, and its 10,000 test images."""
    images, labels, training, test = _stored()
    chosen = np.random.default_rng(seed).permutation(training)[:count]
    return scaled(images[chosen], labels[chosen]), scaled(images[test], labels[test])


def scaled(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> Images:
    """Images of bytes, from 0 to 1."""
    return Images(images.astype(np.float32) / np.float32(255), labels)


def _stored() -> tuple[
    npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]
]:
    """Images, labels, and which rows are for training and for the test; read from JSON only once."""
    path = CACHE / "fashion-mnist.npz"
    if not path.is_file():
        sys.path.insert(0, str(EXAMPLE))
        import data

        sys.path.remove(str(EXAMPLE))
        dataset = data.load(data.fetch(CACHE))
        rows = data.split(dataset, 0)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, images=dataset.images, labels=dataset.labels, training=rows.training, test=rows.test)
    with np.load(path) as stored:
        return stored["images"], stored["labels"], stored["training"], stored["test"]
