"""Where a training stands, on disk: whole or not there, read back without running code."""

from __future__ import annotations

import io
import logging
import pickle
from pathlib import Path
from typing import Any

import torch

from jettison.core.files import write_bytes

_LOG = logging.getLogger(__name__)
FILE = "checkpoint.pt"

State = dict[str, Any]
"""Tensors, numbers and text by name, as torch's `state_dict` gives them."""


def write_checkpoint(folder: Path, state: State) -> None:
    """Replace the folder's checkpoint: whoever reads it finds the old one or the new.

    Raises:
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    torch.save(state, content)
    write_bytes(folder / FILE, content.getvalue())


def read_checkpoint(folder: Path, *, key: str) -> State | None:
    """The checkpoint of the training that the key names, or None where there is none."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        state: State = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        _LOG.warning("%s cannot be read (%s): training starts anew", path, error)
        return None
    if not isinstance(state, dict) or state.get("key") != key:
        _LOG.warning("%s is of another training: this one starts anew", path)
        return None
    return state
