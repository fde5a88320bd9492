"""How an extra of Jettison is brought, the one place that knows where Jettison itself comes from."""

from __future__ import annotations


def install_command(extra: str) -> str:
    """The command that brings an extra: Jettison is on no package index, a clone is what there is."""
    return f"pip install -e '.[{extra}]' in a clone of Jettison"
