"""The benchmark models, made on first use."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def efficientnet(cache: Path) -> Path:
    """The folder of EfficientNet-Lite0 and its samples."""
    folder = cache / "efficientnet-lite0"
    if not (folder / "evaluation").is_dir():
        script = HERE / "models" / "efficientnet.py"
        subprocess.run([sys.executable, str(script), "--cache", str(cache)], check=True)
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
