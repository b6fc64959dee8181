"""`limner serve`: captions over HTTP."""

import argparse
import os
import socket
import sys
from argparse import Namespace
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from limner import shipped
from limner.apps.shared.arguments import WrongArguments, refuse_unknown
from limner.apps.shared.models import open_captioner
from limner.inference.load import CaptionPipeline

try:
    import uvicorn

    from limner.service.access import is_loopback
    from limner.service.app import Settings, create_app
    from limner.service.engine import Engine
    from limner.service.limits import Limits
except ModuleNotFoundError as error:
    raise ImportError(f"limner serve needs {error.name}: pip install 'limner[serve]'") from error

OPEN_FILES = 8192  # connections and files, as far as the system allows them


def run(options: argparse.Namespace, rest: list[str]) -> int:
    refuse_unknown(rest)
    token = read_token(options.token_file)
    limits = Limits(
        body_bytes=int(options.max_mb * (1 << 20)),
        buffered_bytes=max(512 << 20, 4 * int(options.max_mb * (1 << 20))),
        pixels=int(options.max_megapixels * 1e6),
        clip_seconds=options.max_seconds,
        waiting=options.queue,
        upload_seconds=options.upload_timeout,
        seconds=options.timeout,
    )
    loopback = is_loopback(options.host)
    listener = listen(options.host, options.port)
    Image.MAX_IMAGE_PIXELS = limits.pixels // 2  # Pillow refuses twice as many, also in formats inside formats
    engine = Engine(open_models(options), limits, None, options.batch_size, options.wait_ms / 1000)
    engine.warm_up()
    settings = Settings(
        options.style, token, loopback, [host.lower() for host in options.allow_host], options.allow_origin
    )
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(engine, settings),
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="on",
            ws="none",
            proxy_headers=False,
            limit_concurrency=raise_open_files(),
            timeout_graceful_shutdown=int(options.timeout + options.upload_timeout) + 1,
        )
    )
    listener.listen(2048)
    host, port = listener.getsockname()[:2]
    if not loopback:
        open_to = "whoever has the token" if token else "anyone, without a token"
        print(f"note: {options.host} can be reached from other machines: it is open to {open_to}", file=sys.stderr)
    print(f"{', '.join(engine.models)} at http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
    with suppress(KeyboardInterrupt):  # uvicorn sends the signal again when it has finished
        server.run([listener])
    print("stopped; what was begun is finished", flush=True)
    return 0


def read_token(path: Path | None) -> str:
    """The bearer token in a file, or else in the variable LIMNER_TOKEN; "" when there is none.

    Raises ValueError for an empty file, and for a token that a header cannot hold.
    """
    token = os.environ.get("LIMNER_TOKEN", "") if path is None else path.read_text(encoding="utf-8").strip()
    if path is not None and not token:
        raise ValueError(f"{path} is empty; it should hold the token")
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise ValueError("the token has other characters than ASCII letters, digits and signs")
    return token


def open_models(options: argparse.Namespace) -> dict[str, CaptionPipeline]:
    """The models of --model by name: the one before `=`, or else that of the folder.

    Raises WrongArguments when two have one name.
    """
    not_offered: dict[str, Any] = {
        "others": [],
        "weights": None,
        "average": "probabilities",
    }  # of `caption`; --timeout is another one here
    not_offered |= dict.fromkeys(("prompt", "context", "max_side", "requests", "timeout", "key_variable"))
    not_offered |= {"system": "", "dtype": ""}
    models: dict[str, CaptionPipeline] = {}
    for text in options.models or [""]:
        name, equals, source = text.partition("=")
        if not equals or Path(text).exists():
            name, source = "", text
        name = name or Path(source or shipped.DEFAULT).name.removesuffix(shipped.SUFFIX) or source
        if name in models:
            raise WrongArguments(f"--model: two models are called {name}: give --model NAME={source}")
        models[name] = open_captioner(Namespace(**{**vars(options), **not_offered}, model=source or None))
    return models


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; OSError, which says what to do, when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise OSError(f"{host}:{port} cannot be used ({error}); choose another --port or --host") from error
    return listener


def raise_open_files() -> int:
    """Allow as many open files as the system lets -> how many connections fit."""
    try:
        import resource
    except ImportError:  # not on Windows
        return 512
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return max(16, soft - 128)
