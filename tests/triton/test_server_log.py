"""What of a server's log goes into an error, and when the log goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from jettison.triton.server_log import ServerLog, telling_lines

START_WITHOUT_A_GPU = r"""
W1124 08:53:35.617501 589 pinned_memory_manager.cc:273] "Unable to allocate pinned system memory, pinned memory pool will not be available: CUDA driver version is insufficient for CUDA runtime version"
I1124 08:53:35.617577 589 cuda_memory_manager.cc:117] "CUDA memory pool disabled"
E1124 08:53:35.617658 589 server.cc:241] "CudaDriverHelper has not been initialized."
[W:onnxruntime:Default, device_discovery.cc:164 DiscoverDevicesForPlatform] GPU device discovery failed: Failed to open file: "/sys/class/drm/card0/device/vendor"
E1124 08:53:35.7 589 cuda.cc:1] "unable to get device: cudaErrorNoDevice, no CUDA-capable device is detected"
CUDA error 35 at start
| fashion-int8 | 1       | READY  |
Error: Failed to initialize NVML
W1124 08:53:36.860442 589 metrics.cc:798] "DCGM unable to start: DCGM initialization error"
| min_supported_compute_capability | 6.0 |
"""  # noqa: E501 - as the server writes them

BAD_MODEL = r"""
I1124 08:53:36.4 589 pb_stub.cc:366] "Failed to initialize Python stub: TritonModelException: no such output 'z'\n\nAt:\n  /b/model.py(84): initialize\n"
E1124 08:53:36.8 589 backend_model.cc:692] "ERROR: Failed to create instance: TritonModelException: no such output 'z'\n\nAt:\n  /b/model.py(84): initialize\n"
E1124 08:53:36.8 589 model_lifecycle.cc:642] "failed to load 'm' version 1: Internal: TritonModelException: no such output 'z'\n\nAt:\n  /b/model.py(84): initialize\n"
I1124 08:53:36.8 589 model_lifecycle.cc:777] "failed to load 'm'"
| m            | 1       | UNAVAILABLE: Internal: TritonModelException: no such output 'z' |
error: creating server: Internal - failed to load all models
"""  # noqa: E501 - as the server writes them


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def test_a_start_without_a_gpu_tells_nothing(log: Path) -> None:
    assert telling_lines(log) == []
    log.write_text(START_WITHOUT_A_GPU)
    assert telling_lines(log) == []


def test_a_cause_is_told_once_and_without_a_stack(log: Path) -> None:
    log.write_text(START_WITHOUT_A_GPU + BAD_MODEL)
    assert telling_lines(log) == [
        "failed to load 'm' version 1: Internal: TritonModelException: no such output 'z'",
        "error: creating server: Internal - failed to load all models",
    ]


def test_the_table_of_models_tells_where_nothing_else_does(log: Path) -> None:
    log.write_text("+---+---+\n| m | 1 | UNAVAILABLE: Internal: stub died |\n| n | 1 | READY |\n")
    assert telling_lines(log) == ["m 1 UNAVAILABLE: Internal: stub died"]


def test_a_real_error_of_a_gpu_is_told(log: Path) -> None:
    log.write_text('E1124 08:53:36.8 589 a.cc:1] "CUDA error 2: out of memory"\n')
    assert telling_lines(log) == ["CUDA error 2: out of memory"]


def test_a_wrong_option_is_told_without_the_usage(log: Path) -> None:
    log.write_text(
        "tritonserver: unrecognized option '--x=1'\nUsage: tritonserver [options]\n"
        "  --log-error <boolean>\n\tEnable/disable error-level logging.\n"
    )
    assert telling_lines(log) == ["tritonserver: unrecognized option '--x=1'"]


def test_telling_lines_are_the_last_ones_and_each_once(log: Path) -> None:
    log.write_text("\n".join(["fine", *(f"error: problem {i // 2}" for i in range(60))]))
    assert telling_lines(log) == [f"error: problem {i}" for i in range(18, 30)]


def test_a_temporary_log_is_made_when_asked_for_and_goes_when_discarded() -> None:
    log = ServerLog(None)
    log.discard()
    path = log.path
    assert path.name.startswith("jettison-tritonserver-")
    assert path.is_file()
    assert log.path == path
    log.discard()
    assert not path.exists()


def test_a_log_stays_that_the_user_named_or_was_sent_to(log: Path) -> None:
    log.write_text("error: bad")
    named = ServerLog(log)
    named.discard()
    assert log.exists()
    temporary = ServerLog(None)
    temporary.path.write_text("error: bad")
    assert temporary.telling_words() == "error: bad"
    temporary.keep()
    temporary.discard()
    assert temporary.path.exists()
    temporary.path.unlink()
