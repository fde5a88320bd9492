"""What `helm test` asks of the verdict service: its verdict for who has the token, and for nobody else."""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

DECISIONS = ("continue", "promote", "rollback", "exhausted", "invalid")


def status_and_body(url: str, token: str) -> tuple[int, bytes]:
    """What the service answers, whatever it is."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read(500)


def main() -> int:
    """0 where the service does what a rollout needs."""
    url = os.environ["URL"]
    token = Path(os.environ["TOKEN"]).read_text().strip()
    closed, _ = status_and_body(url, "")
    if closed != 401:
        print(f"{url}: expected 401 without the token, found {closed}", file=sys.stderr)
        return 1
    status, body = status_and_body(url, token)
    decision = json.loads(body).get("decision") if status == 200 else None
    if decision not in DECISIONS:
        print(f"{url}: expected a verdict, found {status} {body[:500]!r}", file=sys.stderr)
        return 1
    print(f"{url}: {decision}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
