"""From folders that `jettison build` filled into a Triton model repository."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir
from pydantic import ValidationError

from jettison.core.artifacts import LINEAGE_FILE, Lineage
from jettison.core.engine import ENGINE_FILE, PLAN_FILE, EngineRecord, ProfileRange, read_record
from jettison.core.errors import RepositoryError, TargetError
from jettison.core.files import sha256_of
from jettison.core.targets import parse_target
from jettison.graph.model import input_specs, open_model
from jettison.triton.plans import Need, config_of_plans, plan_name
from jettison.triton.provider import Precision, with_tensorrt_provider
from jettison.triton.publish import Release


def is_build_folder(folder: Path) -> bool:
    """Whether plans lie there: in itself, or in a folder for each target."""
    return bool(_engine_folders(folder))


def target_needs(text: str) -> tuple[Need, ...]:
    """The GPUs in a list such as `sm87,sm89`.

    Raises:
        TargetError: One of them names no GPU.
    """
    needs = []
    for name in filter(None, (part.strip() for part in text.split(","))):
        capability = parse_target(name).compute_capability
        if capability is None:
            raise TargetError(
                f"target {name!r}",
                detail="expected a compute capability, since a plan is for one GPU",
                fix="Write them like --targets sm87,sm89",
            )
        needs.append(Need(name, capability))
    return tuple(needs)


def plans_release(folder: Path, name: str, *, created: str, needs: Sequence[Need] = ()) -> Release:
    """The plans in a folder as one model, complete for the machines that are named.

    Raises:
        RepositoryError: There is no plan, one is torn, or a machine has none that it takes.
        InputError: A record cannot be read, or a plan is of another TensorRT than its machine's.
    """
    places = _engine_folders(folder)
    if not places:
        raise RepositoryError(
            f"folder {folder}",
            detail=f"expected plans with their {ENGINE_FILE}, found none",
            fix="Build them first: jettison build MODEL --target sm89 -o DIR",
        )
    engines = [_engine(place) for place in places]
    _check_one_each(folder, engines)
    files = {plan_name(engine): place / PLAN_FILE for engine, place in zip(engines, places, strict=True)}
    return Release(
        config=config_of_plans(name, engines, needs=needs),
        files=files,
        created=created,
        lineage=_lineage(places[0]),
        engines={plan_name(engine): engine for engine in engines},
    )


def _engine_folders(folder: Path) -> list[Path]:
    return sorted(
        path.parent for path in (folder / ENGINE_FILE, *folder.glob(f"*/{ENGINE_FILE}")) if path.is_file()
    )


def _engine(place: Path) -> EngineRecord:
    """The record of a plan that is still the one which was built.

    Raises:
        RepositoryError: The plan is gone, torn or another.
    """
    engine = read_record((place / ENGINE_FILE).read_bytes(), f"engine {place}")
    plan = place / PLAN_FILE
    if not plan.is_file() or sha256_of(plan) != engine.sha256:
        raise RepositoryError(
            f"plan {plan}",
            detail="expected the file that was built, found none, another or a torn copy",
            fix="Copy the whole folder again, or build it again: jettison build",
        )
    return engine


def _check_one_each(folder: Path, engines: Sequence[EngineRecord]) -> None:
    capabilities = [engine.compute_capability for engine in engines]
    twice = sorted({found for found in capabilities if capabilities.count(found) > 1})
    if twice:
        raise RepositoryError(
            f"folder {folder}",
            detail=f"expected one plan for each GPU, found several for sm{twice[0]}",
            fix="Publish from a folder that holds one of them",
        )


def _lineage(place: Path) -> Lineage | None:
    try:
        return Lineage.model_validate_json((place / LINEAGE_FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def provider_release(release: Release, path: Path, *, ranges: Sequence[ProfileRange], cache: str) -> Release:
    """The release of an ONNX file, to be served by ONNX Runtime's TensorRT provider.

    Raises:
        InputError: The ranges do not fit the model's inputs.
    """
    model = open_model(path)
    kinds = {node.op_type for node in model.graph}
    half = any(value.dtype == ir.DataType.FLOAT16 for value in model.graph.initializers.values())
    precision: Precision = "INT8" if "DequantizeLinear" in kinds else "FP16" if half else "FP32"
    config = with_tensorrt_provider(
        release.config, input_specs(model), ranges=ranges, cache=cache, precision=precision
    )
    return dataclasses.replace(release, config=config)
