"""Stops a pod whose GPU is not the one that its target's plans were built for.

Triton would say "Version tag does not match" after minutes, or load a plan that runs slowly. Asked is the
driver itself, since Jetsons have no `nvidia-smi --query-gpu=compute_cap`. Standard library only: it runs in
Triton's image.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_MAJOR, _MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of cuda.h."""


def capability(library: str = "libcuda.so.1") -> str:
    """The compute capability of the first GPU, as "8.7".

    Raises:
        OSError: There is no driver, or it shows no GPU.
    """
    cuda = ctypes.CDLL(library)
    status = cuda.cuInit(0)
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    status = status or cuda.cuDeviceGet(ctypes.byref(device), 0)
    status = status or cuda.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
    status = status or cuda.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    if status:
        raise OSError(f"CUDA error {status}")
    return f"{major.value}.{minor.value}"


def has_plans(repository: Path) -> bool:
    """Whether any version of any model is a TensorRT plan."""
    return any(repository.glob("*/*/*.plan"))


def problem(expected: str, found: str, *, target: str) -> str:
    """What is wrong, or nothing."""
    if expected == found:
        return ""
    return (
        f"jettison: plans of target {target!r}: expected a GPU of compute capability {expected}, "
        f"found {found}. Send these pods to other nodes (targets[].compute, nodeSelector), "
        "or build plans for this GPU"
    )


def main() -> int:
    """0 where the server may start."""
    expected, target = os.environ["COMPUTE"], os.environ["TARGET"]
    if not has_plans(Path(os.environ["REPOSITORY"])):
        print("jettison: no plans, so that any GPU will do")
        return 0
    try:
        found = capability()
    except OSError as error:
        found = f"none ({error})"
    text = problem(expected, found, target=target)
    print(text or f"jettison: plans of target {target!r} are for this GPU ({found})", file=sys.stderr)
    return int(bool(text) and os.environ["ON_MISMATCH"] == "fail")


if __name__ == "__main__":
    sys.exit(main())
