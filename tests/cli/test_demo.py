"""The example's demo leaves in its run folder what `jettison run` leaves there."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "examples" / "fashion" / "demo.py"


@pytest.fixture
def demo(recipe, monkeypatch):
    """The demo over the small recipe, with a server that serves nothing."""

    class Server:
        http_url = grpc_url = "127.0.0.1:1"

        def __init__(self, *_, **__):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    spec = importlib.util.spec_from_file_location("fashion_demo", DEMO)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "HERE", recipe.parent)
    monkeypatch.setattr(module, "find_server", lambda *_, **__: None)
    monkeypatch.setattr(module, "TritonServer", Server)
    monkeypatch.setattr(module, "open_samples", lambda *_: None)
    monkeypatch.setattr(module, "OnnxRuntimeRunner", lambda _: type("Runner", (), {"inputs": ()}))
    monkeypatch.setattr(module, "ask", lambda *_: 0)
    return module


def test_demo_writes_the_report_of_its_run(demo, jettison, recipe, capsys):
    assert demo.main() == 0
    assert "chosen: int8" in capsys.readouterr().out
    report = json.loads((recipe.parent / "runs" / "small" / "report.json").read_text())
    assert report["chosen"] == "int8"
    assert [entry["version"] for entry in report["published"]] == [1, 1]
    answer = jettison(
        "publish", recipe.parent / "runs/small", "--repository", recipe.parent / "more", "--name", "again",
        "--json",
    )  # fmt: skip
    assert answer.document["version"] == 1


def test_demo_keeps_the_evidence_where_publishing_fails(demo, recipe, monkeypatch):
    def refuse(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "publish_results", refuse)
    with pytest.raises(KeyboardInterrupt):
        demo.main()
    assert (recipe.parent / "runs" / "small" / "report.json").is_file()
