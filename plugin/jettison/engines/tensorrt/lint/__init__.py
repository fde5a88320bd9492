"""Lint: whether TensorRT will take an ONNX file of any tool, and on its fast path; and what to mend."""
