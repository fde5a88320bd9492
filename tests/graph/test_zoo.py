"""The zoo itself: its models are valid, deterministic and sane, or the suites over it prove nothing."""

import numpy as np
import pytest

from zoo.session import run
from zoo.table import ZOO


@pytest.mark.parametrize("name", ZOO)
def test_zoo_model_is_valid_and_shows_its_pattern(name):
    ZOO[name].check(ZOO[name].build())


@pytest.mark.parametrize("name", ZOO)
def test_zoo_model_is_built_the_same_each_time(name):
    assert ZOO[name].build().SerializeToString() == ZOO[name].build().SerializeToString()


@pytest.mark.parametrize("name", ZOO)
def test_zoo_outputs_are_finite_and_depend_on_the_input(name):
    model = ZOO[name]
    content = model.build().SerializeToString()
    first, second = (run(content, model.inputs(seed=seed)) for seed in (1, 2))
    assert all(np.isfinite(array).all() for array in first.values())
    assert any(not np.array_equal(first[key], second[key]) for key in first)
    assert max(np.abs(array).max() for array in first.values()) < 1000


def test_zoo_inputs_follow_the_batch_and_the_seed():
    model = ZOO["attention_layernorm"]
    assert model.inputs(batch=3)["tokens"].shape == (3, 16, 32)
    assert not np.array_equal(model.inputs(seed=1)["tokens"], model.inputs(seed=2)["tokens"])
