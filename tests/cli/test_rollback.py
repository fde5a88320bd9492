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
    assert "one serves version 1 again; before: 1, 2" in done.out
    assert "versions: [ 1 ]" in (repository / "one/config.pbtxt").read_text()


def test_scripts_get_a_document(jettison, repository):
    found = jettison("rollback", "one", "--repository", repository, "--json").document
    note = "restart the server, or give its --url, to serve version 1"
    assert found == {"model": "one", "version": 1, "before": [1, 2], "proven": False, "notes": [note]}


def test_without_an_older_version_it_is_wrong_input(jettison, repository):
    jettison("rollback", "one", "--repository", repository)
    done = jettison("rollback", "one", "--repository", repository)
    assert done.code == 2
    assert "expected an older version to roll back to" in done.err
