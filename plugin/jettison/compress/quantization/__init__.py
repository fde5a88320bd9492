"""Quantization: calibrate, decide where Q/DQ pairs stand, quantize."""
