"""Headless Chromium, driven over its debugging pipe: what a page shows, says on the console and asks of the network."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.unit import made_up

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    "--remote-debugging-pipe",
)


def program() -> str:
    """Chromium's path; installed where there is none."""
    if not any(map(shutil.which, NAMES)):
        install("chromium", program="chromium")
    return next(filter(None, map(shutil.which, NAMES)))


def install(*packages: str, program: str) -> None:
    """Debian's packages, where the program that they bring is lacking; as root."""
    if shutil.which(program):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise FileNotFoundError(f"no {program} on PATH: install it (Debian: apt-get install {' '.join(packages)})")
    quiet: dict[str, Any] = {"env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, "stdout": subprocess.DEVNULL}
    subprocess.run(["apt-get", "update", "-q"], check=True, **quiet)
    subprocess.run(["apt-get", "install", "-qy", "--no-install-recommends", *packages], check=True, **quiet)


class Browser:
    """One page. Events are kept as they come: `problems` of the console, `requests` of the network."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.requests: list[str] = []
        self._last, self._pending = 0, b""

    def __enter__(self) -> Browser:
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        (there_in, self._out), (self._in, there_out) = os.pipe(), os.pipe()
        # Chromium reads commands from descriptor 3 and answers on 4. Free numbers first, for either may be 3 or 4 now.
        script = f'exec {{a}}<&{there_in} {{b}}>&{there_out}; exec "$@" 3<&$a 4>&$b {{a}}<&- {{b}}>&-'
        argv = [program(), *FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", *argv],
            pass_fds=(there_in, there_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(there_in)
        os.close(there_out)
        self._session = None
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self._session = None
        try:
            self.call("Browser.close")
            self._process.wait(30)
        finally:
            if self._process.poll() is None:
                os.killpg(self._process.pid, 9)
                self._process.wait()
            os.close(self._in)
            os.close(self._out)
            self._profile.cleanup()

    def call(self, method: str, **parameters: Any) -> Any:
        """Send one command of the DevTools protocol and return its result; events on the way are kept."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._last:
            self._keep(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, page: Path, language: str, width: int, height: int, dark: bool) -> None:
        """Load a page afresh in a window of that size."""
        phone = width < 500
        size = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=f"{page.as_uri()}#{language}")
        while self.evaluate("document.readyState") != "complete":
            pass

    def evaluate(self, expression: str) -> Any:
        """A JavaScript expression's value; a promise is awaited."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def check_numbers(self, summary: Any) -> int:
        """Assert of every number that a page shows that it is the summary's, written as it is; how many there are."""
        read = "filter((n) => n.offsetParent).map((n) => [n.dataset.path, JSON.parse(n.value), n.innerText])"
        numbers = self.evaluate(f"[...document.querySelectorAll('data')].{read}")
        for path, value, shown in numbers:
            assert value == made_up.at(summary, path), path
            percent = 100 if "%" in shown else 1
            assert float(shown.rstrip("%")) == pytest.approx(value * percent, rel=0.06, abs=0.006), path
        return len(numbers)

    def screenshot(self, path: Path, size: tuple[int, int] | None = None) -> None:
        """The whole page as a PNG, or its upper left part of `size` (width, height)."""
        part = {"clip": {"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1}} if size else {}
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True, **part)
        path.write_bytes(base64.b64decode(found["data"]))

    def _next(self) -> Any:
        while b"\0" not in self._pending:
            block = os.read(self._in, 1 << 20)
            assert block, "Chromium ended"
            self._pending += block
        message, _, self._pending = self._pending.partition(b"\0")
        return json.loads(message)

    def _keep(self, event: dict[str, Any]) -> None:
        method, given = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown" or method == "Log.entryAdded":
            self.problems.append(json.dumps(given))
        elif method == "Runtime.consoleAPICalled" and given["type"] in ("error", "warning", "assert"):
            self.problems.append(json.dumps(given["args"]))
        elif method == "Network.requestWillBeSent":
            self.requests.append(given["request"]["url"])
