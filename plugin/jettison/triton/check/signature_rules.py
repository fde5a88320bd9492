"""V: whether all that is served was signed by the owner of a key, and is as it was signed.

Nothing is looked for unless a public key was given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from jettison.core.files import sha256_of
from jettison.core.signing import Verifier
from jettison.triton.check.finding import Finding, Objection
from jettison.triton.check.look import Look, ModelLook
from jettison.triton.manifest import MANIFEST_NAME, FileRecord, Manifest
from jettison.triton.repository import CONFIG_NAME
from jettison.triton.seal import SIGNATURE_NAME, config_digest, is_sealed, sealed_manifest, signature

_BROKEN = ("V703", "V704")
"""Of files that are not what was signed: `changed` and `added`."""
_OURS = frozenset({MANIFEST_NAME, SIGNATURE_NAME})


def unsigned(look: Look) -> Iterator[Objection]:
    """Versions without a signature, and models without versions, whose configuration nothing signs."""
    if look.verifier is None:
        return
    for model in look.models:
        if not model.versions:
            yield Objection(model.name, "expected a signed version, found none")
        for version in model.versions:
            if not is_sealed(model.path / str(version)):
                yield Objection(f"{model.name}/{version}", f"expected {SIGNATURE_NAME}, found none")


def forged(look: Look) -> Iterator[Objection]:
    """Signatures that are not by this key over this manifest, for this place."""
    if look.verifier is None:
        return
    for model in look.models:
        for version in model.versions:
            folder = model.path / str(version)
            if is_sealed(folder) and sealed_manifest(folder, look.verifier) is None:
                yield Objection(
                    f"{model.name}/{version}",
                    f"expected a signature by key {look.verifier.fingerprint} over this manifest in this "
                    f"place, found one {_other(folder, look.verifier)}",
                )


def changed(look: Look) -> Iterator[Objection]:
    """Signed files that are gone, or have other bytes."""
    for where, folder, manifest in _sealed(look):
        for record in manifest.files:
            problem = _file_problem(folder / record.name, record)
            if problem is not None:
                yield Objection(f"{where}/{record.name}", problem)


def added(look: Look) -> Iterator[Objection]:
    """Files of a signed version that its manifest does not name, and links, which lead elsewhere later."""
    for where, folder, manifest in _sealed(look):
        if folder.is_symlink():
            yield Objection(where, "expected a folder of its own, found a link")
        known = _OURS | {record.name for record in manifest.files}
        for path in sorted(folder.rglob("*")):
            name = str(path.relative_to(folder))
            if path.is_symlink():
                yield Objection(f"{where}/{name}", "expected a file of its own, found a link")
            elif not path.is_dir() and name not in known:
                yield Objection(f"{where}/{name}", "expected only files that were signed, found this one")


def configurations(look: Look) -> Iterator[Objection]:
    """Configurations that were not signed with any version that is there."""
    for model in look.models:
        signed = {manifest.config_sha256 for _, _, manifest in _sealed_of(model, look.verifier)}
        found = None if model.config is None else config_digest(model.config)
        if signed and found not in signed:
            why = f"another: {model.problem}" if model.problem else "another"
            text = f"expected the configuration that was signed with one of its versions, found {why}"
            yield Objection(f"{model.name}/{CONFIG_NAME}", text)


def verified(look: Look, findings: Iterable[Finding]) -> int:
    """How many versions bear the key's signature and have the bytes that it stands for, and no others.

    Args:
        look: The repository, looked at with the key.
        findings: Of all checks of that look, so that no file is read once more.
    """
    broken = [f"{finding.where}/" for finding in findings if finding.code in _BROKEN]
    sealed = [f"{where}/" for where, _, _ in _sealed(look)]
    return sum(1 for where in sealed if not any(place.startswith(where) for place in broken))


def _other(folder: Path, verifier: Verifier) -> str:
    """Whose signature it is, or of what, where it is not the right one."""
    signed = signature(folder)
    if signed is None:
        return "that cannot be read"
    if signed.key != verifier.fingerprint:
        return f"by key {signed.key}"
    return "by this key over another manifest, model or version"


def _file_problem(path: Path, record: FileRecord) -> str | None:
    if not path.is_file():
        return "expected the file that was signed, found none"
    digest = sha256_of(path)
    if digest == record.sha256:
        return None
    return f"expected the bytes that were signed (sha256 {record.sha256[:12]}), found {digest[:12]}"


def _sealed(look: Look) -> Iterator[tuple[str, Path, Manifest]]:
    for model in look.models:
        yield from _sealed_of(model, look.verifier)


def _sealed_of(model: ModelLook, verifier: Verifier | None) -> Iterator[tuple[str, Path, Manifest]]:
    for version in model.versions if verifier is not None else ():
        folder = model.path / str(version)
        manifest = None if verifier is None else sealed_manifest(folder, verifier)
        if manifest is not None:
            yield f"{model.name}/{version}", folder, manifest
