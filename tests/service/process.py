"""`limner serve` as a process of its own, and clients on bare sockets."""

import json
import os
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.service.world import text_of


@contextmanager
def running(
    run: Path, *options: str, port: int = 0, temporary: Path | None = None
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The process and its port; `temporary` is its folder for temporary files."""
    command = [sys.executable, "-m", "limner", "serve", "--model", str(run), "--port", str(port), *options]
    environment = os.environ if temporary is None else {**os.environ, "TMPDIR": str(temporary)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"run at http://127\.0\.0\.1:(\d+)\n", line)
        assert found, line + (process.stderr.read() if process.stderr else "")
        yield process, int(found[1])
    finally:
        process.kill()
        process.communicate()


def ask(port: int, content: bytes) -> str:
    """The caption of an image or clip.  Raises OSError (HTTPError) for any other answer."""
    body = json.dumps({"image": text_of(content)}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/caption", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())["caption"]


def head_of(body: bytes) -> bytes:
    """The head of a request with JSON."""
    lines = ["POST /v1/caption HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode()


def half_a_request(port: int, headers: str = "Content-Length: 1000") -> socket.socket:
    """A client that sends the head of a request, one byte, and no more."""
    client = socket.create_connection(("127.0.0.1", port), timeout=30)
    client.sendall(f"POST /v1/caption HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\nx".encode())
    return client
