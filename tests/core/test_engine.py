"""What a plan is, and which machine takes it."""

import pytest

from jettison.core.dtypes import of_name
from jettison.core.engine import EngineRecord, ProfileRange, dotted, identity_of, read_record, same_version
from jettison.core.errors import InputError
from jettison.core.tensors import TensorSpec


def record(capability: int = 89, **fields: object) -> EngineRecord:
    dtype = of_name("float32")
    assert dtype is not None
    told: dict[str, object] = {
        "onnx": "a" * 64,
        "settings": "{}",
        "module": "tensorrt",
        "tensorrt": "10.13.3.9",
        "compute_capability": capability,
        "architecture": "x86_64",
        "system": "Linux",
        "inputs": (TensorSpec(name="x", dtype=dtype, shape=("N", 8)),),
        "outputs": (TensorSpec(name="y", dtype=dtype, shape=("N", 4)),),
        "profiles": ((ProfileRange(name="x", minimum=(1, 8), optimum=(4, 8), maximum=(8, 8)),),),
        "sha256": "b" * 64,
    }
    return EngineRecord.model_validate({**told, **fields})


def test_the_identity_knows_model_settings_and_version_and_not_the_bytes() -> None:
    assert record(sha256="c" * 64).identity == record().identity
    others = [
        record(onnx="0"),
        record(settings="{ }"),
        record(tensorrt="10.13.4"),
        record(module="tensorrt_rtx"),
    ]
    assert len({record().identity, *(other.identity for other in others)}) == 5
    assert record().identity == identity_of("a" * 64, "{}", module="tensorrt", version="10.13.3.9")


def test_a_plan_is_for_its_own_gpu_alone() -> None:
    assert [c for c in (80, 86, 87, 89, 90) if record().runs_on(c)] == [89]
    with pytest.raises(
        InputError,
        match=r"plan for sm89: expected one for compute capability 8.7 \(Ampere \(Jetson Orin\)\), "
        r"found 8.9. Build it there: jettison build MODEL --target sm87",
    ):
        record().check_capability(87)


def test_a_compatible_plan_runs_from_ampere_on_but_not_on_jetson() -> None:
    plan = record(compatibility="ampere-plus")
    assert [c for c in (75, 80, 87, 89, 90, 110, 120) if plan.runs_on(c)] == [80, 89, 90, 120]


def test_another_version_is_told_with_both() -> None:
    record().check_version("10.13.3")
    with pytest.raises(
        InputError, match=r"expected one by TensorRT 11.1.0, found 10.13.3.9. Build it in the image"
    ):
        record().check_version("11.1.0")


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
    record().check_shapes({"x": (8, 8)})
    with pytest.raises(InputError, match=r"x=1x8 to 8x8\), found x=9x8"):
        record().check_shapes({"x": (9, 8)})


def test_triton_writes_capabilities_with_a_dot() -> None:
    assert [dotted(c) for c in (89, 120)] == ["8.9", "12.0"]


def test_what_is_no_record_is_told() -> None:
    with pytest.raises(InputError, match="engine out: expected the record of an engine"):
        read_record(b"{}", "engine out")
