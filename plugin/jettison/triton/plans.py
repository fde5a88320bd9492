"""TensorRT plans of one model for several GPUs, as one model of a repository.

Triton picks the plan by the GPU's compute capability (`cc_model_filenames`). Where a key is missing it takes
the default plan in silence, so a set of plans is complete for the machines that are named, or refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jettison.core.engine import EngineRecord, dotted, undotted
from jettison.core.errors import RepositoryError
from jettison.triton.check.look import FleetTarget
from jettison.triton.config import InstanceGroup, ModelConfig
from jettison.triton.serving import Serving, config_of, is_batched

PLATFORM = "tensorrt_plan"
_BACKEND = "tensorrt"
_SERVED = "tensorrt"
"""The module whose plans Triton's backend loads."""


class Need(NamedTuple):
    """A GPU that must have a plan, and the TensorRT of its image where that is known."""

    name: str
    capability: int
    tensorrt: str | None = None


def needs_of(targets: Sequence[FleetTarget]) -> tuple[Need, ...]:
    """What machines of a fleet ask for; those without a GPU ask for nothing."""
    return tuple(
        Need(target.name, undotted(target.compute), target.tensorrt)
        for target in targets
        if target.compute is not None
    )


def plan_name(engine: EngineRecord) -> str:
    """The file name of a plan in the version folder."""
    return f"model.sm{engine.compute_capability}.plan"


def config_of_plans(
    name: str, engines: Sequence[EngineRecord], *, needs: Sequence[Need] = (), instances: int = 1
) -> ModelConfig:
    """The configuration under which each GPU finds its plan.

    Args:
        name: The model's name in the repository.
        engines: One for each GPU that it was built on.
        needs: The machines that the set must be complete for; empty for just those that it was built on.
        instances: Copies of the model on each GPU.

    Raises:
        RepositoryError: A machine has no plan, or one of another TensorRT; the plans differ in what clients
            see, or none of them is for Triton.
    """
    _check_alike(name, engines)
    keys = _keys(name, engines, needs)
    first = engines[0]
    serving = Serving(
        max_batch_size=_max_batch(name, engines),
        instances=instances,
        backend=_BACKEND,
        filename=plan_name(first),
        kind="KIND_GPU",
    )
    config = config_of(name, first.inputs, first.outputs, serving=serving)
    profiles = tuple(str(place) for place in range(len(first.profiles)))
    group = InstanceGroup(kind="KIND_GPU", count=instances, profile=profiles if len(profiles) > 1 else ())
    return config.model_copy(
        update={"platform": PLATFORM, "cc_model_filenames": keys, "instance_group": (group,)}
    )


def _keys(name: str, engines: Sequence[EngineRecord], needs: Sequence[Need]) -> dict[str, str]:
    """The plan of each compute capability; one built on that very GPU before a compatible one."""
    keys = {engine.compute: plan_name(engine) for engine in engines}
    missing = []
    for need in needs:
        fitting = [engine for engine in engines if engine.runs_on(need.capability)]
        fitting.sort(key=lambda engine: engine.compute_capability != need.capability)
        if not fitting:
            missing.append(need)
            continue
        if need.tensorrt is not None and not fitting[0].version_compatible:
            fitting[0].check_version(need.tensorrt)
        keys[dotted(need.capability)] = plan_name(fitting[0])
    if missing:
        found = ", ".join(sorted(f"sm{engine.compute_capability}" for engine in engines))
        targets = " and ".join(f"--target sm{need.capability}" for need in missing)
        raise RepositoryError(
            f"model {name!r}",
            detail=f"expected a plan for each machine, found none for {', '.join(n.name for n in missing)} "
            f"(plans are for {found})",
            fix=f"Build with {targets}, or leave the machine out: Triton would take another plan in silence",
        )
    return dict(sorted(keys.items()))


def _check_alike(name: str, engines: Sequence[EngineRecord]) -> None:
    """Pass for plans of Triton's module that clients cannot tell apart.

    Raises:
        RepositoryError: They are not.
    """
    what = f"model {name!r}"
    if not engines:
        raise RepositoryError(what, detail="expected a plan, found none", fix="Build one: jettison build")
    for engine in engines:
        if engine.module != _SERVED:
            raise RepositoryError(
                what,
                detail=f"expected a plan of {_SERVED}, found one of {engine.module}, of no use to Triton",
                fix="Build it with the module `tensorrt`, in the image that serves: "
                "jettison build --image TAG",
            )
    first = engines[0]
    seen = (first.inputs, first.outputs, len(first.profiles))
    for engine in engines[1:]:
        if (engine.inputs, engine.outputs, len(engine.profiles)) != seen:
            raise RepositoryError(
                what,
                detail="expected plans with the same inputs, outputs and number of profiles, found others "
                f"for sm{engine.compute_capability} than for sm{first.compute_capability}",
                fix="Build them from models of one signature, with --shapes given equally often",
            )


def _max_batch(name: str, engines: Sequence[EngineRecord]) -> int:
    """The largest batch that every plan takes; 0 where the batch is no open dimension.

    Raises:
        RepositoryError: No profile of a plan takes a single sample.
    """
    first = engines[0]
    if not is_batched(first.inputs, first.outputs):
        return 0
    for engine in engines:
        if all(min(item.minimum[0] for item in one) > 1 for one in engine.profiles):
            raise RepositoryError(
                f"model {name!r}",
                detail=f"expected a profile for batches from 1 on, found none in the plan of sm"
                f"{engine.compute_capability}",
                fix="Build it with a smallest batch of 1: jettison build --shapes NAME=1x...,OPT,MAX",
            )
    return min(max(min(item.maximum[0] for item in one) for one in engine.profiles) for engine in engines)


def misnamed(keys: Mapping[str, str], engines: Mapping[str, EngineRecord]) -> list[tuple[str, str]]:
    """Compute capabilities under which a configuration names a plan that their GPUs do not take."""
    return [
        (key, engines[file].compute)
        for key, file in sorted(keys.items())
        if file in engines and not engines[file].runs_on(undotted(key))
    ]
