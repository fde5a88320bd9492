"""Pictures of a run: those samples that its explanations name, and none where there are no images."""

from __future__ import annotations

import numpy as np
import pytest

from jettison.core.samples import samples_of
from jettison.core.tensors import TensorSpec
from jettison.evaluate.decisions import ChangedDecision, DecisionReport
from jettison.evaluate.explanation import NotApplicable
from jettison.evaluate.picture import picture_of
from jettison.evaluate.saliency import SaliencyReport, SampleSaliency
from jettison.pipeline.pictures import write_pictures
from jettison.pipeline.results import BaselineResult, Explanation, TargetResult, VariantResult


def changed(*numbers):
    decisions = tuple(
        ChangedDecision(sample=number, from_class=0, to_class=1, baseline_margin=None, variant_margin=None)
        for number in numbers
    )
    return DecisionReport(
        samples=50, changed=len(numbers), changed_share=0.1, worse=None, better=None,
        baseline_margin_median=None, changed_baseline_margin_median=None, pairs=(), decisions=decisions,
    )  # fmt: skip


def looked_at(*numbers):
    samples = tuple(
        SampleSaliency(
            sample=number,
            class_number=0,
            variant_class=0,
            rank_correlation=1.0,
            top_overlap=1.0,
            baseline_map=((1.0,),),
            variant_map=((1.0,),),
        )
        for number in numbers
    )
    return SaliencyReport(
        kind="image", input="x", layout="nchw", rank_correlation=1.0, rank_correlation_low=1.0,
        top_overlap=1.0, broken=0, samples=samples,
    )  # fmt: skip


def result(tmp_path, *explanations):
    variants = tuple(VariantResult(name=f"v{n}", explanation=told) for n, told in enumerate(explanations))
    baseline = BaselineResult(path=tmp_path / "m.onnx", size_bytes=1, score=1.0, latency_ms=None)
    return TargetResult(
        model="m", target="cpu", baseline=baseline, variants=variants, chosen="baseline", evaluations=1,
        seconds=1.0, peak_rss_bytes=1,
    )  # fmt: skip


def samples(shape):
    images = np.random.default_rng(5).random((50, *shape), np.float32)
    spec = TensorSpec(name="x", dtype="float32", shape=("n", *shape))
    return images, samples_of({"x": images}, specs=[spec])


def test_samples_that_are_told_of_are_kept_as_pictures(tmp_path):
    images, given = samples((3, 6, 6))
    told = Explanation(
        layers=(), decisions=changed(40, 3), saliency=looked_at(0, 3), changed_saliency=looked_at(40)
    )
    write_pictures(given, [result(tmp_path, told, None)], tmp_path / "pictures")
    kept = {int(file.stem): file.read_bytes() for file in (tmp_path / "pictures").iterdir()}
    assert kept == {number: picture_of({"x": images[number : number + 1]}) for number in (0, 3, 40)}


@pytest.mark.parametrize("shape", [(16, 6, 6), (7,)])
def test_what_is_no_image_leaves_no_folder_and_an_older_one_goes(tmp_path, shape):
    _, given = samples(shape)
    (tmp_path / "pictures").mkdir()
    told = Explanation(layers=(), decisions=changed(1), saliency=NotApplicable(reason="no image"))
    write_pictures(given, [result(tmp_path, told)], tmp_path / "pictures")
    assert not (tmp_path / "pictures").exists()


def test_a_run_that_tells_of_no_sample_reads_none(tmp_path):
    _, given = samples((3, 6, 6))
    write_pictures(given, [result(tmp_path, None)], tmp_path / "pictures")
    assert not (tmp_path / "pictures").exists()
