"""The GPU of this machine, asked of NVIDIA's driver: its name and compute capability.

By the driver's own library, which is there wherever a GPU is, on Jetson too, where nvidia-smi says less.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from pydantic import BaseModel, ConfigDict

_MAJOR, _MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR. Source: CUDA Driver API, CUdevice_attribute."""
_LIBRARY = "libcuda.so.1"


class Gpu(BaseModel):
    """One GPU."""

    model_config = ConfigDict(frozen=True)

    name: str
    compute_capability: int


def gpu_here(library: str = _LIBRARY) -> Gpu | None:
    """The first GPU, or None where there is no driver or no GPU. Call it in a child process only."""
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return None
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(128)
    calls: tuple[Callable[[], int], ...] = (
        lambda: driver.cuInit(0),
        lambda: driver.cuDeviceGet(ctypes.byref(device), 0),
        lambda: driver.cuDeviceGetName(name, len(name), device),
        lambda: driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device),
        lambda: driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device),
    )
    if any(call() != 0 for call in calls):  # each is made only where those before it went well
        return None
    return Gpu(name=name.value.decode(errors="replace"), compute_capability=10 * major.value + minor.value)
