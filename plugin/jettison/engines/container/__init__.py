"""Programs run in a container image, by any Docker API (Docker or Podman)."""
