"""A router's configuration, release and state file, as the package writes them for the backend."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import router_fakes as fakes
import served_models as zoo
from pydantic import ValidationError
from served_models import CREATED

from jettison.core.errors import InputError, RepositoryError
from jettison.triton.config import ModelConfig, Reshape
from jettison.triton.pbtxt import parse, write
from jettison.triton.repository import ModelFolder
from jettison.triton.router import (
    BUCKETS,
    STATE_FORMAT,
    RouterOptions,
    RouterState,
    publish_router,
    read_state,
    router_config,
    write_state,
)
from jettison.triton.serving import Serving, config_of


@pytest.fixture(scope="module")
def load() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        yield fakes.load(patch, fakes.World())


def model(name: str, tiny: zoo.Tiny | None = None, **serving: object) -> ModelConfig:
    _, inputs, outputs = tiny or zoo.affine()
    return config_of(name, inputs, outputs, serving=Serving.model_validate(serving))


def options(folder: Path, **given: object) -> RouterOptions:
    return RouterOptions.model_validate(
        {
            "state_path": folder / "state.json",
            "counter_folder": folder / "counters",
            "node": "edge-1",
            **given,
        }
    )


def test_versions_that_a_router_names_are_not_retired(tmp_path: Path) -> None:
    root = tmp_path / "models"
    for factor in (2.0, 3.0):
        config = zoo.published(root, tmp_path, "m", zoo.affine(factor))
    named = options(tmp_path, baseline_version=1, candidate_version=2)
    publish_router(router_config("r", config, config, options=named), root, created=CREATED)
    for factor in (4.0, 5.0, 6.0):
        zoo.published(root, tmp_path, "m", zoo.affine(factor))
    assert ModelFolder(root / "m").listed_versions() == [1, 2, 4, 5]


@pytest.mark.parametrize("versions", [(-1, -1), (1, 1), (-1, 1)])
def test_one_model_is_two_sides_only_by_two_versions(tmp_path: Path, versions: tuple[int, int]) -> None:
    """The newest may be the very version that is named."""
    named = options(tmp_path, baseline_version=versions[0], candidate_version=versions[1])
    with pytest.raises(RepositoryError, match="expected three names, found 'r' before 'm' and 'm'"):
        router_config("r", model("m"), model("m"), options=named)


def test_the_configuration_is_complete_and_survives_its_text(tmp_path: Path) -> None:
    config = router_config("r", model("old"), model("new"), options=options(tmp_path))
    text = write(config)
    assert parse(text) == config
    assert 'backend: "jettison_router"' in text
    assert "max_batch_size: 8" in text
    assert "dynamic_batching { }" in text
    assert "  kind: KIND_CPU\n  count: 2" in text
    assert "response_cache" not in text
    assert config.default_model_filename == ""


def test_the_backend_reads_every_option_that_is_written_and_has_the_same_defaults(
    load: Any, tmp_path: Path
) -> None:
    module = load("router_settings")
    given = options(tmp_path)
    parameters = given.parameters("old", "new")
    read = module.settings_of(
        {key: {"string_value": entry.string_value} for key, entry in parameters.items()}
    )
    assert set(parameters) == {part.name for part in fields(module.Settings)}
    assert read == module.Settings(
        "old", "new", str(tmp_path / "state.json"), str(tmp_path / "counters"), "edge-1"
    )
    changed = options(tmp_path, task="classification", deadline_ms=12.5, unit_max_requests=1)
    entries = changed.parameters("old", "new").items()
    read = module.settings_of({key: {"string_value": entry.string_value} for key, entry in entries})
    assert (read.task, read.deadline_ms, read.are_requests_units) == ("classification", 12.5, True)


def test_models_that_do_not_batch_get_a_router_that_does_not(tmp_path: Path) -> None:
    pair = [model(name, zoo.total()) for name in ("old", "new")]
    config = router_config("r", *pair, options=options(tmp_path))
    assert (config.max_batch_size, config.dynamic_batching) == (0, None)


def test_the_router_leaves_reshaping_and_labels_to_its_models(tmp_path: Path) -> None:
    pair = [model(name, zoo.row_totals()) for name in ("old", "new")]
    assert pair[0].output[0].reshape == Reshape()
    config = router_config("r", *pair, options=options(tmp_path))
    assert config.output[0].reshape is None
    assert config.output[0].dims == pair[0].output[0].dims


@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        (
            model("new", zoo.total()),
            "the baseline has input x TYPE_FP32 .x3.* the candidate has input x TYPE_FP32 4",
        ),
        (model("new", max_batch_size=4), "max_batch_size 8 and 4"),
        (model("new", zoo.pair()), "output first"),
        (model("old"), "expected three names"),
        (model("r"), "expected three names"),
    ],
)
def test_models_that_clients_can_tell_apart_are_refused(
    tmp_path: Path, candidate: ModelConfig, words: str
) -> None:
    with pytest.raises(RepositoryError, match=words):
        router_config("r", model("old"), candidate, options=options(tmp_path))


def test_an_optional_input_of_one_model_is_a_difference(tmp_path: Path) -> None:
    optional = model("new")
    optional = optional.model_copy(
        update={"input": (optional.input[0].model_copy(update={"optional": True}),)}
    )
    with pytest.raises(RepositoryError, match=r"optional inputs \[\] and \['x'\]"):
        router_config("r", model("old"), optional, options=options(tmp_path))


def test_outputs_to_compare_must_be_there(tmp_path: Path) -> None:
    given = options(tmp_path, task="detection", output="boxes", score_output="y")
    with pytest.raises(RepositoryError, match=r"expected outputs \['boxes'\] to compare, found \['y'\]"):
        router_config("r", model("old"), model("new"), options=given)


def test_a_detector_needs_the_names_of_its_outputs(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="compared by its boxes"):
        options(tmp_path, task="detection")


def test_a_router_is_published_as_a_version_that_names_its_models(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    pair = [zoo.published(root, tmp_path, name, zoo.affine()) for name in ("old", "new")]
    config = router_config("r", *pair, options=options(tmp_path))
    assert publish_router(config, root, created=CREATED).version == 1
    assert publish_router(config, root, created=CREATED).version == 2
    folder = ModelFolder(root / "r")
    assert json.loads((folder.path / "2" / "router.json").read_text()) == {
        "baseline": "old",
        "candidate": "new",
    }
    assert folder.config().backend == "jettison_router"
    assert not folder.is_edited("")


def test_a_router_before_a_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    old = zoo.published(root, tmp_path, "old", zoo.affine())
    config = router_config("r", old, model("new"), options=options(tmp_path))
    with pytest.raises(RepositoryError, match="there is no published model 'new'") as caught:
        publish_router(config, root, created=CREATED)
    assert caught.value.fix == "Publish both models first: jettison publish"


def test_a_state_is_read_as_it_was_written_by_both_sides(load: Any, tmp_path: Path) -> None:
    path, module = tmp_path / "state.json", load("router_state")
    for state in (RouterState(), RouterState(mode="split", weight=BUCKETS, experiment="e1", salt="é")):
        write_state(path, state)
        assert read_state(path) == state
        there = module.state_of(path.read_bytes())
        assert (there.mode, there.weight, there.experiment, there.salt) == tuple(state.model_dump().values())
    assert (module.FORMAT, module.BUCKETS) == (STATE_FORMAT, BUCKETS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ("[]", "expected the format 'jettison-router/1'"),
        ('{"format": "jettison-router/1", "weight": 10001}', "weight"),
        (
            '{"format": "jettison-router/1", "mode": "split"}',
            "mode 'split' counts for an experiment, found ''",
        ),
    ],
)
def test_a_file_that_is_no_state_says_why(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        read_state(path)


def test_a_state_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        read_state(tmp_path / "state.json")


def test_the_backend_imports_nothing_of_jettison_when_it_runs() -> None:
    for path in fakes.FOLDER.glob("*.py"):
        for line in path.read_text().splitlines():
            assert not line.startswith(("import jettison", "from jettison")), path
