"""The page at `/`: files of this package, with a policy that lets them load nothing else, and examples to try."""

import base64
import io
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from fastapi import APIRouter, Response
from PIL import Image

from limner.core.temporaries import temporary_folder
from limner.data.photographs import FPS, find_photographs, slide_show
from limner.data.shapes import generate_world
from limner.explanations.video import write_mp4
from limner.service.engine import Engine
from limner.service.errors import RequestError

TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
SHOWN = ("photographer.png", "cat.png", "astronaut.png", "coffee.png", "motorcycle.png", "palace.jpg")
CLIP = "slides.mp4"
THUMBNAIL = 160  # pixels of the longer side


def page_files() -> dict[str, bytes]:
    """The files of the page by name: HTML, styles, scripts."""
    folder = files("limner.service") / "page"
    return {file.name: file.read_bytes() for file in folder.iterdir() if Path(file.name).suffix in TYPES}


def page_paths() -> frozenset[str]:
    """The paths of the page's own files; they hold nothing that a token would protect."""
    return frozenset(["/", *(f"/page/{name}" for name in page_files())])


def page_routes(engine: Engine) -> APIRouter:
    """The routes of the page; they are no part of the interface for programs."""
    routes, content = APIRouter(include_in_schema=False), page_files()

    def answer(name: str) -> Response:
        return Response(content[name], media_type=TYPES[Path(name).suffix], headers=HEADERS)

    @routes.api_route("/", methods=["GET", "HEAD"])
    async def page() -> Response:
        return answer("index.html")

    @routes.get("/page/examples")
    async def listed() -> dict[str, Any]:
        found = await engine.draw(_thumbnails)
        examples = [{"name": name, "image": thumbnail} for name, thumbnail in found.items()]
        return {"examples": examples, "max_bytes": engine.limits.body_bytes}

    @routes.get("/page/examples/{name}")
    async def example(name: str) -> Response:
        found = await engine.draw(_examples)
        if name not in found:
            raise RequestError(404, f"there is no example {name[:100]!r}", "not_found")
        return Response(await engine.run(found[name]), media_type="application/octet-stream")

    @routes.get("/page/{name}")
    async def file(name: str) -> Response:
        if name not in content:
            raise RequestError(404, "there is no such address", "not_found")
        return answer(name)

    return routes


@cache
def _examples() -> Mapping[str, Callable[[], bytes]]:
    """Name -> function that gives the bytes: photographs of installed packages and a clip of them, or drawn shapes."""
    found, _ = find_photographs()
    if not found.keys() & set(SHOWN):
        return {name: partial(bytes, content) for name, content in _shapes().items()}
    return {name: found[name].read_bytes for name in SHOWN if name in found} | {CLIP: _clip}


@cache
def _clip() -> bytes:
    """Two seconds of each photograph."""
    found, _ = find_photographs()
    with temporary_folder(gettempdir(), "limner-example") as folder:
        frames = slide_show([found[name] for name in SHOWN if name in found])
        return write_mp4(folder / CLIP, frames, FPS).read_bytes()


def _shapes() -> dict[str, bytes]:
    """Images and a clip of the micro-world."""
    with temporary_folder(gettempdir(), "limner-example") as folder:
        generate_world(folder / "world", images=4, videos=1, seed=1, size=128)
        images = {f"shapes-{path.name}": path.read_bytes() for path in sorted((folder / "world" / "images").iterdir())}
        return {**images, CLIP: (folder / "world" / "videos" / "000000.mp4").read_bytes()}


@cache
def _thumbnails() -> Mapping[str, str]:
    """Name -> small JPEG as a data URL; "" for a clip."""
    return {name: "" if name == CLIP else _thumbnail(content()) for name, content in _examples().items()}


def _thumbnail(content: bytes) -> str:
    with Image.open(io.BytesIO(content)) as image:
        small, file = image.convert("RGB"), io.BytesIO()
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    small.save(file, "JPEG")
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
