"""What foreign code says when it fails, in one line."""

from __future__ import annotations

import re
import sysconfig
import traceback
from pathlib import Path

_LONGEST = 300
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")

_FRAME = "Exception encountered when calling"
"""How Keras begins what it puts around an error in a layer."""


def first_line(error: BaseException) -> str:
    """The first line of what an exception says that is not empty, without colours, cut where it is long."""
    lines = (line.strip() for line in _COLOURS.sub("", str(error)).splitlines())
    text = next((line for line in lines if line and not line.startswith(_FRAME)), type(error).__name__)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def user_place(error: BaseException) -> str | None:
    """File and line of the innermost code outside of libraries that an exception went through, or None."""
    installed = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")}
    ours = Path(__file__).resolve().parent
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if not path.is_file() or installed & {*path.resolve().parents} or ours in path.resolve().parents:
            continue
        return f"{path.name}, line {frame.lineno}"
    return None
