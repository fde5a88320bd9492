"""What shall be rolled out and who says so, in words that no controller owns."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from jettison.core.errors import InputError
from jettison.core.validation import ImpossibleValueError

Document = dict[str, object]
"""A Kubernetes object, ready to be written as YAML or JSON."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
Percent = Annotated[int, Field(ge=0, le=100)]
Seconds = Annotated[int, Field(gt=0)]


class Step(BaseModel):
    """One share of the traffic.

    Args:
        weight: Of 100 requests, how many the candidate gets.
        verdict: Whether the step waits until the verdict is promote, and ends all where it is rollback.
        pause_s: How long it then stays.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: Percent
    verdict: bool = False
    pause_s: Seconds | None = None


class VerdictEndpoint(BaseModel):
    """Where the verdict is asked for.

    Args:
        url: Of the service, without a path.
        experiment: The experiment's name or id.
        credentials: The Secret with the token that callers must have.
        credentials_key: Its key.
        interval_s: Seconds between two questions.
        wait_s: After so long without a verdict a person must decide.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(pattern=r"^https?://[^/]+$")
    experiment: str = Field(min_length=1)
    credentials: Name
    credentials_key: str = "token"
    interval_s: Seconds = 60
    wait_s: Seconds = 86_400

    @property
    def questions(self) -> int:
        """How often it is asked until `wait_s` has passed."""
        return -(-self.wait_s // self.interval_s)


class Gateway(BaseModel):
    """A gateway that routes hang on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    namespace: Name | None = None


class RolloutPlan(BaseModel):
    """One workload and the way of its next version into traffic.

    Args:
        name: Of the stable Service; the candidate's is `<name>-candidate`.
        namespace: Of all objects.
        workload: The Deployment or DaemonSet.
        kind: Which of the two.
        selector: Labels by which the workload finds its pods.
        replicas: Its pods; None where an autoscaler says.
        steps: The shares of traffic, in their order: they never fall. None where nothing shares traffic.
        verdict: Who says whether it goes on.
        http_route: The HTTPRoute whose weights are set.
        grpc_route: The GRPCRoute.
        gateways: Where a controller that makes its own routes hangs them.
        hosts: Their host names.
        progress_s: Seconds until an update counts as stuck.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    namespace: Name
    workload: Name
    kind: Literal["Deployment", "DaemonSet"] = "Deployment"
    selector: dict[str, str] = Field(min_length=1)
    replicas: int | None = Field(default=None, ge=0)
    steps: tuple[Step, ...] = ()
    verdict: VerdictEndpoint
    http_route: Name | None = None
    grpc_route: Name | None = None
    gateways: tuple[Gateway, ...] = ()
    hosts: tuple[str, ...] = ()
    progress_s: Seconds = 960

    @field_validator("steps")
    @classmethod
    def _never_fall(cls, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        for before, step in itertools.pairwise(steps):
            if step.weight < before.weight:
                raise ImpossibleValueError(
                    f"expected weights that never fall, found {step.weight} after {before.weight}",
                    fix="Put them in order: a candidate that is worse goes by the verdict, not by a step",
                )
        return steps

    def require_steps(self, *, fix: str = "Add steps, such as [{weight: 10, verdict: true}]") -> None:
        """Refuse a plan without shares of traffic, for drivers that set them.

        Raises:
            InputError: It has none.
        """
        if not self.steps:
            raise InputError(self.what, detail="expected steps, found none", fix=fix)

    def refuse_unread(self, keys: Sequence[str], *, why: str, fix: str) -> None:
        """Refuse what this driver would not read: silence would let people believe in it.

        Raises:
            InputError: One of these keys of the plan is given.
        """
        found = [key for key in keys if getattr(self, key)]
        if found:
            raise InputError(
                self.what, detail=f"expected no {' and no '.join(found)}, found it: {why}", fix=fix
            )

    @property
    def what(self) -> str:
        """What errors are told of."""
        return f"rollout of {self.workload}"

    def object_of(self, api_version: str, kind: str, name: str, spec: Document) -> Document:
        """An object of the plan's namespace that says who made it."""
        labels = {"app.kubernetes.io/managed-by": "jettison", "app.kubernetes.io/part-of": self.name}
        metadata: Document = {"name": name, "namespace": self.namespace, "labels": labels}
        return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}
