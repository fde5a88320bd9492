"""Triton: configuration, model repository, client and local server."""
