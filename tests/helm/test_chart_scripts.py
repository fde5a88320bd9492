"""The scripts that init containers and `helm test` run, run here as they are."""

from __future__ import annotations

import ctypes
import hashlib
import http.server
import importlib.util
import json
import os
import subprocess
import sys
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest
from chart_render import CHART

FILES = CHART / "files"


def run(script: str, **environment: object) -> subprocess.CompletedProcess[str]:
    program = sys.executable if script.endswith(".py") else "sh"
    return subprocess.run(
        [program, str(FILES / script)],
        env={"PATH": os.environ["PATH"], **{key: str(value) for key, value in environment.items()}},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def digest_of(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A model repository with the SHA256SUMS that docs/deploying.md tells how to make."""
    root = tmp_path / "models"
    (root / "fashion" / "1").mkdir(parents=True)
    (root / "fashion" / "config.pbtxt").write_text('name: "fashion"\n')
    (root / "fashion" / "1" / "model with space.onnx").write_bytes(b"weights")
    make = "find . -type f ! -name SHA256SUMS -print0 | sort -z | xargs -0 sha256sum > SHA256SUMS"
    subprocess.run(["sh", "-c", make], cwd=root, check=True)
    return root


def verify(repository: Path, digest: str = "") -> subprocess.CompletedProcess[str]:
    return run("verify-models.sh", MODELS=repository, DIGEST=digest or digest_of(repository / "SHA256SUMS"))


def test_a_repository_of_the_digest_is_taken(repository):
    result = verify(repository)
    assert (result.returncode, result.stderr) == (0, "")


def test_another_repository_is_refused(repository):
    result = verify(repository, f"sha256:{'0' * 64}")
    assert result.returncode == 1
    assert (
        f"expected SHA256SUMS of digest sha256:{'0' * 64}, found {digest_of(repository / 'SHA256SUMS')}"
        in result.stderr
    )


def test_a_changed_file_is_refused(repository):
    digest = digest_of(repository / "SHA256SUMS")
    (repository / "fashion" / "1" / "model with space.onnx").write_bytes(b"Weights")
    result = verify(repository, digest)
    assert result.returncode == 1
    assert "files above differ from SHA256SUMS. Copy the repository again" in result.stderr


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_file_that_nobody_listed_is_refused(repository, kind):
    planted = repository / "fashion" / "1" / "model.py"
    if kind == "file":
        planted.write_text("import os")
    else:
        planted.symlink_to("/etc/passwd")
    result = verify(repository)
    assert result.returncode == 1
    assert "files that SHA256SUMS does not name: fashion/1/model.py" in result.stderr


def test_a_missing_folder_and_a_missing_list_say_what_to_do(tmp_path):
    assert "there is no such folder. Correct variants.*.path" in verify(tmp_path / "none", "sha256:0").stderr
    assert "there is no SHA256SUMS. Make it" in verify(tmp_path, "sha256:0").stderr


@pytest.fixture
def download(repository: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "download"
    folder.mkdir()
    with tarfile.open(folder / "models.tar", "w") as archive:
        archive.add(repository, arcname=".")
    return folder


def unpack(
    download: Path, models: Path, digest: str, check: str = "true"
) -> subprocess.CompletedProcess[str]:
    models.mkdir(exist_ok=True)
    return run("unpack-models.sh", DOWNLOAD=download, MODELS=models, DIGEST=digest, CHECK_SHA256=check)


def test_an_archive_of_the_digest_is_unpacked(download, tmp_path):
    result = unpack(download, tmp_path / "there", digest_of(download / "models.tar"))
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "there" / "fashion" / "1" / "model with space.onnx").read_bytes() == b"weights"


def test_another_archive_is_refused_and_nothing_unpacked(download, tmp_path):
    result = unpack(download, tmp_path / "there", "sha256:0")
    assert result.returncode == 1
    assert "expected an archive of digest sha256:0, found sha256:" in result.stderr
    assert list((tmp_path / "there").iterdir()) == []


def test_no_archive_and_a_broken_one_say_so(tmp_path):
    (tmp_path / "download").mkdir()
    assert (
        "expected one archive (.tar)" in unpack(tmp_path / "download", tmp_path / "there", "sha256:0").stderr
    )
    (tmp_path / "download" / "models.tar").write_bytes(b"no archive" * 200)
    result = unpack(tmp_path / "download", tmp_path / "there", "", check="false")
    assert result.returncode == 1
    assert "is no archive that tar reads" in result.stderr


def test_engines_are_awaited_and_given_up_with_the_way_to_the_job(tmp_path):
    ready = run("await-engines.sh", REPOSITORY=tmp_path, TARGET="orin", TIMEOUT_S=0)
    assert ready.returncode == 0
    late = run("await-engines.sh", REPOSITORY=tmp_path / "none", TARGET="orin", TIMEOUT_S=0)
    assert late.returncode == 1
    assert "Look at the Job: kubectl logs" in late.stderr


def load(script: str) -> Any:
    spec = importlib.util.spec_from_file_location(script.removesuffix(".py"), FILES / script)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Driver:
    """libcuda with one GPU of this capability, or with an error."""

    def __init__(self, capability: str, status: int = 0) -> None:
        self._numbers = [int(part) for part in capability.split(".")]
        self._status = status

    def cuInit(self, _flags: int) -> int:
        return self._status

    def cuDeviceGet(self, _device: Any, _ordinal: int) -> int:
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, _device: Any) -> int:
        value._obj.value = self._numbers[attribute - 75]
        return 0


def check_gpu(
    monkeypatch, tmp_path, *, found: Driver | None, on_mismatch: str = "fail", plan: bool = True
) -> int:
    (tmp_path / "fashion" / "1").mkdir(parents=True)
    (tmp_path / "fashion" / "1" / ("model.plan" if plan else "model.onnx")).touch()

    def library(name: str) -> Driver:
        if found is None:
            raise OSError(f"{name}: cannot open shared object file")
        return found

    monkeypatch.setattr(ctypes, "CDLL", library)
    for key, value in {
        "COMPUTE": "8.7",
        "TARGET": "orin",
        "REPOSITORY": str(tmp_path),
        "ON_MISMATCH": on_mismatch,
    }.items():
        monkeypatch.setenv(key, value)
    status: int = load("check_gpu.py").main()
    return status


def test_a_gpu_of_the_target_is_taken(monkeypatch, tmp_path):
    assert check_gpu(monkeypatch, tmp_path, found=Driver("8.7")) == 0


def test_another_gpu_stops_the_pod_with_our_words(monkeypatch, tmp_path, capsys):
    assert check_gpu(monkeypatch, tmp_path, found=Driver("8.9")) == 1
    said = capsys.readouterr().err
    assert "plans of target 'orin': expected a GPU of compute capability 8.7, found 8.9" in said
    assert "build plans for this GPU" in said


@pytest.mark.parametrize("found", [None, Driver("8.7", status=100)], ids=["no driver", "no GPU"])
def test_no_gpu_stops_the_pod_too(monkeypatch, tmp_path, capsys, found):
    assert check_gpu(monkeypatch, tmp_path, found=found) == 1
    assert "found none (" in capsys.readouterr().err


def test_a_warning_lets_it_start_and_without_plans_any_gpu_will_do(monkeypatch, tmp_path, capsys):
    assert check_gpu(monkeypatch, tmp_path / "a", found=Driver("8.9"), on_mismatch="warn") == 0
    assert "found 8.9" in capsys.readouterr().err
    assert check_gpu(monkeypatch, tmp_path / "b", found=None, plan=False) == 0


def ask_verdict(tmp_path: Path, *, decision: str, guarded: bool = True) -> subprocess.CompletedProcess[str]:
    """The script against a service that answers so."""

    class Service(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            allowed = not guarded or self.headers.get("Authorization") == "Bearer secret"
            self.send_response(200 if allowed else 401)
            self.end_headers()
            self.wfile.write(json.dumps({"decision": decision}).encode() if allowed else b"{}")

        def log_message(self, *_: object) -> None:
            pass

    (tmp_path / "token").write_text("secret\n")
    with http.server.HTTPServer(("127.0.0.1", 0), Service) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        result = run(
            "ask_verdict.py", URL=f"http://127.0.0.1:{server.server_port}/v", TOKEN=tmp_path / "token"
        )
        server.shutdown()
    return result


def test_a_verdict_behind_a_token_passes(tmp_path):
    result = ask_verdict(tmp_path, decision="continue")
    assert (result.returncode, result.stdout.strip().rpartition(": ")[2]) == (0, "continue")


def test_an_open_service_and_an_answer_that_is_no_verdict_fail(tmp_path):
    assert (
        "expected 401 without the token, found 200"
        in ask_verdict(tmp_path, decision="promote", guarded=False).stderr
    )
    assert "expected a verdict, found 200" in ask_verdict(tmp_path, decision="maybe").stderr
