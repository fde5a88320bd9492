"""Jettison makes models light, proves it, and puts them to sea on NVIDIA Triton."""

from jettison._version import __version__

__all__ = ["__version__"]
