"""Whether a live server gives the golden answers that a version was published with."""

from __future__ import annotations

from jettison.graph.shapes import example_inputs
from jettison.triton.client import TritonRunner
from jettison.triton.manifest import Golden, golden_differences


def served_differences(url: str, model: str, version: int, golden: Golden) -> list[str]:
    """How the served version's answers differ from the fingerprint; empty if they match.

    Raises:
        MissingError: tritonclient is not installed.
        ExternalError: The server does not answer, or does not serve that version.
    """
    with TritonRunner(url, model, version=version) as runner:
        answers = runner.run(example_inputs(runner.inputs, seed=golden.seed))
    return golden_differences(golden, answers)
