"""The restricted profile of Kubernetes' Pod Security Standards, as a list of what a pod violates.

Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/ (restricted, with baseline).
"""

from __future__ import annotations

from collections.abc import Iterator

from chart_render import Document

_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
_PROFILES = ("RuntimeDefault", "Localhost")


def violations(spec: Document) -> list[str]:
    """Everything in a pod's specification that the restricted profile forbids, or asks for and misses."""
    return [*_of_pod(spec), *(text for entry in _containers(spec) for text in _of_container(spec, entry))]


def _containers(spec: Document) -> Iterator[Document]:
    for key in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(key, ())


def _of_pod(spec: Document) -> Iterator[str]:
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield key
    for volume in spec.get("volumes", ()):
        kinds = set(volume) - {"name"}
        if not kinds <= _VOLUMES:
            yield f"volume {volume['name']}: {', '.join(sorted(kinds - _VOLUMES))}"
    if spec.get("securityContext", {}).get("sysctls"):
        yield "sysctls"


def _of_container(spec: Document, container: Document) -> Iterator[str]:
    name, context = container["name"], container.get("securityContext", {})
    pod = spec.get("securityContext", {})
    if context.get("privileged"):
        yield f"{name}: privileged"
    if context.get("allowPrivilegeEscalation") is not False:
        yield f"{name}: allowPrivilegeEscalation"
    if "ALL" not in context.get("capabilities", {}).get("drop", ()):
        yield f"{name}: capabilities are not dropped"
    if set(context.get("capabilities", {}).get("add", ())) - {"NET_BIND_SERVICE"}:
        yield f"{name}: capabilities are added"
    if context.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield f"{name}: runAsNonRoot"
    if context.get("runAsUser", pod.get("runAsUser")) == 0:
        yield f"{name}: runAsUser 0"
    seccomp = context.get("seccompProfile", pod.get("seccompProfile", {}))
    if seccomp.get("type") not in _PROFILES:
        yield f"{name}: seccompProfile"
    if any(port.get("hostPort") for port in container.get("ports", ())):
        yield f"{name}: hostPort"
