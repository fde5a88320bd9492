"""Images built by buildah without a daemon and without cgroups, on a base that debootstrap makes."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BASE = "localhost/debian-python"
_PACKAGES = "python3,python3-pip,python3-venv,libpython3.11,ca-certificates"
_SECONDS = 600
"""Chosen: the longest of the builds took 1 to 2 minutes on two cores."""


class Images:
    """A store of images of its own, in a folder that is thrown away.

    Chroot isolation is what works inside another container; it has the host's network.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def build(self, dockerfile: str, name: str, *, base: str, target: str | None = None) -> None:
        """The image `localhost/<name>` of a Dockerfile of the repository."""
        certificates = ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
        pip = self._folder / "pip.conf"
        pip.write_text("[global]\ncert = /etc/ssl/certs/ca-certificates.crt\ndisable-pip-version-check = 1\n")
        self._buildah(
            "bud", "--isolation=chroot", "--file", dockerfile, "--tag", name,
            "--build-arg", f"BASE_IMAGE={base}",
            "--volume", f"{certificates}:/etc/ssl/certs/ca-certificates.crt:ro",
            "--volume", f"{pip}:/etc/pip.conf:ro",
            *(("--target", target) if target else ()), ".",
        )  # fmt: skip

    def make_base(self) -> None:
        """Debian with Python, and nothing else."""
        root = self._folder / "debian"
        suite = ("bookworm", str(root))
        done = subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", *suite],
            capture_output=True, text=True, check=False, timeout=_SECONDS,
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"debootstrap cannot make a base here: {done.stdout[-200:]}")
        root.chmod(0o755)
        (self._folder / "Containerfile").write_text("FROM scratch\nADD debian /\n")
        self._buildah(
            "bud", "--isolation=chroot", "--file", str(self._folder / "Containerfile"), "--tag", BASE,
            str(self._folder),
        )  # fmt: skip
        shutil.rmtree(root)

    def command(self, name: str, *command: str, mounts: dict[Path, str] | None = None) -> list[str]:
        """The command line that runs a command in a new container of an image, as its own user."""
        container = self._buildah("from", f"localhost/{name}").strip()
        volumes = [f"--volume={here}:{there}" for here, there in (mounts or {}).items()]
        return [*self._prefix(), "run", "--isolation=chroot", *volumes, container, "--", *command]

    def run(
        self, name: str, *command: str, mounts: dict[Path, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """What a command in an image says."""
        line = self.command(name, *command, mounts=mounts)
        return subprocess.run(line, capture_output=True, text=True, check=False, timeout=_SECONDS)

    def _prefix(self) -> list[str]:
        return [
            "buildah", "--storage-driver=vfs", "--root", str(self._folder / "store"),
            "--runroot", str(self._folder / "run"),
        ]  # fmt: skip

    def _buildah(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._prefix(), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
            cwd=ROOT,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout


def can_build() -> bool:
    """Whether images can be built here, and shall be: it takes minutes and several gigabytes."""
    is_asked = os.environ.get("JETTISON_IMAGES") == "1"
    return is_asked and os.geteuid() == 0 and all(shutil.which(name) for name in ("buildah", "debootstrap"))
