"""What a plan is, and which machine takes it."""

import pytest

from engine_records import engine
from jettison.core.engine import dotted, identity_of, read_record, same_version
from jettison.core.errors import InputError


def test_the_identity_knows_model_settings_and_version_and_not_the_bytes() -> None:
    assert engine(sha256="c" * 64).identity == engine().identity
    others = [
        engine(onnx="0"),
        engine(settings="{ }"),
        engine(tensorrt="10.13.4"),
        engine(module="tensorrt_rtx"),
    ]
    assert len({engine().identity, *(other.identity for other in others)}) == 5
    assert engine().identity == identity_of("a" * 64, "{}", module="tensorrt", version="10.13.3.9")


def test_a_plan_is_for_its_own_gpu_alone() -> None:
    assert [c for c in (80, 86, 87, 89, 90) if engine().runs_on(c)] == [89]
    with pytest.raises(
        InputError,
        match=r"plan for sm89: expected one for compute capability 8.7 \(Ampere \(Jetson Orin\)\), "
        r"found 8.9. Build it there: jettison build MODEL --target sm87",
    ):
        engine().check_capability(87)


def test_a_compatible_plan_runs_from_ampere_on_but_not_on_jetson() -> None:
    plan = engine(compatibility="ampere-plus")
    assert [c for c in (75, 80, 87, 89, 90, 110, 120) if plan.runs_on(c)] == [80, 89, 90, 120]


def test_another_version_is_told_with_both() -> None:
    engine().check_version("10.13.3")
    with pytest.raises(
        InputError, match=r"expected one by TensorRT 11.1.0, found 10.13.3.9. Build it in the image"
    ):
        engine().check_version("11.1.0")


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("10.13.3.9", "10.13.3", True),
        ("10.13.3.9+cuda12.9", "10.13.3.9", True),
        ("10.13.3.9", "10.13.3.8", False),
        ("10.13", "10.13.3", False),
    ],
)
def test_versions_are_one_where_the_parts_that_both_name_are(left: str, right: str, *, same: bool) -> None:
    assert same_version(left, right) is same


def test_shapes_outside_of_all_profiles_are_told() -> None:
    engine().check_shapes({"x": (8, 8)})
    with pytest.raises(InputError, match=r"x=1x8 to 8x8\), found x=9x8"):
        engine().check_shapes({"x": (9, 8)})


def test_triton_writes_capabilities_with_a_dot() -> None:
    assert [dotted(c) for c in (89, 120)] == ["8.9", "12.0"]


def test_what_is_no_record_is_told() -> None:
    with pytest.raises(InputError, match="engine out: expected the record of an engine"):
        read_record(b"{}", "engine out")
