"""The names that a build uses, held against NVIDIA's own bindings of TensorRT 10.x and 11.x.

The bindings are small wheels (`tensorrt-cu12-bindings`) that import without TensorRT where three stub
libraries of one function stand in. Fetch them with `pip download --no-deps` and name their folder in
JETTISON_TENSORRT_BINDINGS; else these tests are skipped.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import jettison

WHEELS = sorted(
    Path(os.environ.get("JETTISON_TENSORRT_BINDINGS", "/nowhere")).glob(
        f"tensorrt_*bindings-*-cp{sys.version_info.major}{sys.version_info.minor}-*.whl"
    )
)
SOURCES = str(Path(jettison.__file__).parents[1].resolve())
_NEEDED = re.compile(rb"lib(?:nvinfer|nvinfer_plugin|nvonnxparser)\.so\.\d+")

PROBE = """
import json, sys
import tensorrt_bindings as trt
names = {
    "IBuilderConfig": ["builder_optimization_level", "set_memory_pool_limit", "hardware_compatibility_level",
                       "set_flag", "get_flag", "create_timing_cache", "set_timing_cache", "get_timing_cache",
                       "add_optimization_profile", "progress_monitor", "profiling_verbosity"],
    "ITimingCache": ["serialize"],
    "Builder": ["create_network", "create_builder_config", "create_optimization_profile",
                "build_serialized_network"],
    "OnnxParser": ["parse_from_file", "num_errors", "get_error"],
    "ParserError": ["code", "desc", "node", "node_name", "node_operator"],
    "IOptimizationProfile": ["set_shape", "set_shape_input"],
    "INetworkDefinition": ["num_inputs", "get_input", "num_outputs"],
    "ITensor": ["is_shape_tensor", "get_dimension_name", "set_dimension_name"],
    "IProgressMonitor": ["phase_start", "step_complete", "phase_finish"],
    "BuilderFlag": ["SPARSE_WEIGHTS", "VERSION_COMPATIBLE"],
    "HardwareCompatibilityLevel": ["NONE", "AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY"],
    "MemoryPoolType": ["WORKSPACE"],
    "ProfilingVerbosity": ["DETAILED"],
    "NetworkDefinitionCreationFlag": ["STRONGLY_TYPED"],
}
missing = [f"{kind}.{name}" for kind, all_ in names.items() for name in all_
           if not hasattr(getattr(trt, kind, None), name)]
from jettison.engines.tensorrt.session import recorder, strongly_typed
from jettison.engines.tensorrt.monitor import monitor
from pathlib import Path
log = []
recorder(trt, log).log(trt.ILogger.Severity.ERROR, "seen")
told = Path(sys.argv[1])
watch = monitor(trt, told)
watch.phase_start("outer", None, 2)
watch.phase_start("inner", "outer", 5)
watch.step_complete("inner", 0)
watch.step_complete("outer", 0)
watch.phase_finish("outer")
print(json.dumps({"missing": missing, "version": trt.__version__, "flags": strongly_typed(trt),
                  "log": [line.text for line in log], "told": told.read_text().splitlines()}))
"""


def stubs(binding: Path, folder: Path) -> None:
    """Libraries of the names that the binding wants, each with all functions that it calls there."""
    content = binding.read_bytes()
    listing = subprocess.run(
        ["nm", "-D", "--undefined-only", str(binding)], capture_output=True, text=True, check=True
    ).stdout
    functions = re.findall(r"^ +U ((?:create|get|initLib)\w+)$", listing, re.MULTILINE)
    source = folder / "stub.c"
    source.write_text("\n".join(f"void *{name}(void) {{ return 0; }}" for name in functions))
    for name in {found.decode() for found in _NEEDED.findall(content)}:
        subprocess.run(
            ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name), str(source)],
            check=True,
        )


@pytest.mark.skipif(
    not WHEELS, reason="JETTISON_TENSORRT_BINDINGS names no folder with wheels for this Python"
)
@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc for the stub libraries")
@pytest.mark.parametrize("wheel", WHEELS, ids=lambda path: path.name.split("-")[1])
def test_all_that_a_build_uses_is_in_the_bindings(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    stubs(next(tmp_path.glob("tensorrt_bindings/tensorrt*.so")), tmp_path)
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([SOURCES, paths]),
    }
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(tmp_path / "told")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["missing"] == []
    # 10.x makes strongly typed networks by flag 1; in 11.x the flag is number 0 and holds always.
    assert found["flags"] == (2 if found["version"].startswith("10.") else 1)
    assert found["log"] == ["seen"]
    assert [json.loads(line)["done"] for line in found["told"]] == [0, 1, 2]
