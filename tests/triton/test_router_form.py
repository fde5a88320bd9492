"""The form of the candidate's answers: what does not fit never reaches a client."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import router_fakes as fakes
from router_fakes import Response, Tensor, World, counted, router, units, write_state

Y = np.float32([[2.0]])


@pytest.mark.parametrize(
    "answer",
    [
        Response([]),
        Response([Tensor("z", Y)]),
        Response([Tensor("y", Y[0])]),
        Response([Tensor("y", np.concatenate([Y, Y]))]),
        Response([Tensor("y", Y[None])]),
        Response([Tensor("y", Y.astype(np.float64))]),
        Response([Tensor("y", Y.view(np.int32))]),
    ],
    ids=["nothing", "another name", "no batch", "two rows", "an axis more", "doubles", "integers"],
)
def test_an_answer_of_another_form_is_answered_for(
    module: ModuleType, world: World, tmp_path: Path, answer: Response
) -> None:
    world.models["new"] = lambda _: answer
    write_state(tmp_path, mode="split", weight=9999)
    with router(module, world, tmp_path) as live:
        assert [found.y for found in live.ask(*units(3))] == [[2.0]] * 3
    assert counted(tmp_path)["all"]["arms"]["9999"]["candidate_errors"] == 3
    assert (world.metric("fallbacks"), world.metric("requests_candidate")) == (3, 0)


@pytest.mark.parametrize(
    ("dims", "shape", "is_good"),
    [([3], (2, 3), True), ([-1, 3], (2, 7, 3), True), ([-1, 3], (2, 3), False), ([4], (2, 3), False)],
)
def test_open_axes_take_any_size(
    monkeypatch: pytest.MonkeyPatch, world: World, dims: list[int], shape: tuple[int, ...], is_good: bool
) -> None:
    load: Any = fakes.load(monkeypatch, world)
    form = load("router_form").Form(
        {"max_batch_size": 8, "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": dims}]}
    )
    asked = load("router_calls").asked_of(fakes.Request(tensor=Tensor("x", np.zeros((2, 5), np.float32))))
    problem = form.problem(asked, Response([Tensor("y", np.zeros(shape, np.float32))]))
    expected = "" if is_good else f"output 'y': expected the shape {[2, *dims]}, found {list(shape)}"
    assert problem == expected
