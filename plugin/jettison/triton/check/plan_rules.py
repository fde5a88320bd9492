"""P: whether every machine of a fleet has its plan, and its server takes it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from jettison.core.engine import EngineRecord, same_version
from jettison.core.errors import RepositoryError
from jettison.triton.check.finding import Objection
from jettison.triton.check.look import Look, ModelLook
from jettison.triton.plans import misnamed
from jettison.triton.repository import CONFIG_NAME


def missing_plans(look: Look) -> Iterator[Objection]:
    """Compute capabilities of the fleet without a plan: Triton takes the default one in silence."""
    computes = {target.compute for target in look.fleet.targets if target.compute is not None}
    for model in look.models:
        if model.config is None or model.backend != "tensorrt":
            continue
        named = set(model.config.cc_model_filenames)
        missing = sorted(computes - named)
        if missing and (named or len(computes) > 1):
            text = f"expected a plan for each compute capability of the fleet, found none for {missing}"
            yield Objection(f"{model.name}/{CONFIG_NAME}", text)


def other_versions(look: Look) -> Iterator[Objection]:
    """Plans of another TensorRT than that of the image which serves them."""
    for target in look.fleet.targets:
        if target.tensorrt is None or target.compute is None:
            continue
        for model, version, engines in _plans(look):
            engine = engines.get(model.config.cc_model_filenames.get(target.compute, ""))
            if engine is None or engine.version_compatible or same_version(engine.tensorrt, target.tensorrt):
                continue
            text = f"expected TensorRT {target.tensorrt} for {target.name}, found {engine.tensorrt}"
            yield Objection(f"{model.name}/{version}", text)


def misnamed_plans(look: Look) -> Iterator[Objection]:
    """Plans that are named for GPUs which do not take them."""
    for model, version, engines in _plans(look):
        for key, compute in misnamed(model.config.cc_model_filenames, engines):
            text = f"expected a plan for compute capability {key}, found one for {compute}"
            yield Objection(f"{model.name}/{version}", text)


def unallowed_plans(look: Look) -> Iterator[Objection]:
    """Plans with code of their own, on machines whose server was not told to run it."""
    for model, version, engines in _plans(look):
        for target in look.fleet.targets:
            if target.compute is None or target.version_compatible:
                continue
            file = _file_for(model, target.compute)
            if file in engines and engines[file].version_compatible:
                yield Objection(
                    f"{model.name}/{version}",
                    f"expected a server on {target.name} that takes version compatible plans, found one "
                    f"that does not, and {file!r} is such a plan",
                )


def _file_for(model: ModelLook, compute: str) -> str:
    """The file that Triton loads on a GPU of that compute capability."""
    default = model.config.default_model_filename or "model.plan"
    return str(model.config.cc_model_filenames.get(compute, default))


def _plans(look: Look) -> Iterator[tuple[ModelLook, int, Mapping[str, EngineRecord]]]:
    """Served versions whose manifest records plans, by their file names."""
    for model in look.models:
        if model.config is None or model.backend != "tensorrt":
            continue
        for version in model.served:
            with contextlib.suppress(RepositoryError):  # a torn manifest is a finding of R005
                manifest = model.manifest(version)
                if manifest is not None and manifest.engines:
                    yield model, version, manifest.engines
