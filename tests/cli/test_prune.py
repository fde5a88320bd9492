"""Pruning through the command line: what is reported, and that it is told before any work what cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jettison.graph.model import open_model
from jettison.graph.two_to_four import valid_groups


def compress(jettison, workspace, *variants, target="cpu"):
    return jettison(
        "compress", workspace / "model.onnx",
        "--calibration", workspace / "calibration.npz", "--evaluation", workspace / "evaluation.npz",
        "--target", target, *(part for text in variants for part in ("--variant", text)),
        "-o", workspace / "out", "--json",
    )  # fmt: skip


def test_two_to_four_and_integers_from_end_to_end(jettison, workspace):
    answer = compress(jettison, workspace, "sparse=[{prune: two-to-four, permute: true}, {quantize: full}]")
    (variant,) = answer.document["variants"]
    groups = valid_groups(open_model(Path(variant["path"])))
    assert all(found.hold for found in groups.values())
    assert {layer["node"]: layer["groups"] for layer in variant["pruned"]} == {
        name: found.eligible for name, found in groups.items()
    }
    assert all(layer["valid_groups"] == layer["groups"] for layer in variant["pruned"])
    assert "2:4 holds in 3 of 3 layers of the finished model" in variant["notes"]
    assert 0 < variant["compressed_bytes"] < variant["size_bytes"]
    assert len(variant["layers"]) == 3
    moved = {layer["node"] for layer in variant["pruned"] if layer["reordered"]}
    reports = {layer["node"]: layer["sqnr_db"] for layer in variant["explanation"]["layers"]}
    assert moved
    assert all(decibels > 3 for decibels in reports.values()), "compared in the order that they have now"


def test_single_weights_are_reported_layer_by_layer(jettison, workspace):
    answer = compress(jettison, workspace, "half=[{prune: {sparsity: 0.5}}]", "int8=[{quantize: full}]")
    half, int8 = answer.document["variants"]
    assert [layer["removed_share"] for layer in half["pruned"]] == [0.5, 0.5, 0.5]
    assert all(0 < layer["energy_share"] < 0.25 for layer in half["pruned"])
    assert (int8["pruned"], int8["compressed_bytes"]) == ([], None)
    assert half["layers_kept_in_float"] == []


def test_a_search_may_follow_pruning(jettison, workspace):
    answer = compress(jettison, workspace, "part=[{prune: {sparsity: 0.2}}, {quantize: partial}]")
    (variant,) = answer.document["variants"]
    assert answer.document["evaluations"] >= 1
    assert any("joint evaluation" in note for note in variant["notes"])


@pytest.mark.parametrize(
    "kind",
    ["two-to-four", "{threshold: fixed, value: 1}", "{threshold: dynamic, deviations: 1}", "{sparsity: 0.5}"],
)
def test_keep_dense_that_matches_nothing_is_told_before_any_work(jettison, workspace, kind):
    answer = compress(jettison, workspace, f"it=[{{prune: {kind}, keep_dense: ['/nope*']}}]")
    assert answer.code == 2
    assert "variant 'it': keep_dense: '/nope*' matches no" in answer.err
    assert not (workspace / "out").exists()


def test_passes_in_the_wrong_order_are_told_before_any_work(jettison, workspace):
    answer = compress(jettison, workspace, "it=[{quantize: full}, {prune: two-to-four}]")
    assert answer.code == 2
    assert "expected {prune: two-to-four} before {quantize: full}, found it behind" in answer.err
    assert "Write [{prune: two-to-four}, {quantize: full}]" in answer.err


@pytest.mark.torch
def test_channels_are_cut_trained_and_quantized_by_one_recipe(jettison, workspace):
    pytest.importorskip("torch")
    pytest.importorskip("torch_pruning")
    with np.load(workspace / "evaluation.npz") as stored:
        np.savez(workspace / "training.npz", **{name: stored[name][200:] for name in stored})
        np.savez(workspace / "unseen.npz", **{name: stored[name][:200] for name in stored})
    (workspace / "recipe.yaml").write_text(
        "model: {name: m, path: model.onnx}\n"
        "samples: {calibration: calibration.npz, evaluation: unseen.npz, training: training.npz}\n"
        "gate: {tolerance: 0.9}\nthreads: 1\nvariants:\n"
        "  - name: thin\n    passes: [{prune: {channels: {macs: 0.5}, round_to: 16, criterion: taylor}},\n"
        "             {train: baseline, epochs: 1}, {quantize: full}]\n"
    )
    answer = jettison("run", workspace / "recipe.yaml", "-o", workspace / "out", "--json")
    (variant,) = answer.document["variants"]
    assert answer.code == 0
    first, second, dense = variant["pruned"]
    assert (first["removed_outputs"], second["removed_inputs"], second["removed_outputs"]) == (32, 32, 16)
    assert (dense["removed_inputs"], dense["removed_outputs"]) == (16, 0)
    assert first["macs_left"] * 2 == first["macs"]
    model = open_model(Path(variant["path"]))
    kernels = [node.inputs[1].producer().inputs[0] for node in model.graph if node.op_type == "Conv"]
    assert [tuple(kernel.shape)[:2] for kernel in kernels] == [(32, 16), (48, 32)]
    assert any("multiply-accumulates for a sample" in note for note in variant["notes"])
    assert len(variant["layers"]) == 3
    assert len(variant["explanation"]["layers"]) == 3
    assert variant["size_bytes"] < answer.document["baseline"]["size_bytes"] / 4
