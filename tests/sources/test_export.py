"""The export in a process of its own: what crosses its border, and what happens where it dies."""

from __future__ import annotations

import importlib.util
import os

import numpy as np
import onnx
import pytest

from jettison.core.errors import ExternalError, MissingError, ModelError
from jettison.sources.doors import check_installed
from jettison.sources.examples import Examples
from jettison.sources.export import export_source
from jettison.sources.source import Source

EXAMPLES = Examples("here", ({"image": np.ones((2, 3, 8, 8), np.float32)},), {})


@pytest.mark.parametrize(
    ("kind", "absent", "words"),
    [
        ("torch", "torch", "the module torch: no module named 'torch'. Run: pip install -e '.[train]'"),
        ("exported", "torch", "the module torch: no module named 'torch'. Run: pip install -e '.[train]'"),
        ("keras", "keras", "the module keras: no module named 'keras'. Run: pip install -e '.[keras]'"),
        ("keras", "torch", "the module torch: no module named 'torch'. Run: pip install -e '.[keras]'"),
    ],
)
def test_a_missing_library_names_the_extra(kind, absent, words, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == absent else find("numpy"))
    with pytest.raises(MissingError) as caught:
        check_installed(kind)
    assert str(caught.value).startswith(words)
    assert caught.value.exit_code == 3


@pytest.mark.torch
def test_what_the_users_code_prints_goes_nowhere(tmp_path, capfd):
    pytest.importorskip("torch")
    assert export_source(Source(torch="source_nets:talkative"), EXAMPLES, tmp_path / "m.onnx") == ()
    assert onnx.load(tmp_path / "m.onnx").graph.input[0].name == "image"
    assert capfd.readouterr() == ("", "")


@pytest.mark.torch
def test_an_error_crosses_the_border_whole(tmp_path):
    pytest.importorskip("torch")
    with pytest.raises(ModelError) as caught:
        export_source(Source(torch="source_nets:failing"), EXAMPLES, tmp_path / "m.onnx")
    assert "the function failed with KeyError: 'no such weights' (source_nets.py, line" in caught.value.detail
    assert not list(tmp_path.iterdir())


@pytest.mark.torch
def test_the_users_code_runs_in_the_users_folder(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_net.py").write_text(
        "import pathlib, source_nets\n\ndef make():\n"
        "    return source_nets.cnn() if pathlib.Path('here').exists() else None\n"
    )
    (tmp_path / "here").touch()
    monkeypatch.syspath_prepend(os.curdir)
    export_source(Source(torch="my_net:make"), EXAMPLES, tmp_path / "m.onnx")


@pytest.mark.torch
def test_a_process_that_dies_is_told_with_its_last_words(tmp_path):
    pytest.importorskip("torch")
    with pytest.raises(ExternalError) as caught:
        export_source(Source(torch="source_nets:dying"), EXAMPLES, tmp_path / "m.onnx")
    assert "exporting source_nets:dying: its process ended with status 9: out of luck" in str(caught.value)
    assert caught.value.exit_code == 4


@pytest.mark.torch
def test_a_module_that_branches_on_the_batch_is_refused(tmp_path):
    pytest.importorskip("torch")
    examples = Examples("here", ({"image": np.ones((2, 3, 8, 8), np.float32)},), {})
    with pytest.raises(ModelError, match=r"it branches on one .*: traced, it holds for 2 to 4 only"):
        export_source(Source(torch="source_nets:BranchOnBatch"), examples, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
