"""An edited function is another one; nothing of it is run to know that."""

from __future__ import annotations

import pytest

from jettison.core.code import code_digest


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "network.py").write_text(
        "import json\nimport numpy\nfrom mine.layers import size\n\ndef make(): ...\n"
    )
    (folder / "layers.py").write_text("raise RuntimeError('was run')\nsize = 3\n")
    (folder / "other.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


@pytest.mark.parametrize(("name", "changes"), [("network", True), ("layers", True), ("other", False)])
def test_digest_follows_the_modules_that_are_imported(package, name, changes):
    before = code_digest("mine.network:make")
    file = package / f"{name}.py"
    file.write_text(file.read_text() + "# edited\n")
    assert (code_digest("mine.network:make") != before) is changes


def test_digest_of_an_installed_package_is_empty():
    assert code_digest("numpy.random:default_rng") == ""
    assert code_digest("no_such_module:make") == ""


def test_a_module_that_does_not_parse_still_has_a_digest_of_what_is_left(package):
    (package / "network.py").write_text("def make(:\n")
    assert code_digest("mine.network:make") != code_digest("mine.other:make")
