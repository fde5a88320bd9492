"""Training as a step of the road: what its key depends on, where it goes on, which samples it may see."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from jettison.core.artifacts import Store
from jettison.core.errors import SamplesError
from jettison.core.progress import silent
from jettison.core.samples import samples_of
from jettison.core.targets import parse_target
from jettison.core.tensors import TensorSpec
from jettison.graph.model import input_specs, open_model
from jettison.pipeline.sample_sets import open_sets
from jettison.pipeline.steps import Bench, Steps
from jettison.recipe import ModelSource, Recipe, SampleSources
from jettison.recipe_text import parse_variant
from zoo.builder import Net

CPU = parse_target("cpu")
SPECS = [TensorSpec(name="x", dtype="float32", shape=("n", 2))]
TRAINED, PLAIN = (
    parse_variant(f"it=[{{quantize: full}}{more}]") for more in (", {train: baseline, epochs: 2}", "")
)


def refuse(model):
    raise ValueError("not to be measured here")


@pytest.fixture
def steps(tmp_path):
    return Steps(Store(tmp_path / "steps"), silent, "a machine", 1)


@pytest.fixture
def source(steps, tmp_path):
    net = Net("small")
    x = net.op("Relu", net.gemm(net.input("features", ["batch", 16]), (16, 16)))
    net.gemm(x, (16, 4), to="scores")
    net.output("scores", ["batch", 4])
    onnx.save(net.model(), tmp_path / "model.onnx")
    return steps.clean(tmp_path / "model.onnx")


def points(source, seed=0, count=64):
    specs = input_specs(open_model(source.path))
    array = np.random.default_rng(seed).standard_normal((count, 16), dtype=np.float32)
    return samples_of({specs[0].name: array}, specs=specs)


def bench(training):
    return Bench(refuse, 0.01, "these", training=training)


def variants(steps):
    return sorted(path.name for path in steps.store.root.glob("variant-*"))


@pytest.mark.torch
def test_a_variant_is_trained_again_for_other_samples_or_settings_and_for_nothing_else(steps, source):
    pytest.importorskip("torch")
    samples, training, others = points(source, 1), points(source, 2), points(source, 3)
    made = steps.variant(source, TRAINED, CPU, samples, bench=bench(training))
    assert made.record.notes[0].startswith("trained by the baseline's answers for 2 epochs on 58 samples")
    assert len(variants(steps)) == 1
    assert steps.variant(source, TRAINED, CPU, samples, bench=bench(training)).file == made.file
    steps.variant(source, TRAINED, CPU, samples, bench=bench(others))
    assert len(variants(steps)) == 2
    longer = parse_variant("it=[{quantize: full}, {train: baseline, epochs: 3}]")
    steps.variant(source, longer, CPU, samples, bench=bench(training))
    assert len(variants(steps)) == 3
    assert made.file.lineage.parents == (source.digest, samples.sha256, training.sha256)
    assert "torch" in made.file.lineage.versions
    assert not list(steps.store.root.glob("checkpoints-*"))


def test_training_samples_are_no_part_of_a_variant_that_does_not_train(steps, source):
    samples = points(source, 1)
    for training in (None, points(source, 2), points(source, 3)):
        made = steps.variant(source, PLAIN, CPU, samples, bench=bench(training))
    assert len(variants(steps)) == 1
    assert "torch" not in made.file.lineage.versions


class StoppedError(Exception):
    pass


@pytest.mark.torch
def test_a_training_broken_off_goes_on_and_ends_in_the_same_file(steps, source, tmp_path):
    pytest.importorskip("torch")
    samples, training = points(source, 1), points(source, 2, count=300)
    variant = parse_variant("it=[{train: baseline, epochs: 2, batch_size: 1}, {quantize: full}]")
    expected = steps.variant(source, variant, CPU, samples, bench=bench(training)).file.digest
    told = []

    def reporter(title):
        def progress(done, total):
            told.append(done)
            if broken and done > 230:
                raise StoppedError

        return progress if title.startswith("making") else silent(title)

    again = Steps(Store(tmp_path / "again"), reporter, "a machine", 1)
    broken = True
    with pytest.raises(StoppedError):
        again.variant(source, variant, CPU, samples, bench=bench(training))
    assert len(list(again.store.root.glob("checkpoints-*/0/checkpoint.pt"))) == 1
    broken, first = False, len(told)
    assert again.variant(source, variant, CPU, samples, bench=bench(training)).file.digest == expected
    assert told[first] > 190
    assert not list(again.store.root.glob("checkpoints-*"))


def test_without_training_samples_the_variant_is_refused_with_the_way_out(steps, source):
    found = steps.variant(source, TRAINED, CPU, points(source), bench=bench(None))
    assert found.file is None
    assert str(found.record.refusal) == (
        "it needs training samples, and there are none. Give them: samples.training in the recipe, or "
        "--training"
    )


@pytest.fixture
def opened(tmp_path):
    """Opens sets of numbered rows: ranges of numbers by set, and the variant that they are for."""

    def open_(variant, **numbers):
        sources = {}
        for name, rows in numbers.items():
            column = np.asarray(rows, np.float32)
            np.savez(tmp_path / f"{name}.npz", x=np.stack([column, -column], axis=1))
            sources[name] = str(tmp_path / f"{name}.npz")
        recipe = Recipe(
            model=ModelSource(name="m", path=tmp_path),
            samples=SampleSources(**sources),
            variants=(variant,),
        )
        return open_sets(recipe, SPECS)

    return open_


def test_a_training_on_all_that_decides_is_refused(opened):
    with pytest.raises(SamplesError) as caught:
        opened(TRAINED, calibration=range(4), evaluation=range(7, 10), training=[9, 8, 1, 7])
    assert f"{caught.value.detail}. {caught.value.fix}" == (
        "expected evaluation samples that no training sees, found all 3 among the training samples, from "
        "which variant 'it' learns. Give other samples with --training (training in the recipe), or others "
        "for evaluation"
    )
    assert caught.value.exit_code == 2


def test_evaluation_samples_that_are_trained_on_are_counted(opened):
    sets = {"calibration": range(4), "evaluation": range(7, 12)}
    assert opened(TRAINED, **sets, training=[7, 9, 20]).notes == (
        "2 of 5 evaluation samples are among those that variant 'it' learns from",
    )
    apart = opened(TRAINED, **sets, training=range(20, 30))
    assert apart.notes == ()
    assert apart.training.count == 10
    assert opened(PLAIN, **sets, training=range(7, 12)).notes == ()
