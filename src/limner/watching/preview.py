"""Pictures with the caption burnt in: as a film, or for a browser on this machine, without a window."""

import html
import io
import json
import queue
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from limner.data.video_pixels import upright
from limner.explanations.fonts import font_of
from limner.explanations.video import write_mp4
from limner.watching.camera import Frame
from limner.watching.scenes import SIDE

FPS = 15  # pictures a second of the film, and at most so many for a browser
AHEAD = 30  # pictures that may wait for the encoder
WIDTH = 480  # pixels; narrower pictures are enlarged, so that a caption can be read
CLIENTS = 8  # browsers at a time
BOUNDARY = "picture"
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>limner watch</title>
<meta name="viewport" content="width=device-width">
<style>body {{background: #18181b; color: #e1e1e1; font: 1.2em sans-serif; text-align: center}}
h1 {{font-size: 1em}} img {{max-width: 100%}}</style>
<main><h1>{name}</h1>
<img src="/stream.mjpg" alt="The picture, with the caption in it">
<p id="caption" role="status"></p></main>
<script>setInterval(async () => {{
  try {{ const caption = (await (await fetch("/caption")).json()).caption;
    const place = document.getElementById("caption");
    if (place.textContent !== caption) place.textContent = caption; }} catch {{}} }}, 500)</script></html>
"""


class Preview(Protocol):
    """Shows pictures of a source with the caption of the moment."""

    def show(self, frame: Frame, text: str) -> None:
        """Take a frame and the caption of the moment."""
        ...

    def close(self) -> None:
        """Finish what is written."""
        ...


def picture_of(frame: Frame) -> UInt8[np.ndarray, "H W 3"]:
    """The pixels of a frame, at most `SIDE` pixels wide and high; large frames are scaled down before all else."""
    image = frame.image
    scale = SIDE / max(image.width, image.height)
    turned = any(data.type.name == "DISPLAYMATRIX" for data in image.side_data)
    if scale < 1 and not turned:
        image = image.reformat(width=round(image.width * scale), height=round(image.height * scale))
    return upright(image, SIDE, frame.pixel_aspect)


def burn_in(picture: UInt8[np.ndarray, "H W 3"], text: str) -> UInt8[np.ndarray, "H2 W2 3"]:
    """The picture with a caption over its lower edge, in as many lines as it needs; "" changes nothing."""
    image = Image.fromarray(picture)
    if image.width < WIDTH:
        image = image.resize((WIDTH, max(1, round(image.height * WIDTH / image.width))))
    if not text:
        return np.asarray(image)
    font = font_of(text, max(14, image.width // 32))
    lines = wrapped(text, font, image.width - 24)
    height = round(font.size * 1.35)
    band = Image.new("RGBA", (image.width, height * len(lines) + 12), (0, 0, 0, 170))
    pen = ImageDraw.Draw(band)
    for number, line in enumerate(lines):
        pen.text((image.width // 2, 6 + height * number), line, (255, 255, 255), font, anchor="ma")
    image.paste(band.convert("RGB"), (0, image.height - band.height), band.getchannel("A"))
    return np.asarray(image)


def wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """The text in lines of at most `width` pixels, as far as words allow it."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


class FilmPreview:
    """Writes a film at a constant rate; `wait`: for the encoder, else pictures are left out when it is too slow."""

    def __init__(self, out: Path, wait: bool):
        self.out, self.wait = out, wait
        self._pictures: queue.Queue[tuple[int, np.ndarray] | None] = queue.Queue(AHEAD)
        self._shown = 0  # pictures of the film so far
        self._ended = False
        font_of("", 14)  # the import that fonts need takes longer than a caption may
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._write, daemon=True)

    def show(self, frame: Frame, text: str) -> None:
        """Add a frame for the time until the next one."""
        times = int(frame.second * FPS) + 1 - self._shown
        if times <= 0 or self._error is not None:
            return
        if not self._shown:
            times = 1  # the film begins with the first picture
            self._shown = int(frame.second * FPS)
        if self.wait or not self._pictures.full():
            self._pictures.put((times, burn_in(picture_of(frame), text)))
            self._shown += times
            if self._thread.ident is None:
                self._thread.start()

    def close(self) -> None:
        """Finish the film.  Raises OSError when it could not be written."""
        if self._thread.ident is None:
            return  # there was no picture
        self._pictures.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _write(self) -> None:
        """Encode the pictures, in a thread."""
        try:
            write_mp4(self.out, self._frames(), FPS)
        except BaseException as error:
            self._error = error
            while not self._ended and self._pictures.get() is not None:  # nobody may wait for ever
                pass

    def _frames(self) -> Iterator[np.ndarray]:
        size: tuple[int, int] | None = None
        while (item := self._pictures.get()) is not None:
            times, picture = item
            if size is not None and picture.shape[:2] != size:  # a stream may change its size
                picture = np.asarray(Image.fromarray(picture).resize(size[::-1]))
            size = picture.shape[:2]
            for _ in range(times):
                yield picture
        self._ended = True


class HttpPreview:
    """Serves the pictures to browsers on this machine (MJPEG): `/`, `/stream.mjpg` and `/caption`.

    Raises OSError when the port cannot be had.
    """

    def __init__(self, port: int, name: str):
        self._change = threading.Condition()
        self._jpeg, self._number, self._text = b"", 0, ""
        self._clients = 0
        font_of("", 14)  # see above
        self._last = -1.0
        self._closed = False
        page = PAGE.format(name=html.escape(name)).encode()
        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self, page))
        except (OSError, OverflowError) as error:
            raise OSError(
                f"port {port} cannot be used ({error}); choose another one with --preview http:PORT"
            ) from error
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/"

    def show(self, frame: Frame, text: str) -> None:
        """Send a picture to whoever looks; without anybody only the caption is kept."""
        self._text = text
        if not self._clients or time.monotonic() - self._last < 1 / FPS:
            return
        self._last = time.monotonic()
        file = io.BytesIO()
        Image.fromarray(burn_in(picture_of(frame), text)).save(file, "JPEG", quality=80)
        with self._change:
            self._jpeg, self._number = file.getvalue(), self._number + 1
            self._change.notify_all()

    def close(self) -> None:
        """End the connections."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def caption(self) -> bytes:
        """The caption of the moment as JSON."""
        return json.dumps({"caption": self._text}).encode()

    def pictures(self) -> Iterator[bytes]:
        """JPEG files as they come; a client that is slow misses some.  Nothing when too many look."""
        with self._change:
            if self._clients >= CLIENTS:
                return
            self._clients += 1
        try:
            seen = self._number
            while True:
                with self._change:
                    while self._number == seen and not self._closed:
                        self._change.wait(1)
                    if self._closed:
                        return
                    seen, jpeg = self._number, self._jpeg
                yield jpeg
        finally:
            with self._change:
                self._clients -= 1


def _handler(preview: HttpPreview, page: bytes) -> type[BaseHTTPRequestHandler]:
    """What answers the requests of a preview."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # seconds for which a client may keep a thread waiting

        def do_GET(self) -> None:
            host = self.headers.get("Host", "").rpartition(":")[0]
            if host not in ("127.0.0.1", "localhost"):  # a page of another site, whose name leads here
                self.send_error(403)
            elif self.path == "/":
                self._send(page, "text/html; charset=utf-8")
            elif self.path == "/caption":
                self._send(preview.caption(), "application/json")
            elif self.path == "/stream.mjpg":
                self._stream()
            else:
                self.send_error(404)

        def _send(self, content: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(content)

        def _stream(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={BOUNDARY}")
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            pictures = preview.pictures()
            try:
                for jpeg in pictures:
                    head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    self.wfile.write(head.encode() + jpeg + b"\r\n")
            except OSError:  # the browser has left, or reads too slowly
                return
            finally:
                pictures.close()  # type: ignore[attr-defined]

        def log_message(self, format: str, *arguments: Any) -> None:
            return

    return Handler
