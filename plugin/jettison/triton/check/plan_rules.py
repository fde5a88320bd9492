"""P: whether the servers of a fleet are started so that they take the plans that were published."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import BaseModel, ConfigDict, ValidationError

from jettison.triton.check.finding import Objection
from jettison.triton.check.look import Look, ModelLook
from jettison.triton.manifest import MANIFEST_NAME


class PlanTraits(BaseModel):
    """What a manifest says of a plan, as far as servers must be started for it."""

    model_config = ConfigDict(frozen=True)

    version_compatible: bool = False


class PlanTable(BaseModel):
    """The plans of a version by their file names; all else of its manifest is passed over."""

    model_config = ConfigDict(frozen=True)

    engines: Mapping[str, PlanTraits] | None = None


def unallowed_plans(look: Look) -> Iterator[Objection]:
    """Plans with code of their own, on machines whose server was not told to run it."""
    for model in look.models:
        if model.backend != "tensorrt":
            continue
        for version in model.served:
            plans = _plans(model, version)
            for target in look.fleet.targets:
                if target.compute is None or target.version_compatible:
                    continue
                file = _file_for(model, target.compute)
                if file in plans and plans[file].version_compatible:
                    yield Objection(
                        f"{model.name}/{version}",
                        f"expected a server on {target.name} that takes version compatible plans, found one "
                        f"that does not, and {file!r} is such a plan",
                    )


def _file_for(model: ModelLook, compute: str) -> str:
    """The file that Triton loads on a GPU of that compute capability."""
    default = model.config.default_model_filename or "model.plan"
    return str(model.config.cc_model_filenames.get(compute, default))


def _plans(model: ModelLook, version: int) -> Mapping[str, PlanTraits]:
    """The recorded plans of a version; a torn manifest is a finding of R005."""
    path = model.path / str(version) / MANIFEST_NAME
    try:
        return PlanTable.model_validate_json(path.read_bytes()).engines or {} if path.is_file() else {}
    except ValidationError:
        return {}
