"""The web application: routes, guards, errors in plain words, health and metrics."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import time

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from limner.core.version import __version__
from limner.service.access import Access
from limner.service.bodies import WholeBodies
from limner.service.engine import Engine
from limner.service.errors import RequestError
from limner.service.metrics import Counting
from limner.service.native import native_routes
from limner.service.ollama_api import ollama_routes
from limner.service.openai_api import openai_routes
from limner.service.web_page import page_paths, page_routes

DESCRIPTION = "Captions of images and clips, written by models on this machine."


@dataclass(frozen=True)
class Settings:
    """What an operator decides about a service."""

    style: str = "plain"  # of captions whose request names no style: plain or alt-text
    token: str = ""  # bearer token that requests need; "": none
    loopback: bool = True  # answer requests to localhost only
    hosts: Sequence[str] = ()  # hosts from which images may be fetched
    origins: Sequence[str] = ()  # web pages that may use the service from a browser


def create_app(engine: Engine, settings: Settings = Settings()) -> FastAPI:
    """The application for an engine; it closes the engine when it is shut down."""
    created = int(time())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        engine.close()

    app = FastAPI(
        title="limner", version=__version__, description=DESCRIPTION, lifespan=lifespan,
        docs_url=None, redoc_url=None,  # their pages load scripts from another host
    )  # fmt: skip
    app.include_router(native_routes(engine, settings.style, created))
    app.include_router(openai_routes(engine, settings.style, settings.hosts, created))
    app.include_router(ollama_routes(engine, settings.style, created))
    app.include_router(page_routes(engine))
    _add_health(app, engine)
    _add_errors(app, engine)
    # the last one that is added sees a request first
    app.add_middleware(Counting, metrics=engine.metrics)
    app.add_middleware(WholeBodies, limits=engine.limits, metrics=engine.metrics)
    app.add_middleware(
        Access, token=settings.token, loopback=settings.loopback, limits=engine.limits, more=page_paths()
    )
    if settings.origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(settings.origins), allow_methods=["*"], allow_headers=["*"]
        )
    return app


def _add_health(app: FastAPI, engine: Engine) -> None:
    @app.get("/healthz", tags=["health"], response_class=PlainTextResponse)
    async def healthz() -> str:
        """Whether the process answers."""
        return "ok\n"

    @app.get("/readyz", tags=["health"], response_class=PlainTextResponse)
    async def readyz() -> PlainTextResponse:
        """Whether captions are written: 200, or 503 while the service stops."""
        return PlainTextResponse("ok\n" if engine.is_ready else "stopping\n", 200 if engine.is_ready else 503)

    @app.get("/metrics", tags=["health"], response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Counters in the text format of Prometheus."""
        return Response(engine.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_errors(app: FastAPI, engine: Engine) -> None:
    async def refused(request: Request, error: RequestError) -> JSONResponse:
        engine.metrics.refused.labels(error.code).inc()
        return error.response(request.url.path)

    async def of_http(request: Request, error: HTTPException) -> JSONResponse:
        known = {404: "there is no such address", 405: f"{request.method} is not for this address"}
        message = known.get(error.status_code, str(error.detail))
        return await refused(request, RequestError(error.status_code, message, "not_found"))

    async def of_disk(request: Request, error: OSError) -> JSONResponse:
        message = f"the service cannot write its temporary files ({error.strerror})"
        return await refused(request, RequestError(507, message, "disk"))

    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        message = "the service failed at this request; its log says more"
        return await refused(request, RequestError(500, message, "failed"))

    app.add_exception_handler(RequestError, refused)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, of_http)  # type: ignore[arg-type]
    app.add_exception_handler(OSError, of_disk)  # type: ignore[arg-type]
    app.add_exception_handler(Exception, unexpected)
