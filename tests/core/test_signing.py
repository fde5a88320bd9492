"""Signatures: made by the owner of a key over exact bytes for a purpose, and by nobody else."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jettison.core.errors import InputError, MissingError
from jettison.core.signing import Signed, load_signer, load_verifier, make_keys, read_signed

pytest.importorskip("cryptography")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    make_keys(tmp_path / "key")
    return tmp_path / "key"


def test_what_the_owner_signed_is_verified(key: Path) -> None:
    signed = load_signer(key).sign(b"content", purpose="manifest")
    assert load_verifier(Path(f"{key}.pub")).verify(b"content", signed, purpose="manifest")
    assert signed.key == load_verifier(Path(f"{key}.pub")).fingerprint


def test_a_signature_for_one_purpose_is_none_for_another(key: Path) -> None:
    signed = load_signer(key).sign(b"content", purpose="counters")
    assert not load_verifier(Path(f"{key}.pub")).verify(b"content", signed, purpose="manifest")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(min_size=1, max_size=64), at=st.integers(0, 63), by=st.integers(1, 255))
def test_any_changed_byte_is_found(key: Path, content: bytes, at: int, by: int) -> None:
    signed = load_signer(key).sign(content, purpose="manifest")
    changed = bytearray(content)
    changed[at % len(content)] ^= by
    verifier = load_verifier(Path(f"{key}.pub"))
    assert verifier.verify(content, signed, purpose="manifest")
    assert not verifier.verify(bytes(changed), signed, purpose="manifest")


def test_another_key_does_not_verify(key: Path, tmp_path: Path) -> None:
    make_keys(tmp_path / "other")
    signed = load_signer(tmp_path / "other").sign(b"content", purpose="manifest")
    verifier = load_verifier(Path(f"{key}.pub"))
    pretended = signed.model_copy(update={"key": verifier.fingerprint})
    assert not verifier.verify(b"content", pretended, purpose="manifest")


@pytest.mark.parametrize("signature", ["", "no base64!", "AAAA"])
def test_a_signature_that_is_none_does_not_verify(key: Path, signature: str) -> None:
    verifier = load_verifier(Path(f"{key}.pub"))
    assert not verifier.verify(b"content", Signed(key="", signature=signature), purpose="manifest")


def test_the_private_key_is_for_its_owner_alone(key: Path) -> None:
    assert key.stat().st_mode & 0o777 == 0o600


def test_keys_are_never_overwritten(key: Path) -> None:
    before = key.read_bytes()
    with pytest.raises(
        InputError, match=r"key .*/key: expected no file there, found one\. Give another path"
    ):
        make_keys(key)
    assert key.read_bytes() == before


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_keys_that_openssl_makes_are_taken(tmp_path: Path) -> None:
    private, public = tmp_path / "k.pem", tmp_path / "k.pub"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    signed = load_signer(private).sign(b"content", purpose="manifest")
    assert load_verifier(public).verify(b"content", signed, purpose="manifest")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_keys_with_a_passphrase_or_of_another_kind_are_refused(tmp_path: Path) -> None:
    locked, rsa = tmp_path / "locked", tmp_path / "rsa"
    secret = ["-aes-256-cbc", "-pass", "pass:x"]
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", *secret, "-out", locked], check=True)
    subprocess.run(["openssl", "genpkey", "-algorithm", "rsa", "-out", rsa], check=True, capture_output=True)
    with pytest.raises(InputError, match="expected a key without a passphrase"):
        load_signer(locked)
    with pytest.raises(
        InputError, match="expected an Ed25519 private key in PEM, found a key of another kind"
    ):
        load_signer(rsa)


def test_the_wrong_half_is_named(key: Path) -> None:
    with pytest.raises(InputError, match="expected an Ed25519 private key in PEM, found a public key"):
        load_signer(Path(f"{key}.pub"))
    with pytest.raises(InputError, match="found a private key: give its public half"):
        load_verifier(key)


def test_a_missing_key_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no such file\. Make a pair with: jettison keys KEY"):
        load_signer(tmp_path / "none")


def test_a_signature_is_read_as_it_was_written(key: Path, tmp_path: Path) -> None:
    signed = load_signer(key).sign(b"content", purpose="manifest")
    (tmp_path / "s.json").write_bytes(signed.document())
    assert read_signed(tmp_path / "s.json") == signed
    assert read_signed(tmp_path / "none.json") is None
    (tmp_path / "s.json").write_text("{}")
    with pytest.raises(InputError, match="expected a signature of Jettison, found something else"):
        read_signed(tmp_path / "s.json")


def test_without_the_library_the_extra_is_named(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    with pytest.raises(MissingError, match=r"cryptography is not installed\. Run pip install .*\[sign\]"):
        load_signer(key)
