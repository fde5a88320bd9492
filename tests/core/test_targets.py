"""Targets: their names, and what a wrong one is answered with."""

import pytest

from jettison.core.errors import TargetError
from jettison.core.targets import CAPABILITIES, parse_target


def test_cpu_speaks_the_cpu_dialect() -> None:
    target = parse_target("cpu")
    assert (target.dialect, target.compute_capability, target.is_gpu, str(target)) == (
        "cpu",
        None,
        False,
        "cpu",
    )


def test_tensorrt_means_any_gpu() -> None:
    target = parse_target("tensorrt")
    assert (target.dialect, target.compute_capability, target.is_gpu) == ("tensorrt", None, True)


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_every_supported_compute_capability_is_a_target(capability: int) -> None:
    target = parse_target(f"sm{capability}")
    assert (target.dialect, target.compute_capability, target.is_gpu) == ("tensorrt", capability, True)
    assert str(target) == f"sm{capability}"


def test_an_underscore_makes_no_other_target() -> None:
    assert parse_target("sm_89") == parse_target("sm89")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("sm88", "Did you mean sm89?"),
        ("tensort", "Did you mean tensorrt?"),
        ("CPU ", ""),
        ("sm1", ""),
        ("", ""),
        ("sm089", ""),
    ],
)
def test_a_wrong_target_is_answered_with_the_nearest_and_all_others(text: str, hint: str) -> None:
    with pytest.raises(TargetError) as caught:
        parse_target(text)
    assert str(caught.value).startswith(f"target {text!r}: there is no such target. {hint}")
    assert caught.value.fix.endswith(
        "Targets are cpu, tensorrt, sm75, sm80, sm86, sm87, sm89, sm90, sm100, sm103, sm110, sm120, sm121"
    )
    assert caught.value.exit_code == 2
