"""A finished run that nobody ever ran: as many layers as asked, and names that try to break the page."""

from __future__ import annotations

import json
import math
from pathlib import Path

HOSTILE = '</script><script>document.title="broken"</script><img src=x onerror="document.title=\'broken\'">'
"""Markup that would run in a page that does not escape it."""

_NAMES = (
    HOSTILE,
    "'\"><svg/onload=document.title='broken'>",
    "{{ 7 * 7 }}{% raw %}",
    "\u202egnirts\u0000\u2028",
    "-->" + "x" * 400,
)


def write_run(folder: Path, *, layers: int, variants: int = 4, targets: int = 1) -> Path:
    """A run's folder with that many layers in each variant: hostile names, NaN, no pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    first = _target(layers, variants)
    others = [{**first, "target": f"sm{number}"} for number in range(1, targets)]
    document = {**first, "targets": [first, *others], "origin": _origin(folder)}
    (folder / "report.json").write_text(json.dumps(document))  # NaN as the bare word, which `json` writes
    return folder


def _origin(folder: Path) -> dict[str, object]:
    return {"command": ["jettison", "run", f"{folder}/{HOSTILE}.yaml"], "at": HOSTILE, "machine": HOSTILE}


def _target(layers: int, variants: int) -> dict[str, object]:
    names = [f"{_NAMES[index % len(_NAMES)]} {index}" for index in range(variants)]
    return {
        "model": HOSTILE,
        "target": f"cpu {HOSTILE}",
        "baseline": {"path": HOSTILE, "size_bytes": 400_000_000, "score": 0.75, "latency_ms": 40.0},
        "variants": [_variant(name, index, layers) for index, name in enumerate(names)],
        "chosen": names[0],
        "reasons": [HOSTILE],
        "notes": [HOSTILE],
        "metric": HOSTILE,
        "evaluation_samples": 1000,
        "evaluations": 4,
        "seconds": math.nan,
        "peak_rss_bytes": 1,
    }


def _variant(name: str, index: int, layers: int) -> dict[str, object]:
    return {
        "name": name,
        "path": HOSTILE,
        "sha256": "0" * 64,
        "size_bytes": 100_000_000 + 10_000_000 * index,
        "score": math.nan if index == 1 else 0.75 - 0.002 * index,
        "score_delta": math.inf if index == 1 else -0.002 * index,
        "score_delta_low": -0.004 * index,
        "sqnr_db": math.nan,
        "latency_ms": 10.0 + index,
        "latency_quantiles_ms": [9, 9.5, 9.8, 9.9, 10 + index, 14, 15, 16, math.nan if index == 2 else 17],
        "accepted": index == 0,
        "reasons": [HOSTILE],
        "notes": [HOSTILE],
        "explanation": {
            "layers": [_layer(number) for number in range(layers)],
            "decisions": _decisions(),
            "saliency": _saliency() if index == 0 else {"applies": False, "reason": HOSTILE},
        },
    }


def _layer(number: int) -> dict[str, object]:
    return {
        "node": f"{_NAMES[number % len(_NAMES)]}/{number}",
        "kind": HOSTILE if number % 7 == 0 else "Conv",
        "quantized": number % 3 != 0,
        "reason": HOSTILE,
        "sqnr_db": math.nan if number % 11 == 0 else 20.0 + number % 17,
        "weight": {"element_type": "int8", "size_bytes": 1000 + number, "baseline_size_bytes": 4000},
        "input": {
            "element_type": "uint8",
            "low": -math.inf if number % 13 == 0 else -1.0,
            "high": 3.0,
            "seen_low": -1.5,
            "seen_high": 4.0,
            "clip_share": math.nan if number % 5 == 0 else 0.001,
            "seen": {"low": -1.5, "high": 4.0, "shares": [math.nan, *[0.0217] * 46, 0.0]},
        },
        "time": {"baseline_us": 10.0, "variant_us": 0.0 if number % 4 == 0 else 5.0},
    }


def _decisions() -> dict[str, object]:
    one = {"from_class": 1, "to_class": 2, "baseline_margin": math.nan, "variant_margin": 0.1, "label": 2}
    changes = [{"sample": number, **one, "effect": "better"} for number in range(60)]
    return {"samples": 1000, "changed": 60, "worse": 0, "better": 60, "decisions": changes}


def _saliency() -> dict[str, object]:
    grid = [[math.nan, 1.0], [-1.0, 0.0]]
    look = {
        "sample": 3,
        "class_number": 1,
        "variant_class": -1,
        "rank_correlation": math.nan,
        "top_overlap": 1.0,
    }
    return {"kind": "image", "samples": [{**look, "baseline_map": grid, "variant_map": grid}]}
