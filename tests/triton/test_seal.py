"""Signed versions: whatever changes in one is found by check, under a code of its own."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import served_models as zoo
from releases import release_of

pytest.importorskip("cryptography")

from jettison.core.signing import load_signer, load_verifier, make_keys
from jettison.triton.check.check import findings_of, look_at
from jettison.triton.check.signature_rules import verified
from jettison.triton.live import roll_back
from jettison.triton.publish import Published, publish

Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ours", "other"):
        make_keys(folder / name)
    return folder


@pytest.fixture
def root(tmp_path: Path, keys: Path) -> Path:
    """One model of two signed versions."""
    for factor in (2.0, 3.0):
        put(tmp_path, factor=factor, key=keys / "ours")
    return tmp_path / "repository"


def put(work: Path, *, factor: float, key: Path | None, name: str = "one") -> Published:
    signer = None if key is None else load_signer(key)
    release = release_of(work, name=name, factor=factor)
    return publish(dataclasses.replace(release, signer=signer), work / "repository")


def found(root: Path, keys: Path, name: str = "ours") -> set[tuple[str, str]]:
    look = look_at(root, verifier=load_verifier(keys / f"{name}.pub"))
    return {(each.code, each.where) for each in findings_of(look) if each.code.startswith("V")}


def test_signed_versions_have_no_findings(root: Path, keys: Path) -> None:
    look = look_at(root, verifier=load_verifier(keys / "ours.pub"))
    assert findings_of(look) == ()
    assert verified(look, findings_of(look)) == 2


def test_a_rollback_needs_no_key(root: Path, keys: Path) -> None:
    roll_back(root, "one", now=zoo.CREATED)
    assert found(root, keys) == set()


def test_without_a_key_nothing_is_asked_of_signatures(root: Path) -> None:
    (root / "one/1/manifest.json.sig").unlink()
    assert findings_of(look_at(root)) == ()


def test_another_key_is_found(root: Path, keys: Path) -> None:
    assert found(root, keys, "other") == {("V702", "one/1"), ("V702", "one/2")}


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json", "manifest.json.sig"])
def test_any_changed_byte_of_a_version_is_found(root: Path, keys: Path, name: str) -> None:
    """Every byte of the two small files, and some hundred of the model's, each changed by its lowest bit."""
    path = root / "one/1" / name
    before = path.read_bytes()
    expected = ("V703", f"one/1/{name}") if name == "model.onnx" else ("V702", "one/1")
    for at in range(0, len(before), max(1, len(before) // 200)):
        path.write_bytes(before[:at] + bytes([before[at] ^ 1]) + before[at + 1 :])
        assert expected in found(root, keys), at
    path.write_bytes(before)
    assert found(root, keys) == set()


def edit(path: str, before: str, after: str) -> Change:
    def change(root: Path) -> None:
        text = (root / path).read_text()
        assert before in text
        (root / path).write_text(text.replace(before, after))

    return change


def link(root: Path) -> None:
    shutil.copy(root / "one/1/model.onnx", root.parent / "elsewhere.onnx")
    (root / "one/1/model.onnx").unlink()
    (root / "one/1/model.onnx").symlink_to(root.parent / "elsewhere.onnx")


def recorded(root: Path) -> None:
    """A file that was added, and entered into the manifest too."""
    (root / "one/1/more.bin").write_bytes(b"")
    path = root / "one/1/manifest.json"
    document = json.loads(path.read_text())
    document["files"].append({**document["files"][0], "name": "more.bin"})
    path.write_text(json.dumps(document))


CHANGES: list[tuple[str, Change, set[tuple[str, str]]]] = [
    ("signature gone", lambda root: (root / "one/1/manifest.json.sig").unlink(), {("V701", "one/1")}),
    ("manifest gone", lambda root: (root / "one/1/manifest.json").unlink(), {("V702", "one/1")}),
    ("version of nobody", lambda root: (root / "one/9").mkdir(), {("V701", "one/9")}),
    ("model of nobody", lambda root: (root / "new").mkdir(), {("V701", "new")}),
    ("moved version", lambda root: (root / "one/1").rename(root / "one/7"), {("V702", "one/7")}),
    ("moved model", lambda root: (root / "one").rename(root / "two"), {("V702", "two/1"), ("V702", "two/2")}),
    ("torn signature", lambda root: (root / "one/1/manifest.json.sig").write_text("{"), {("V702", "one/1")}),
    ("manifest with one more", recorded, {("V702", "one/1")}),
    ("file gone", lambda root: (root / "one/1/model.onnx").unlink(), {("V703", "one/1/model.onnx")}),
    ("file added", lambda root: (root / "one/1/x.py").touch(), {("V704", "one/1/x.py")}),
    ("link for a file", link, {("V704", "one/1/model.onnx")}),
    ("larger batches", edit("one/config.pbtxt", "max_batch_size: 8", "max_batch_size: 16"),
     {("V705", "one/config.pbtxt")}),
    ("a parameter", edit("one/config.pbtxt", "backend:", 'parameters { key: "a" }\nbackend:'),
     {("V705", "one/config.pbtxt")}),
    ("broken configuration", edit("one/config.pbtxt", "backend:", "backnd:"), {("V705", "one/config.pbtxt")}),
    ("no configuration", lambda root: (root / "one/config.pbtxt").unlink(), {("V705", "one/config.pbtxt")}),
]  # fmt: skip


@pytest.mark.parametrize(("title", "change", "expected"), CHANGES, ids=[change[0] for change in CHANGES])
def test_each_change_is_found_where_it_is(
    root: Path, keys: Path, title: str, change: Change, expected: set[tuple[str, str]]
) -> None:
    change(root)
    assert found(root, keys) == expected


def test_publishing_over_signed_versions_without_a_key_says_so(root: Path, keys: Path) -> None:
    done = put(root.parent, factor=4.0, key=None)
    assert done.notes == ("version 2 is signed, and this one is not: publish it with --sign KEY",)
    assert found(root, keys) == {("V701", "one/3")}
    assert not put(root.parent, factor=5.0, key=keys / "ours").notes
