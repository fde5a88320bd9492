"""Plans for a mixed fleet: complete for it or refused, and found out where they do not fit."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine_records import build_folder, engine, span
from jettison.cli.verbs import app
from jettison.core.errors import InputError, RepositoryError, TargetError
from jettison.pipeline.plans import is_build_folder, plans_release, target_needs
from jettison.triton.check.check import check
from jettison.triton.check.look import Fleet, FleetTarget
from jettison.triton.pbtxt import write
from jettison.triton.plans import Need, config_of_plans, needs_of
from jettison.triton.publish import publish

CREATED = "2026-01-01T00:00:00+00:00"
ADA = FleetTarget(name="l4", compute="8.9")
ORIN = FleetTarget(name="orin", compute="8.7")


def test_each_gpu_finds_its_plan() -> None:
    config = config_of_plans("m", [engine(89), engine(87)], needs=needs_of([ADA, ORIN]))
    assert (config.platform, config.max_batch_size) == ("tensorrt_plan", 8)
    assert config.cc_model_filenames == {"8.7": "model.sm87.plan", "8.9": "model.sm89.plan"}
    assert config.default_model_filename == "model.sm89.plan"
    assert config.instance_group[0].kind == "KIND_GPU"
    assert config.instance_group[0].profile == ()
    assert 'key: "8.7"' in write(config)


def test_a_machine_without_a_plan_is_refused_by_its_name() -> None:
    with pytest.raises(
        RepositoryError,
        match=r"model 'm': expected a plan for each machine, found none for orin \(plans are for sm89\). "
        r"Build with --target sm87, or leave the machine out",
    ):
        config_of_plans("m", [engine(89)], needs=needs_of([ADA, ORIN]))


def test_a_compatible_plan_serves_other_gpus_but_never_jetson() -> None:
    plan = engine(80, compatibility="ampere-plus")
    config = config_of_plans("m", [plan], needs=[Need("l4", 89)])
    assert config.cc_model_filenames == {"8.0": "model.sm80.plan", "8.9": "model.sm80.plan"}
    with pytest.raises(RepositoryError, match="found none for orin"):
        config_of_plans("m", [plan], needs=[Need("orin", 87)])


def test_a_plan_of_its_own_goes_before_a_compatible_one() -> None:
    plans = [engine(80, compatibility="ampere-plus"), engine(89)]
    config = config_of_plans("m", plans, needs=[Need("l4", 89)])
    assert config.cc_model_filenames["8.9"] == "model.sm89.plan"


def test_a_plan_of_another_tensorrt_than_its_machines_is_refused() -> None:
    with pytest.raises(InputError, match=r"plan for sm89: expected one by TensorRT 10.3.0, found 10.13.3.9"):
        config_of_plans("m", [engine(89)], needs=[Need("l4", 89, "10.3.0")])


def test_plans_of_the_stand_in_are_never_published() -> None:
    with pytest.raises(RepositoryError, match="found one of tensorrt_rtx, of no use to Triton"):
        config_of_plans("m", [engine(89, module="tensorrt_rtx")])


def test_plans_that_clients_can_tell_apart_are_refused() -> None:
    other = engine(87, profiles=(span(), span(2, 4)))
    with pytest.raises(RepositoryError, match="found others for sm87 than for sm89"):
        config_of_plans("m", [engine(89), other])


def test_several_profiles_are_all_used_and_the_smallest_maximum_holds() -> None:
    two = (span(1, 1), span(2, 16))
    config = config_of_plans("m", [engine(89, profiles=two), engine(87, profiles=(span(1, 1), span(2, 4)))])
    assert config.instance_group[0].profile == ("0", "1")
    assert config.max_batch_size == 4


def test_a_plan_that_takes_no_single_sample_is_refused() -> None:
    with pytest.raises(RepositoryError, match="expected a profile for batches from 1 on"):
        config_of_plans("m", [engine(89, profiles=(span(4, 8),))])


def test_a_build_folder_is_published_with_its_records(tmp_path: Path) -> None:
    folder = build_folder(tmp_path / "engines", 87, 89)
    assert is_build_folder(folder)
    assert is_build_folder(folder / "sm87")
    release = plans_release(folder, "m", created=CREATED, needs=target_needs("sm87, sm89"))
    root = tmp_path / "repository"
    publish(release, root)
    assert (root / "m/1/model.sm87.plan").read_bytes() == b"plan for 87"
    assert check(root, fleet=Fleet(targets=(ADA, ORIN))) == ()


def test_a_torn_plan_is_found_before_it_is_published(tmp_path: Path) -> None:
    folder = build_folder(tmp_path, 89)
    (folder / "sm89/model.plan").write_bytes(b"plan")
    with pytest.raises(
        RepositoryError, match="expected the file that was built, found none, another or a torn"
    ):
        plans_release(folder, "m", created=CREATED)


def test_a_folder_without_plans_and_a_target_without_a_gpu_are_told(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match=r"expected plans with their engine.json, found none"):
        plans_release(tmp_path, "m", created=CREATED)
    with pytest.raises(TargetError, match="target 'cpu': expected a compute capability"):
        target_needs("sm89,cpu")


def test_check_finds_a_plan_under_another_gpu_and_one_of_another_tensorrt(tmp_path: Path) -> None:
    release = plans_release(build_folder(tmp_path / "engines", 89), "m", created=CREATED)
    root = tmp_path / "repository"
    publish(release, root)
    config = root / "m/config.pbtxt"
    config.write_text(config.read_text().replace('"8.9"', '"8.7"'))
    found = check(root)
    assert [(f.code, f.where, f.message) for f in found] == [
        ("P206", "m/1", "expected a plan for compute capability 8.7, found one for 8.9")
    ]
    config.write_text(config.read_text().replace('"8.7"', '"8.9"'))
    old = FleetTarget(name="l4", compute="8.9", tensorrt="10.3.0")
    found = check(root, fleet=Fleet(targets=(old,)))
    assert [(f.code, f.where, f.message) for f in found] == [
        ("P201", "m/1", "expected TensorRT 10.3.0 for l4, found 10.13.3.9")
    ]
    assert check(root, fleet=Fleet(targets=(old.model_copy(update={"tensorrt": "10.13.3"}),))) == ()


def test_the_verb_publishes_plans_for_a_fleet_or_refuses(tmp_path: Path) -> None:
    folder = build_folder(tmp_path / "engines", 89)
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text('targets: [{name: l4, compute: "8.9"}, {name: desk}]\n')
    command = [
        "publish",
        str(folder),
        "--repository",
        str(tmp_path / "r"),
        "--name",
        "m",
        "--fleet",
        str(fleet),
    ]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    refused = CliRunner().invoke(app, [*command[:-2], "--targets", "sm87"])
    assert isinstance(refused.exception, RepositoryError)
    assert not (tmp_path / "r/m/2").exists()
