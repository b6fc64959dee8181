"""A headless Chromium opens a file and tells what a reader and the network would see (DevTools protocol, by pipe)."""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
LOOPBACK_ONLY = '"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"'
QUIET = "--disable-background-networking --disable-component-update --disable-sync --disable-quic --no-first-run"
ROOT = Path(__file__).parents[1]
AXE = Path(os.environ.get("LIMNER_AXE", ROOT / "build" / "browser" / "node_modules" / "axe-core" / "axe.min.js"))
KEYS = {"Tab": 9, "Enter": 13, " ": 32, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowRight": 39, "ArrowDown": 40}


class Page:
    """One tab, which reaches this machine only.

    `requests` are the addresses asked for, but for `data:`; `complaints` what console and policy said.
    """

    def __init__(self, read: int, write: int):
        self.read, self.write, self.number, self.session = read, write, 0, ""
        self.rest = b""
        self.requests: list[str] = []
        self.complaints: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    def open(self, page: Path | str, width: int = 1200, height: int = 900, scheme: str = "light") -> None:
        """Open a file or an address, in a window of so many pixels, in a light or dark system."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=page.resolve().as_uri() if isinstance(page, Path) else page)
        while self._next().get("method") != "Page.loadEventFired":
            pass

    def ask(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, script: str, seconds: float = 120.0) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + seconds
        while not self.ask(f"Boolean({script})"):
            assert time.monotonic() < deadline, (script, self.ask("document.body.innerText"), self.complaints)
            time.sleep(0.05)

    def press(self, *keys: str) -> None:
        """Press and release keys as a person does: "Tab", "Enter", "ArrowRight", " ", or "Shift+Tab"."""
        for key in keys:
            name = key.removeprefix("Shift+")
            event = {"key": name, "code": name, "windowsVirtualKeyCode": KEYS[name], "modifiers": 8 * (name != key)}
            text = {"Enter": "\r", " ": " "}.get(name)
            self.call("Input.dispatchKeyEvent", type="keyDown", **event, **({"text": text} if text else {}))
            self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def choose_files(self, selector: str, *paths: Path) -> None:
        """Give files to an <input type=file>."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path.resolve()) for path in paths])

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
    flags = f"--headless --no-sandbox --disable-gpu --hide-scrollbars --remote-debugging-pipe {QUIET} {LOOPBACK_ONLY}"
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


def faults(page: Page) -> list[str]:
    """The faults of accessibility that axe-core finds in a page as it is; none where axe-core is not installed.

    `make browser` installs it from npm.  A test that has nothing else to say skips without it.
    """
    if not AXE.is_file():
        return []
    page.ask(AXE.read_text(encoding="utf-8") + "; 0")
    found = page.ask("axe.run().then(it => JSON.stringify(it.violations))")
    return [
        f"{it['impact']} {it['id']}: {it['help']}: {node['html'][:200]} {node.get('failureSummary', '')}"
        for it in json.loads(found)
        for node in it["nodes"]
    ]
