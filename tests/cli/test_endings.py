"""With --json every outcome is exactly one document on stdout; in words it is one sentence on stderr."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest

from jettison.cli import run as run_verb
from jettison.cli.console import print_error
from jettison.cli.interrupts import Terminated
from jettison.cli.main import main
from jettison.cli.verbs import VERBS
from jettison.core.errors import ExternalError, MissingError

SETTINGS = ("model.onnx", "--calibration", "c.npz", "--target", "cpu", "-o", "out")


@pytest.mark.parametrize(
    ("arguments", "what", "words"),
    [
        (("run",), "jettison run", "Missing argument"),
        (("run", "recipe.yaml", "--nope"), "jettison run", "--nope"),
        (("compress", "model.onnx"), "jettison compress", "--calibration"),
        (("compress", *SETTINGS, "--threads", "-1"), "jettison compress", "'--threads'"),
        (("compress", *SETTINGS, "--tolerance", "much"), "jettison compress", "'--tolerance'"),
        (("compress", "--threads"), "jettison compress", "requires an argument"),
        (("serve", ".", "--deadline", "0"), "jettison serve", "'--deadline'"),
        (("doctor", "more"), "jettison doctor", "more"),
        (("dcotor",), "jettison", "No such command 'dcotor'"),
        ((), "jettison", "--json"),
    ],
)
def test_usage_error_is_one_document(jettison, arguments, what, words):
    answer = jettison(*arguments[:1], "--json", *arguments[1:])
    error = answer.document["error"]
    assert answer.code == 2
    assert error["what"] == what
    assert error["fix"] == f"Run: {what} --help"
    assert words in error["detail"]
    assert f"error: {what}: {error['detail']}. {error['fix']}" in answer.err


def test_usage_error_in_words_leaves_stdout_empty(jettison):
    answer = jettison("run")
    assert (answer.code, answer.out) == (2, "")
    assert "error: jettison run: Missing argument" in answer.err


def test_usage_error_does_not_speak_pydantic(jettison):
    """Newer typers check values by pydantic; older ones have words of their own."""
    words = jettison("compress", *SETTINGS, "--tolerance", "much").err
    assert "much" in words
    assert "parse string" not in words
    choice = jettison("rollout", "render", "plan.yaml", "--driver", "spinnaker").err
    assert "'spinnaker' is not one of" in choice
    assert "Value error" not in choice


def dying(error):
    def walk(*_):
        raise error

    return walk


@pytest.mark.parametrize(
    ("error", "code", "what"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (Terminated(), 143, "interrupted"),
        (Terminated(signal.SIGHUP), 129, "interrupted"),
        (RuntimeError("a bug"), 70, "a defect of Jettison"),
        (MissingError("preflight", detail="it is not there", fix="Bring it"), 3, "preflight"),
        (ExternalError("tritonserver", detail="it is gone", fix="Look"), 4, "tritonserver"),
        (PermissionError(13, "Permission denied", "/nowhere"), 2, "/nowhere"),
    ],
)
def test_whatever_ends_a_verb_is_one_document(jettison, recipe, monkeypatch, error, code, what):
    monkeypatch.setattr(run_verb, "walk", dying(error))
    answer = jettison("run", recipe, "--json")
    assert answer.code == code
    assert set(answer.document["error"]) == {"what", "detail", "fix"}
    assert answer.document["error"]["what"] == what


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            Terminated(),
            "interrupted: stopped by SIGTERM. Run it again: run and compress go on after the last ",
        ),
        (Terminated(signal.SIGHUP), "interrupted: stopped by SIGHUP. Run it again"),
        (KeyboardInterrupt(), ""),
    ],
)
def test_a_log_tells_which_signal_stopped_a_verb(jettison, recipe, monkeypatch, error, words):
    monkeypatch.setattr(run_verb, "walk", dying(error))
    answer = jettison("run", recipe)
    assert answer.out == ""
    assert answer.err.startswith(words)
    assert bool(answer.err) == bool(words)


def test_defect_is_told_with_its_type_and_its_traceback(jettison, recipe, monkeypatch):
    monkeypatch.setattr(run_verb, "walk", dying(KeyError("lost")))
    answer = jettison("run", recipe, "--json")
    assert answer.document["error"]["detail"] == "KeyError: 'lost'"
    assert "Report it" in answer.document["error"]["fix"]
    assert "Traceback (most recent call last)" in answer.err
    assert jettison("run", recipe).out == ""


def test_interrupt_without_json_is_silent(jettison, recipe, monkeypatch):
    monkeypatch.setattr(run_verb, "walk", dying(KeyboardInterrupt()))
    answer = jettison("run", recipe)
    assert (answer.code, answer.out, answer.err) == (130, "", "")


@pytest.mark.parametrize("as_json", [True, False])
def test_what_functions_of_the_user_print_stays_off_stdout(jettison, recipe, monkeypatch, as_json):
    module = types.ModuleType("chatty_metric")

    def metric(outputs, labels):
        sys.stdout.write("scoring\n")
        return (next(iter(outputs.values())).argmax(axis=1) == labels).astype(float)

    module.metric = metric
    monkeypatch.setitem(sys.modules, "chatty_metric", module)
    recipe.write_text(recipe.read_text().replace("metric: top1", 'metric: "chatty_metric:metric"'))
    answer = jettison("run", recipe, *(["--json"] if as_json else []))
    assert answer.code == 0
    assert "scoring" in answer.err
    assert "scoring" not in answer.out
    if as_json:
        assert answer.document["chosen"] == "int8"


def test_interrupt_while_modules_are_loaded_is_one_document(jettison, monkeypatch):
    class Interrupting:
        def find_spec(self, name, *_):
            if name == "jettison.cli.verbs":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "jettison.cli.verbs")
    monkeypatch.setattr(sys, "meta_path", [Interrupting(), *sys.meta_path])
    answer = jettison("doctor", "--json")
    assert answer.code == 130
    assert answer.document["error"]["what"] == "interrupted"


def test_nothing_large_is_loaded_before_an_interrupt_is_handled():
    """Ctrl-C while modules are loaded would else end in a traceback, without a document."""
    code = "import sys, jettison.cli.main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "jettison.cli.main" in loaded
    assert loaded.isdisjoint({"typer", "rich", "pydantic", "numpy", "onnx", "onnx_ir"})


@pytest.mark.parametrize("arguments", [("--json",), ()])
def test_a_full_disk_behind_stdout_is_named(arguments):
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "jettison", "doctor", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: stdout: No space left on device. Free some space, or write elsewhere\n"


def test_closed_stdout_is_no_defect(monkeypatch, capfd):
    """As in `jettison doctor --json | true`."""
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(sys, "argv", ["jettison", "doctor", "--json"])
    closed = os.fdopen(writer, "w")
    monkeypatch.setattr(sys, "stdout", closed)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 130
    assert capfd.readouterr().err == ""
    monkeypatch.undo()
    with pytest.raises(BrokenPipeError):
        closed.close()


@pytest.mark.parametrize("arguments", [("doctor",), ("doctor", "--json"), ("--help",)])
def test_a_reader_that_went_away_ends_every_verb_with_130(arguments):
    """As in `jettison doctor | true`: rich would end the process by itself, with 1."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "jettison", *arguments]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (130, b"")


def test_an_end_of_the_process_from_inside_is_a_defect_and_no_success(jettison, recipe, monkeypatch):
    monkeypatch.setattr(run_verb, "walk", dying(SystemExit(0)))
    answer = jettison("run", recipe, "--json")
    assert answer.code == 70
    assert answer.document["error"]["detail"] == "SystemExit: 0"


ENDLESS = """
import os, signal
import numpy as np

def samples():
    yield {"image": np.zeros((1, 16, 16, 16), np.float32)}
    os.kill(os.getpid(), signal.%s)
    while True:
        pass
"""


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_ends_any_verb_in_order(workspace, name, code):
    """A real process: one document, and no folder of it left behind."""
    (workspace / "endless_samples.py").write_text(ENDLESS % name)
    (workspace / "tmp").mkdir()
    command = [
        sys.executable, "-m", "jettison", "evaluate", "model.onnx", "--baseline", "model.onnx",
        "--evaluation", "endless_samples:samples", "--json",
    ]  # fmt: skip
    path = os.pathsep.join([str(workspace), *sys.path])
    environment = {**os.environ, "TMPDIR": str(workspace / "tmp"), "PYTHONPATH": path}
    done = subprocess.run(
        command, cwd=workspace, env=environment, capture_output=True, check=False, timeout=120
    )
    assert done.returncode == code
    assert json.loads(done.stdout)["error"]["what"] == "interrupted"
    assert list((workspace / "tmp").iterdir()) == []


def test_a_full_disk_is_told_without_options_that_a_verb_may_not_have(jettison, recipe, monkeypatch):
    monkeypatch.setattr(run_verb, "walk", dying(OSError(28, "No space left on device", "/tmp/x")))
    assert jettison("run", recipe, "--json").document["error"]["fix"] == "Free some space, or write elsewhere"


def test_document_that_cannot_be_written_does_not_hide_the_error(monkeypatch, capsys):
    class Full:
        def write(self, _):
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", Full())
        print_error(MissingError("preflight", detail="it is not there", fix="Bring it"), as_json=True)
    assert "preflight: it is not there. Bring it" in capsys.readouterr().err


def test_every_verb_takes_json(jettison):
    for verb in VERBS:
        assert "--json" in jettison(verb.__name__, "--help").out
