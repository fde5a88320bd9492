"""ModelOpt as the backend, with a stand-in in its place: what it is given and what becomes of its answer."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from small_models import image, model_of, normal, piece_of, quantized, run, samples_for
from zoo_cases import zoo_case

from jettison.compress.passes import Workpiece
from jettison.compress.quantization.modelopt import (
    QuantizeModelopt,
)
from jettison.compress.quantization.modelopt_child import Batches
from jettison.compress.quantization.modelopt_environment import blueprint, find_python, main
from jettison.compress.quantization.quantize import QuantizeFull
from jettison.core.environments import MARKER_NAME
from jettison.core.errors import ExternalError, MissingError, RecipeError
from jettison.core.targets import parse_target
from jettison.graph.save import model_bytes, save_model
from jettison.recipe_text import parse_variant
from zoo.builder import Net, image_net

GPU = "sm86"


Stand = Callable[[str], Path]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stand:
    """Makes an environment whose Python does, in place of ModelOpt, what the text says.

    The text sees `asked`, the request, and `seen`, a folder of the test's.
    """
    monkeypatch.setenv("JETTISON_CACHE", str(tmp_path / "cache"))
    folder = blueprint().folder(tmp_path / "cache")

    def make(text: str) -> Path:
        (folder / "bin").mkdir(parents=True)
        seen = tmp_path / "seen"
        seen.mkdir()
        script = tmp_path / "child.py"
        script.write_text(
            "import json, shutil, sys\n"
            "asked = json.loads(open(sys.argv[-1]).read())\n"
            f"seen = {str(seen)!r}\n{text}\n"
        )
        python = folder / "bin" / "python"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$@"\n')
        python.chmod(0o755)
        (folder / MARKER_NAME).write_text("{}")
        return seen

    return make


def convolution(batch: int | str = "batch") -> ir.Model:
    net, x = image_net("one", 16)
    net.inputs.clear()
    x = net.input("image", [batch, 16, 16, 16])
    net.head(net.op("Relu", net.conv(x, (16, 32))), 32)
    return model_of(net)


def answering(model: ir.Model, tmp_path: Path) -> str:
    """What a stand-in does that keeps its request and samples, and answers with this model."""
    save_model(model, tmp_path / "answer.onnx")
    return (
        "shutil.copytree(asked['batches'], seen + '/batches')\n"
        "shutil.copyfile(asked['model'], seen + '/float.onnx')\n"
        "shutil.copyfile(sys.argv[-1], seen + '/request.json')\n"
        f"shutil.copyfile({str(tmp_path / 'answer.onnx')!r}, asked['output'])"
    )


def batches_in(seen: Path) -> list[list[np.ndarray]]:
    found = []
    for path in sorted((seen / "batches").iterdir()):
        with np.load(path, allow_pickle=False) as arrays:
            found.append([arrays[name] for name in arrays.files])
    return found


def test_the_layers_are_told_by_the_pairs_that_they_read(stand_in: Stand, tmp_path: Path) -> None:
    model = convolution()
    answer = quantized(model, image(), target=GPU, keep_float=("node_logits",))
    stand_in(answering(answer.model, tmp_path))
    found = QuantizeModelopt()(piece_of(model, GPU), samples_for(model, image()))
    assert [(layer.node, layer.kind, layer.quantized, layer.reason) for layer in found.layers] == [
        ("node_conv_3", "Conv", True, "integers, placed by ModelOpt"),
        ("node_logits", "Gemm", False, "ModelOpt leaves it in float"),
    ]
    assert found.notes == ("quantized by nvidia-modelopt==0.47.0",)
    expected = run(answer.model, image(), optimize=False)
    np.testing.assert_array_equal(run(found.model, image(), optimize=False)["logits"], expected["logits"])


def test_samples_are_handed_over_one_by_one_and_in_order(stand_in: Stand, tmp_path: Path) -> None:
    model = convolution()
    seen = stand_in(answering(model, tmp_path))
    step = QuantizeModelopt(calibration_method="entropy")
    step(piece_of(model, GPU), samples_for(model, image(count=5)))
    handed = batches_in(seen)
    assert [[array.shape for array in batch] for batch in handed] == [[(1, 16, 16, 16)]] * 5
    np.testing.assert_array_equal(np.concatenate([batch[0] for batch in handed]), image(count=5)["image"])
    request = json.loads((seen / "request.json").read_text())
    assert (request["inputs"], request["method"], request["external"]) == (["image"], "entropy", False)
    assert (seen / "float.onnx").read_bytes() == model_bytes(model)
    assert not Path(request["batches"]).exists(), "the working folder goes"


def test_a_fixed_batch_is_kept_and_no_sample_counts_twice(stand_in: Stand, tmp_path: Path) -> None:
    model = convolution(batch=2)
    seen = stand_in(answering(model, tmp_path))
    QuantizeModelopt()(piece_of(model, GPU), samples_for(model, image(count=5)))
    assert [batch[0].shape[0] for batch in batches_in(seen)] == [2, 2]


def test_an_input_may_have_any_name(stand_in: Stand, tmp_path: Path) -> None:
    net = Net("named")
    sum_of = net.op("Add", net.input("file", ["batch", 32]), net.input("a/b", ["batch", 32]))
    net.named("MatMul", sum_of, net.const(net.he((32, 32), 32), "weight"), to="out")
    net.output("out", ["batch", 32])
    model = model_of(net)
    seen = stand_in(answering(model, tmp_path))
    arrays = {"file": normal(3, 32), "a/b": normal(3, 32, seed=1)}
    QuantizeModelopt()(piece_of(model, GPU), samples_for(model, arrays))
    names = json.loads((seen / "request.json").read_text())["inputs"]
    assert sorted(names) == ["a/b", "file"]
    for row, batch in enumerate(batches_in(seen)):
        for name, array in zip(names, batch, strict=True):
            np.testing.assert_array_equal(array[0], arrays[name][row])


def test_progress_counts_what_modelopt_reads(stand_in: Stand, tmp_path: Path) -> None:
    model, told = convolution(), []
    stand_in("print('batch size 8')\nfor n in (1, 2, 3): print(f'batch {n}')\n" + answering(model, tmp_path))
    piece = Workpiece(
        model, parse_target(GPU), progress=lambda done, total: told.append((done, total)) or None
    )
    QuantizeModelopt()(piece, samples_for(model, image(count=3)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_modelopt_s_last_words_are_told(stand_in: Stand) -> None:
    model = convolution()
    stand_in("print('Torn\\n\\n  File x\\n  here\\nValueError: no operator', file=sys.stderr)\nsys.exit(1)")
    with pytest.raises(ExternalError) as caught:
        QuantizeModelopt()(piece_of(model, GPU), samples_for(model, image()))
    assert str(caught.value) == (
        "ModelOpt on float.onnx: File x / here / ValueError: no operator. "
        "Use {quantize: full} without a backend for this model"
    )


def test_an_end_without_a_model_and_without_words_is_told(stand_in: Stand) -> None:
    model = convolution()
    stand_in("")
    with pytest.raises(ExternalError, match="it ended with status 0 and wrote no model"):
        QuantizeModelopt()(piece_of(model, GPU), samples_for(model, image()))


def test_modelopt_ends_with_whoever_waits_for_it(stand_in: Stand, tmp_path: Path) -> None:
    model = convolution()
    pipe = tmp_path / "pipe"
    stand_in(f"import os\nos.mkfifo({str(pipe)!r})\nprint('batch 1', flush=True)\nopen({str(pipe)!r}).read()")

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    piece = Workpiece(model, parse_target(GPU), progress=interrupt)
    with pytest.raises(KeyboardInterrupt):  # and does not wait for a child that waits for ever
        QuantizeModelopt()(piece, samples_for(model, image()))


def test_a_missing_environment_names_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JETTISON_CACHE", str(tmp_path))
    model = convolution()
    with pytest.raises(MissingError) as caught:
        QuantizeModelopt()(piece_of(model, GPU), samples_for(model, image()))
    assert caught.value.exit_code == 3
    assert caught.value.detail.startswith(f"expected its environment in {tmp_path}/modelopt-")
    assert "Run: python -m jettison.compress.quantization.modelopt_environment" in caught.value.fix


def test_a_half_made_environment_counts_as_missing(stand_in: Stand, tmp_path: Path) -> None:
    stand_in("")
    (blueprint().folder(tmp_path / "cache") / MARKER_NAME).unlink()
    with pytest.raises(MissingError, match="found none that is whole"):
        find_python()


def test_a_python_that_does_not_start_is_told(stand_in: Stand, tmp_path: Path) -> None:
    model = convolution()
    stand_in("")
    find_python().write_bytes(b"\x7fELF torn")
    with pytest.raises(MissingError, match=r"its Python does not start: .*Exec format error"):
        QuantizeModelopt()(piece_of(model, GPU), samples_for(model, image()))


def test_the_command_makes_the_environment_that_the_pass_looks_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\n[ "$2" = venv ] && mkdir -p "$3/bin" && cp "$0" "$3/bin/python"\nexit 0\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("JETTISON_CACHE", str(tmp_path / "cache"))
    assert main() == 0
    assert find_python().is_relative_to(tmp_path / "cache")
    assert "ModelOpt's environment is ready in" in capsys.readouterr().err


def test_the_command_ends_with_the_error_s_exit_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'ensurepip is not available' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("JETTISON_CACHE", str(tmp_path / "cache"))
    assert main() == ExternalError.exit_code
    assert "making the modelopt environment: ensurepip is not available" in capsys.readouterr().err


def test_a_python_that_modelopt_was_not_tried_with_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.version_info", type("Version", (), {"major": 3, "minor": 14}))
    with pytest.raises(MissingError, match=r"expected Python 3\.10, 3\.11, 3\.12, 3\.13, found 3\.14"):
        blueprint()


def test_the_cpu_is_refused_with_the_reason() -> None:
    refusal = QuantizeModelopt().check(piece_of(convolution(), "cpu"))
    assert str(refusal) == (
        "ModelOpt writes signed INT8 activations for TensorRT, which ONNX Runtime's CPU kernels run slower "
        "than float. Use {quantize: full} without a backend for target cpu"
    )
    assert QuantizeModelopt().check(piece_of(convolution(), GPU)) is None


def test_a_model_that_is_quantized_already_is_refused() -> None:
    twice = quantized(convolution(), image(), target=GPU).model
    refusal = QuantizeModelopt().check(piece_of(twice, GPU))
    assert refusal is not None
    assert refusal.reasons[0].startswith("the model is quantized already: it has ")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("half_precision", "Conv: its weight is FLOAT16, expected float32"),
        ("no_weighted_op", "the model has no layer with constant weights"),
    ],
)
def test_a_model_without_a_float32_layer_is_refused(name: str, reason: str) -> None:
    refusal = QuantizeModelopt().check(piece_of(zoo_case(name).model, GPU))
    assert refusal is not None
    assert refusal.reasons[0] == reason


def test_the_version_counts_among_the_settings() -> None:
    assert json.loads(QuantizeModelopt().model_dump_json()) == {
        "quantize": "full", "backend": "modelopt", "calibration_method": "max",
        "version": "nvidia-modelopt==0.47.0",
    }  # fmt: skip


def test_the_child_reads_one_batch_at_a_time_and_its_trial_run_uses_none_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2):
        np.savez(tmp_path / f"{number}.npz", np.full(1, number), np.full(1, -number))
    reader = Batches(tmp_path, ["a", "b"])
    assert reader.get_first() == {"a": 0, "b": 0}
    assert [reader.get_next(), reader.get_next(), reader.get_next()] == [
        {"a": 0, "b": 0},
        {"a": 1, "b": -1},
        None,
    ]
    reader.rewind()
    assert len(list(reader)) == 2
    assert re.findall(r"batch (\d)\n", capsys.readouterr().out) == ["1", "2", "3", "4"]


def test_a_recipe_names_the_backend() -> None:
    chosen = "int8=[{quantize: full, backend: modelopt, calibration_method: entropy}]"
    assert parse_variant(chosen).passes == (QuantizeModelopt(calibration_method="entropy"),)
    assert parse_variant("int8=[{quantize: full}]").passes == (QuantizeFull(),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{quantize: full, backend: modelop}",
         "has no backend 'modelop'. Leave it out for Jettison's own, or write backend: modelopt"),
        ("{quantize: dynamic, backend: modelopt}",
         "{quantize: dynamic} has no backend 'modelopt'. Leave it out for Jettison's own"),
        ("{quantize: full, backend: modelopt, ranges: mse}", "{quantize: full} has no key 'ranges'"),
        ("{quantize: full, backend: modelopt, version: 1}", "{quantize: full} has no key 'version'"),
    ],
)  # fmt: skip
def test_a_wrong_backend_or_key_is_refused(text: str, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_variant(f"int8=[{text}]")
    assert words in str(caught.value)
