"""State dicts: tensors only, and exactly the module's."""

from __future__ import annotations

import os
import sys

import pytest

from jettison.core.errors import MissingError, ModelError
from jettison.sources.state import load_state

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch


def module(width=3):
    return torch.nn.Sequential(torch.nn.Linear(2, width), torch.nn.BatchNorm1d(width))


class Payload:
    """Runs a command where it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def refusal(path, into=None):
    with pytest.raises(ModelError) as caught:
        load_state(into or module(), path)
    return str(caught.value)


def test_weights_and_buffers_are_taken(tmp_path):
    given = module()
    given(torch.randn(8, 2))  # moves the running statistics
    torch.save(given.state_dict(), tmp_path / "w.pt")
    found = module()
    load_state(found, tmp_path / "w.pt")
    assert all(torch.equal(value, given.state_dict()[key]) for key, value in found.state_dict().items())


def test_a_pickled_payload_is_refused_and_not_run(tmp_path):
    torch.save({"0.weight": Payload(f"touch {tmp_path / 'ran'}")}, tmp_path / "w.pt")
    words = refusal(tmp_path / "w.pt")
    assert "expected a state dict of tensors only, found pickled code or objects" in words
    assert "torch.save(model.state_dict(), path)" in words
    assert not (tmp_path / "ran").exists()


def test_a_whole_module_is_refused(tmp_path):
    torch.save(module(), tmp_path / "w.pt")
    assert "found pickled code or objects (torch.nn.modules.container.Sequential)" in refusal(
        tmp_path / "w.pt"
    )


def test_missing_and_unexpected_keys_are_told_in_short(tmp_path):
    state = module().state_dict()
    state["1.other"] = state.pop("0.bias")
    torch.save(state, tmp_path / "w.pt")
    assert "found 1 missing (0.bias) and 1 unexpected (1.other). Give the state dict of this" in refusal(
        tmp_path / "w.pt"
    )
    torch.save({"0.weight": torch.zeros(3, 2)}, tmp_path / "w.pt")
    assert "found 6 missing (0.bias, 1.bias, 1.num_batches_tracked, ...)" in refusal(tmp_path / "w.pt")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
def test_weights_of_a_wrapper_are_known(tmp_path, prefix):
    torch.save({f"{prefix}{key}": value for key, value in module().state_dict().items()}, tmp_path / "w.pt")
    assert f"All keys begin with '{prefix}', so it was saved from" in refusal(tmp_path / "w.pt")


def test_other_sizes_are_told(tmp_path):
    torch.save(module(4).state_dict(), tmp_path / "w.pt")
    assert "expected '0.weight' of shape [3, 2], found [4, 2]" in refusal(tmp_path / "w.pt")


def test_a_checkpoint_with_more_than_weights_is_told_by_its_keys(tmp_path):
    torch.save({"epoch": 3, "state_dict": module().state_dict()}, tmp_path / "w.pt")
    assert "expected a state dict of tensors, found a dict with epoch, state_dict" in refusal(
        tmp_path / "w.pt"
    )


@pytest.mark.parametrize("content", [b"", b"no weights at all", b"PK\x03\x04 torn"])
def test_what_is_no_state_dict_is_told(tmp_path, content):
    (tmp_path / "w.pt").write_bytes(content)
    assert refusal(tmp_path / "w.pt").startswith(f"state dict {tmp_path / 'w.pt'}: ")


def test_a_file_that_is_not_there_is_told(tmp_path):
    assert "there is no such file" in refusal(tmp_path / "w.pt")


def test_safetensors_are_read(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    given = module()
    safetensors.save_file(given.state_dict(), tmp_path / "w.safetensors")
    found = module()
    load_state(found, tmp_path / "w.safetensors")
    assert torch.equal(found[0].weight, given[0].weight)
    (tmp_path / "w.safetensors").write_bytes(b"torn")
    assert "it is no .safetensors file" in refusal(tmp_path / "w.safetensors")


def test_safetensors_without_the_library_names_it(tmp_path, monkeypatch):
    (tmp_path / "w.safetensors").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(MissingError, match="Run: pip install safetensors"):
        load_state(module(), tmp_path / "w.safetensors")
