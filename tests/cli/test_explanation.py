"""What `run` tells of each variant: its layers, its changed decisions, and what it looks at."""

from __future__ import annotations

import pytest


@pytest.fixture
def explained(jettison, recipe):
    return jettison("run", recipe, "--json").document["variants"][0]["explanation"]


def test_every_layer_is_told_with_format_reason_noise_range_size_and_time(explained):
    layers = explained["layers"]
    assert [layer["kind"] for layer in layers] == ["Conv", "Conv", "Gemm"]
    for layer in layers:
        assert layer["quantized"]
        assert layer["reason"] == "integers carry it"
        assert layer["weight"]["element_type"] == "int8"
        assert layer["weight"]["size_bytes"] < layer["weight"]["baseline_size_bytes"]
        assert layer["input"]["low"] < layer["input"]["high"]
        assert 0 <= layer["input"]["clip_share"] < 0.01
        assert layer["sqnr_db"] > 20
        assert layer["time"]["baseline_us"] > 0


def test_changed_decisions_are_counted_on_the_evaluation_samples(explained):
    decisions = explained["decisions"]
    assert decisions["applies"]
    assert decisions["samples"] == 400
    assert decisions["changed"] == len(decisions["decisions"]) < 40


def test_what_the_models_look_at_is_compared_for_the_chosen_variant(explained):
    saliency = explained["saliency"]
    assert saliency["kind"] == "image"
    assert saliency["rank_correlation"] > 0.9
    assert len(saliency["samples"]) == 16


def test_variant_that_was_not_chosen_gets_no_saliency(jettison, recipe):
    recipe.write_text(recipe.read_text().replace("tolerance: 0.1", "tolerance: 0.1, min_speedup: 50"))
    variant = jettison("run", recipe, "--json").document["variants"][0]
    assert not variant["accepted"]
    assert variant["explanation"]["saliency"] is None
    assert variant["explanation"]["layers"]


def test_explanations_can_be_left_out(jettison, recipe):
    recipe.write_text(recipe.read_text() + "explain: false\n")
    document = jettison("run", recipe, "--json").document
    assert [variant["explanation"] for variant in document["variants"]] == [None]
