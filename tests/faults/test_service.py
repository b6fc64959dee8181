"""`limner serve` while clients do harm: each is refused with the reason or survived, and nobody else's request suffers.

Good clients ask all the time; their answers are compared with the captions of the pipeline.
"""

import http.client
import io
import json
import resource
import signal
import socket
import subprocess
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")

from limner.inference.pipeline import Pipeline
from tests.service.process import ask, half_a_request, head_of, running
from tests.service.test_bad_input import a_zip, huge_png, many_frames
from tests.service.world import images, png, text_of

pytestmark = pytest.mark.faults

JSON = {"Content-Type": "application/json"}
MOST_MB = 4  # of a request
PARALLEL = 4  # bad clients at a time


class Good:
    """Clients that ask in threads, one after the other, until they are stopped; what they saw."""

    def __init__(self, port: int, expected: Sequence[tuple[bytes, str]], clients: int = 6):
        self.port, self.expected = port, expected
        self.right, self.wrong = 0, list[str]()
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self, number: int) -> None:
        while not self._stop.is_set():
            content, caption = self.expected[number % len(self.expected)]
            number += 1
            try:
                found = ask(self.port, content)
            except Exception as error:
                found = repr(error)
            with self._changed:
                if found == caption:
                    self.right += 1
                else:
                    self.wrong.append(f"{found}, expected {caption}")
                self._changed.notify_all()

    def wait(self, answers: int) -> None:
        """Wait until so many more have the right answer, or one has a wrong one."""
        with self._changed:
            aim = self.right + answers
            assert self._changed.wait_for(lambda: self.right >= aim or self.wrong, 120)
        assert self.wrong == []

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)


class Served(NamedTuple):
    """A service that good clients use."""

    process: int
    port: int
    good: Good


@pytest.fixture(scope="module")
def expected(tiny: Path) -> list[tuple[bytes, str]]:
    """Images and a clip, each with its caption."""
    pipeline = Pipeline.load(tiny / "run")
    media = [path.read_bytes() for path in images(tiny, 5)] + [png()]
    return [(content, pipeline.caption(content).text) for content in media]


@contextmanager
def used(
    run: Path, expected: Sequence[tuple[bytes, str]], *options: str, temporary: Path | None = None
) -> Iterator[Served]:
    """A service with good clients; at the end none of them had a wrong answer, and the service ends well."""
    with running(run, "--wait-ms", "1", *options, temporary=temporary) as (process, port):
        good = Good(port, expected)
        try:
            good.wait(6)
            yield Served(process.pid, port, good)
            good.wait(6)
        finally:
            good.stop()
        assert good.wrong == []
        process.terminate()
        out, error = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, "stopped; what was begun is finished\n")
        assert set(error.splitlines()) <= {"WARNING:  Invalid HTTP request received."}


@pytest.fixture(scope="module")
def served(tiny: Path, expected: list[tuple[bytes, str]]) -> Iterator[Served]:
    with used(tiny / "run", expected, "--max-mb", str(MOST_MB), "--upload-timeout", "3") as found:
        yield found


def post(port: int, body: bytes, path: str = "/v1/caption", **headers: str) -> tuple[int, str]:
    """(status, message) of a request; the message of a caption is the caption."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("POST", path, body, {**JSON, **{name.replace("_", "-"): it for name, it in headers.items()}})
    answer = connection.getresponse()
    found = json.loads(answer.read())
    connection.close()
    if "error" in found:
        return answer.status, found["error"]["message"] if isinstance(found["error"], dict) else found["error"]
    return answer.status, found.get("caption") or found["choices"][0]["message"]["content"]


def inline(content: bytes, name: str = "photo.jpg", **more: object) -> bytes:
    """JSON with a file in base64."""
    return json.dumps({"image": text_of(content), "name": name, **more}).encode()


def bomb() -> bytes:
    """A ZIP archive of 200 MB of zeros, in 200 kB."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("zeros.jpg", "w") as entry:
        for _ in range(20):
            entry.write(bytes(10 << 20))
    return file.getvalue()


def many_files(count: int) -> bytes:
    """A form of `count` small files."""
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="%d.png"\r\n\r\nx\r\n'
    return b"".join(part % number for number in range(count)) + b"--b--\r\n"


def chat(text: str, url: str) -> bytes:
    content = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": url}}]
    return json.dumps({"messages": [{"role": "user", "content": content}]}).encode()


BLANKS = "\r\n ".join(text_of(png())[place : place + 60] for place in range(0, len(text_of(png())), 60))
# what is bad -> (body, path, headers, status, words of the message)
REQUESTS: dict[str, tuple[Callable[[], bytes], str, dict[str, str], int, str]] = {
    "zip": (lambda: inline(a_zip()), "", {}, 422, "a ZIP archive; unpack it first"),
    "zip bomb": (lambda: inline(bomb()), "", {}, 422, "a ZIP archive; unpack it first"),
    "compressed body": (lambda: b"x" * 100, "", {"Content_Encoding": "gzip"}, 415, "the body is compressed"),
    "decompression bomb": (lambda: inline(huge_png(30_000, 30_000)), "", {}, 413, "900,000,000 pixels are"),
    "100 megapixels": (lambda: inline(huge_png(10_000, 10_000)), "", {}, 413, "100,000,000 pixels are too many"),
    "63 megapixels": (lambda: inline(huge_png(9_000, 7_000)), "", {}, 200, ""),
    "svg": (lambda: inline(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "", {}, 422, "an SVG drawing"),
    "html": (lambda: inline(b"<!doctype html><script>alert(1)</script>"), "", {}, 422, "a web page"),
    "path": (lambda: inline(b"x", "../../../etc/passwd"), "", {}, 422, "../../../etc/passwd: "),
    "control characters": (lambda: inline(b"x", "a\r\nSet-Cookie: x\0\x1b[2J.jpg"), "", {}, 422, "not an image"),
    "10,000 files": (lambda: many_files(10_000), "/batch",
                     {"Content_Type": "multipart/form-data; boundary=b"}, 413, "more than 64 files"),
    "nested json": (lambda: b"[" * 100_000 + b"]" * 100_000, "", {}, 400, "nested too deep"),
    "nested object": (lambda: b'{"image":' * 100_000, "", {}, 400, "nested too deep"),
    "data url with blanks": (lambda: chat("?", f" data:image/png;base64,{BLANKS}"), "chat", {}, 200, ""),
    "data url of a wrong type": (lambda: chat("?", f"data:text/html;base64,{BLANKS}"), "chat", {}, 200, ""),
    "data url of nothing": (lambda: chat("?", "data:image/png;base64,!!"), "chat", {}, 400, "is not base64"),
    "prompt of a megabyte": (lambda: chat("x" * 1_000_000, f"data:;base64,{BLANKS}"), "chat", {}, 200, ""),
}  # fmt: skip


@pytest.mark.parametrize("name", REQUESTS)
def test_bad_input_harms_nobody(served: Served, name: str):
    make, path, headers, status, words = REQUESTS[name]
    body, path = make(), "/v1/chat/completions" if path == "chat" else f"/v1/caption{path}"
    with ThreadPoolExecutor(PARALLEL) as pool:
        found = set(pool.map(lambda _: post(served.port, body, path, **headers), range(2 * PARALLEL)))
    assert len(found) == 1
    ((seen, message),) = found
    assert seen == status and words in message and "/tmp" not in message and len(message) < 400
    served.good.wait(6)
    assert peak_mb(served.process) < 2500


def megabytes_taken(port: int, headers: str, block: bytes) -> int:
    """How many blocks of a megabyte the service receives of 2,048, before it closes the connection."""
    head = f"POST /v1/caption HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n".encode()
    sent = 0
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client, suppress(ConnectionError):
        client.sendall(head)
        while sent < 2048:
            client.sendall(block)
            sent += 1
    return sent


def two_gigabytes(port: int) -> None:
    """It says so: the service receives only what is on its way already."""
    assert megabytes_taken(port, f"Content-Length: {2 << 30}", bytes(1 << 20)) < 16


def two_gigabytes_unannounced(port: int) -> None:
    """In chunks: four times what is allowed are received, so that a client that is a little above hears why."""
    block = b"%x\r\n%s\r\n" % (1 << 20, bytes(1 << 20))
    assert 4 * MOST_MB <= megabytes_taken(port, "Transfer-Encoding: chunked", block) < 4 * MOST_MB + 16


def hang_up_early(port: int) -> None:
    """In the middle of the request."""
    half_a_request(port).close()


def hang_up_late(port: int) -> None:
    """Before the answer."""
    body = inline(png())
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(head_of(body) + body)


def a_byte_a_second(port: int) -> None:
    with half_a_request(port) as client, suppress(ConnectionError):
        for _ in range(4):
            time.sleep(1)
            client.sendall(b"x")
        assert client.recv(100).startswith(b"HTTP/1.1 408")


def says_too_much(port: int) -> None:
    """It announces 1,000 bytes, sends fewer, and waits."""
    with half_a_request(port, "Content-Length: 1000") as client:
        assert client.recv(100).startswith(b"HTTP/1.1 408")


def says_too_little(port: int) -> None:
    """What is more than announced is no request: the connection is closed."""
    body = inline(png())
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(head_of(body[:5]) + body)
        assert client.recv(100).startswith(b"HTTP/1.1 400")


def says_nonsense(port: int) -> None:
    """Lengths that are no numbers, two of them, and one that is negative."""
    for headers in ("Content-Length: many", "Content-Length: -1", "Content-Length: 1\r\nContent-Length: 2"):
        with half_a_request(port, headers) as client:
            assert client.recv(100)[:12] in (b"HTTP/1.1 400", b"")


CLIENTS = [two_gigabytes, two_gigabytes_unannounced, hang_up_early, hang_up_late, a_byte_a_second, says_too_much,
           says_too_little, says_nonsense]  # fmt: skip


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
def test_bad_clients_harm_nobody(served: Served, client: Callable[[int], None]):
    with ThreadPoolExecutor(PARALLEL) as pool:
        list(pool.map(client, [served.port] * 2 * PARALLEL))
    served.good.wait(6)
    assert peak_mb(served.process) < 2500


def test_a_killed_service_loses_no_request_of_clients_that_ask_again(
    tiny: Path, expected: list[tuple[bytes, str]], tmp_path: Path
):
    """kill -9 in the middle of images and clips; the next one answers, and removes what the first one left."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    clip = many_frames()
    jobs = [*expected, (clip, Pipeline.load(tiny / "run").caption(write(tmp_path / "a.gif", clip)).text)] * 8
    answered, killed, wrong, port = 0, 0, list[str](), 0

    def client(number: int) -> None:
        nonlocal answered, killed
        content, caption = jobs[number]
        for _ in range(1200):
            try:
                found = ask(port, content)
                break
            except OSError:  # also an answer that breaks off
                killed += 1
                time.sleep(0.1)
            except http.client.HTTPException:
                killed += 1
        else:
            found = "no answer"
        answered += 1
        if found != caption:
            wrong.append(f"{found}, expected {caption}")

    with ThreadPoolExecutor(16) as pool:
        with running(tiny / "run", temporary=temporary) as (process, port):
            done = [pool.submit(client, number) for number in range(len(jobs))]
            while answered < 20:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            process.wait()
        with running(tiny / "run", temporary=temporary, port=port) as (process, _):
            for future in done:
                future.result()
            process.terminate()
            assert process.wait(60) == 0
    assert wrong == [] and answered == len(jobs) and killed > 0
    assert list(temporary.iterdir()) == []


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def noise() -> bytes:
    """A GIF of about 200 kB."""
    rng, file = np.random.default_rng(0), io.BytesIO()
    frames = [Image.fromarray(rng.integers(0, 256, (100, 100, 3), np.uint8)) for _ in range(20)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=50)
    return file.getvalue()


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A folder that holds 64 kB; the test is skipped where none can be mounted."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize(("is_limit", "reason"), [(True, "File too large"), (False, "No space left on device")])
def test_a_full_disk_stops_clips_only(
    tiny: Path, expected: list[tuple[bytes, str]], tmp_path: Path, is_limit: bool, reason: str
):
    """Images need no disk."""
    temporary, clip = tmp_path / "tmp", inline(noise(), "a.gif")
    temporary.mkdir()
    with (
        nullcontext() if is_limit else small_disk(temporary),
        used(tiny / "run", expected, temporary=temporary) as served,
    ):
        if is_limit:
            resource.prlimit(served.process, resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
        with ThreadPoolExecutor(PARALLEL) as pool:
            found = set(pool.map(lambda _: post(served.port, clip), range(2 * PARALLEL)))
        assert found == {(507, f"the service cannot write its temporary files ({reason})")}
        served.good.wait(6)
        assert list(temporary.iterdir()) == []


def peak_mb(process: int) -> float:
    """The most memory that a process has had, where Linux tells."""
    with suppress(OSError):
        status = Path(f"/proc/{process}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024
    return 0.0
