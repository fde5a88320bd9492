"""The real server over a repository that the product wrote: our backend gives what the graph computes."""

from __future__ import annotations

import json
import os
import threading
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import served_models as zoo
from served_models import Served, published

from jettison.core.errors import ExternalError, InputError
from jettison.core.runner import Runner
from jettison.triton import health
from jettison.triton.client import Protocol, TritonRunner
from jettison.triton.repository import model_folders
from jettison.triton.runtime import Installation
from jettison.triton.server import ServerOptions, TritonServer

pytestmark = pytest.mark.server
PROTOCOLS: tuple[Protocol, ...] = ("http", "grpc")


def runner(
    served: Served, model: str, protocol: Protocol = "http", version: int | None = None
) -> TritonRunner:
    url = served.server.http_url if protocol == "http" else served.server.grpc_url
    return TritonRunner(url, model, protocol=protocol, version=version)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_runner_over_a_live_model_gives_what_the_graph_computes(served: Served, protocol: Protocol) -> None:
    x = np.float32([[1, 2, 3], [4, 5, 6]])
    with runner(served, "affine", protocol) as live:
        assert isinstance(live, Runner)
        assert [str(s) for s in (*live.inputs, *live.outputs)] == ["x float32 ?x3", "y float32 ?x3"]
        np.testing.assert_array_equal(live.run({"x": x})["y"], 3 * x)


def test_a_copy_of_an_edited_configuration_is_no_model_and_no_version_to_the_server(served: Served) -> None:
    assert (served.repository / "affine" / "config.pbtxt.before-2").is_file()
    entries = [entry for entry in health.index(served.server.http_url) if entry.name == "affine"]
    assert sorted((entry.version, entry.state) for entry in entries) == [("1", "READY"), ("2", "READY")]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_runner_at_the_port_of_the_other_protocol_says_so(served: Served, protocol: Protocol) -> None:
    url = served.server.grpc_url if protocol == "http" else served.server.http_url
    with pytest.raises(ExternalError, match=f"{url} answers in another protocol") as caught:
        TritonRunner(url, "affine", protocol=protocol, timeout_s=10)
    assert caught.value.fix.startswith(f"Give protocol='{'grpc' if protocol == 'http' else 'http'}'")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_runner_splits_batches_that_are_longer_than_the_server_takes(
    served: Served, protocol: Protocol
) -> None:
    x = np.arange(57, dtype=np.float32).reshape(19, 3)
    with runner(served, "affine", protocol) as live:
        assert live.max_batch_size == 8
        np.testing.assert_array_equal(live.run({"x": x})["y"], 3 * x)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_both_versions_are_served_side_by_side(served: Served, protocol: Protocol) -> None:
    x = np.ones((1, 3), np.float32)
    for version, factor in ((1, 2.0), (2, 3.0)):
        with runner(served, "affine", protocol, version) as live:
            np.testing.assert_array_equal(live.run({"x": x})["y"], factor * x)
        assert health.is_model_ready(served.server.http_url, "affine", version=version)
    assert not health.is_model_ready(served.server.http_url, "affine", version=3)


def test_fixed_batch_model_takes_its_whole_shape(served: Served) -> None:
    with runner(served, "fixed") as live:
        assert live.max_batch_size == 0
        x = np.ones((2, 3), np.float32)
        np.testing.assert_array_equal(live.run({"x": x})["y"], 2 * x)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_scalars_are_one_number_alone_and_one_for_each_row_in_a_batch(
    served: Served, protocol: Protocol
) -> None:
    with runner(served, "total", protocol) as live:
        np.testing.assert_array_equal(live.run({"x": np.float32([1, 2, 3, 4])})["y"], np.float32([10]))
    with runner(served, "row_totals", protocol) as live:
        x = np.arange(12, dtype=np.float32).reshape(3, 4)
        np.testing.assert_array_equal(live.run({"x": x})["y"], x.sum(axis=1))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("length", [1, 7])
def test_dynamic_length_of_int64_ids(served: Served, protocol: Protocol, length: int) -> None:
    ids = np.arange(2 * length, dtype=np.int64).reshape(2, length) % 10
    with runner(served, "embedding", protocol) as live:
        np.testing.assert_array_equal(live.run({"ids": ids})["y"], zoo.TABLE[ids])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_element_type_passes_unchanged(served: Served, protocol: Protocol) -> None:
    truths = np.array([[0, 1], [1, 1], [1, 0]])
    arrays = {f"x_{name}": truths.astype(name) for name in zoo.PASSED}
    with runner(served, "passer", protocol) as live:
        found = live.run(arrays)
    for name in zoo.PASSED:
        assert found[f"y_{name}"].dtype == arrays[f"x_{name}"].dtype
        np.testing.assert_array_equal(found[f"y_{name}"], arrays[f"x_{name}"])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_text_passes_unchanged(served: Served, protocol: Protocol) -> None:
    if "words" not in served.configs:
        pytest.skip("the server's Python has no numpy 1")
    x = np.array([["", "ship"], ["жар", "東"], ["a b", "\n"]], dtype=np.object_)
    with runner(served, "words", protocol) as live:
        np.testing.assert_array_equal(live.run({"x": x})["y"], x)


def test_optional_input_takes_the_graph_s_default(served: Served) -> None:
    x = np.float32([[1, 2]])
    with runner(served, "defaulted") as live:
        np.testing.assert_array_equal(live.run({"x": x})["y"], 5 * x)
        np.testing.assert_array_equal(live.run({"x": x, "scale": np.float32([[2]])})["y"], 2 * x)


def test_external_data_is_found_beside_the_model(served: Served) -> None:
    with runner(served, "external") as live:
        y = live.run({"x": np.float32([[1, 0, 0]])})["y"]
    np.testing.assert_array_equal(y, np.float32([[0, 1, 2]]))


def test_waiting_requests_of_one_shape_are_batched_and_a_bad_one_fails_alone(served: Served) -> None:
    """Five requests wait 200 ms: three of length 2, one with an id out of range, one of length 5."""
    requests = [np.full((1, 2), i, np.int64) for i in (1, 2, 3, 99)] + [np.full((1, 5), 4, np.int64)]
    answers: dict[int, object] = {}

    def call(i: int) -> None:
        with runner(served, "embedding") as live:
            barrier.wait()
            try:
                answers[i] = live.run({"ids": requests[i]})["y"]
            except ExternalError as error:
                answers[i] = str(error)

    before = _counts(served, "embedding")
    barrier = threading.Barrier(len(requests))
    threads = [threading.Thread(target=call, args=(i,)) for i in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in (0, 1, 2, 4):
        np.testing.assert_array_equal(answers[i], zoo.TABLE[requests[i]])
    assert "indices element out of data bounds, idx=99" in str(answers[3])
    executions = _counts(served, "embedding")[1] - before[1]
    assert executions < len(requests)


def test_only_the_requested_outputs_come_back(served: Served) -> None:
    inputs = [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 0]}]
    found = _infer(served, "pair", {"inputs": inputs, "outputs": [{"name": "second"}]})
    assert [(output["name"], output["data"]) for output in found] == [("second", [2, 0])]


def test_server_echoes_every_configuration_that_was_written(served: Served) -> None:
    for folder in model_folders(served.repository):
        assert health.config_differences(served.server.http_url, folder.config()) == []
    other = served.configs["affine"].model_copy(update={"max_batch_size": 4, "version_policy": None})
    assert health.config_differences(served.server.http_url, other) == ["max_batch_size: expected 4, found 8"]


def test_index_shows_every_version_ready(served: Served) -> None:
    states = {(entry.name, entry.version): entry.state for entry in health.index(served.server.http_url)}
    assert states["affine", "1"] == states["affine", "2"] == "READY"
    assert set(states.values()) == {"READY"}
    health.wait_ready(served.server.http_url, list(served.configs), deadline_s=5)
    with pytest.raises(ExternalError, match=r"not ready after 0\.2 s: its index is empty"):
        health.wait_ready(served.server.http_url, ["absent"], deadline_s=0.2)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_calling_a_model_that_is_not_served_says_so(served: Served, protocol: Protocol) -> None:
    with pytest.raises(ExternalError, match="'absent' is not found"):
        runner(served, "absent", protocol)


def test_wrong_arrays_are_refused_before_they_travel(served: Served) -> None:
    with runner(served, "affine") as live:
        with pytest.raises(InputError, match=r"expected inputs \['x'\], found \['z'\]"):
            live.run({"z": np.ones((1, 3), np.float32)})
        with pytest.raises(InputError, match=r"expected shape \?x3, found 1x4"):
            live.run({"x": np.ones((1, 4), np.float32)})
        with pytest.raises(InputError, match="expected float32, found float64"):
            live.run({"x": np.ones((1, 3))})


def test_a_model_that_cannot_load_is_told_with_the_server_s_own_words(
    installation: Installation, tmp_path: Path
) -> None:
    root = tmp_path / "repository"
    config = published(root, tmp_path, "affine", zoo.affine())
    text = (root / "affine" / "config.pbtxt").read_text()
    (root / "affine" / "config.pbtxt").write_text(text.replace('name: "y"', 'name: "z"'))
    assert config.output[0].name == "y"
    server = TritonServer(root, installation, environment=os.environ, log=tmp_path / "log")
    with (
        pytest.raises(ExternalError, match=r"ended with status .* has output 'z', the model has \['y'\]"),
        server,
    ):
        pass
    assert server.pid is None


def test_a_publish_that_died_before_its_config_leaves_the_old_version_served(
    installation: Installation, tmp_path: Path
) -> None:
    root = tmp_path / "repository"
    published(root, tmp_path, "affine", zoo.affine(2.0))
    (root / "affine" / "2").mkdir()
    (root / "affine" / "2" / "model.onnx").write_bytes(b"half")
    x = np.ones((1, 3), np.float32)
    options = ServerOptions(exit_timeout_s=3)
    with TritonServer(
        root, installation, environment=os.environ, options=options, log=tmp_path / "log"
    ) as server:
        with TritonRunner(server.http_url, "affine") as live:
            np.testing.assert_array_equal(live.run({"x": x})["y"], 2 * x)
        assert [(e.version, e.state) for e in health.index(server.http_url)] == [("1", "READY")]


def _counts(served: Served, model: str) -> tuple[int, int]:
    with urllib.request.urlopen(f"http://{served.server.http_url}/v2/models/{model}/stats") as answer:
        stats = json.load(answer)["model_stats"][0]
    return int(stats["inference_count"]), int(stats["execution_count"])


def _infer(served: Served, model: str, body: dict[str, object]) -> list[dict[str, object]]:
    url = f"http://{served.server.http_url}/v2/models/{model}/infer"
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode())) as answer:
        outputs: list[dict[str, object]] = json.load(answer)["outputs"]
    return outputs


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_two_models_share_a_connection_and_its_shared_memory(served: zoo.Served, protocol: Protocol) -> None:
    """128 KB of ids go through shared memory; the guest's end leaves the connection open."""
    url = served.server.http_url if protocol == "http" else served.server.grpc_url
    ids, x = np.arange(16_000).reshape(8, -1) % 10, np.ones((8, 3), np.float32)
    with TritonRunner(url, "embedding", protocol=protocol) as first:
        with first.beside("affine") as second:
            for _ in range(2):
                assert np.array_equal(first.run({"ids": ids})["y"], zoo.TABLE[ids])
                assert np.array_equal(second.run({"x": x})["y"], 3 * x)
        assert np.array_equal(first.run({"ids": ids})["y"], zoo.TABLE[ids])
        with pytest.raises(ExternalError, match="connecting to model 'nobody'"):
            first.beside("nobody")
