"""What is measured of one variant against the baseline, and what the gate says of it."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from jettison.core.artifacts import LINEAGE_FILE
from jettison.core.files import staged_folder
from jettison.core.samples import Samples, first
from jettison.core.targets import Target
from jettison.core.tensors import Arrays
from jettison.engines.tensorrt.report import PreflightReport
from jettison.evaluate.gate import Candidate, Evidence, Gate, judge
from jettison.evaluate.interval import PairedInterval, paired_interval
from jettison.evaluate.metrics import Metric
from jettison.evaluate.portability import Portability
from jettison.evaluate.sanity import doubt, one_class
from jettison.evaluate.scoring import Scores
from jettison.evaluate.speed import Latency
from jettison.graph.model import model_files, model_size_bytes, open_model
from jettison.graph.stored import FLOAT8, stored_types
from jettison.pipeline.records import VariantRecord
from jettison.pipeline.results import BaselineResult, VariantResult
from jettison.pipeline.steps import LazyReference, ModelFile, Steps
from jettison.recipe import BASELINE

_LONGEST_WORDS = 300
"""Characters of the compiler's words in a reason: its own sentences are shorter, lists of tactics are not."""

PORTABILITY_SAMPLES = 128
"""Samples on which kernel and simulation are compared: their SQNR is steady to 0.1 dB there."""


@dataclass(frozen=True)
class Court:
    """What every variant of a model is measured with: the baseline, the samples, the metric, the gate."""

    steps: Steps
    baseline: ModelFile
    samples: Samples
    metric: Metric
    gate: Gate
    reference: LazyReference
    inputs: Arrays
    seed: int


@dataclass(frozen=True)
class Proof:
    """What was measured of one variant, and what makes one doubt a score that holds."""

    file: ModelFile
    size_bytes: int
    scores: Scores
    interval: PairedInterval
    portability: Portability | None
    preflight: PreflightReport | None
    doubt: str | None


@dataclass(frozen=True)
class Hearing:
    """The proofs of all variants for one target, side by side with the baseline."""

    baseline: BaselineResult
    proofs: Mapping[str, Proof]
    speeds: Mapping[str, Latency]
    candidates: Mapping[str, Candidate]
    baseline_doubts: tuple[str, ...] = ()

    def doubts(self, name: str) -> tuple[str, ...]:
        """What makes one doubt that variant, with its name; nothing for the baseline."""
        doubt = self.proofs[name].doubt if name in self.proofs else None
        return () if doubt is None else (f"{name}: {doubt}",)


def hear(court: Court, target: Target, files: Mapping[str, ModelFile]) -> Hearing:
    """Measure all variants against the baseline and put each through the gate."""
    baseline = court.steps.baseline_scores(court.samples, court.metric, reference=court.reference)
    proofs = {name: _prove(court, target, file, baseline) for name, file in files.items()}
    speeds = _speeds(court, target, files)
    size = model_size_bytes(court.baseline.path)
    candidates = {
        name: _candidate(court.gate, proof, speeds.get(name), size) for name, proof in proofs.items()
    }
    own = speeds.get(BASELINE)
    result = BaselineResult(
        path=court.baseline.path.resolve(),
        sha256=court.baseline.digest,
        size_bytes=size,
        score=baseline.mean,
        latency_ms=own.median_ms if own else None,
        latency_p99_ms=own.p99_ms if own else None,
        latency_quantiles_ms=own.quantiles_ms if own else (),
    )
    one = one_class(baseline.predictions, metric=court.metric.name)
    return Hearing(result, proofs, speeds, candidates, () if one is None else (one,))


def _prove(court: Court, target: Target, file: ModelFile, baseline: Scores) -> Proof:
    """Scores, interval, portability and the compiler's answer of one variant.

    For a GPU the exact arithmetic of the Q/DQ graph is scored, as integer tensor cores compute it; this
    machine's kernels would not tell.
    """
    steps = court.steps
    scores = steps.scores(
        file, court.samples, court.metric, reference=court.reference, optimize=not target.is_gpu
    )
    interval = paired_interval(
        scores.values, baseline.values, confidence=court.gate.confidence, seed=court.seed
    )
    holds = interval.low >= -court.gate.tolerance
    return Proof(
        file=file,
        size_bytes=model_size_bytes(file.path),
        scores=scores,
        interval=interval,
        portability=None if target.is_gpu else _portability(court, file),
        preflight=steps.preflight(file, target) if target.is_gpu else None,
        doubt=doubt(scores.sqnr_db, metric=court.metric.name) if holds else None,
    )


def _portability(court: Court, file: ModelFile) -> Portability | None:
    if file.simulation is not None:
        return None
    some = first(court.samples, PORTABILITY_SAMPLES)
    reference = court.reference
    if some is not court.samples:
        reference = LazyReference(court.baseline, some, court.steps)
    kernel, simulation = (
        court.steps.scores(file, some, court.metric, reference=reference, optimize=optimize).sqnr_db
        for optimize in (True, False)
    )
    if kernel is None or simulation is None:
        return None
    holds_float8 = bool(FLOAT8 & stored_types(open_model(file.path)))
    return Portability(kernel_db=kernel, simulation_db=simulation, holds_float8=holds_float8)


def _speeds(court: Court, target: Target, files: Mapping[str, ModelFile]) -> Mapping[str, Latency]:
    """Latencies of baseline and variants in one run; on a GPU target this machine's time says nothing."""
    if target.is_gpu:
        return {}
    report = court.steps.latency({BASELINE: court.baseline, **files}, court.inputs, baseline=BASELINE)
    return report.latencies


def _candidate(gate: Gate, proof: Proof, speed: Latency | None, baseline_size_bytes: int) -> Candidate:
    evidence = Evidence(
        interval=proof.interval,
        size_bytes=proof.size_bytes,
        baseline_size_bytes=baseline_size_bytes,
        speed=speed,
        compiles=proof.preflight.compiles if proof.preflight else None,
        refusal=_first_refusal(proof.preflight),
        portability=proof.portability,
        broken=proof.scores.broken,
    )
    return Candidate(evidence, judge(gate, evidence))


def _first_refusal(report: PreflightReport | None) -> str | None:
    """The first thing that the compiler refused: its code, the node and operator, and its words."""
    if report is None or report.compiles is not False or not report.refusals:
        return None
    refused = report.refusals[0]
    where = " at ".join(part for part in (refused.operator, refused.node) if part)
    words = " ".join(refused.description.split())
    shortened = words if len(words) <= _LONGEST_WORDS else f"{words[:_LONGEST_WORDS]}..."
    more = f" (and {len(report.refusals) - 1} more)" if len(report.refusals) > 1 else ""
    return f"{refused.code}{f' for {where}' if where else ''}: {shortened}{more}"


def variant_result(name: str, hearing: Hearing, record: VariantRecord) -> VariantResult:
    """The figures of one variant, in the form of the contract."""
    proof, candidate, speed = hearing.proofs[name], hearing.candidates[name], hearing.speeds.get(name)
    preflight, portability = proof.preflight, proof.portability
    return VariantResult(
        name=name,
        path=proof.file.path.resolve(),
        sha256=proof.file.digest,
        size_bytes=proof.size_bytes,
        score=proof.scores.mean,
        score_delta=proof.interval.delta,
        score_delta_low=proof.interval.low,
        sqnr_db=proof.scores.sqnr_db,
        simulation_sqnr_db=portability.simulation_db if portability else proof.scores.sqnr_db,
        portable=portability.is_portable if portability else None,
        latency_ms=speed.median_ms if speed else None,
        latency_p99_ms=speed.p99_ms if speed else None,
        latency_quantiles_ms=speed.quantiles_ms if speed else (),
        speedup=speed.speedup if speed else None,
        speedup_low=speed.speedup_low if speed else None,
        accepted=candidate.report.accepted,
        reasons=candidate.report.reasons,
        compiles=preflight.compiles if preflight else None,
        int8_mac_share=preflight.int8_mac_share if preflight else None,
        fp8_mac_share=preflight.fp8_mac_share if preflight else None,
        layers_kept_in_float=record.kept_in_float,
        layers=record.layers,
        pruned=record.pruned,
        compressed_bytes=record.compressed_bytes,
        notes=(
            *((proof.doubt,) if proof.doubt else ()),
            *record.notes,
            *(preflight.notes if preflight else ()),
        ),
    )


def clear(folder: Path, *, keep: Collection[str]) -> None:
    """Remove what earlier runs delivered under names that this run made no model for: a refused variant's."""
    for record in folder.glob(f"[!.]*/{LINEAGE_FILE}"):
        if record.parent.name not in keep:
            shutil.rmtree(record.parent)


def deliver(file: ModelFile, folder: Path) -> ModelFile:
    """The model under a readable path: a copy, so that whoever edits it leaves the step's result alone."""
    beside = file.path.parent / LINEAGE_FILE
    with staged_folder(folder) as stage:
        for source in (*model_files(file.path), *([beside] if beside.is_file() else [])):
            shutil.copyfile(source, stage / source.name)
        shutil.rmtree(folder, ignore_errors=True)
    return dataclasses.replace(file, path=folder / file.path.name)
