"""Every check finds what was planted for it, under its own code and place, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import served_models as zoo
from releases import release_of

from engine_records import build_folder
from jettison.core.errors import InputError, RepositoryError
from jettison.pipeline.plans import plans_release
from jettison.triton.check.check import check, look_at, read_fleet
from jettison.triton.check.look import Fleet, FleetTarget
from jettison.triton.check.page import page
from jettison.triton.check.table import CHECKS
from jettison.triton.publish import publish
from jettison.triton.router import RouterOptions, publish_router, router_config

Plant = Callable[[Path], None]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two models, one of two versions, and a router before them."""
    root, work = tmp_path / "repository", tmp_path / "work"
    work.mkdir()
    publish(release_of(work, name="one", factor=2.0), root)
    publish(release_of(work, name="one", factor=3.0), root)
    publish(release_of(work, name="two", factor=2.0), root)
    one, two = (release_of(work, name=name).config for name in ("one", "two"))
    options = RouterOptions(state_path=work / "state.json", counter_folder=work / "counters", node="n1")
    publish_router(router_config("front", one, two, options=options), root, created=zoo.CREATED)
    return root


def edit(path: str, before: str, after: str) -> Plant:
    """Replace text in a file that has it."""

    def plant(root: Path) -> None:
        text = (root / path).read_text()
        assert before in text
        (root / path).write_text(text.replace(before, after))

    return plant


def add(path: str, text: str = "x") -> Plant:
    def plant(root: Path) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)

    return plant


def folder(path: str) -> Plant:
    return lambda root: (root / path).mkdir(parents=True)


def remove(path: str) -> Plant:
    return lambda root: (root / path).unlink()


def rename(path: str, other: str) -> Plant:
    return lambda root: (root / path).rename(root / other) and None


def mode(path: str, bits: int) -> Plant:
    return lambda root: (root / path).chmod((root / path).stat().st_mode | bits)


def new_model(path: str, **shape: object) -> Plant:
    """Another graph under a configuration that stays as it was; the manifest goes, which would tell first."""

    def plant(root: Path) -> None:
        model, _, _ = zoo.affine(2.0, **shape)  # type: ignore[arg-type]
        (root / path).unlink()
        onnx.save(model, root / path)
        (root / path).with_name("manifest.json").unlink()

    return plant


def other_name(root: Path) -> None:
    path = root / "two/1/model.onnx"
    model = onnx.load(path)
    model.graph.output[0].name = "z"
    model.graph.node[-1].output[0] = "z"
    onnx.save(model, path)
    (root / "two/1/manifest.json").unlink()


def manifest_of_another(root: Path) -> None:
    text = json.loads((root / "two/1/manifest.json").read_text())
    text["version"] = 7
    (root / "two/1/manifest.json").write_text(json.dumps(text))


CONFIG = "two/config.pbtxt"
CACHE = "response_cache { enable: true }\n"
ENSEMBLE = """platform: "ensemble"
max_batch_size: 8
ensemble_scheduling { step [ { model_name: "gone" model_version: -1 } ] }
"""
PLAN = """backend: "tensorrt"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 4 ] }
cc_model_filenames { key: "8.9" value: "model.plan" }
"""


def plan(root: Path) -> None:
    add("plan/config.pbtxt", PLAN)(root)
    add("plan/1/model.plan")(root)


FAULTS: list[tuple[str, str, str, Plant]] = [
    ("hidden folder", "R001", ".git", folder(".git")),
    ("staging folder", "R001", ".repository.staging", folder(".repository.staging")),
    ("lost and found", "R001", "lost+found", folder("lost+found")),
    ("empty folder", "R001", "notes", folder("notes")),
    ("scratch version", "R002", "two/3.tmp", folder("two/3.tmp")),
    ("backup version", "R002", "two/2_bak", folder("two/2_bak")),
    ("leading zero", "R002", "two/01", folder("two/01")),
    ("version zero", "R002", "two/0", folder("two/0")),
    ("file named by digits", "R002", "two/12", add("two/12")),
    ("another name", "R003", CONFIG, edit(CONFIG, 'name: "two"', 'name: "other"')),
    ("renamed folder", "R003", "three/config.pbtxt", rename("two", "three")),
    ("odd folder name", "R003", "t wo", rename("two", "t wo")),
    ("version not there", "R004", CONFIG, edit(CONFIG, "versions: [ 1 ]", "versions: [ 1, 7 ]")),
    ("no versions", "R004", "two", rename("two/1", "../moved")),
    ("bytes changed in place", "R005", "two/1", add("two/1/model.onnx", "other bytes")),
    ("recorded file gone", "R005", "two/1", remove("two/1/model.onnx")),
    ("torn manifest", "R005", "two/1", add("two/1/manifest.json", '{"model": "tw')),
    ("manifest of another version", "R005", "two/1", manifest_of_another),
    ("stray file", "R006", "two/README.md", add("two/README.md")),
    ("stray folder", "R006", "two/notes", folder("two/notes")),
    ("editor's backup", "R006", "two/config.pbtxt~", add("two/config.pbtxt~")),
    ("artifact gone", "R007", "two/1", remove("two/1/model.onnx")),
    ("artifact of another name", "R007", "two/1", edit(CONFIG, '"model.onnx"', '"model_v2.onnx"')),
    ("artifact outside", "R007", "two/1", edit(CONFIG, '"model.onnx"', '"../../one/1/model.onnx"')),
    ("no configuration", "C100", CONFIG, remove(CONFIG)),
    ("broken configuration", "C100", CONFIG, edit(CONFIG, "max_batch_size: 8", "max_batch_size: eight")),
    ("unknown field", "C100", CONFIG, edit(CONFIG, "max_batch_size", "max_batchsize")),
    ("no text", "C100", CONFIG, lambda root: (root / CONFIG).write_bytes(b"\xff\xfe\x00") and None),
    ("other dims", "C101", "two/1", edit(CONFIG, "dims: [ 3 ]", "dims: [ 5 ]")),
    ("batch axis in dims", "C101", "two/1", edit(CONFIG, "dims: [ 3 ]", "dims: [ -1, 3 ]")),
    ("fixed batch behind batching", "C101", "two/1", new_model("two/1/model.onnx", batch=2)),
    ("unknown input", "C102", "two/1", edit(CONFIG, 'name: "x"', 'name: "image"')),
    ("another type", "C102", "two/1", edit(CONFIG, "TYPE_FP32", "TYPE_FP16")),
    ("renamed output", "C102", "two/1", other_name),
    ("preferred above largest", "C103", CONFIG,
     edit(CONFIG, "dynamic_batching { }", "dynamic_batching { preferred_batch_size: [ 16 ] }")),
    ("batching without batches", "C103", CONFIG, edit(CONFIG, "max_batch_size: 8", "max_batch_size: 0")),
    ("profile of no plan", "C104", CONFIG, edit(CONFIG, "kind: KIND_CPU", 'kind: KIND_CPU profile: "0"')),
    ("cache on a router", "C105", "front/config.pbtxt",
     edit("front/config.pbtxt", "backend:", CACHE + "backend:")),
    ("cache on a decoupled model", "C105", CONFIG,
     edit(CONFIG, "backend:", CACHE + "model_transaction_policy { decoupled: true }\nbackend:")),
    ("cache on a sequence", "C105", CONFIG,
     edit(CONFIG, "dynamic_batching { }", CACHE + "sequence_batching { }")),
    ("torn model", "C106", "two/1/model.onnx", add("two/1/model.onnx", "no onnx")),
    ("step that is not there", "C108", "chain/config.pbtxt", add("chain/config.pbtxt", ENSEMBLE)),
    ("router before nothing", "A401", "front/config.pbtxt", rename("two", "../moved")),
    ("router before a version that went", "A401", "front/config.pbtxt",
     edit("front/config.pbtxt", 'key: "candidate_version"\n  value {\n    string_value: "-1"',
          'key: "candidate_version"\n  value {\n    string_value: "7"')),
    ("variant of other batches", "A401", "front/config.pbtxt",
     edit(CONFIG, "max_batch_size: 8", "max_batch_size: 4")),
    ("all may write the root", "S501", ".", mode(".", 0o002)),
    ("all may write a configuration", "S501", CONFIG, mode(CONFIG, 0o002)),
    ("library beside a model", "S502", "two/1/libhook.so", add("two/1/libhook.so")),
    ("script beside a model", "S502", "two/1/model.py", add("two/1/model.py")),
]  # fmt: skip


@pytest.mark.parametrize(("title", "code", "where", "plant"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_each_planted_fault_is_found_where_it_is(
    root: Path, title: str, code: str, where: str, plant: Plant
) -> None:
    plant(root)
    assert (code, where) in {(finding.code, finding.where) for finding in check(root)}


def test_a_published_repository_has_no_findings(root: Path) -> None:
    assert check(root) == ()


def fleet(*targets: FleetTarget) -> Fleet:
    return Fleet(targets=targets)


def test_a_gpu_of_the_fleet_without_a_plan_is_found(root: Path) -> None:
    plan(root)
    ada, orin = FleetTarget(name="l4", compute="8.9"), FleetTarget(name="orin", compute="8.7")
    assert check(root, fleet=fleet(ada)) == ()
    found = check(root, fleet=fleet(ada, orin))
    assert [(finding.code, finding.where) for finding in found] == [("P202", "plan/config.pbtxt")]
    assert "found none for ['8.7']" in found[0].message


def test_plans_with_code_of_their_own_need_a_server_that_was_told(root: Path, tmp_path: Path) -> None:
    def put(name: str, **fields: object) -> None:
        made = build_folder(tmp_path / name, 89, **fields)
        publish(plans_release(made, "plan", created=zoo.CREATED), root)

    def codes(target: FleetTarget) -> set[tuple[str, str]]:
        return {(each.code, each.where) for each in check(root, fleet=fleet(target))}

    put("with", version_compatible=True)
    assert codes(FleetTarget(name="l4", compute="8.9")) == {("P203", "plan/1")}
    assert codes(FleetTarget(name="l4", compute="8.9", version_compatible=True)) == set()
    assert codes(FleetTarget(name="cpu")) == set()
    shutil.rmtree(root / "plan")
    put("without")
    assert codes(FleetTarget(name="l4", compute="8.9")) == set()


def test_a_target_without_memory_for_a_change_is_found(root: Path) -> None:
    add("two/1/weights.bin", "x" * (1 << 20))(root)
    assert check(root, fleet=fleet(FleetTarget(name="cart", memory_mib=8))) == ()
    found = check(root, fleet=fleet(FleetTarget(name="cart", memory_mib=1)))
    assert [(finding.code, finding.where) for finding in found] == [("G302", "fleet target cart")]


@pytest.mark.parametrize(
    ("tag", "is_old"), [("25.06-py3", True), ("24.12-py3-igpu", True), ("25.07-py3", False), ("latest", True)]
)
def test_images_with_known_holes_are_found(root: Path, tag: str, is_old: bool) -> None:
    assert bool(check(root, images=[tag])) is is_old
    assert bool(check(root, fleet=fleet(FleetTarget(name="cart", image=tag)))) is is_old


GOOD = {
    "ensemble": ('platform: "ensemble"\nmax_batch_size: 8\nensemble_scheduling { step [ { model_name: "one" '
                 'model_version: -1 input_map { key: "x" value: "x" } '
                 'output_map { key: "y" value: "y" } } ] }', "1/"),
    "python": ('backend: "python"\nmax_batch_size: 4', "1/model.py"),
    "torchscript": ('platform: "pytorch_libtorch"\nmax_batch_size: 4', "1/model.pt"),
    "plan": ('platform: "tensorrt_plan"\nmax_batch_size: 8', "1/model.plan"),
    "profiled": ('backend: "tensorrt"\nmax_batch_size: 8\ninstance_group { kind: KIND_GPU profile: "0" }',
                 "1/model.plan"),
    "mixed": ('backend: "tensorrt"\ncc_model_filenames { key: "8.9" value: "ada.plan" }\n'
              'default_model_filename: "ada.plan"', "1/ada.plan"),
    "openvino": ('backend: "openvino"', "1/model.xml"),
    "custom": ('backend: "identity"\nmax_batch_size: 64', "1/"),
    "sequence": ('backend: "python"\nmax_batch_size: 8\n'
                 'sequence_batching { max_sequence_idle_microseconds: 5000 }', "1/model.py"),
    "labelled": ('backend: "python"\noutput { name: "y" data_type: TYPE_FP32 dims: [ 10 ] '
                 'label_filename: "labels.txt" }', "labels.txt"),
    "warmed": ('backend: "python"\nmax_batch_size: 1', "warmup/raw"),
    "configured": ('backend: "python"', "configs/orin.pbtxt"),
    "all": ('backend: "python"\nversion_policy { all { } }', "3/model.py"),
    "latest": ('backend: "python"\nversion_policy { latest { num_versions: 2 } }', "3/model.py"),
    "cached": ('backend: "python"\nresponse_cache { enable: true }', "1/model.py"),
    "decoupled": ('backend: "python"\nmodel_transaction_policy { decoupled: true }', "1/model.py"),
    "limited": ('backend: "python"\ninstance_group { kind: KIND_CPU rate_limiter { resources [ { name: "r" '
                'count: 1 } ] } }', "1/model.py"),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_good_models_of_other_tools_raise_no_false_alarm(root: Path, name: str) -> None:
    text, path = GOOD[name]
    add(f"{name}/config.pbtxt", text)(root)
    (root / name / "1").mkdir()
    if "python" in text:
        add(f"{name}/1/model.py")(root)
    if not path.endswith("/"):
        add(f"{name}/{path}")(root)
    assert check(root) == ()


@pytest.mark.parametrize("tiny", ["affine", "total", "row_totals", "pair", "passer", "embedding", "words"])
def test_what_jettison_publishes_raises_no_false_alarm(tmp_path: Path, tiny: str) -> None:
    zoo.published(tmp_path / "root", tmp_path, tiny, getattr(zoo, tiny)())
    assert check(tmp_path / "root") == ()


def test_model_with_external_data_raises_no_false_alarm(root: Path, tmp_path: Path) -> None:
    files, inputs, outputs = zoo.external(tmp_path)
    publish(zoo.Release(zoo.config_of("external", inputs, outputs), files, zoo.CREATED), root)
    assert check(root) == ()


def test_every_check_has_a_planted_fault_or_a_test_of_its_own() -> None:
    signed = {f"V70{number}" for number in range(1, 6)}  # tests/triton/test_seal.py
    planted = {code for _, code, _, _ in FAULTS} | {"P201", "P202", "P203", "P206", "G302", "S503", "C107"}
    planted |= signed
    assert {rule.code for rule in CHECKS} == planted


def test_types_that_no_request_carries_are_found(root: Path) -> None:
    path = root / "two/1/model.onnx"
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.BFLOAT16
    for tensor in model.graph.initializer:
        raw = np.zeros(tuple(tensor.dims), np.uint16).tobytes()
        tensor.CopyFrom(
            onnx.helper.make_tensor(tensor.name, onnx.TensorProto.BFLOAT16, tensor.dims, raw, raw=True)
        )
    onnx.save(model, path)
    assert ("C107", "two/1") in {(finding.code, finding.where) for finding in check(root)}


def test_nothing_in_the_repository_is_changed(root: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    check(root)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_a_missing_repository_is_told(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="there is no such folder"):
        check(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(RepositoryError, match="expected a folder, found a file"):
        look_at(tmp_path / "file")


def test_a_fleet_is_read_and_wrong_ones_are_told(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text('targets: [{name: orin, compute: "8.7", memory_mib: 8192, image: 25.08-py3-igpu}]')
    assert read_fleet(path) == fleet(
        FleetTarget(name="orin", compute="8.7", memory_mib=8192, image="25.08-py3-igpu")
    )
    with pytest.raises(InputError, match="there is no such file"):
        read_fleet(tmp_path / "none.yaml")
    for text, words in (
        ("targets: [{name: orin, compute: 8.7}]", "compute"),
        ("targets: [{name: orin, gpu: x}]", "gpu"),
        ("targets: [{name: orin, memory: 8192}]", "'targets.0.memory'. Did you mean 'memory_mib'"),
        ("targets: [", "fleet"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=words):
            read_fleet(path)


def test_a_folder_that_cannot_be_a_configuration_stops_nothing(root: Path) -> None:
    (root / CONFIG).unlink()
    os.mkfifo(root / CONFIG)
    assert ("C100", CONFIG) in {(finding.code, finding.where) for finding in check(root)}


def test_the_page_of_checks_is_up_to_date() -> None:
    text = (Path(__file__).parents[2] / "docs/check.md").read_text()
    assert text == page(), "run: python -m jettison.triton.check.page > docs/check.md"
