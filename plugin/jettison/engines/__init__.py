"""A model made runnable: ONNX Runtime here, TensorRT where it is."""
