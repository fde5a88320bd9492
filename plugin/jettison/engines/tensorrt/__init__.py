"""TensorRT: its compiler as a witness, on machines that have no GPU."""
