"""Build an engine: the plan for one GPU with its record, in a folder of its own.

The builder runs in a child process, as the compiler of a preflight does. What it refuses is told as a value;
a machine that cannot build for that GPU is a `MissingError` with the ways out.
"""

from __future__ import annotations

import platform
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir
from pydantic import BaseModel, ConfigDict

from jettison.core.artifacts import LINEAGE_FILE, lineage_of, version_of
from jettison.core.engine import (
    ENGINE_FILE,
    PLAN_FILE,
    EngineRecord,
    ProfileRange,
    identity_of,
    read_record,
)
from jettison.core.errors import ExternalError, MissingError, TargetError
from jettison.core.files import sha256_of, write_bytes
from jettison.core.targets import Target
from jettison.core.tensors import TensorSpec
from jettison.engines.tensorrt.build_exchange import BuildAnswer, BuildRequest
from jettison.engines.tensorrt.build_report import BuildOptions, BuildReport, Listener, ways_out
from jettison.engines.tensorrt.child import run_and_listen, signal_name
from jettison.engines.tensorrt.messages import memory_estimate, warnings
from jettison.engines.tensorrt.module import COMPILERS, find_module
from jettison.engines.tensorrt.settings import BuildSettings
from jettison.engines.tensorrt.shapes import ShapeRange
from jettison.graph.model import check_exists, input_specs, model_digest, open_model, output_specs
from jettison.graph.two_to_four import sparse_layers

_PROGRAM = "jettison.engines.tensorrt.builder"
TIMING_FILE = "timing.cache"
"""Beside the plan: the timings that the next build of a changed model on the same GPU starts from."""


def build(
    path: Path,
    target: Target,
    folder: Path,
    *,
    profiles: Sequence[Sequence[ShapeRange]] = (),
    settings: BuildSettings | None = None,
    options: BuildOptions | None = None,
) -> BuildReport:
    """Build the engine of an ONNX model for one GPU into `folder/<target>`.

    An engine of the same identity that stands there whole is not built again.

    Args:
        path: The ONNX file; external data is found beside it.
        target: One compute capability.
        folder: Gets a folder for each target.
        profiles: Ranges of the open inputs, for each optimization profile.
        settings: Of the builder. Sparse kernels are allowed by themselves where layers are 2:4.
        options: What is no part of the engine's identity.

    Raises:
        MissingError: No module `tensorrt`, no GPU, or another one than the target.
        InputError: An open input without a range, or a range that does not fit.
        ExternalError: The builder's program failed in a way that says nothing about the model.
    """
    options = options or BuildOptions()
    capability = _capability(target)
    check_exists(path)
    if find_module([options.module]) is None:
        detail = f"the module {options.module} is not installed"
        raise MissingError(f"build for {target.name}", detail=detail, fix=ways_out(target))
    model = open_model(path)
    place = folder / target.name
    place.mkdir(parents=True, exist_ok=True)
    job = _Job(
        path=path.absolute(),
        onnx=model_digest(path),
        inputs=input_specs(model),
        outputs=output_specs(model),
        target=target,
        place=place.absolute(),
        options=options,
    )
    request = BuildRequest(
        model=job.path,
        module=options.module,
        compute_capability=capability,
        profiles=tuple(tuple(one) for one in profiles),
        settings=_with_sparsity(model, settings or BuildSettings()),
        plan=Path(),
        timing_cache=job.place / TIMING_FILE,
        answer=Path(),
        progress=Path(),
    )
    standing = _standing(job, request)
    return standing if standing is not None else _built(job, request)


class _Job(BaseModel):
    """One build: the model with its digest, where the engine goes, and how."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    path: Path
    onnx: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    target: Target
    place: Path
    options: BuildOptions


def _capability(target: Target) -> int:
    if target.compute_capability is None:
        raise TargetError(
            f"build for target {target.name!r}",
            detail="expected one compute capability, since an engine is for one GPU, found none",
            fix="Use --target sm89, say; `jettison doctor` tells what GPU is here",
        )
    return target.compute_capability


def _with_sparsity(model: ir.Model, settings: BuildSettings) -> BuildSettings:
    sparse = settings.sparse or bool(sparse_layers(model))
    return settings.model_copy(update={"sparse": sparse})


def _settings_text(request: BuildRequest) -> str:
    """Settings and given ranges, as they count for the identity."""
    ranges = ";".join(",".join(map(str, one)) for one in request.profiles)
    capability = request.compute_capability
    return f'{{"settings":{request.settings.model_dump_json()},"profiles":"{ranges}","sm":{capability}}}'


def _standing(job: _Job, request: BuildRequest) -> BuildReport | None:
    """The engine that stands there, if it is whole, of this model and of these settings."""
    record, plan = job.place / ENGINE_FILE, job.place / PLAN_FILE
    if not (record.is_file() and plan.is_file()):
        return None
    engine = read_record(record.read_bytes(), f"engine {job.place}")
    wanted = identity_of(
        job.onnx, _settings_text(request), module=request.module, version=_version(job, engine)
    )
    if engine.identity != wanted or sha256_of(plan) != engine.sha256:
        return None
    return _done(job, engine).model_copy(update={"outcome": "standing"})


def _version(job: _Job, engine: EngineRecord) -> str:
    """The version that is installed here, in the form in which the record has it."""
    installed = version_of(job.options.module.replace("_", "-")) or ""
    return engine.tensorrt if installed.split()[-1:] == [engine.tensorrt] else installed


def _built(job: _Job, request: BuildRequest) -> BuildReport:
    with tempfile.TemporaryDirectory(prefix="jettison-build-") as name:
        work = Path(name)
        paths = {key: work / key for key in ("plan", "answer", "progress")}
        asked = request.model_copy(update=paths)
        (work / "request.json").write_text(asked.model_dump_json(), encoding="utf-8")
        listen = Listener(asked.progress, job.options.report)
        try:
            done = run_and_listen(
                _PROGRAM, work / "request.json", limit_s=job.options.limit_s, listen=listen.look
            )
        except subprocess.TimeoutExpired:
            note = f"TensorRT was not done within {job.options.limit_s:g} s and was stopped"
            return BuildReport(target=job.target.name, outcome="timeout", notes=(note,))
        if not asked.answer.is_file():
            return _unanswered(job, done)
        answer = BuildAnswer.model_validate_json(asked.answer.read_bytes())
        return _answered(job, asked, answer)


def _answered(job: _Job, request: BuildRequest, answer: BuildAnswer) -> BuildReport:
    if answer.missing is not None:
        what = f"build for {job.target.name}"
        raise MissingError(what, detail=answer.missing, fix=ways_out(job.target))
    if answer.problem is not None:
        raise answer.problem.error()
    if answer.refusals or not request.plan.is_file():
        return BuildReport(
            target=job.target.name,
            outcome="refused",
            refusals=answer.refusals,
            warnings=warnings(answer.log),
        )
    engine = _record(job, request, answer)
    (job.place / ENGINE_FILE).unlink(missing_ok=True)  # a death from here leaves no record of another plan
    write_bytes(job.place / PLAN_FILE, request.plan.read_bytes())
    lineage = lineage_of(
        "build", engine.settings, parents=(engine.onnx,), libraries=(job.options.module.replace("_", "-"),)
    )
    write_bytes(job.place / LINEAGE_FILE, lineage.model_dump_json(indent=1).encode())
    write_bytes(job.place / ENGINE_FILE, engine.model_dump_json(indent=1).encode())
    return _done(job, engine).model_copy(update={"warnings": warnings(answer.log)})


def _record(job: _Job, request: BuildRequest, answer: BuildAnswer) -> EngineRecord:
    memory = memory_estimate(answer.log)
    told: dict[str, Any] = {"gpu": answer.gpu.name} if answer.gpu else {}
    return EngineRecord(
        onnx=job.onnx,
        settings=_settings_text(request),
        module=request.module,
        tensorrt=answer.version or "",
        compute_capability=request.compute_capability,
        architecture=platform.machine(),
        system=platform.system(),
        compatibility=request.settings.compatibility,
        version_compatible=request.settings.version_compatible,
        inputs=job.inputs,
        outputs=job.outputs,
        profiles=tuple(tuple(ProfileRange(**r.model_dump()) for r in one) for one in answer.profiles),
        sha256=sha256_of(request.plan),
        seconds=answer.seconds,
        memory_bytes=memory.activation_bytes if memory else None,
        **told,
    )


def _done(job: _Job, engine: EngineRecord) -> BuildReport:
    notes = []
    if engine.module in COMPILERS:
        notes.append(f"a plan of {engine.module}: Triton does not load it")
    return BuildReport(
        target=job.target.name,
        outcome="built",
        path=job.place,
        engine=engine,
        identity=engine.identity,
        notes=tuple(notes),
    )


def _unanswered(job: _Job, done: subprocess.CompletedProcess[str]) -> BuildReport:
    if done.returncode < 0:
        note = f"TensorRT crashed ({signal_name(-done.returncode)})"
        return BuildReport(target=job.target.name, outcome="crashed", notes=(note,))
    last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
    raise ExternalError(
        f"TensorRT's builder ({job.options.module})",
        detail=f"expected an answer, found exit code {done.returncode} and on stderr {last!r}",
        fix="Check with `jettison doctor` that the module is installed whole, or install it again",
    )
