"""`jettison rollback`: a line for people, a document for scripts, an error without an older version."""

from __future__ import annotations

import onnx
import pytest

from zoo.builder import image_net


@pytest.fixture
def repository(tmp_path, jettison):
    root, path = tmp_path / "repository", tmp_path / "model.onnx"
    net, x = image_net("small", 4)
    net.head(x, 4)
    onnx.save(net.model(), path)
    for _ in range(2):
        assert jettison("publish", path, "--repository", root, "--name", "one").code == 0
    return root


def test_the_version_before_is_served_again(jettison, repository):
    done = jettison("rollback", "one", "--repository", repository)
    assert done.code == 0
    assert "one will serve version 1 again; before: 1, 2\nnot proven: no server was seen" in done.out
    assert "versions: [ 1 ]" in (repository / "one/config.pbtxt").read_text()


def test_scripts_get_a_document(jettison, repository):
    found = jettison("rollback", "one", "--repository", repository, "--json").document
    note = "restart the server, or give its --url, to serve version 1"
    assert found == {
        "model": "one", "version": 1, "before": [1, 2], "proven": False, "proven_by": [], "notes": [note]
    }  # fmt: skip


def test_without_an_older_version_it_is_wrong_input(jettison, repository):
    jettison("rollback", "one", "--repository", repository)
    done = jettison("rollback", "one", "--repository", repository)
    assert done.code == 2
    assert "found none: version 1, which is served, is the oldest of [1, 2]" in done.err


def test_an_unknown_model_is_told_with_the_nearest(jettison, repository):
    done = jettison("rollback", "onee", "--repository", repository)
    assert done.code == 2
    assert "found no such one: it has one. Did you mean 'one'?" in done.err


def test_an_address_with_a_scheme_is_told_before_anything_is_done(jettison, repository):
    url = "http://127.0.0.1:8000"
    done = jettison("rollback", "one", "--repository", repository, "--url", url, "--json")
    assert done.code == 2
    assert done.document["error"] == {
        "what": f"server address {url}",
        "detail": "expected HOST:PORT, found the scheme http:// before it",
        "fix": "Give 127.0.0.1:8000",
    }
    assert "versions: [ 1, 2 ]" in (repository / "one/config.pbtxt").read_text()


def test_publish_without_a_server_says_that_nothing_is_proven(jettison, repository, tmp_path):
    path = tmp_path / "model.onnx"
    found = jettison("publish", path, "--repository", repository, "--name", "one", "--json").document
    assert (found["proven"], found["proven_by"]) == (False, [])
    told = jettison("publish", path, "--repository", repository, "--name", "one").out
    assert "not proven: no server was seen to serve it" in told
