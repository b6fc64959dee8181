"""A headless Chromium opens a file and tells what a reader and the network would see (DevTools protocol, by pipe)."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
QUIET = "--disable-background-networking --disable-component-update --disable-sync --disable-quic --no-first-run"


class Page:
    """One tab.  `requests` are the addresses asked for, but for `data:`; `complaints` what console and policy said."""

    def __init__(self, read: int, write: int):
        self.read, self.write, self.number, self.session = read, write, 0, ""
        self.rest = b""
        self.requests: list[str] = []
        self.complaints: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    def open(self, path: Path, width: int = 1200, height: int = 900, scheme: str = "light") -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=path.resolve().as_uri())
        while self._next().get("method") != "Page.loadEventFired":
            pass

    def ask(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def picture(self, path: Path, whole: bool = True) -> None:
        """A screenshot, for a human to look at."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, (method, answer)
                return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            block = os.read(self.read, 1 << 20)
            assert block, "the browser has gone"
            self.rest += block
        raw, _, self.rest = self.rest.partition(b"\0")
        message = json.loads(raw)
        method, parameters = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent" and not parameters["request"]["url"].startswith("data:"):
            self.requests.append(parameters["request"]["url"])
        elif method == "Log.entryAdded":
            self.complaints.append(parameters["entry"]["text"])
        elif method in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
            self.complaints.append(json.dumps(parameters))
        return message


@contextmanager
def chromium(profile: Path) -> Iterator[Page]:
    """A tab in a browser of its own, whose files lie in `profile`."""
    assert CHROMIUM
    out_read, out_write = os.pipe()
    in_read, in_write = os.pipe()
    flags = f"--headless --no-sandbox --disable-gpu --hide-scrollbars --remote-debugging-pipe {QUIET}"
    command = f'exec "$0" {flags} "--user-data-dir=$1" 3<&{in_read} 4>&{out_write}'
    with open(os.devnull, "w") as silent:
        process = subprocess.Popen(
            ["bash", "-c", command, CHROMIUM, str(profile)], stdout=silent, stderr=silent, pass_fds=(in_read, out_write)
        )
    os.close(in_read)
    os.close(out_write)
    try:
        page = Page(out_read, in_write)
        yield page
        page.session = ""
        page.call("Browser.close")
    finally:
        os.close(in_write)  # a browser whose pipe ends goes too
        process.wait(20)
        os.close(out_read)
