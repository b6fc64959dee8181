"""A service in this process: the tiny model, a client that talks to it, and images to send."""

import base64
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from PIL import Image
from starlette.testclient import TestClient

from limner.service.app import Settings, create_app
from limner.service.engine import Engine
from limner.service.limits import Limits

BASE = "http://localhost"
DEFAULTS = Settings()


@contextmanager
def service(pipeline: Any, settings: Settings = DEFAULTS, **limits: Any) -> Iterator[TestClient]:
    """A client of a service with one model, `tiny`; `client.engine` is its engine."""
    engine = Engine({"tiny": pipeline}, Limits(**limits), wait=0.001)
    with TestClient(create_app(engine, settings), base_url=BASE) as client:
        client.engine = engine
        yield client


@contextmanager
def served(pipeline: Any, settings: Settings = DEFAULTS, **limits: Any) -> Iterator[str]:
    """The address of a service that listens, in a thread of this process; `pipeline` may be a dictionary of models."""
    models = pipeline if isinstance(pipeline, dict) else {"tiny": pipeline}
    app = create_app(Engine(models, Limits(**limits)), settings)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


def png(colour: tuple[int, int, int] = (200, 30, 30), size: tuple[int, int] = (32, 32)) -> bytes:
    """A PNG of one colour."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def text_of(content: bytes) -> str:
    """Bytes in base64."""
    return base64.b64encode(content).decode()


def images(tiny: Path, count: int) -> list[Path]:
    """Some images of the micro-world."""
    return sorted((tiny / "world" / "images").iterdir())[:count]


def error_of(answer: Any) -> tuple[int, str]:
    """(status, message) of a refusal of limner's own interface."""
    return answer.status_code, answer.json()["error"]["message"]
