"""`jettison doctor`: what this machine can and cannot do, and what would bring the rest."""

from __future__ import annotations

import importlib.util
import platform
import shutil
from pathlib import Path
from typing import Literal

import typer
from pydantic import BaseModel
from rich.table import Table
from rich.text import Text

from jettison._version import __version__
from jettison.cli.console import print_json, table_console
from jettison.cli.surroundings import cache_folder, processor
from jettison.core.artifacts import version_of
from jettison.core.concurrency import available_cores
from jettison.core.extras import install_command
from jettison.triton.runtime import is_ready

_STYLES = {"yes": "green", "no": "yellow"}
_CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")


class Ability(BaseModel):
    """One thing that the machine can do or lacks, and what would bring it."""

    name: str
    able: Literal["yes", "no"]
    detail: str
    fix: str = ""


class Diagnosis(BaseModel):
    """The machine, and what can be done on it."""

    jettison: str
    python: str
    platform: str
    processor: str
    cores: int
    instruction_sets: tuple[str, ...]
    abilities: tuple[Ability, ...]


def doctor(as_json: bool = typer.Option(False, "--json", help="Print one JSON document.")) -> None:
    """Tell what this machine can and cannot do.

    Example: `jettison doctor`
    """
    found = diagnose()
    if as_json:
        print_json(found)
        return
    console = table_console()
    console.print(f"jettison {found.jettison}, Python {found.python}, {found.platform}")
    console.print(f"{found.processor}, {found.cores} cores; {', '.join(found.instruction_sets)}")
    table = Table("what", "here", "detail", "what would bring it")
    for ability in found.abilities:
        able = Text(ability.able, style=_STYLES[ability.able])
        table.add_row(ability.name, able, ability.detail, ability.fix)
    console.print(table)


def diagnose() -> Diagnosis:
    """Look at the machine without starting anything."""
    return Diagnosis(
        jettison=__version__,
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        processor=processor(),
        cores=available_cores(),
        instruction_sets=_instruction_sets(),
        abilities=(
            _module(
                "compress for and run on the CPU", "onnxruntime", "onnxruntime", "pip install onnxruntime"
            ),
            _module(
                "preflight for TensorRT without a GPU",
                "tensorrt_rtx",
                "tensorrt-rtx",
                install_command("rtx"),
            ),
            _module(
                "build TensorRT engines",
                "tensorrt",
                "tensorrt",
                f"{install_command('tensorrt')}, on a GPU machine",
            ),
            _gpu(),
            _module("build engines in an image", "docker", "docker", install_command("docker")),
            _module("read torch modules and programs", "torch", "torch", install_command("train")),
            _module("prune channels", "torch_pruning", "torch-pruning", install_command("train")),
            _module("read Keras models", "keras", "keras", install_command("keras")),
            _module("talk to Triton", "tritonclient", "tritonclient", install_command("triton")),
            _server(),
        ),
    )


def _module(name: str, module: str, distribution: str, fix: str) -> Ability:
    if importlib.util.find_spec(module) is None:
        return Ability(name=name, able="no", detail=f"{distribution} is not installed", fix=fix)
    return Ability(name=name, able="yes", detail=f"{distribution} {version_of(distribution) or 'unknown'}")


def _gpu() -> Ability:
    if Path("/dev/nvidia0").exists() or Path("/dev/nvhost-gpu").exists():
        return Ability(name="run on an NVIDIA GPU", able="yes", detail="a GPU device is there")
    return Ability(
        name="run on an NVIDIA GPU",
        able="no",
        detail="no GPU device",
        fix="a machine with an NVIDIA GPU and driver",
    )


def _server() -> Ability:
    program = shutil.which("tritonserver")
    if program:
        return Ability(name="serve with tritonserver", able="yes", detail=program)
    runtimes = sorted(folder for folder in cache_folder().glob("runtime-*") if is_ready(folder))
    if runtimes:
        return Ability(
            name="serve with tritonserver", able="yes", detail=f"runtime environment {runtimes[-1]}"
        )
    return Ability(
        name="serve with tritonserver", able="no", detail="no tritonserver, no runtime environment yet",
        fix="jettison serve makes one once (about 300 MB)",
    )  # fmt: skip


def _instruction_sets() -> tuple[str, ...]:
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return ()
    for line in info.read_text().splitlines():
        if line.startswith(("flags", "Features")):
            present = set(line.partition(":")[2].split())
            return tuple(flag for flag in _CPU_FLAGS if flag in present)
    return ()
