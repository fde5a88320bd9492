"""A source is exported once for equal code, weights and examples, wherever the weights come from."""

from __future__ import annotations

import numpy as np
import pytest

from jettison.core.artifacts import Store
from jettison.core.errors import ModelError
from jettison.core.progress import silent
from jettison.engines.onnxruntime import OnnxRuntimeRunner
from jettison.pipeline.entrance import enter
from jettison.pipeline.steps import Steps
from jettison.sources.source import Source

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

X = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    np.savez(tmp_path / "calibration.npz", x=X)
    (tmp_path / "entrance_nets.py").write_text(
        "import pathlib\nimport torch\n\n\n"
        "def loading():\n"
        "    module = torch.nn.Linear(3, 2)\n"
        "    module.load_state_dict(torch.load(pathlib.Path(__file__).parent / 'own.pt'))\n"
        "    return module\n\n\n"
        "def drawing():\n    return torch.nn.Linear(3, 2)\n\n\n"
        "def broken():\n    raise KeyError('no such weights')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def entered(folder, name):
    steps = Steps(Store(folder / "steps"), silent, "here", threads=1)
    return enter(Source(torch=f"entrance_nets:{name}"), str(folder / "calibration.npz"), steps).path


def save_weights(folder, seed):
    torch.manual_seed(seed)
    module = torch.nn.Linear(3, 2)
    torch.save(module.state_dict(), folder / "own.pt")
    return module(torch.from_numpy(X)).detach().numpy()


def answer(path):
    return OnnxRuntimeRunner(path, threads=1).run({"x": X})


def test_other_weights_that_the_function_loads_itself_are_another_model(folder):
    save_weights(folder, 1)
    before = entered(folder, "loading")
    assert entered(folder, "loading") == before
    wanted = save_weights(folder, 2)
    after = entered(folder, "loading")
    assert after != before
    (found,) = answer(after).values()
    np.testing.assert_allclose(found, wanted, atol=1e-5)  # another order of sums


def test_a_function_that_draws_its_weights_gives_the_same_model_again(folder):
    assert entered(folder, "drawing") == entered(folder, "drawing")
    assert len(list((folder / "steps").glob("export-*"))) == 1


def test_a_function_that_fails_is_told_before_any_export(folder):
    with pytest.raises(
        ModelError, match=r"failed with KeyError: 'no such weights' \(entrance_nets\.py, line"
    ):
        entered(folder, "broken")
    assert not list((folder / "steps").glob("*"))
