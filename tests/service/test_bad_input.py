"""What strangers send: refused with the reason, or survived; the next request is answered as if nothing had been."""

import io
import json
import struct
import threading
import zipfile
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from limner.inference.pipeline import Pipeline
from limner.service.app import Settings
from limner.service.engine import Engine
from limner.service.media import Upload
from tests.service.world import error_of, png, service, text_of


def huge_png(width: int, height: int) -> bytes:
    """A PNG of one colour and many pixels, in some kilobytes: one bit a pixel."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = zlib.compress(bytes(1 + (width + 7) // 8) * height, 9)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def a_zip() -> bytes:
    """A ZIP archive that unpacks to 10 MB of zeros."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.jpg", bytes(10_000_000))
    return file.getvalue()


def many_frames() -> bytes:
    """A GIF of 40 frames."""
    file = io.BytesIO()
    frames = [Image.new("RGB", (100, 100), (6 * number, 0, 0)) for number in range(40)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=50)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (huge_png(10_000, 10_000), 413, "10000 x 10000 pixels are too many to decode; at most 64,000,000 are allowed"),
        (huge_png(60_000, 60_000), 413, "pixels are too many to decode"),
        (a_zip(), 422, "a ZIP archive; unpack it first"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 422, "an SVG drawing; save it as PNG"),
        (b"<!doctype html><title>404</title>", 422, "a web page, not what it shows"),
        (b"%!PS-Adobe-3.0", 422, "PostScript; save it as PNG"),
        (b"#EXTM3U\nfile:///etc/passwd\n", 422, "not an image in a format that is read"),
        (b"", 422, "empty"),
        (png()[:60], 422, "damaged"),
        (b"\xff\xd8\xff\xe0" + bytes(100), 422, "not an image in a format that is read"),
        (b"\0\0\0\x18ftypmp42" + bytes(200), 422, ""),
    ],
)
def test_files_that_are_refused_with_the_reason(client: TestClient, content: bytes, status: int, message: str):
    found, text = error_of(client.post("/v1/caption", files={"file": ("photo.jpg", content)}))
    assert found == status and message in text and text.startswith("photo.jpg: ")
    assert "/tmp" not in text and "upload" not in text
    assert client.post("/v1/caption", files={"file": png()}).status_code == 200


def test_animations_and_clips_have_bounds_of_their_own(pipeline: Pipeline):
    with service(pipeline, animation_pixels=300_000) as client:
        status, message = error_of(client.post("/v1/caption", files={"file": ("a.gif", many_frames())}))
        assert status == 413 and message.startswith("a.gif: 40 frames of 100 x 100 pixels are too many")
    for limits in ({"clip_seconds": 1.0}, {"clip_frames": 30}):
        with service(pipeline, **limits) as client:
            status, message = error_of(client.post("/v1/caption", files={"file": ("a.gif", many_frames())}))
            assert status == 413 and message.startswith(("a.gif: the clip lasts 2 s", "a.gif: the clip has 40 frames"))
    with service(pipeline) as client:
        assert client.post("/v1/caption", files={"file": ("a.gif", many_frames())}).json()["end"] == 2


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "a\nb\r\0.jpg", "<img src=x onerror=alert(1)>.jpg", "x" * 5000, ""]
)
def test_names_are_data(client: TestClient, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """They come back as JSON, cut to 200 characters, and are no path anywhere."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for content, status in ((png(), 200), (many_frames(), 200), (b"nothing", 422)):
        answer = client.post("/v1/caption", json={"image": text_of(content), "name": name})
        assert answer.status_code == status and answer.headers["content-type"] == "application/json"
        if status == 200:
            assert answer.json()["file"] == name[:200]
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"[" * 100_000 + b"]" * 100_000, "the JSON is nested too deep to be read"),
        (b'{"image":' * 100_000, "the JSON is nested too deep to be read"),
        (b"{", "the body is not JSON"),
        (b"\xff\xfe{}", "the body is not JSON"),
        (b"[1]", "expected a JSON object, got list"),
        (b"1" * 5000, "the body is not JSON"),
        (b"{}", "the field image must be text"),
        (b'{"image": 3}', "the field image must be text"),
        (b'{"image": "caf\xc3\xa9"}', "image is not base64"),
        (b'{"image": "file:///etc/passwd"}', "image: expected base64 or a data URL"),
        (b'{"image": "http://localhost/x.png"}', "image: expected base64 or a data URL"),
        (b'{"image": "", "beam": {"a": [1]}}', "beam: input should be a valid integer"),
    ],
)
def test_json_that_is_refused(client: TestClient, body: bytes, message: str):
    for path in ("/v1/caption", "/v1/explain"):
        status, text = error_of(client.post(path, content=body, headers={"content-type": "application/json"}))
        assert status == 400 and text.startswith(message) and len(text) < 300
    for path in ("/v1/chat/completions", "/api/generate", "/api/chat"):
        assert client.post(path, content=body, headers={"content-type": "application/json"}).status_code == 400


@pytest.mark.parametrize("path", ["/etc/passwd", "../../../../etc/passwd", "C:\\photo.png"])
def test_paths_are_never_read(client: TestClient, path: str):
    assert client.post("/v1/caption", json={"image": path}).status_code in (400, 422)


def test_data_urls_with_blanks_or_a_wrong_type_are_read_by_their_content(client: TestClient):
    expected = client.post("/v1/caption", files={"file": png()}).json()["caption"]
    text = text_of(png())
    broken = "\r\n ".join(text[place : place + 60] for place in range(0, len(text), 60))
    unpadded = text.rstrip("=").replace("+", "-").replace("/", "_")
    percent = "".join(f"%{byte:02x}" for byte in png())
    for url in (
        f"  data:image/png;base64,{broken}", f"data:text/html;base64,{text}", f"data:;base64,{unpadded}",
        f"DATA:image/jpeg;charset=x;BASE64,{text}\n", f"data:image/png,{percent}",
    ):  # fmt: skip
        answer = client.post("/v1/caption", json={"image": url})
        assert answer.status_code == 200 and answer.json()["caption"] == expected


def test_forms_that_are_refused(client: TestClient):
    files = [("file", (f"{number}.png", b"x")) for number in range(10_000)]
    status, message = error_of(client.post("/v1/caption/batch", files=files))
    assert (status, message) == (413, "more than 64 files in one request: send several requests")
    status, message = error_of(client.post("/v1/caption/batch", json={"images": ["eA=="] * 10_000}))
    assert status == 413 and message.startswith("10000 media in one request; at most 64 are allowed")
    status, message = error_of(client.post("/v1/caption", files=[("file", png()), ("file", png())]))
    assert (status, message) == (400, "expected one file, got 2: send several to /v1/caption/batch")
    headers = {"content-type": "multipart/form-data"}
    assert error_of(client.post("/v1/caption", content=b"x", headers=headers))[0] == 400
    headers = {"content-type": "multipart/form-data; boundary=b"}
    assert error_of(client.post("/v1/caption", content=b"--b\r\nx", headers=headers))[0] == 400
    status, message = error_of(client.post("/v1/caption", data={"beam": "3"}))
    assert status == 415 and "send a form with the file" in message
    status, message = error_of(client.post("/v1/caption", content=b"x", headers={"content-type": "text/plain"}))
    assert status == 415


def test_a_prompt_of_a_megabyte_is_survived(client: TestClient):
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{text_of(png())}"}}
    content = [{"type": "text", "text": "x" * 1_000_000}, image]
    answer = client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": content}]})
    expected = client.post("/v1/caption", files={"file": png()}).json()["caption"]
    assert answer.json()["choices"][0]["message"]["content"] == expected


def test_a_full_house_answers_429_and_the_others_are_captioned(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    """Two places are taken while the model is held up; the third request is refused at once."""
    with service(pipeline, waiting=2) as client:
        held, free = threading.Event(), threading.Event()
        client.engine.batcher.call(lambda: (held.set(), free.wait(10)))
        assert held.wait(10)
        answers: list[Any] = []
        ask = lambda: answers.append(client.post("/v1/caption", files={"file": png()}))  # noqa: E731
        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        while client.engine._admitted < 2:
            pass
        refused = client.post("/v1/caption", files={"file": png()})
        assert error_of(refused) == (429, "too many requests are waiting: try again")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        free.set()
        for thread in threads:
            thread.join(10)
        assert [answer.status_code for answer in answers] == [200, 200]
        assert client.post("/v1/caption", files={"file": png()}).status_code == 200


def test_a_request_that_takes_too_long_is_told_so(pipeline: Pipeline):
    with service(pipeline, seconds=0.2) as client:
        free = threading.Event()
        client.engine.batcher.call(lambda: free.wait(10))
        status, message = error_of(client.post("/v1/caption", files={"file": png()}))
        assert status == 504 and message.startswith("it took longer than 0.2 s")
        free.set()
        assert client.engine._admitted == 0


def test_a_full_disk_is_named(client: TestClient, monkeypatch: pytest.MonkeyPatch):
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("limner.data.archives.temporary_folder", full)
        status, message = error_of(client.post("/v1/caption", files={"file": ("a.gif", many_frames())}))
        assert (status, message) == (507, "the service cannot write its temporary files (No space left on device)")
        assert client.post("/v1/caption", files={"file": png()}).status_code == 200  # images need no disk
    assert client.post("/v1/caption", files={"file": ("a.gif", many_frames())}).status_code == 200


def test_an_error_of_the_model_is_no_end_of_the_service(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    with service(pipeline) as client:
        client._transport.raise_server_exceptions = False
        with monkeypatch.context() as patched:
            patched.setattr(pipeline, "decode", lambda *_: 1 / 0)
            status, message = error_of(client.post("/v1/caption", files={"file": png()}))
        assert (status, message) == (500, "the service failed at this request; its log says more")
        assert client.post("/v1/caption", files={"file": png()}).status_code == 200


def test_an_engine_needs_a_model():
    with pytest.raises(ValueError, match="at least one model"):
        Engine({})


def test_an_upload_keeps_only_a_known_ending():
    assert Upload(b"", "../a.MP4").local_name == "upload.mp4" and Upload(b"", "a.sh").local_name == "upload"


class _Host(BaseHTTPRequestHandler):
    """A host with one image, an address that leads elsewhere, and one that is too large."""

    def do_GET(self) -> None:
        if self.path == "/moved.png":
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:1/secret")
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(png() if self.path == "/red.png" else bytes(200_000))

    def log_message(self, *_: Any) -> None:
        pass


def test_images_are_fetched_from_listed_hosts_only(pipeline: Pipeline):
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Host)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    at = f"http://127.0.0.1:{server.server_port}"

    def ask(client: TestClient, url: str) -> tuple[int, str]:
        message = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}
        answer = client.post("/v1/chat/completions", content=json.dumps({"messages": [message]}),
                             headers={"content-type": "application/json"})  # fmt: skip
        return (200, "") if answer.status_code == 200 else error_of(answer)

    with service(pipeline) as client:
        status, message = ask(client, f"{at}/red.png")
        assert status == 400 and message.startswith("image_url: this service fetches nothing from '127.0.0.1'")
        assert ask(client, "ftp://127.0.0.1/x")[0] == ask(client, "http://[::1")[0] == 400
    with service(pipeline, Settings(hosts=["127.0.0.1"]), body_bytes=100_000) as client:
        assert ask(client, f"{at}/red.png") == (200, "")
        status, message = ask(client, f"{at}/moved.png")
        assert status == 400 and message.startswith("image_url: 127.0.0.1 did not give the image (HTTP Error 302")
        assert ask(client, f"{at}/large.png")[0] == 413
        assert ask(client, f"http://evil.example@127.0.0.1:{server.server_port}/red.png")[0] in (200, 400)
        assert ask(client, "http://127.0.0.1@evil.example/red.png")[0] == 400
    server.shutdown()
    server.server_close()
