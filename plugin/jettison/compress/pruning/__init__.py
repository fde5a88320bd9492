"""Pruning: weights set to zero, by thresholds, to a sparsity, or in the pattern 2:4."""
