"""Models of other frameworks become a clean float ONNX, proven equal to what they were."""
