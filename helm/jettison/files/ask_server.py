"""What `helm test` asks of the server: that it is ready, and one inference of each model."""

from __future__ import annotations

import json
import math
import os
import sys
import time
import urllib.error
import urllib.request

_NAMES = {"BYTES": "", "BOOL": False}
"""What stands for an element; a zero for all others."""


def call(url: str, body: object = None) -> dict[str, object]:
    """The JSON that the server answers, {} where it answers nothing."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        content = answer.read()
    return json.loads(content) if content else {}


def is_ready(url: str) -> bool:
    """Whether the server says so."""
    try:
        call(f"{url}/v2/health/ready")
    except OSError:
        return False
    return True


def await_ready(url: str, *, seconds: float) -> None:
    """Returns once the server is ready; a Service may need a moment after the pod."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not is_ready(url):
        time.sleep(1)
    call(f"{url}/v2/health/ready")


def inputs_of(metadata: dict[str, object]) -> list[dict[str, object]]:
    """Inputs of zeros; open dimensions are one."""
    inputs = []
    for entry in metadata["inputs"]:
        shape = [max(1, size) for size in entry["shape"]]
        data = [_NAMES.get(entry["datatype"], 0)] * math.prod(shape)
        inputs.append({"name": entry["name"], "datatype": entry["datatype"], "shape": shape, "data": data})
    return inputs


def infer(url: str, model: str) -> str:
    """What a model answered to zeros, in short."""
    metadata = call(f"{url}/v2/models/{model}")
    answer = call(f"{url}/v2/models/{model}/infer", {"inputs": inputs_of(metadata)})
    outputs = ", ".join(f"{one['name']} {one['datatype']} {one['shape']}" for one in answer["outputs"])
    return f"{model}: {outputs}"


def main() -> int:
    """0 where all models answered."""
    url = os.environ["URL"]
    failed = 0
    try:
        await_ready(url, seconds=60)
        for model in os.environ["NAMES"].split():
            print(infer(url, model))
    except urllib.error.HTTPError as error:
        print(f"{error.url}: {error.code} {error.read(500).decode(errors='replace')}", file=sys.stderr)
        failed = 1
    except OSError as error:
        print(f"{url}: {error}", file=sys.stderr)
        failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
