"""Training: of a compressed model on its own graph, and of what learns from a larger one."""
