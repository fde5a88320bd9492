"""The model of a source, loaded by whatever can load it."""

from __future__ import annotations

from collections.abc import Collection

from jettison.sources.exported_program import open_program, program_subject
from jettison.sources.keras_model import is_keras, keras_subject, open_keras
from jettison.sources.source import Source
from jettison.sources.subject import Subject
from jettison.sources.torch_module import module_subject, open_module


def subject_of(source: Source, found: Collection[str]) -> Subject:
    """The model, with its inputs bound to arrays of these names.

    Raises:
        ModelError: It cannot be loaded.
        SamplesError: The arrays are not its inputs.
        MissingError: torch or Keras is not installed.
    """
    what = f"model {source}"
    if source.exported is not None:
        return program_subject(open_program(source.exported), what, found)
    if source.keras is not None:
        return keras_subject(open_keras(source.keras), what, found)
    module = open_module(source.torch or "", source.state)
    return keras_subject(module, what, found) if is_keras(module) else module_subject(module, what, found)
