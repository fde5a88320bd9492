"""The benchmark models, made on first use."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def efficientnet(cache: Path) -> Path:
    """The folder of EfficientNet-Lite0 and its samples."""
    return _made(cache / "efficientnet-lite0", "efficientnet.py")


def minilm(cache: Path) -> Path:
    """The folder of all-MiniLM-L6-v2 and its sentences."""
    return _made(cache / "all-minilm-l6-v2", "minilm.py")


def _made(folder: Path, script: str) -> Path:
    if not (folder / "evaluation").is_dir():
        program = [sys.executable, str(HERE / "models" / script), "--cache", str(folder.parent)]
        subprocess.run(program, check=True)
    return folder


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """A parser with what every benchmark takes."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument(
        "--cache", type=Path, default=HERE / ".cache", help="where models and samples are kept"
    )
    return parser
