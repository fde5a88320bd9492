"""Signs a version folder by its manifest, and reads the signature again.

The manifest names every file with its SHA-256, and the configuration that was published with it. Which of
the versions is served is not signed, so that a rollback at night needs no key.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from jettison.core.errors import InputError
from jettison.core.signing import Signed, Signer, Verifier, read_signed
from jettison.triton.manifest import MANIFEST_NAME, Manifest

if TYPE_CHECKING:
    from google.protobuf.message import Message as ProtobufMessage

PURPOSE = "jettison version manifest"
"""What is signed as this cannot be shown as anything else."""
SIGNATURE_NAME = "manifest.json.sig"


def config_digest(message: ProtobufMessage) -> str:
    """SHA-256 of what a config.pbtxt says, but for its versions; comments and spaces do not count."""
    copy = type(message)()
    copy.CopyFrom(message)
    copy.ClearField("version_policy")
    return hashlib.sha256(copy.SerializeToString(deterministic=True)).hexdigest()


def seal(folder: Path, signer: Signer) -> None:
    """Sign the manifest of a version that is being staged; the signature stands beside it."""
    signed = signer.sign((folder / MANIFEST_NAME).read_bytes(), purpose=PURPOSE)
    (folder / SIGNATURE_NAME).write_bytes(signed.document())


def is_sealed(folder: Path) -> bool:
    """Whether a signature stands there, of whomever."""
    return (folder / SIGNATURE_NAME).is_file()


def signature(folder: Path) -> Signed | None:
    """The signature of a version; None where there is none, or one that is not to the byte as we write it."""
    path = folder / SIGNATURE_NAME
    try:
        signed = read_signed(path)
    except InputError:
        return None
    return signed if signed is not None and path.read_bytes() == signed.document() else None


def sealed_manifest(folder: Path, verifier: Verifier) -> Manifest | None:
    """The manifest, if the owner of the key signed these very bytes for a version of this name and place."""
    signed = signature(folder)
    path = folder / MANIFEST_NAME
    if signed is None or signed.key != verifier.fingerprint or not path.is_file():
        return None
    content = path.read_bytes()
    if not verifier.verify(content, signed, purpose=PURPOSE):
        return None
    try:
        manifest = Manifest.model_validate_json(content)
    except ValueError:
        return None
    is_its_own = (manifest.model, str(manifest.version)) == (folder.parent.name, folder.name)
    return manifest if is_its_own else None
