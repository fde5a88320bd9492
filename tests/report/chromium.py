"""A real Chromium without a window, spoken to by the DevTools protocol: a page, its console, its requests."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
    "--disable-component-update", "--no-first-run", "--hide-scrollbars", "--remote-debugging-port=0",
    "--remote-allow-origins=*", "--disable-dev-shm-usage",
)  # fmt: skip
_START_S, _ANSWER_S = 60, 60
"""How long to wait on a machine whose two cores do other work."""


def program() -> str:
    """Chromium, or a skip with the reason."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if (found := shutil.which(name)) is not None:
            return found
    pytest.skip("no Chromium on PATH (Debian's package is named chromium)")


class Page:
    """One page: what it logged, what it asked for, and what a user can do with it."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._number = 0
        self.problems: list[str] = []
        self.requests: list[str] = []

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """What the browser answers; what it tells meanwhile is kept."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            told = self._told()
            if told.get("id") == self._number:
                assert "error" not in told, f"{method}: {told['error']}"
                return dict(told["result"])

    def _told(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self._socket.recv())
        method, params = told.get("method"), told.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.problems.append(params["exceptionDetails"]["text"])
        if method == "Runtime.consoleAPICalled" and params["type"] in {"error", "warning"}:
            self.problems.append(str([argument.get("value") for argument in params["args"]]))
        if method == "Log.entryAdded" and params["entry"]["level"] in {"error", "warning"}:
            self.problems.append(params["entry"]["text"])
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        return told

    def open(self, path: Path) -> None:
        """Load a file, and wait until it is there."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=path.as_uri())
        while self._told().get("method") != "Page.loadEventFired":
            pass

    def value(self, expression: str) -> Any:
        """What an expression gives in the page; a promise is waited for."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def place_of(self, expression: str) -> tuple[float, float]:
        """The middle of an element, scrolled into view."""
        x, y = self.value(
            f"(() => {{ const e = {expression}; e.scrollIntoView({{block: 'center'}});"
            "const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        return x, y

    def hover(self, expression: str) -> None:
        """Put the pointer on an element."""
        x, y = self.place_of(expression)
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, expression: str) -> None:
        """Click an element with the left button."""
        self.hover(expression)
        x, y = self.place_of(expression)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str, *, code: int, text: str = "") -> None:
        """Press and release a key."""
        for kind in ("keyDown", "keyUp"):
            typed = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **typed)

    def prefer(self, scheme: str) -> None:
        """Light or dark, as the system would say."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def printed(self) -> bytes:
        """The page as PDF."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"])


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Page]:
    """The file in a new browser with an empty profile."""
    websocket = pytest.importorskip("websocket", reason="needs websocket-client (the extra 'dev')")
    chromium = program()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, _running(chromium, profile):
        url = _page_of(_port(Path(profile)))
        socket = websocket.create_connection(url, timeout=_ANSWER_S)
        try:
            page = Page(socket)
            page.open(path)
            yield page
        finally:
            socket.close()


@contextlib.contextmanager
def _running(chromium: str, profile: str) -> Iterator[None]:
    command = (chromium, *_FLAGS, f"--user-data-dir={profile}", "--window-size=1360,1000", "about:blank")
    home = {**os.environ, "HOME": profile}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=home)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _port(profile: Path) -> int:
    """Where the browser listens, as it writes into its profile."""
    told, end = profile / "DevToolsActivePort", time.monotonic() + _START_S
    while time.monotonic() < end:
        lines = told.read_text().splitlines() if told.is_file() else []
        if len(lines) >= 2:
            return int(lines[0])
        time.sleep(0.05)
    pytest.fail(f"Chromium did not start within {_START_S} s")


def _page_of(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=20) as answer:
        pages = [page for page in json.loads(answer.read()) if page["type"] == "page"]
    return str(pages[0]["webSocketDebuggerUrl"])
