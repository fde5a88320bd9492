"""A router model in front of two published ones: its configuration, its release and its state file.

The router itself runs inside Triton (`backends/jettison_router`). Its configuration is fixed while it is
loaded; mode and weight stand in a file of their own, since an edited configuration reloads the model.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from typing_extensions import Self

from jettison.core.errors import InputError, RepositoryError
from jettison.core.files import write_bytes
from jettison.core.validation import ImpossibleValueError, problem_of
from jettison.triton.config import DynamicBatching, InstanceGroup, ModelConfig, Parameter, check_name
from jettison.triton.manifest import signature_of
from jettison.triton.pins import NEWEST, ROUTER
from jettison.triton.publish import Published, Release, publish
from jettison.triton.repository import ModelFolder

BACKEND = ROUTER
STATE_FORMAT = "jettison-router/1"
RELEASE_NAME = "router.json"
"""The file of a router's version: which two models it stands before."""
BUCKETS = 10_000
"""A weight is how many of so many buckets of units the candidate has."""
INSTANCES = 2
"""Chosen by benchmarks/router.py: one more than one, so that a request that waits for its model holds up no
other; each is a process of about 60 MB."""

Node = Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,62}|\$[A-Za-z_][A-Za-z0-9_]{0,61})$")]
"""A name, or `$NAME` of a variable in the server's environment."""
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0)]


class RouterOptions(BaseModel):
    """How a router works, as `backends/jettison_router/router_settings.py` says of each.

    Args:
        state_path: The file with mode and weight, outside the repository.
        counter_folder: Where counters and disagreements are kept, outside the repository.
        node: This machine's name, unique in the experiment, or the variable that holds it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    state_path: Path
    counter_folder: Path
    node: Node
    key_path: Path | None = None
    baseline_version: int = Field(NEWEST, ge=NEWEST)
    candidate_version: int = Field(NEWEST, ge=NEWEST)
    task: Literal["classification", "embedding", "detection", "tolerance"] = "tolerance"
    output: str = ""
    score_output: str = ""
    class_output: str = ""
    threshold: float = Field(0.99, ge=-1, le=1)
    score_threshold: float = 0.5
    absolute_tolerance: float = Field(1e-3, ge=0)
    relative_tolerance: float = Field(1e-2, ge=0)
    sample_share: float = Field(1.0, ge=0, le=1)
    deadline_ms: Positive = 1000.0
    latency_limit_ms: float = Field(0.0, ge=0)
    unit_header: str = ""
    correlation_ids: Literal["sequence", "key"] = "sequence"
    unit_idle_s: Positive = 30.0
    unit_max_requests: Count = 1000
    most_open_units: Count = 4096
    candidate_in_flight: Count = 8
    shadow_bytes: Count = 64 << 20
    breaker_failures: Count = 5
    breaker_pause_s: Positive = 5.0
    disagreement_bytes: Count = 64 << 20

    @model_validator(mode="after")
    def _names_a_detector_s_outputs(self) -> Self:
        if self.task == "detection" and not (self.output and self.score_output):
            fix = "Set output to the boxes and score_output to their scores"
            raise ImpossibleValueError("a detector's answers are compared by its boxes", fix=fix)
        return self

    def parameters(self, baseline: str, candidate: str) -> dict[str, Parameter]:
        """What the backend reads, every field of it."""
        paths = {key: getattr(self, key).absolute() for key in ("state_path", "counter_folder")}
        paths["key_path"] = self.key_path.absolute() if self.key_path else ""
        values = {"baseline": baseline, "candidate": candidate} | self.model_dump() | paths
        return {key: Parameter(string_value=str(value)) for key, value in values.items()}


class RouterState(BaseModel):
    """What a router does now; replaced at any time, and seen by its next batch.

    Args:
        mode: `off`: the baseline answers. `split`: each unit is answered by one of the two. `shadow`: the
            baseline answers, and the candidate is asked after that.
        weight: In how many of the 10,000 buckets the candidate answers, in mode `split`. Only let it grow
            during an experiment: a unit then moves once at most.
        experiment: The id of the experiment whose counters grow.
        salt: What is hashed with a unit's key; another one deals the units anew.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["off", "split", "shadow"] = "off"
    weight: int = Field(0, ge=0, le=BUCKETS)
    experiment: str = ""
    salt: str = ""

    @model_validator(mode="after")
    def _counts_for_an_experiment(self) -> Self:
        if self.mode != "off" and not _is_name(self.experiment):
            raise ImpossibleValueError(
                f"mode {self.mode!r} counts for an experiment, found {self.experiment!r}",
                fix="Give the experiment's id",
            )
        return self


def router_config(
    name: str,
    baseline: ModelConfig,
    candidate: ModelConfig,
    *,
    options: RouterOptions,
    instances: int = INSTANCES,
) -> ModelConfig:
    """The complete configuration of a router in front of two models.

    It never caches answers, and never waits to fill a batch: the models behind it form their own.

    Raises:
        RepositoryError: The name cannot be a folder; the two models differ in what clients see, or are one
            model; an output to compare is not there.
    """
    check_name(name)
    _check_names(name, baseline, candidate, options)
    _check_pair(name, baseline, candidate)
    _check_outputs(baseline, options)
    return ModelConfig(
        name=name,
        backend=BACKEND,
        max_batch_size=baseline.max_batch_size,
        # The models behind it reshape for themselves, and labels are theirs.
        input=tuple(
            t.model_copy(update={"reshape": None, "allow_ragged_batch": False}) for t in baseline.input
        ),
        output=tuple(t.model_copy(update={"reshape": None, "label_filename": ""}) for t in baseline.output),
        dynamic_batching=DynamicBatching() if baseline.max_batch_size else None,
        instance_group=(InstanceGroup(kind="KIND_CPU", count=instances),),
        parameters=options.parameters(baseline.name, candidate.name),
    )


def publish_router(config: ModelConfig, root: Path, *, created: str, keep_versions: int = 2) -> Published:
    """Publish the router as the next version of its model, with a file that names the two behind it.

    Raises:
        RepositoryError: The root is unfit, or the router's inputs and outputs changed under its name.
        OSError: No temporary file can be written.
    """
    targets = {key: config.parameters[key].string_value for key in ("baseline", "candidate")}
    for target in targets.values():
        if not ModelFolder(root / target).versions():
            raise RepositoryError(
                f"router {config.name!r}",
                detail=f"there is no published model {target!r} in {root}",
                fix="Publish both models first: jettison publish",
            )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, RELEASE_NAME)
        path.write_text(json.dumps(targets, indent=1) + "\n")
        return publish(Release(config, {RELEASE_NAME: path}, created), root, keep_versions=keep_versions)


def write_state(path: Path, state: RouterState) -> None:
    """Replace the state file as a whole.

    Raises:
        OSError: The folder is not there or read-only, or the disk is full; the old file stands.
    """
    document = {"format": STATE_FORMAT} | state.model_dump()
    write_bytes(path, json.dumps(document, indent=1).encode() + b"\n")


def read_state(path: Path) -> RouterState:
    """The state in a file.

    Raises:
        InputError: No such file, or it holds no state.
    """
    what = f"router state {path}"
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(
            what, detail="there is no such file", fix="Give the path of a router's state"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(what, detail=f"not JSON: {error}", fix="Write it anew") from error
    if not isinstance(document, dict) or document.pop("format", None) != STATE_FORMAT:
        raise InputError(what, detail=f"expected the format {STATE_FORMAT!r}", fix="Write it anew")
    try:
        return RouterState.model_validate(document)
    except ValidationError as error:
        problem = problem_of(error)
        raise InputError(what, detail=problem.detail, fix=problem.fix) from error


def _check_names(name: str, baseline: ModelConfig, candidate: ModelConfig, options: RouterOptions) -> None:
    versions = options.baseline_version, options.candidate_version
    are_two = baseline.name != candidate.name or (versions[0] != versions[1] and NEWEST not in versions)
    if name in (baseline.name, candidate.name) or not are_two:
        raise RepositoryError(
            f"router {name!r}",
            detail=f"expected three names, found {name!r} before {baseline.name!r} and {candidate.name!r}",
            fix="Publish the two models under names of their own, or name two versions of one "
            "(MODEL@VERSION), and the router under another name",
        )


def _check_pair(name: str, baseline: ModelConfig, candidate: ModelConfig) -> None:
    differences = list(_differences(baseline, candidate))
    if differences:
        raise RepositoryError(
            f"router {name!r}",
            detail=f"{baseline.name!r} and {candidate.name!r} differ: {'; '.join(differences)}",
            fix="Give two models with the same inputs, outputs and max_batch_size",
        )


def _differences(baseline: ModelConfig, candidate: ModelConfig) -> Iterator[str]:
    first, second = signature_of(baseline), signature_of(candidate)
    if first != second:
        yield (
            f"the baseline has {', '.join(sorted(set(first) - set(second))) or 'less'}, "
            f"the candidate has {', '.join(sorted(set(second) - set(first))) or 'less'}"
        )
    if baseline.max_batch_size != candidate.max_batch_size:
        yield f"max_batch_size {baseline.max_batch_size} and {candidate.max_batch_size}"
    optional = [{tensor.name for tensor in side.input if tensor.optional} for side in (baseline, candidate)]
    if optional[0] != optional[1]:
        yield f"optional inputs {sorted(optional[0])} and {sorted(optional[1])}"


def _check_outputs(baseline: ModelConfig, options: RouterOptions) -> None:
    known = {tensor.name for tensor in baseline.output}
    unknown = {options.output, options.score_output, options.class_output} - known - {""}
    if unknown:
        raise RepositoryError(
            f"model {baseline.name!r}",
            detail=f"expected outputs {sorted(unknown)} to compare, found {sorted(known)}",
            fix="Correct output, score_output and class_output",
        )


def _is_name(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", text) is not None
