"""What a variant's record keeps of pruning, and what the passes behind it get."""

from __future__ import annotations

import onnx
import pytest
from pydantic import BaseModel, ConfigDict

from jettison.compress.passes import PassResult
from jettison.compress.pruning.two_to_four import PruneTwoToFour
from jettison.core.artifacts import Store
from jettison.core.progress import silent
from jettison.core.samples import samples_of
from jettison.core.targets import parse_target
from jettison.graph.model import input_specs, open_model
from jettison.pipeline.steps import Bench, Steps
from jettison.recipe import Variant
from zoo.builder import image_net

CPU = parse_target("cpu")
EQUALIZED = "channels were equalized after pruning"


class Equalizing(BaseModel):
    """A pass that keeps the model and says whether it stands for another one."""

    model_config = ConfigDict(frozen=True)

    quantize: str = "full"
    stands_for_another: bool

    def check(self, _piece):
        return None

    def __call__(self, piece, _samples):
        found = piece.recalled("figures", lambda: {"seen": 1.0})
        assert found == {"seen": 1.0}
        assert piece.measure is not None
        return PassResult(piece.model, counterpart=piece.model if self.stands_for_another else None)


@pytest.fixture
def made(tmp_path):
    net, x = image_net("small", 8)
    net.head(net.op("Relu", net.conv(x, (8, 8))), 8)
    onnx.save(net.model(), tmp_path / "model.onnx")
    steps = Steps(Store(tmp_path / "steps"), silent, "a machine", 1)
    source = steps.clean(tmp_path / "model.onnx")
    specs = input_specs(open_model(source.path))
    rows = image_net("small", 8)[0].rng.normal(0, 1, (8, *specs[0].shape[1:])).astype("float32")
    samples = samples_of({specs[0].name: rows}, specs=specs)

    def make(*passes):
        bench = Bench(lambda _: None, 0.01, "these")
        return steps.variant(source, Variant(name="it", passes=passes), CPU, samples, bench=bench)

    return make


@pytest.mark.parametrize("stands_for_another", [True, False])
def test_layers_compared_with_a_model_made_after_pruning_are_told(made, stands_for_another):
    record = made(PruneTwoToFour(), Equalizing(stands_for_another=stands_for_another)).record
    assert any(EQUALIZED in note for note in record.notes) == stands_for_another
    assert "2:4 holds in 2 of 2 layers of the finished model" in record.notes
    assert record.compressed_bytes


def test_without_pruning_there_is_nothing_to_tell(made):
    record = made(Equalizing(stands_for_another=True)).record
    assert record.notes == ()
    assert (record.pruned, record.compressed_bytes) == ((), None)


def test_every_pass_of_pruning_is_reported(made):
    record = made(PruneTwoToFour(method="magnitude"), PruneTwoToFour()).record
    assert [layer.removed > 0 for layer in record.pruned] == [True, True, False, False]


def test_channels_in_another_order_leave_the_float_model_in_that_order(made):
    file = made(PruneTwoToFour(method="magnitude", permute=True)).file
    assert file.counterpart is not None
    assert made(PruneTwoToFour(method="magnitude")).file.counterpart is None
