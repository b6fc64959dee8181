"""Ollama's interface, as far as a captioner can serve it: `/api/generate`, `/api/chat` and what clients ask before.

The prompt is not read, and options of language models are ignored, but for `num_predict`, the most tokens.
"""

import json
from collections.abc import AsyncIterator
from datetime import datetime, timezone
from time import monotonic_ns
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from limner.core.version import __version__
from limner.service import examples
from limner.service.chat import Message, caption_media
from limner.service.engine import Engine
from limner.service.errors import RequestError
from limner.service.media import Upload, decode_inline
from limner.service.options import parse_options
from limner.service.request_body import read_json

NO_JSON = "format: a captioner writes a sentence, no JSON; leave it out"


class OllamaOptions(BaseModel):
    """Options of a request; those that are not listed are ignored."""

    model_config = ConfigDict(extra="ignore")

    num_predict: int | None = None


class OllamaRequest(BaseModel):
    """What the two kinds of requests share."""

    model_config = ConfigDict(extra="ignore")

    model: str
    stream: bool = True
    options: OllamaOptions | None = None


class GenerateRequest(OllamaRequest):
    """A request to /api/generate."""

    images: list[str] | None = Field(default=None, description="In base64")


class OllamaMessage(BaseModel):
    """A message of a conversation."""

    role: str
    content: str | None = None
    images: list[str] | None = None


class OllamaChatRequest(OllamaRequest):
    """A request to /api/chat."""

    messages: list[OllamaMessage] = Field(default_factory=list)


def ollama_routes(engine: Engine, style: str, created: int) -> APIRouter:
    """The routes; `created` is when the service began, in seconds."""
    routes = APIRouter(tags=["Ollama"])
    _add_captions(routes, engine, style)
    _add_models(routes, engine, datetime.fromtimestamp(created, timezone.utc).isoformat())
    return routes


def _add_captions(routes: APIRouter, engine: Engine, style: str) -> None:
    async def answer(fields: dict[str, Any], asked: OllamaRequest, images: list[str], is_chat: bool) -> Any:
        if fields.get("format"):
            raise RequestError(400, NO_JSON, "wrong_option")
        began = monotonic_ns()
        _, pipeline = engine.model(asked.model)
        if not images and not (fields.get("prompt") or fields.get("messages")):  # "load the model": it is
            return _reply(asked.model, "", is_chat, {"done": True, "done_reason": "load"})
        media = [
            Upload(await engine.run(decode_inline, text, f"images[{number}]")) for number, text in enumerate(images)
        ]
        longest = asked.options.num_predict if asked.options else None
        longest = None if longest is None or longest < 1 else longest  # -1 and -2: no limit
        (message,) = await caption_media(engine, pipeline, media, 1, longest, style)
        end = _end(message, monotonic_ns() - began)
        if asked.stream:
            return StreamingResponse(_stream(asked.model, message, is_chat, end), media_type="application/x-ndjson")
        return _reply(asked.model, message.text, is_chat, end)

    @routes.post(
        "/api/generate",
        openapi_extra=examples.json_body(GenerateRequest, examples.GENERATE),
        responses=examples.answer(examples.GENERATE_ANSWER),
    )
    async def generate(request: Request) -> Any:
        """Caption the images of a request, as Ollama's generate."""
        fields = await read_json(request, engine)
        asked = parse_options(GenerateRequest, fields)
        return await answer(fields, asked, asked.images or [], is_chat=False)

    @routes.post("/api/chat", openapi_extra=examples.json_body(OllamaChatRequest, examples.OLLAMA_CHAT))
    async def chat(request: Request) -> Any:
        """Caption the images of the last message that has some, as Ollama's chat."""
        fields = await read_json(request, engine)
        asked = parse_options(OllamaChatRequest, fields)
        images: list[str] = next((message.images for message in reversed(asked.messages) if message.images), [])
        return await answer(fields, asked, images, is_chat=True)


def _add_models(routes: APIRouter, engine: Engine, modified: str) -> None:
    @routes.post("/api/show")
    async def show(request: Request) -> dict[str, Any]:
        """What Ollama's clients ask about a model."""
        fields = await read_json(request, engine)
        name, _ = engine.model(str(fields.get("model") or fields.get("name") or ""))
        details = _details(name)
        return {
            "modelfile": "", "parameters": "", "template": "", "details": details["details"],
            "model_info": {"general.architecture": "limner"}, "capabilities": ["completion", "vision"],
            "modified_at": modified,
        }  # fmt: skip

    @routes.get("/api/tags")
    @routes.get("/api/ps")
    async def tags() -> dict[str, Any]:
        """The models, as Ollama lists them."""
        return {"models": [_details(name) for name in engine.models]}

    def _details(name: str) -> dict[str, Any]:
        return {
            "name": f"{name}:latest",
            "model": f"{name}:latest",
            "modified_at": modified,
            "size": 0,
            "digest": engine.fingerprints[name],
            "details": {"format": "limner", "family": "limner", "families": ["limner"], "parameter_size": "",
                        "quantization_level": "", "parent_model": ""},
        }  # fmt: skip

    @routes.get("/api/version")
    async def version() -> dict[str, str]:
        """The version, of limner."""
        return {"version": __version__}


def _reply(model: str, text: str, is_chat: bool, more: dict[str, Any]) -> dict[str, Any]:
    """One object of an answer."""
    now = datetime.now(timezone.utc).isoformat()
    said = {"message": {"role": "assistant", "content": text}} if is_chat else {"response": text}
    return {"model": model, "created_at": now, **said, "done": False, **more}


def _end(message: Message, nanoseconds: int) -> dict[str, Any]:
    """The fields of the last object."""
    return {
        "done": True,
        "done_reason": "stop" if message.finished else "length",
        "total_duration": nanoseconds,
        "load_duration": 0,
        "prompt_eval_count": 0,
        "prompt_eval_duration": 0,
        "eval_count": message.tokens,
        "eval_duration": nanoseconds,
    }


async def _stream(model: str, message: Message, is_chat: bool, end: dict[str, Any]) -> AsyncIterator[str]:
    """A line of JSON per word, and one for the end."""
    for number, word in enumerate(message.text.split(" ")):
        yield json.dumps(_reply(model, word if number == 0 else f" {word}", is_chat, {})) + "\n"
    yield json.dumps(_reply(model, "", is_chat, end)) + "\n"
