"""`jettison ab start`: a router in front of two models, and what is refused before anything is written."""

from __future__ import annotations

import json
import shutil

import pytest
from ab_world import ASKED, BEGIN, SHADOW, SPLIT, folder_of, repository

from jettison.cli.ab_start import StartedDocument
from jettison.core.files import sha256_of
from jettison.experiment.registry import end, read_registry
from jettison.triton.repository import ModelFolder
from jettison.triton.router import RouterState, read_state


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return repository(tmp_path)


def test_an_experiment_begins(jettison, place):
    answer = jettison(*SHADOW, "--json")
    assert answer.code == 0
    assert set(answer.document) == set(StartedDocument.model_fields)
    folder, document = folder_of(), answer.document
    settings, setup = folder.settings(), folder.setup()
    assert (document["experiment"], document["folder"]) == (settings.id, str(folder.path))
    model = place / "fashion-int8" / "1" / "model.onnx"
    assert settings.candidate == f"sha256:{sha256_of(model)}"
    assert (setup.candidate.model, setup.candidate.version) == ("fashion-int8", 1)
    state = RouterState(mode="shadow", experiment=settings.id, salt=settings.id)
    assert read_state(folder.state_path) == state
    config = ModelFolder(place / "night").config()
    parameters = {key: entry.string_value for key, entry in config.parameters.items()}
    assert parameters["state_path"] == str(folder.state_path)
    assert (parameters["unit_max_requests"], parameters["task"]) == ("1", "classification")
    (entry,) = read_registry(folder.registry_path)
    assert (entry.experiment, entry.name, entry.ending) == (settings.id, "night", None)
    assert document["loaded"] is None
    assert "restart the server" in document["notes"][0]


def test_two_versions_of_one_model_are_compared(jettison, place):
    """A newer one that is published meanwhile changes nothing, and retires neither."""
    source = place / "fashion-int8" / "1" / "model.onnx"
    publish = ("publish", source, "--repository", "models", "--name", "fashion-fp32")
    assert jettison(*publish).code == 0
    sides = ("--baseline", "fashion-fp32@1", "--candidate", "fashion-fp32@2")
    assert jettison(*SHADOW, *sides).code == 0
    parameters = ModelFolder(place / "night").config().parameters
    asked = [parameters[f"{side}_version"].string_value for side in ("baseline", "candidate")]
    assert asked == ["1", "2"]
    for _ in range(2):
        assert jettison(*publish).code == 0
    assert ModelFolder(place / "fashion-fp32").listed_versions() == [1, 2, 3, 4]
    assert jettison("ab", "promote", "night", "--because", "a test").code == 0


def test_words_name_the_next_commands(jettison, place):
    answer = jettison(*SHADOW)
    assert answer.out.startswith("experiment night begins: ")
    assert "clients call night (version 1), mode shadow" in answer.out
    commands = answer.out.partition("next:\n")[2].splitlines()
    assert commands == [
        f"  jettison serve {place}",
        "  jettison ab status night --watch",
        "  jettison ab label labels.csv --name night",
        "  jettison ab wait night",
    ]


def test_beginning_again_in_the_same_words_goes_on(jettison, place):
    first = jettison(*SHADOW, "--json").document
    again = jettison(*SHADOW, "--json").document
    assert (first["resumed"], again["resumed"]) == (False, True)
    assert (again["experiment"], again["version"]) == (first["experiment"], 1)
    assert len(read_registry(folder_of().registry_path)) == 1


@pytest.mark.parametrize("lost", ["router", "state", "folder"])
def test_a_start_that_died_is_completed(jettison, place, lost):
    first = jettison(*SHADOW, "--json").document
    folder = folder_of()
    if lost == "folder":
        shutil.rmtree(folder.path)
    if lost in ("router", "folder"):
        shutil.rmtree(place / "night")
    if lost == "state":
        folder.state_path.unlink()
    again = jettison(*SHADOW, "--json").document
    assert (again["experiment"], again["version"]) == (first["experiment"], 1)
    assert read_state(folder.state_path).mode == "shadow"
    assert len(read_registry(folder.registry_path)) == 1


def test_a_split_begins_at_the_first_share(jettison, place):
    document = jettison(*SPLIT, "--json").document
    assert (document["mode"], document["weight"]) == ("split", 0.01)
    assert read_state(folder_of().state_path).weight == 100
    notes = " / ".join(document["notes"])
    assert "it proves no quality, so that no verdict promotes it" in notes
    assert "or after 1,000 units at 50.00% with exit code 4" in notes
    assert "nothing limits its latency: --latency-limit-ms does" in notes


def test_further_settings_come_from_a_file(jettison, place, tmp_path):
    (tmp_path / "rules.yaml").write_text("slices: [{name: dress, margin: 0.05}]\nmax_loss: 0.02\n")
    assert jettison(*SHADOW, "--rules", "rules.yaml", "--latency-limit-ms", 50).code == 0
    settings = folder_of().settings()
    assert (settings.slices[0].name, settings.max_loss) == ("dress", 0.02)
    assert settings.latency.limit_ms == 50
    parameters = ModelFolder(place / "night").config().parameters
    assert parameters["latency_limit_ms"].string_value == "50.0"


def test_another_margin_for_the_same_models_is_refused_and_a_reason_is_kept(jettison, place):
    jettison(*SHADOW)
    folder = folder_of()
    settings = folder.settings()
    again = [{"night": "noon", 0.02: 0.03}.get(word, word) for word in SHADOW]
    refused = jettison(*again, "--router", "noon", "--data-source", "shadow:night", "--json")
    assert refused.code == 2
    assert "under other settings" in refused.document["error"]["detail"]
    assert not (place / "noon").exists()
    assert not folder_of("noon").path.exists()
    end(folder.registry_path, settings.id, "rollback", now="2026-03-01T18:00:00+00:00")
    kept = jettison(
        *again, "--router", "noon", "--data-source", "shadow:night", "--because", "a bug", "--json"
    )
    assert kept.code == 0
    assert read_registry(folder.registry_path)[-1].because == "a bug"


def test_a_router_serves_one_experiment_at_a_time(jettison, place):
    jettison(*SHADOW)
    other = [{"night": "noon"}.get(word, word) for word in SHADOW]
    answer = jettison(*other, "--router", "night", "--json")
    assert answer.code == 2
    assert (
        answer.document["error"]["detail"] == "it stands before the models of experiment 'night', which runs"
    )
    assert answer.document["error"]["fix"] == "End that one first: jettison ab rollback night"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*BEGIN, *ASKED), "mode shadow compares answers, and nothing says how"),
        ((*BEGIN, "--task", "classification"), "the key 'margin' is missing"),
        ((*SHADOW, "--margin", 2), "margin: expected a number below 1, found 2.0"),
        ((*SHADOW, "--mode", "canary"), "expected shadow or split, found 'canary'"),
        ((*SHADOW, "--mode", "split"), "mode split needs a share of the candidate"),
        ((*SHADOW, "--ramp", "0.1"), "mode shadow has no shares"),
        ((*SPLIT, "--ramp", "0.5,0.1"), "expected shares that grow, from 0.0001 to 0.9999, found '0.5,0.1'"),
        ((*SPLIT, "--ramp", "half"), "expected numbers, found 'half'"),
        ((*SPLIT, "--ramp", "1"), "expected shares that grow"),
        ((*SHADOW, "--baseline", "fashion"), "there is no published model 'fashion' in models"),
        ((*SHADOW, "--baseline", "fashion-fp32@2"), "expected a version that is served, 1, found '2'"),
        ((*SHADOW, "--candidate", "fashion-fp32@1"), "expected three names"),
        ((*SHADOW, "--candidate", "fashion-fp32"), "expected three names"),
        ((*SHADOW, "--output", "scores"), "expected outputs ['scores'] to compare, found ['logits']"),
        ((*SHADOW, "--router-option", "sample_share"), "expected KEY=VALUE, found 'sample_share'"),
        ((*SHADOW, "--router-option", "sample_share=2"), "sample_share: expected 1 or less, found '2'"),
        ((*SHADOW, "--router-option", "node=x"), "node follows from the experiment"),
        ((*BEGIN, *ASKED[:5], "request", "--task", "classification"), "found 'request'"),
        ((*SHADOW, "--rules", "none.yaml"), "there is no such file"),
        ((*SHADOW, "--rules", "twice.yaml"), "margin is given by an option"),
        ((*SHADOW, "--rules", "odd.yaml"), "unknown key 'slicez'"),
        ((*SHADOW, "--node", "a b"), "node: expected"),
        ((*SPLIT, "--max-units", 100), "max_units judges units that both have answered, and in mode split"),
        ((*SPLIT, "--evidence", "agreement"), "evidence: agreement judges units that both"),
        ((*SPLIT, "--rules", "parts.yaml"), "slices judges units that both have answered"),
        ((*SHADOW, "--key", "none.key"), "there is no such file"),
    ],
)
def test_wrong_input_writes_nothing(jettison, place, tmp_path, arguments, words):
    (tmp_path / "twice.yaml").write_text("margin: 0.1\n")
    (tmp_path / "odd.yaml").write_text("slicez: []\n")
    (tmp_path / "parts.yaml").write_text("slices: [{name: night, margin: 0.01}]\n")
    answer = jettison(*arguments, "--json")
    assert answer.code == 2
    assert words in answer.document["error"]["detail"]
    assert not folder_of().path.exists()
    assert sorted(path.name for path in place.iterdir()) == ["fashion-fp32", "fashion-int8"]


def test_a_home_inside_the_repository_is_refused(jettison, place):
    """Triton takes every folder there for a model, and would not start."""
    answer = jettison(*SHADOW, "--home", "models/experiments", "--json")
    assert answer.code == 2
    assert "expected a folder outside the repository" in answer.document["error"]["detail"]
    assert not (place / "experiments").exists()


def test_the_same_comparison_under_a_second_name_is_refused(jettison, place):
    jettison(*SHADOW, "--data-source", "shadow:gate")
    again = [{"night": "noon"}.get(word, word) for word in SHADOW]
    answer = jettison(*again, "--data-source", "shadow:gate", "--json")
    assert answer.code == 2
    assert answer.document["error"]["detail"] == "it runs already, under the name 'night'"
    assert not folder_of("noon").path.exists()


def test_a_name_of_a_file_in_the_home_is_refused(jettison, place):
    jettison(*SHADOW)
    answer = jettison(*[{"night": "registry.json"}.get(word, word) for word in SHADOW], "--json")
    assert answer.document["error"]["detail"] == "a file in the home has that name"


def test_one_file_twice_is_an_a_a_experiment(jettison, place):
    source = place / "fashion-fp32" / "1" / "model.onnx"
    assert jettison("publish", source, "--repository", "models", "--name", "fashion-again").code == 0
    document = jettison(*SHADOW, "--candidate", "fashion-again", "--json").document
    assert any("an A/A experiment" in note for note in document["notes"])
    assert folder_of().settings().is_aa


def test_a_router_takes_no_model_s_name(jettison, place):
    shutil.copytree(place / "fashion-fp32", place / "night")
    answer = jettison(*SHADOW, "--json")
    assert answer.code == 2
    assert "found a model of the backend 'onnxruntime'" in answer.document["error"]["detail"]
    assert not folder_of().path.exists()


def test_models_that_differ_are_refused(jettison, place):
    config = place / "fashion-int8" / "config.pbtxt"
    config.write_text(config.read_text().replace("dims: [ 10 ]", "dims: [ 11 ]"))
    answer = jettison(*SHADOW, "--json")
    assert answer.code == 2
    assert "the baseline has output logits TYPE_FP32 ?x10" in answer.document["error"]["detail"]


def test_a_file_that_was_changed_in_place_is_refused(jettison, place):
    (place / "fashion-int8" / "1" / "model.onnx").write_bytes(b"another")
    answer = jettison(*SHADOW, "--json")
    assert answer.document["error"]["detail"] == "model.onnx is not what was published"


def test_a_server_that_does_not_answer_is_told_after_the_experiment_stands(jettison, place):
    answer = jettison(*SHADOW, "--url", "127.0.0.1:9", "--json")
    assert answer.code == 4
    assert json.loads(answer.out)["error"]["what"] == "server 127.0.0.1:9"
    assert jettison(*SHADOW, "--json").document["resumed"]
