"""A Python model that takes its input, keeps one core busy for a set time and answers zeros.

It runs inside tritonserver's Python backend, for benchmarks/serve.py: what is left above the set time is the
server's own.
"""

import json
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Answers `y`, of the width that the configuration names."""

    def initialize(self, args):
        """Read the configuration."""
        parameters = json.loads(args["model_config"])["parameters"]
        self.busy_s = float(parameters["busy_ms"]["string_value"]) / 1e3
        self.width = int(parameters["width"]["string_value"])

    def execute(self, requests):
        """One answer for each request."""
        end = time.perf_counter() + self.busy_s
        rows = [len(pb_utils.get_input_tensor_by_name(request, "x").as_numpy()) for request in requests]
        while time.perf_counter() < end:
            pass
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("y", np.zeros((count, self.width), np.float32))])
            for count in rows
        ]
