"""ONNX graphs over onnx-ir: open, clean, edit and save. The only floor that edits graphs."""
