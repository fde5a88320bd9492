"""Preflight: really compile a model with TensorRT's compiler, on a machine that needs no GPU.

The compiler runs in a child process with a time limit. It can refuse, crash or hang: each is an answer of
its own, told as a value and never as a traceback.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jettison.core.errors import ExternalError, ModelError
from jettison.core.targets import Target
from jettison.engines.tensorrt.capabilities import CompiledFor, compiled_for
from jettison.engines.tensorrt.child import environment_of_child, signal_name
from jettison.engines.tensorrt.exchange import CompileAnswer, CompileRequest
from jettison.engines.tensorrt.layers import parse_layers
from jettison.engines.tensorrt.messages import builder_refusals, layers_text, memory_estimate, warnings
from jettison.engines.tensorrt.module import COMPILERS, ModuleName, find_module, how_to_install
from jettison.engines.tensorrt.report import Outcome, PreflightReport, RefusedNode
from jettison.engines.tensorrt.shapes import ShapeRange
from jettison.engines.tensorrt.shares import UNKNOWN, int8_mac_share, low_precision_mac_share, mac_shares
from jettison.graph.model import check_exists, open_model
from jettison.graph.two_to_four import sparse_layers

_PROGRAM = "jettison.engines.tensorrt.compiler"

_EVIDENCE = (
    "compiled ahead of time by TensorRT-RTX and not run: strong evidence for TensorRT, but no proof, since "
    "the two compilers differ"
)
_MEMORY = "memory figures are the compiler's own estimate for the largest shapes, not measured"
_SPARSE = (
    "layers that are 2:4 throughout: {count}; compiled with SPARSE_WEIGHTS. Ahead of time the compiler does "
    "not tell where it takes sparse kernels, and whether they are faster shows on the GPU only"
)
_NOT_SPARSE = "layers that are 2:4 throughout: {count}; {module} has no flag SPARSE_WEIGHTS to make use of it"
_NO_LAYERS = "the compiler's list of layers could not be read, so the shares are unknown"


def preflight(
    path: Path,
    target: Target,
    *,
    shapes: Sequence[ShapeRange] = (),
    macs: Mapping[str, int] | None = None,
    timeout_s: float = 600.0,
) -> PreflightReport:
    """What TensorRT's compiler says about the model for that target.

    Args:
        path: The ONNX file; external data is found beside it.
        target: A GPU, or `tensorrt` for any. GPUs that the compiler cannot name are stood in for by the
            nearest, and the report says so.
        shapes: Ranges for inputs with open dimensions; the others get defaults, told in the report.
        macs: Multiply-accumulates of each Conv, Gemm and MatMul node by its name, for the shares.
        timeout_s: After so many seconds the compiler is stopped.

    Raises:
        ModelError: There is no such file, or it holds no ONNX graph.
        InputError: The shapes do not fit the model's inputs, or an input needs shapes.
        TargetError: TensorRT does not run on that target.
        ExternalError: The compiler's program failed in a way that says nothing about the model.
    """
    place = compiled_for(target)
    check_exists(path)
    module = find_module()
    if module is None:
        note = f"TensorRT's compiler is not installed. {how_to_install(COMPILERS[0])}"
        return _report(target, place, module=None, outcome="unavailable", notes=(note,))
    started = time.monotonic()
    count = _sparse_layers(path)
    request = CompileRequest(
        model=path.absolute(),
        module=module,
        compute_capability=place.compute_capability,
        shapes=tuple(shapes),
        answer=Path(),
        sparse=count > 0,
    )
    report = _with_sparsity(_compile(request, target, place, limit_s=timeout_s), count)
    seconds = round(time.monotonic() - started, 3)
    return _with_shares(report.model_copy(update={"seconds": seconds}), macs)


def _sparse_layers(path: Path) -> int:
    """How many layers are 2:4; 0 for a file that cannot be read here, which the compiler tells better."""
    try:
        return len(sparse_layers(open_model(path)))
    except ModelError:
        return 0


def _with_sparsity(report: PreflightReport, count: int) -> PreflightReport:
    """The report with the layers that are 2:4, and whether sparse kernels were allowed for them."""
    if not count or report.outcome != "compiles":
        return report.model_copy(update={"sparse_layers": count})
    note = (_SPARSE if report.sparse_weights else _NOT_SPARSE).format(count=count, module=report.module)
    return report.model_copy(update={"sparse_layers": count, "notes": (*report.notes, note)})


def _compile(asked: CompileRequest, target: Target, place: CompiledFor, *, limit_s: float) -> PreflightReport:
    """What the compiler says; the answer's path of the request is filled in here."""
    module = asked.module
    with tempfile.TemporaryDirectory(prefix="jettison-preflight-") as folder:
        answer_path = Path(folder) / "answer.json"
        request = asked.model_copy(update={"answer": answer_path})
        try:
            done = _run_child(request, folder=Path(folder), limit_s=limit_s)
        except subprocess.TimeoutExpired:
            note = f"the compiler gave no answer within {limit_s:g} s and was stopped"
            return _report(target, place, module=module, outcome="timeout", notes=(note,))
        if answer_path.is_file():
            # Written last and as a whole, so it holds even where the native library dies on the way out.
            answer = CompileAnswer.model_validate_json(answer_path.read_bytes())
            return _answered(target, place, module=module, answer=answer)
    return _unanswered(target, place, module=module, done=done)


def _run_child(request: CompileRequest, *, folder: Path, limit_s: float) -> subprocess.CompletedProcess[str]:
    """Run the compiler's program to its end, from an empty folder so that no file there shadows a module."""
    request_path = folder / "request.json"
    request_path.write_text(request.model_dump_json(), encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", _PROGRAM, str(request_path)],
        cwd=folder,
        env=environment_of_child(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        timeout=limit_s,
        check=False,
    )


def _answered(
    target: Target, place: CompiledFor, *, module: ModuleName, answer: CompileAnswer
) -> PreflightReport:
    if answer.problem is not None:
        raise answer.problem.error()
    if answer.missing is not None:
        note = f"{module} is installed but does not load: {answer.missing}"
        return _report(target, place, module=module, outcome="unavailable", notes=(note,))
    refusals = (
        answer.refusals if answer.built else (answer.refusals or builder_refusals(answer.log) or (_SILENT,))
    )
    outcome: Outcome = "refused" if refusals else "compiles"
    report = _report(target, place, module=module, outcome=outcome, notes=() if refusals else (_EVIDENCE,))
    layers = parse_layers(layers_text(answer.log))
    notes = [
        *report.notes,
        *([_MEMORY] if answer.built else []),
        *([_NO_LAYERS] if answer.built and not layers else []),
    ]
    return report.model_copy(
        update={
            "version": answer.version,
            "refusals": refusals,
            "warnings": warnings(answer.log),
            "shapes": answer.shapes,
            "layers": layers,
            "memory": memory_estimate(answer.log),
            "sparse_weights": answer.sparse if answer.built else None,
            "notes": tuple(notes),
        }
    )


_SILENT = RefusedNode(code="BUILDER", description="the compiler built no engine and gave no reason")


def _unanswered(
    target: Target, place: CompiledFor, *, module: ModuleName, done: subprocess.CompletedProcess[str]
) -> PreflightReport:
    """The report of a child that left no answer: killed by a signal, it crashed.

    Raises:
        ExternalError: It ended by itself.
    """
    if done.returncode < 0:
        note = f"TensorRT's compiler crashed ({signal_name(-done.returncode)}): neither pass nor fail"
        return _report(target, place, module=module, outcome="crashed", notes=(note,))
    last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
    raise ExternalError(
        f"TensorRT's compiler ({module})",
        detail=f"expected an answer, found exit code {done.returncode} and on stderr {last!r}",
        fix="Check with `jettison doctor` that the module is installed whole, or install it again",
    )


def _report(
    target: Target, place: CompiledFor, *, module: ModuleName | None, outcome: Outcome, notes: tuple[str, ...]
) -> PreflightReport:
    return PreflightReport(
        target=target.name,
        compiled_for=place.name,
        nearest=place.nearest,
        module=module,
        version=None,
        outcome=outcome,
        notes=(*([place.note] if place.note else []), *notes),
    )


def _with_shares(report: PreflightReport, macs: Mapping[str, int] | None) -> PreflightReport:
    if not macs or not report.layers:
        return report
    shares = mac_shares(report.layers, macs)
    update: dict[str, Any] = {
        "mac_shares": shares,
        "int8_mac_share": int8_mac_share(report.layers, macs),
        "low_precision_mac_share": low_precision_mac_share(report.layers, macs),
    }
    if UNKNOWN in shares:
        note = (
            f"{shares[UNKNOWN]:.1%} of the multiply-accumulates belong to nodes that no compiled layer names"
        )
        update["notes"] = (*report.notes, note)
    return report.model_copy(update=update)
