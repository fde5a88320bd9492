"""Prints docs/check.md: `python -m jettison.triton.check.page > docs/check.md`."""

from __future__ import annotations

import sys

from jettison.triton.check import loading
from jettison.triton.check.table import CHECKS

_HEAD = """# Checks of a model repository

`jettison check REPOSITORY` looks for everything that would make Triton refuse, hang or lie, and changes
nothing. It reads the repository of any tool. Each finding has a code, a place, what was expected and found,
and what to do. Exit code 1 says that there are findings; `--json` gives
`{"findings": [{"code", "where", "message", "fix"}], "models", "loaded", "verified"}`.

`--fleet fleet.yaml` names the machines that serve it:

```yaml
targets:
  - {name: l4, compute: "8.9", memory_mib: 20000, image: 26.07-py3}
  - {name: orin, compute: "8.7", memory_mib: 8192, image: 26.02-py3-igpu, tensorrt: 10.3.0}
```

`version_compatible: true` says that a machine's server takes plans that bring code of their own (P203).

`--verify PUBLIC_KEY` turns on the checks V701 to V705: every version is signed by the owner of that key
(`jettison publish --sign KEY`, [serving.md](serving.md)), and every byte of it is as it was signed.

The last check loads a copy of the repository in a scratch server on loopback, as far as the server at hand
has the backends, and asks each version that Jettison published for its golden answers; `--no-load` leaves it
out.

This page is made from the table of checks: `python -m jettison.triton.check.page`.

| code | rule | what happens where it is broken | what to do |
|---|---|---|---|
"""


def page() -> str:
    """The whole page."""
    rows = [(rule.code, rule.title, rule.reason, rule.fix) for rule in CHECKS]
    rows.append((loading.CODE, loading.TITLE, loading.REASON, loading.FIX))
    return _HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    sys.stdout.write(page())
