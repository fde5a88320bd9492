"""The publish benchmark's judgement: an answer is wrong where its version could not be served at the time."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):
    """The benchmark's module, which is no part of the package."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import publish_load

    return publish_load


def test_an_answer_is_wrong_before_its_publish_and_after_the_proof_of_the_next(load) -> None:
    spans = [load.Span(2.0, begun=0.0, ended=20.0), load.Span(3.0, begun=10.0)]
    right = [
        load.Answer(5.0, 6.0, 2.0),
        load.Answer(12.0, 13.0, 2.0),
        load.Answer(12.0, 13.0, 3.0),
        load.Answer(19.0, 21.0, 2.0),
        load.Answer(21.0, 22.0, 3.0),
    ]
    wrong = [load.Answer(5.0, 6.0, 3.0), load.Answer(21.0, 22.0, 2.0), load.Answer(5.0, 6.0, 4.0)]
    failed = [load.Answer(5.0, 6.0, None, "refused")]
    history = load.History(spans, [*right, *wrong, *failed])
    assert history.wrong() == wrong
    assert history.failed() == failed


def test_a_proof_ends_the_span_of_the_version_before(load) -> None:
    history = load.History()
    history.begin(2.0)
    history.begin(3.0)
    assert history.spans[0].ended == float("inf")
    history.prove()
    assert history.spans[0].ended < float("inf")
    assert history.spans[1].ended == float("inf")
