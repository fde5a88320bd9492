"""Objects sent to a cluster, by server-side apply under a field manager of our own.

The one door to the library `kubernetes`. Nothing is forced: a field that another manager owns stays as it is.
Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from jettison.core.errors import ExternalError, InputError, JettisonError, MissingError
from jettison.rollout.plan import Document

FIELD_MANAGER = "jettison"


class Applied(BaseModel):
    """An object that the cluster took."""

    model_config = ConfigDict(frozen=True)

    kind: str
    namespace: str
    name: str
    resource_version: str


class Cluster(Protocol):
    """A door to an API server."""

    def send(self, document: Document, *, dry_run: bool) -> Applied:
        """Apply one object, or let the server only say whether it would take it."""


def apply(objects: Sequence[Document], cluster: Cluster, *, dry_run: bool = False) -> tuple[Applied, ...]:
    """What the cluster took, in the order given.

    The server is asked about all objects before the first is sent, so that one that it refuses leaves the
    others out too.

    Raises:
        ExternalError: The server refuses an object, another manager owns a field, or nobody answers.
        MissingError: The cluster does not know the kind.
    """
    tried = tuple(cluster.send(document, dry_run=True) for document in objects)
    return tried if dry_run else tuple(cluster.send(document, dry_run=False) for document in objects)


class ApiServer:
    """A real API server, found as kubectl finds it.

    Args:
        kubeconfig: The file; None for the usual ones.
        context: The context in it; None for its current one.

    Raises:
        MissingError: The extra `kubernetes` is missing.
        InputError: There is no such configuration.
        ExternalError: Nobody answers at its address.
    """

    def __init__(self, kubeconfig: Path | None = None, context: str | None = None) -> None:
        try:
            from kubernetes import config, dynamic
            from urllib3.exceptions import HTTPError
        except ImportError as error:
            detail = "the library kubernetes is not installed"
            raise MissingError(
                "rollout apply", detail=detail, fix="pip install 'jettison[kubernetes]'"
            ) from error
        file = None if kubeconfig is None else str(kubeconfig)
        try:
            client = config.new_client_from_config(config_file=file, context=context)
            client.configuration.retries = False
            # Discovery goes to a file: by default one in the shared temporary folder, easily guessed.
            self._folder = tempfile.TemporaryDirectory()
            kept = str(Path(self._folder.name, "discovery.json"))
            self._client = dynamic.DynamicClient(client, cache_file=kept)
        except config.ConfigException as error:
            raise InputError(
                "rollout apply",
                detail=f"expected a cluster's configuration, found none: {error}",
                fix="Give --kubeconfig and --context",
            ) from error
        except HTTPError as error:
            raise _unreachable("rollout apply", error) from error

    def send(self, document: Document, *, dry_run: bool) -> Applied:
        """Apply one object; the server refuses fields that it does not know."""
        from kubernetes import client, dynamic
        from urllib3.exceptions import HTTPError

        kind, version = str(document["kind"]), str(document["apiVersion"])
        metadata = document["metadata"]
        name, namespace = (str(metadata[key]) for key in ("name", "namespace"))  # type: ignore[index]
        what = f"apply of {kind} {name!r} in namespace {namespace!r}"
        try:
            resource = self._client.resources.get(api_version=version, kind=kind)
            found = self._client.server_side_apply(
                resource, body=document, name=name, namespace=namespace, field_manager=FIELD_MANAGER,
                query_params=[("fieldValidation", "Strict"), *([("dryRun", "All")] if dry_run else ())],
            )  # fmt: skip
        except dynamic.exceptions.ResourceNotFoundError as error:
            detail = f"expected a cluster that knows {kind} of {version}, found one that does not"
            raise MissingError(what, detail=detail, fix="Install that controller there") from error
        except (client.ApiException, dynamic.exceptions.DynamicApiError) as error:
            raise refusal(what, int(error.status), error.body) from error
        except HTTPError as error:
            raise _unreachable(what, error) from error
        shown = str(found.metadata.resourceVersion or "")
        return Applied(kind=kind, namespace=namespace, name=name, resource_version=shown)


def refusal(what: str, status: int, body: bytes | str | None) -> JettisonError:
    """The error that an API server's answer is."""
    said = _message(body)
    if status == 409:
        return ExternalError(
            what,
            detail=f"expected fields that nobody else owns, found a conflict: {said}",
            fix="Change the field where its manager takes it from, or let that manager give it up",
        )
    if status in (401, 403):
        return ExternalError(
            what,
            detail=f"expected the right to patch it, found {status}: {said}",
            fix="Use a context whose user has that right",
        )
    detail = f"expected that the server takes it, found {status}: {said}"
    return ExternalError(what, detail=detail, fix="Correct the plan, or see what the cluster's version knows")


def _message(body: bytes | str | None) -> str:
    """The server's own words, from its Status object where it sent one."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else body or ""
    try:
        message = json.loads(text)["message"]
    except (ValueError, KeyError, TypeError):
        message = text
    return str(message).strip().rstrip(".")[:1000] or "no words"


def _unreachable(what: str, error: Exception) -> ExternalError:
    detail = f"expected an API server that answers, found {error}"
    return ExternalError(what, detail=detail, fix="Check the address in the configuration, or give --context")
