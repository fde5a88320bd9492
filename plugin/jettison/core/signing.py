"""Signs bytes with an Ed25519 key, and says who signed them. The door to `cryptography`.

Keys are PEM files, as openssl writes them: `openssl genpkey -algorithm ed25519 -out KEY`, and
`openssl pkey -in KEY -pubout -out KEY.pub`. A signature is a small JSON document beside the bytes. It is over
a purpose, a zero byte and the content, so that what was signed as one thing cannot be shown as another.

Needs the extra `sign`. Source: RFC 8032 (Ed25519), RFC 8410 (its keys in PEM).
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from jettison.core.errors import InputError, MissingError
from jettison.core.extras import install_command
from jettison.core.files import fsync_folder, read_bounded, write_bytes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

MOST_KEY_BYTES = 1 << 14
MOST_SIGNATURE_BYTES = 1 << 14
_MAKE_KEY = "Make a pair with: jettison keys KEY"


class Signed(BaseModel):
    """A signature as it is kept: `key` is the signer's fingerprint, `signature` is base64.

    The fingerprint only tells people which key to look for; `Verifier` goes by the signature alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    algorithm: Literal["ed25519"] = "ed25519"
    key: str
    signature: str

    def document(self) -> bytes:
        """The bytes of the file that holds it."""
        return self.model_dump_json(indent=1).encode() + b"\n"


class Signer(NamedTuple):
    """A private key, and the fingerprint of its public half."""

    key: Ed25519PrivateKey
    fingerprint: str

    def sign(self, content: bytes, *, purpose: str) -> Signed:
        """The signature over this content for this purpose."""
        signature = self.key.sign(_message(content, purpose))
        return Signed(key=self.fingerprint, signature=base64.b64encode(signature).decode())


class Verifier(NamedTuple):
    """A public key, and its fingerprint."""

    key: Ed25519PublicKey
    fingerprint: str

    def verify(self, content: bytes, signed: Signed, *, purpose: str) -> bool:
        """Whether the owner of this key signed exactly this content for this purpose.

        The signature's text has one form only: base64 has bits to spare, which nobody may change either.
        """
        from cryptography.exceptions import InvalidSignature

        try:
            signature = base64.b64decode(signed.signature, validate=True)
            self.key.verify(signature, _message(content, purpose))
        except (InvalidSignature, ValueError):
            return False
        return base64.b64encode(signature).decode() == signed.signature


def load_signer(path: Path) -> Signer:
    """The private key in a PEM file without a passphrase.

    Raises:
        InputError: There is no such file, or it holds no Ed25519 private key.
        MissingError: The extra `sign` is not installed.
    """
    serialization = _serialization()
    what = f"signing key {path}"
    content = read_bounded(path, what, most=MOST_KEY_BYTES, missing=_MAKE_KEY, fix=_MAKE_KEY)
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except TypeError as error:
        raise InputError(
            what,
            detail="expected a key without a passphrase, found one that has a passphrase",
            fix="Take it off with: openssl pkey -in KEY -out PLAIN, and keep that file to yourself",
        ) from error
    except _unreadable() as error:
        found = "a public key" if b"PUBLIC KEY" in content else "something else"
        raise _no_key(what, "an Ed25519 private key in PEM", found) from error
    if not _is_ed25519(key.public_key()):
        raise _no_key(what, "an Ed25519 private key in PEM", "a key of another kind")
    return Signer(key, _fingerprint(key.public_key()))


def load_verifier(path: Path) -> Verifier:
    """The public key in a PEM file.

    Raises:
        InputError: There is no such file, or it holds no Ed25519 public key.
        MissingError: The extra `sign` is not installed.
    """
    serialization = _serialization()
    what = f"public key {path}"
    content = read_bounded(path, what, most=MOST_KEY_BYTES, missing=_MAKE_KEY, fix=_MAKE_KEY)
    try:
        key = serialization.load_pem_public_key(content)
    except _unreadable() as error:
        found = "a private key: give its public half" if b"PRIVATE KEY" in content else "something else"
        raise _no_key(what, "an Ed25519 public key in PEM", found) from error
    if not _is_ed25519(key):
        raise _no_key(what, "an Ed25519 public key in PEM", "a key of another kind")
    return Verifier(key, _fingerprint(key))


def read_signed(path: Path) -> Signed | None:
    """The signature in a file, or None where there is no such file.

    Raises:
        InputError: It holds no signature.
    """
    if not path.is_file():
        return None
    fix = "Sign it again: jettison publish --sign KEY"
    content = read_bounded(path, f"signature {path}", most=MOST_SIGNATURE_BYTES, missing=fix, fix=fix)
    try:
        return Signed.model_validate_json(content)
    except ValidationError as error:
        raise InputError(
            f"signature {path}", detail="expected a signature of Jettison, found something else", fix=fix
        ) from error


def make_keys(path: Path) -> tuple[Path, str]:
    """Make a pair of keys: the private one at `path`, for its owner alone, the public one beside it.

    Returns:
        The path of the public key, and its fingerprint.

    Raises:
        InputError: One of the files is there already, or its folder is not.
        MissingError: The extra `sign` is not installed.
    """
    serialization = _serialization()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    public = path.with_name(f"{path.name}.pub")
    _check_free(path, public)
    key = Ed25519PrivateKey.generate()
    private_text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write_new(path, private_text)
    write_bytes(public, _public_text(key.public_key()))
    return public, _fingerprint(key.public_key())


def _check_free(*paths: Path) -> None:
    for path in paths:
        if path.exists() or path.is_symlink():
            raise InputError(
                f"key {path}", detail="expected no file there, found one", fix="Give another path"
            )
    if not paths[0].parent.is_dir():
        raise InputError(
            f"key {paths[0]}", detail="there is no such folder", fix=f"Make it: mkdir -p {paths[0].parent}"
        )


def _write_new(path: Path, content: bytes) -> None:
    """Write a file that only its owner reads, from its first byte on; a half of it does not stay."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    fsync_folder(path.parent)


def _message(content: bytes, purpose: str) -> bytes:
    return purpose.encode() + b"\0" + content


def _public_text(key: Ed25519PublicKey) -> bytes:
    serialization = _serialization()
    text: bytes = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return text


def _fingerprint(key: Ed25519PublicKey) -> str:
    """SHA-256 over the public key's DER form, its first 32 digits."""
    serialization = _serialization()
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()[:32]


def _is_ed25519(key: object) -> bool:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    return isinstance(key, Ed25519PublicKey)


def _unreadable() -> tuple[type[Exception], ...]:
    from cryptography.exceptions import UnsupportedAlgorithm

    return ValueError, UnsupportedAlgorithm


def _no_key(what: str, expected: str, found: str) -> InputError:
    return InputError(what, detail=f"expected {expected}, found {found}", fix=_MAKE_KEY)


def _serialization() -> ModuleType:
    """The part of the library that reads and writes keys.

    Raises:
        MissingError: The extra `sign` is not installed.
    """
    try:
        from cryptography.hazmat.primitives import serialization
    except ImportError as error:
        raise MissingError(
            "signing", detail="cryptography is not installed", fix=f"Run {install_command('sign')}"
        ) from error
    return serialization
