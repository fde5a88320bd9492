"""The table for a GPU target: what TensorRT said of each variant, or why it said nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from jettison.cli.tables import print_result
from jettison.core.targets import parse_target
from jettison.engines.tensorrt import preflight as asking
from jettison.engines.tensorrt.capabilities import compiled_for
from jettison.engines.tensorrt.exchange import CompileAnswer
from jettison.pipeline.results import BaselineResult, TargetResult, VariantResult


def result(**fields):
    variant = VariantResult(**{"name": "int8", "path": Path("int8.onnx"), "accepted": True} | fields)
    baseline = BaselineResult(path=Path("model.onnx"), size_bytes=1 << 20, score=0.9, latency_ms=None)
    return TargetResult(
        model="small", target="sm89", baseline=baseline, variants=(variant,), chosen="int8", evaluations=1,
        seconds=1.0, peak_rss_bytes=1, metric="top1", evaluation_samples=100,
    )  # fmt: skip


def printed(capsys, **fields):
    print_result(result(**fields))
    return capsys.readouterr().out


def row(text):
    return next(line for line in text.splitlines() if line.startswith("│ int8"))


def not_installed(monkeypatch):
    monkeypatch.setattr(asking, "find_module", lambda: None)


def not_loading(monkeypatch):
    def child(request, **_):
        request.answer.write_text(CompileAnswer(built=False, missing="libcuda.so.1").model_dump_json())
        return subprocess.CompletedProcess([], 0, stderr="")

    monkeypatch.setattr(asking, "find_module", lambda: "tensorrt_rtx")
    monkeypatch.setattr(asking, "_run_child", child)


def crashing(monkeypatch):
    monkeypatch.setattr(asking, "find_module", lambda: "tensorrt_rtx")
    dead = subprocess.CompletedProcess([], -11, stderr="")
    monkeypatch.setattr(asking, "_run_child", lambda *_, **__: dead)


def hanging(monkeypatch):
    def child(*_, limit_s, **__):
        raise subprocess.TimeoutExpired("compiler", limit_s)

    monkeypatch.setattr(asking, "find_module", lambda: "tensorrt_rtx")
    monkeypatch.setattr(asking, "_run_child", child)


@pytest.mark.parametrize(
    ("world", "words", "note"),
    [
        (not_installed, "not installed", "TensorRT's compiler is not installed. Run: pip install"),
        (not_loading, "does not load", "tensorrt_rtx is installed but does not load: libcuda.so.1"),
        (crashing, "crashed", "TensorRT's compiler crashed (SIGSEGV)"),
        (hanging, "no answer", "the compiler gave no answer within 600 s"),
    ],
)
def test_silence_of_the_compiler_is_told_with_its_reason(tmp_path, monkeypatch, capsys, world, words, note):
    world(monkeypatch)
    (tmp_path / "model.onnx").write_bytes(b"")
    report = asking.preflight(tmp_path / "model.onnx", parse_target("sm89"))
    text = printed(capsys, compiles=report.compiles, notes=("a note of a pass", *report.notes))
    assert words in row(text)
    assert f"note: {note}" in " ".join(text.split())
    assert "a note of a pass" not in text


@pytest.mark.parametrize(
    ("target", "words"),
    [("sm90", "compiled for the nearest, sm89"), ("tensorrt", "compiled for sm86"), ("sm89", None)],
)
def test_a_gpu_that_stands_in_for_the_target_is_told_beneath_the_table(capsys, target, words):
    found = compiled_for(parse_target(target))
    text = " ".join(
        printed(capsys, compiles=True, notes=("a note", *([found.note] * bool(found.note)))).split()
    )
    assert "compiles" in text
    assert "compiled for" not in text if words is None else f": {words}, " in text


@pytest.mark.parametrize(
    ("size_bytes", "latency_ms", "words"),
    [
        (1 << 20, 0.1, ["1.00 MiB", "0.10 ms"]),
        (2048, 0.0123, ["2.00 KiB", "12.30 µs"]),
        (100, 0.0999, ["0.10 KiB", "99.90 µs"]),
    ],
)
def test_small_figures_keep_their_digits(capsys, size_bytes, latency_ms, words):
    cells = row(printed(capsys, size_bytes=size_bytes, latency_ms=latency_ms))
    assert all(word in cells for word in words)


@pytest.mark.parametrize(
    ("shares", "heading", "words"),
    [
        ({"int8_mac_share": 0.97, "fp8_mac_share": 0.0}, "INT8 MACs", "│ 97% │"),
        ({"int8_mac_share": 0.0, "fp8_mac_share": 0.93}, "8-bit MACs", "│ FP8 93% │"),
        ({"int8_mac_share": 0.4, "fp8_mac_share": 0.5}, "8-bit MACs", "│ INT8 40%, FP8 50% │"),
        ({"int8_mac_share": None, "fp8_mac_share": None}, "INT8 MACs", "│ │"),
    ],
)
def test_products_in_fp8_are_told_beside_those_in_int8(capsys, shares, heading, words):
    text = printed(capsys, compiles=True, **shares)
    assert heading in text
    assert words in " ".join(row(text).split())


def test_one_sample_is_no_plural(capsys):
    print_result(result().model_copy(update={"evaluation_samples": 1}))
    assert "small on sm89, 1 sample " in capsys.readouterr().out


def test_nobody_asked(capsys):
    assert "not asked" in row(printed(capsys, notes=("8 nodes kept in float32: a crashed one",)))


def test_refusal_of_the_compiler_is_told_beneath_the_table(capsys):
    reason = "does not compile for the target: INVALID_NODE for ConvTranspose at /up/0: [unsupported] groups"
    text = printed(capsys, compiles=False, accepted=False, reasons=(reason,))
    assert "refuses" in row(text)
    assert f"int8: {reason}" in " ".join(text.split())


def test_variant_that_a_pass_refused_was_never_to_be_compiled(capsys):
    cells = row(printed(capsys, path=None, accepted=False, reasons=("refused: it does not apply",))).split(
        "│"
    )
    assert [cell.strip() for cell in cells[8:11]] == ["", "", "refused"]


def test_words_that_look_like_markup_are_printed_as_they_are(capsys):
    """As `jettison evaluate net[int8].onnx` has them: rich would drop the brackets, or fail on `[/...]`."""
    reason = "INVALID_NODE for {ForeignNode[/layers.0/MatMul]} at :bread:"
    found = result(name="net[int8]", accepted=False, compiles=False, reasons=(reason,))
    print_result(found.model_copy(update={"model": "base[/x]", "metric": "own:top1:"}))
    text = capsys.readouterr().out
    assert "base[/x] on sm89" in text
    assert "own:top1:" in text
    assert "│ net[int8] │" in text
    assert f"net[int8]: {reason}" in " ".join(text.split())
