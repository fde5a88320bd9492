"""Records of engines, and folders as `jettison build` leaves them, for tests that have no GPU."""

from __future__ import annotations

import hashlib
from pathlib import Path

from jettison.core.dtypes import of_name
from jettison.core.engine import EngineRecord, ProfileRange
from jettison.core.tensors import TensorSpec


def span(low: int = 1, high: int = 8) -> tuple[ProfileRange, ...]:
    return (ProfileRange(name="x", minimum=(low, 8), optimum=(high, 8), maximum=(high, 8)),)


def engine(capability: int = 89, **fields: object) -> EngineRecord:
    dtype = of_name("float32")
    assert dtype is not None
    told: dict[str, object] = {
        "onnx": "a" * 64,
        "settings": "{}",
        "module": "tensorrt",
        "tensorrt": "10.13.3.9",
        "compute_capability": capability,
        "architecture": "x86_64",
        "system": "Linux",
        "inputs": (TensorSpec(name="x", dtype=dtype, shape=("N", 8)),),
        "outputs": (TensorSpec(name="y", dtype=dtype, shape=("N", 4)),),
        "profiles": (span(),),
        "sha256": "b" * 64,
    }
    return EngineRecord.model_validate({**told, **fields})


def build_folder(root: Path, *capabilities: int, **fields: object) -> Path:
    for capability in capabilities:
        place = root / f"sm{capability}"
        place.mkdir(parents=True)
        content = f"plan for {capability}".encode()
        (place / "model.plan").write_bytes(content)
        made = engine(capability, sha256=hashlib.sha256(content).hexdigest(), **fields)
        (place / "engine.json").write_text(made.model_dump_json())
    return root
