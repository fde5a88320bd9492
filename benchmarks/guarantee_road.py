"""`jettison compress` with `{quantize: partial}` as a user runs it: its evaluations, time and memory."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from guarantee_checks import Check, Part, measured

HERE = Path(__file__).parent
MOST_EVALUATIONS = 12
MOST_FORWARDS = 80.0
MOST_MEMORY = 2.0
TOLERANCE = "0.05"


def road(folder: Path) -> Part:
    """The whole command on EfficientNet-Lite0 in `folder`, against a plain float pass over its samples."""
    model, calibration = folder / "efficientnet-lite0.onnx", folder / "calibration-128"
    with tempfile.TemporaryDirectory(prefix="guarantee-") as work:
        floor = measured(
            [
                sys.executable, str(HERE / "compress_methods.py"), "forward", str(folder), "128",
                f"{work}/none",
            ]
        )  # fmt: skip
        ran = measured(
            [
                sys.executable, "-m", "jettison", "compress", str(model), "--calibration", str(calibration),
                "--evaluation", str(folder / "evaluation"), "--metric", "agreement",
                "--tolerance", TOLERANCE, "--target", "cpu", "--variant", "part=[{quantize: partial}]",
                "-o", work, "--json",
            ]
        )  # fmt: skip
    report, floor_s = ran.document(), floor.document()["work_s"]
    variant = report["variants"][0]
    forwards, memory = ran.seconds / floor_s, ran.peak_rss_bytes / floor.peak_rss_bytes
    row = {
        "model": variant["name"],
        "accepted": variant["accepted"],
        "evaluations": report["evaluations"],
        "seconds": round(ran.seconds, 1),
        "float_passes": round(forwards, 1),
        "peak_MiB": ran.peak_rss_bytes >> 20,
        "plain_MiB": floor.peak_rss_bytes >> 20,
        "speedup": variant["speedup"],
        "sqnr_db": variant["sqnr_db"],
        "agreement": variant["score"],
    }
    checks = [
        Check(
            f"at most {MOST_EVALUATIONS} joint evaluations", str(report["evaluations"]),
            report["evaluations"] <= MOST_EVALUATIONS,
        ),
        Check(
            f"whole command in at most {MOST_FORWARDS:g} float passes over the calibration samples",
            f"{forwards:.0f}", forwards <= MOST_FORWARDS,
        ),
        Check(
            f"memory at most {MOST_MEMORY:g} times plain inference", f"{memory:.2f}", memory <= MOST_MEMORY
        ),
    ]  # fmt: skip
    return Part(
        "The command `compress` on EfficientNet-Lite0, evidence included", [row], checks, variant["notes"]
    )
