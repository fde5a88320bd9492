"""Words that all floors share: errors, tensors, targets, artifacts, samples."""
