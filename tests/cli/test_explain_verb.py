"""`jettison explain` on the command line: a file, stdin, a file that is not there."""

from __future__ import annotations

import io
import sys

LINE = "E1 x.cc:1] \"unexpected directory name 'a' for model 'b', directory name must equal model name\"\n"


def test_a_file_is_explained(jettison, tmp_path):
    (tmp_path / "log").write_text("I0 start\n" + LINE)
    answer = jettison("explain", tmp_path / "log", "--json")
    assert answer.code == 0
    assert [(each["name"], each["line"]) for each in answer.document["causes"]] == [("folder-name", 2)]


def test_stdin_is_explained_in_words(jettison, monkeypatch):
    class Stdin:
        buffer = io.BytesIO(LINE.encode())

    monkeypatch.setattr(sys, "stdin", Stdin)
    answer = jettison("explain", "-")
    assert "line 1, triton: the folder is called a, and its config.pbtxt names the model b" in answer.out
    assert (
        "Rename the folder or the model: they must be equal (source: seen in tritonserver 2.51)" in answer.out
    )


def test_a_log_that_is_fine_says_what_that_means(jettison, tmp_path):
    (tmp_path / "log").write_text("I0 start\n")
    assert (
        "no known message in 1 lines; that is no proof that all is well"
        in jettison("explain", tmp_path / "log").out
    )


def test_a_file_that_is_not_there_is_wrong_input(jettison, tmp_path):
    answer = jettison("explain", tmp_path / "none.log")
    assert answer.code == 2
    assert "expected a file that can be read, found: No such file or directory" in answer.err
