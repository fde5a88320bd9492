"""Keras runs on torch here as in the process that exports, whichever test imports it first."""

from __future__ import annotations

import os

from jettison.sources.doors import KERAS_SETTINGS

os.environ.update(KERAS_SETTINGS)
