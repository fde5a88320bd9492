"""Starting and stopping a server: a fake program stands in for tritonserver."""

from __future__ import annotations

import contextlib
import http.server
import os
import select
import signal
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jettison.core.errors import ExternalError, InputError, MissingError, RepositoryError
from jettison.triton import health, runtime
from jettison.triton.runtime import Installation
from jettison.triton.server import ServerOptions, TritonServer, find_server
from jettison.triton.server_ports import Ports

SCRIPT = """#!{python}
import http.server, pathlib, signal, sys, time
folder = pathlib.Path(__file__).parent
mode = (folder / "mode").read_text()
starts = folder / "starts"
starts.write_text((starts.read_text() if starts.exists() else "") + "x")
(folder / "arguments").write_text("\\n".join(sys.argv[1:]))
print("E1124 04:59:19.653449 2189 a.cc:241] \\"CudaDriverHelper has not been initialized.\\"", flush=True)
if mode == "fails":
    print("E1124 04:59:19.7 2189 a.cc:2] \\"failed to load 'm' version 1: Invalid argument: bad dims\\"")
    print("| m | 1 | UNAVAILABLE: Invalid argument: bad dims |")
    sys.exit(1)
if mode == "aborts" or (mode == "aborts once" and len(starts.read_text()) == 1):
    print("  what():  boost::interprocess::lock_exception", flush=True)
    import os
    os.abort()
if mode == "leaves a child":
    import subprocess
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True)"
    deaf += "; time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE, start_new_session=True)
    child.stdout.readline()
    (folder / "child").write_text(str(child.pid))
    time.sleep(60)
if mode == "hangs":
    time.sleep(60)
if mode == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
port = int(next(a for a in sys.argv if a.startswith("--http-port=")).split("=")[1])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/v2/health/ready" else 404)
        self.end_headers()
    def log_message(self, *a):
        pass
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "bin" / "tritonserver"
    path.parent.mkdir()
    path.write_text(SCRIPT.format(python=sys.executable))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    (path.parent / "mode").write_text("works")
    (tmp_path / "repository").mkdir()
    return path


def server_of(
    program: Path, *, backends: Path | None = None, temporary_log: bool = False, **options: object
) -> TritonServer:
    return TritonServer(
        program.parent.parent / "repository",
        Installation(program, backends, {}),
        environment={"PATH": "/usr/bin:/bin"},
        options=ServerOptions.model_validate({"exit_timeout_s": 0, **options}),
        log=None if temporary_log else program.parent / "log",
    )


def test_server_is_ready_inside_the_block_and_gone_after_it(program: Path) -> None:
    with server_of(program, backends=Path("/b"), arguments=("--log-verbose=1",)) as server:
        assert server.pid is not None
        assert health.is_server_ready(server.http_url)
        assert not health.is_model_ready(server.http_url, "m")
    assert server.pid is None
    assert not health.is_server_ready(server.http_url)
    arguments = (program.parent / "arguments").read_text().splitlines()
    assert "--disable-auto-complete-config" in arguments
    assert "--model-control-mode=none" in arguments
    assert "--backend-directory=/b" in arguments
    assert "--log-verbose=1" in arguments
    for service in ("http", "grpc", "metrics"):
        assert f"--{service}-address=127.0.0.1" in arguments
    ports = {line for line in arguments if "-port=" in line}
    assert len({line.split("=")[1] for line in ports}) == 3


def test_a_server_of_its_own_keeps_its_own_backends(program: Path) -> None:
    with server_of(program, http_port=None, control_mode="explicit", load_models=("a", "b")):
        arguments = (program.parent / "arguments").read_text()
    assert "backend" not in arguments
    assert "--model-control-mode=explicit\n--load-model=a\n--load-model=b\n" in arguments


def test_a_failed_start_tells_the_server_s_own_words_and_no_gpu_noise(program: Path) -> None:
    (program.parent / "mode").write_text("fails")
    with pytest.raises(ExternalError) as caught, server_of(program):
        pass
    assert "ended with status 1: failed to load 'm' version 1: Invalid argument: bad dims" in str(
        caught.value
    )
    assert "UNAVAILABLE" not in str(caught.value), "the table says the same once more"
    assert "Cuda" not in str(caught.value)
    assert caught.value.fix == f"Read the whole log: {program.parent / 'log'}"
    assert (program.parent / "starts").read_text() == "x", "a model that cannot load is not tried again"


def test_a_crash_while_starting_is_tried_again(program: Path) -> None:
    (program.parent / "mode").write_text("aborts once")
    with server_of(program) as server:
        assert health.is_server_ready(server.http_url)
    assert (program.parent / "starts").read_text() == "xx"


def test_three_crashes_are_told(program: Path) -> None:
    (program.parent / "mode").write_text("aborts")
    with pytest.raises(ExternalError, match="ended with status -6"), server_of(program):
        pass
    assert (program.parent / "starts").read_text() == "xxx"


@pytest.fixture
def stranger() -> Iterator[int]:
    """The port of an HTTP server that answers 200 to every question, also whether it is ready."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return None

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("service", ["http", "grpc", "metrics"])
def test_a_given_port_that_is_taken_is_refused_before_the_start(
    program: Path, stranger: int, service: str
) -> None:
    server = server_of(program, **{f"{service}_port": stranger})
    with pytest.raises(InputError) as caught:
        server.start()
    assert caught.value.what == f"port {stranger} for {service}"
    assert caught.value.detail == "something listens there already"
    assert (
        caught.value.fix == f"Give another --{service}-port (0 for any free one), or stop what listens there"
    )
    assert not (program.parent / "starts").exists()


def test_a_port_that_was_given_up_just_now_is_taken_again(program: Path) -> None:
    with server_of(program) as first:
        assert health.is_server_ready(first.http_url)
        port = first.ports.http
    with server_of(program, http_port=port) as second:
        assert health.is_server_ready(second.http_url)


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("hangs", r"it was not ready after 0\.5 s; another process listens on port \d+"),
        ("fails", "it ended with status 1"),
    ],
)
def test_another_server_that_took_the_port_meanwhile_is_not_taken_for_ours(
    program: Path, stranger: int, monkeypatch: pytest.MonkeyPatch, mode: str, words: str
) -> None:
    (program.parent / "mode").write_text(mode)
    monkeypatch.setattr("jettison.triton.server.free_ports", lambda *_: Ports(stranger, 1, 2))
    server = server_of(program, ready_deadline_s=0.5 if mode == "hangs" else 20)
    with pytest.raises(ExternalError, match=words):
        server.start()
    assert server.pid is None


def test_a_server_behind_a_script_that_starts_it_is_ours(program: Path) -> None:
    real = program.rename(program.with_name("real"))
    program.write_text(f'#!/bin/sh\n{real} "$@" &\ntrap "kill $!" TERM\nwait\n')
    program.chmod(0o755)
    with server_of(program, ready_deadline_s=20, exit_timeout_s=5) as server:
        assert health.is_server_ready(server.http_url)


def test_an_interrupt_while_starting_ends_it_though_the_server_died_of_it_too(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = server_of(program)

    def interrupted(url: str) -> bool:
        os.kill(server.pid or 0, signal.SIGKILL)
        raise KeyboardInterrupt

    monkeypatch.setattr("jettison.triton.server.is_server_ready", interrupted)
    (program.parent / "mode").write_text("hangs")
    with pytest.raises(KeyboardInterrupt):
        server.start()
    assert server.pid is None


def test_a_server_that_never_gets_ready_is_stopped_at_the_deadline(program: Path) -> None:
    (program.parent / "mode").write_text("hangs")
    server = server_of(program, ready_deadline_s=0.3)
    with pytest.raises(ExternalError, match=r"it was not ready after 0\.3 s"):
        server.start()
    assert server.pid is None


@pytest.mark.parametrize("is_interrupted", [True, False])
def test_what_a_server_leaves_behind_while_it_loads_is_ended_too(
    program: Path, monkeypatch: pytest.MonkeyPatch, *, is_interrupted: bool
) -> None:
    (program.parent / "mode").write_text("leaves a child")
    child, handles = program.parent / "child", []

    def asked(url: str) -> bool:
        if not handles and child.exists() and child.read_text():
            handles.append(os.pidfd_open(int(child.read_text())))
            if is_interrupted:
                raise KeyboardInterrupt
        return False

    monkeypatch.setattr("jettison.triton.server.is_server_ready", asked)
    with pytest.raises(KeyboardInterrupt if is_interrupted else ExternalError):
        server_of(program, ready_deadline_s=40 if is_interrupted else 3).start()
    poll = select.poll()
    poll.register(handles[0], select.POLLIN)
    has_ended = bool(poll.poll(20_000))
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(handles[0], signal.SIGKILL)
    assert has_ended


def test_a_server_that_ignores_the_request_to_end_is_killed(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (program.parent / "mode").write_text("deaf")
    monkeypatch.setattr("jettison.triton.server._GRACE_S", 0.3)
    with server_of(program) as server:
        assert server.pid is not None
    assert server.pid is None


def test_a_program_that_cannot_run_and_a_missing_repository_are_told(program: Path) -> None:
    program.write_text("#!/absent/interpreter\n")
    with pytest.raises(ExternalError, match="it cannot be run"), server_of(program):
        pass
    (program.parent.parent / "repository").rmdir()
    with pytest.raises(RepositoryError, match="there is no such folder"), server_of(program):
        pass
    with pytest.raises(ExternalError, match="it was not started"):
        _ = server_of(program).http_url


def test_the_given_program_comes_first_then_the_path_then_the_runtime(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(explicit: Path | None, found: str | None) -> Path:
        return find_server(
            explicit,
            which=lambda name: found if name == "tritonserver" else None,
            cache=tmp_path,
            python=Path("/absent/python"),
            progress=lambda _: None,
        ).program

    assert find(program, "/usr/bin/tritonserver") == program
    assert find(None, "/usr/bin/tritonserver") == Path("/usr/bin/tritonserver")
    with pytest.raises(MissingError, match="no Python here can be embedded"):
        find(None, None)
    with pytest.raises(
        InputError, match=r"tritonserver .*absent: there is no such program\. Correct the path"
    ):
        find(tmp_path / "absent", "/usr/bin/tritonserver")
    (tmp_path / "text").write_text("no program")
    with pytest.raises(InputError, match=r"tritonserver .*text: it is a file that cannot be run\. Correct"):
        find(tmp_path / "text", None)
    assert runtime.OUR_BACKENDS.is_dir()


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary logs."""
    folder = tmp_path / "logs"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.mark.parametrize("ending", [None, KeyboardInterrupt, SystemExit])
def test_a_server_that_was_asked_to_end_leaves_no_log(
    program: Path, logs: Path, ending: type[BaseException] | None
) -> None:
    with contextlib.suppress(KeyboardInterrupt, SystemExit), server_of(program, temporary_log=True) as server:
        assert list(logs.iterdir()) == [server.log_path]
        if ending is not None:
            raise ending
    assert server.pid is None
    assert not list(logs.iterdir())


def test_a_log_stays_where_the_start_failed_and_the_error_names_it(program: Path, logs: Path) -> None:
    (program.parent / "mode").write_text("fails")
    with pytest.raises(ExternalError) as caught, server_of(program, temporary_log=True):
        pass
    (log,) = logs.iterdir()
    assert caught.value.fix == f"Read the whole log: {log}"


def test_no_log_stays_where_only_the_first_start_crashed(program: Path, logs: Path) -> None:
    (program.parent / "mode").write_text("aborts once")
    with server_of(program, temporary_log=True):
        assert (program.parent / "starts").read_text() == "xx"
    assert not list(logs.iterdir())


def test_a_log_stays_where_the_server_was_never_ready_and_the_error_names_it(
    program: Path, logs: Path
) -> None:
    (program.parent / "mode").write_text("hangs")
    server = server_of(program, temporary_log=True, ready_deadline_s=0.3)
    with pytest.raises(ExternalError) as caught:
        server.start()
    (log,) = logs.iterdir()
    assert caught.value.fix == f"Read the whole log: {log}"


def test_a_log_stays_where_the_server_ended_badly_or_its_user_failed(program: Path, logs: Path) -> None:
    with server_of(program, temporary_log=True) as server:
        os.kill(server.pid or 0, signal.SIGABRT)
        assert server.wait() == -signal.SIGABRT
    assert [path.exists() for path in logs.iterdir()] == [True]
    with pytest.raises(ZeroDivisionError), server_of(program, temporary_log=True):
        raise ZeroDivisionError
    assert len(list(logs.iterdir())) == 2


def test_a_missing_repository_leaves_no_log(program: Path, logs: Path) -> None:
    (program.parent.parent / "repository").rmdir()
    with pytest.raises(RepositoryError), server_of(program, temporary_log=True):
        pass
    assert not list(logs.iterdir())


def test_a_log_that_the_user_named_stays(program: Path) -> None:
    with server_of(program):
        pass
    assert (program.parent / "log").is_file()
