"""The date, which only the command line looks up."""

from __future__ import annotations

import datetime


def now() -> str:
    """The time in ISO 8601, UTC, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
