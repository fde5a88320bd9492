"""What each ONNX operator computes in torch, with a gradient, by families."""
