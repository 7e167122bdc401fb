"""A headless Chromium, by the WebDriver protocol of its own driver: six calls of JSON over HTTP."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from deploy.tools import BIN, free_port, libraries, tool

if TYPE_CHECKING:
    from pathlib import Path

_LOOPBACK = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_FLAGS = (
    "--headless",
    "--no-sandbox",  # in a container there is none to be had, and only pages of this machine are shown
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class Browser:
    """One window, with a profile of its own in ``folder``."""

    def __init__(self, folder: Path) -> None:
        fetched = BIN / "usr" / "lib" / "chromium" / "chromium"
        program = str(fetched) if fetched.exists() else tool("chromium")
        self._driver = f"http://127.0.0.1:{(port := free_port())}"
        self._log = (folder / "chromedriver.log").open("w")
        paths = [each for each in (libraries(), os.environ.get("LD_LIBRARY_PATH", "")) if each]
        self._process = subprocess.Popen(
            [tool("chromedriver"), f"--port={port}"],
            stdout=self._log,
            stderr=self._log,
            env={**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(paths)},
        )
        deadline = time.monotonic() + 30
        while True:
            with suppress(OSError):
                if self._call("GET", "/status")["ready"]:
                    break
            assert self._process.poll() is None, "chromedriver has ended"
            assert time.monotonic() < deadline, "chromedriver does not answer"
            time.sleep(0.05)
        options = {"binary": program, "args": [*_FLAGS, f"--user-data-dir={folder / 'profile'}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self._session = ""
        self._session = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        url = f"{self._driver}/session/{self._session}{path}" if getattr(self, "_session", "") else self._driver + path
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
        try:
            with _LOOPBACK.open(request, timeout=60) as answer:
                return json.loads(answer.read())["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(json.loads(error.read())["value"]["message"]) from None

    def open(self, url: str) -> None:
        """Load a page, and wait until it is."""
        self._call("POST", "/url", {"url": url})

    def run(self, script: str) -> Any:
        """What the body of a function in the page returns."""
        return self._call("POST", "/execute/sync", {"script": script, "args": []})

    def text(self, selector: str = "body") -> str:
        """The text of the first element that matches, as a person sees it: without what is hidden."""
        return str(self.run(f"return document.querySelector({json.dumps(selector)}).innerText"))

    def until(self, condition: str, seconds: float = 60) -> None:
        """Wait for a JavaScript expression to be true in the page."""
        deadline = time.monotonic() + seconds
        while not self.run(f"return Boolean({condition})"):
            assert time.monotonic() < deadline, f"{condition}:\n{self.text()}"
            time.sleep(0.1)

    def devtools(self, command: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def look(self, width: int = 1160, *, dark: bool = False) -> None:
        """Show the page so many CSS pixels wide, in the light or the dark scheme."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self) -> bytes:
        """The whole page as PNG."""
        return base64.b64decode(self.devtools("Page.captureScreenshot", captureBeyondViewport=True)["data"])

    def complaints(self) -> list[str]:
        """What the console got since the last look: errors of scripts, what the page's policy refused."""
        return [entry["message"] for entry in self._call("POST", "/se/log", {"type": "browser"})]

    def close(self) -> None:
        if self._session:
            with suppress(AssertionError, OSError):
                self._call("DELETE", "")
        self._process.terminate()
        self._process.wait(30)
        self._log.close()
