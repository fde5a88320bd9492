"""What a build does only with the module `tensorrt`: ask for the GPU, keep timings. Parts are faked."""

import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jettison.engines.tensorrt import builder
from jettison.engines.tensorrt.build_exchange import BuildRequest
from jettison.engines.tensorrt.gpu import Gpu, gpu_here
from jettison.engines.tensorrt.module import ModuleName
from jettison.engines.tensorrt.settings import BuildSettings, apply

L4 = Gpu(name="NVIDIA L4", compute_capability=89)


def request(folder: Path, module: ModuleName = "tensorrt", capability: int = 89) -> BuildRequest:
    return BuildRequest(
        model=folder / "model.onnx",
        module=module,
        compute_capability=capability,
        profiles=(),
        settings=BuildSettings(),
        plan=folder / "plan",
        timing_cache=folder / "timing.cache",
        answer=folder / "answer",
        progress=folder / "progress",
    )


def test_another_gpu_than_the_target_is_told_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder, "load_module", lambda _: SimpleNamespace(__version__="10.13.3.9"))
    monkeypatch.setattr(builder, "gpu_here", lambda: L4)
    answer = builder.build_engine(request(tmp_path, capability=87))
    assert answer.missing == "it builds for the GPU that is there, NVIDIA L4 of sm89, not for sm87"
    assert answer.gpu == L4


class FakeConfig:
    """A builder's configuration as far as timings go; `accepts` says whether it takes what it is given."""

    def __init__(self, *, accepts: bool = True) -> None:
        self.accepts = accepts
        self.given: bytes | None = None

    def create_timing_cache(self, known: bytes) -> bytes:
        self.given = known
        return known

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        assert cache == self.given
        assert not ignore_mismatch
        return self.accepts

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: memoryview(b"new timings"))


def test_timings_are_kept_beside_the_plan_for_the_next_build(tmp_path: Path) -> None:
    config = FakeConfig()
    assert not builder.load_timings(config, request(tmp_path))
    assert config.given == b""
    builder.save_timings(config, request(tmp_path))
    assert (tmp_path / "timing.cache").read_bytes() == b"new timings"
    assert builder.load_timings(config, request(tmp_path))
    assert config.given == b"new timings"
    assert not builder.load_timings(FakeConfig(accepts=False), request(tmp_path))


def test_no_timings_are_set_where_that_would_force_a_gpu(tmp_path: Path) -> None:
    config = FakeConfig()
    builder.load_timings(config, request(tmp_path, "tensorrt_rtx"))
    builder.save_timings(config, request(tmp_path, "tensorrt_rtx"))
    assert config.given is None
    assert not (tmp_path / "timing.cache").exists()


def test_a_setting_that_the_module_does_not_know_is_refused_by_its_name() -> None:
    trt = SimpleNamespace(BuilderFlag=SimpleNamespace(), MemoryPoolType=SimpleNamespace(WORKSPACE=0))
    config = SimpleNamespace(builder_optimization_level=3, set_memory_pool_limit=lambda *_: None)
    found = apply(trt, config, BuildSettings(version_compatible=True, workspace_mib=1), [])  # type: ignore[arg-type]
    assert [(refusal.code, refusal.description.partition(":")[0]) for refusal in found] == [
        ("SETTING", "version compatibility")
    ]


DRIVER = """
#include <string.h>
int cuInit(unsigned flags) { return INIT; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "NVIDIA L4", size); return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? 8 : attribute == 76 ? 9 : -1;
    return 0;
}
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc for a driver of four functions")
@pytest.mark.parametrize(("init", "found"), [(0, L4), (100, None)])  # 100: CUDA_ERROR_NO_DEVICE
def test_the_driver_is_asked_for_the_gpu(init: int, found: Gpu | None, tmp_path: Path) -> None:
    source, library = tmp_path / "driver.c", tmp_path / "libcuda.so"
    source.write_text(DRIVER.replace("INIT", str(init)))
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    assert gpu_here(str(library)) == found


def test_without_a_driver_there_is_no_gpu() -> None:
    assert gpu_here("libnowhere.so.1") is None


@pytest.mark.gpu
@pytest.mark.skipif(not Path("/dev/nvidia0").exists(), reason="no GPU device")
def test_a_gpu_is_found_by_the_real_driver() -> None:
    found = gpu_here()
    assert found is not None
    assert found.compute_capability >= 75
