"""OpenAI's interface for chats, as far as a captioner can serve it: the message's images in, a caption out.

The prompt is not read: a captioner always does the same.  Options that only a language model has are ignored; those
that would change the form of the answer are refused.
"""

import json
from collections.abc import AsyncIterator, Collection, Sequence
from itertools import count
from time import time
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from limner.service import examples
from limner.service.chat import Message, caption_media
from limner.service.engine import Engine
from limner.service.errors import RequestError
from limner.service.limits import MAX_BEAM
from limner.service.media import Upload, decode_inline, fetch, is_web_address
from limner.service.options import parse_options
from limner.service.request_body import read_json

NOT_TEXT = "response_format: a captioner writes a sentence, no JSON; leave it out"


class ImageUrl(BaseModel):
    """Where an image is."""

    url: str


class Part(BaseModel):
    """A part of a message: text, which is not read, or an image."""

    type: str
    image_url: ImageUrl | str | None = None


class ChatMessage(BaseModel):
    """A message of a conversation."""

    role: str
    content: str | list[Part] | None = None


class ResponseFormat(BaseModel):
    """The form of the answer."""

    type: Literal["text"]


class ChatRequest(BaseModel):
    """A request for a chat completion; fields that are not listed are ignored."""

    model_config = ConfigDict(extra="ignore")

    model: str = ""
    messages: list[ChatMessage] = Field(min_length=1)
    n: int = Field(default=1, ge=1, le=MAX_BEAM)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    stream: bool = False


def openai_routes(engine: Engine, style: str, hosts: Collection[str], created: int) -> APIRouter:
    """The routes; images may be fetched from `hosts`."""
    routes, numbers = APIRouter(tags=["OpenAI"]), count(1)

    @routes.post(
        "/v1/chat/completions",
        openapi_extra=examples.json_body(ChatRequest, examples.CHAT),
        responses=examples.answer(examples.CHAT_ANSWER),
    )
    async def chat(request: Request) -> Any:
        """Caption the images of the last message that has some, as OpenAI's chat completions."""
        fields = await read_json(request, engine)
        if isinstance(fields.get("response_format"), dict) and fields["response_format"].get("type", "text") != "text":
            raise RequestError(400, NOT_TEXT, "wrong_option")
        asked = parse_options(ChatRequest, fields)
        name, pipeline = engine.model(asked.model)
        media = await _images(engine, asked.messages, hosts)
        longest = asked.max_completion_tokens or asked.max_tokens
        answers = await caption_media(engine, pipeline, media, asked.n, longest, style)
        head = {"id": f"chatcmpl-{created}-{next(numbers)}", "created": int(time()), "model": name}
        if asked.stream:
            include_usage = bool((fields.get("stream_options") or {}).get("include_usage"))
            return StreamingResponse(_stream(head, answers, include_usage), media_type="text/event-stream")
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": answer.text, "refusal": None},
                "finish_reason": _reason(answer),
                "logprobs": None,
            }
            for index, answer in enumerate(answers)
        ]
        return {**head, "object": "chat.completion", "choices": choices, "usage": _usage(answers)}

    return routes


async def _images(engine: Engine, messages: Sequence[ChatMessage], hosts: Collection[str]) -> list[Upload]:
    """The images of the last message that has some."""
    for message in reversed(messages):
        parts = message.content if isinstance(message.content, list) else []
        urls = [part.image_url for part in parts if part.image_url is not None]
        texts = [url.url if isinstance(url, ImageUrl) else url for url in urls]
        if len(texts) > engine.limits.media:
            most = engine.limits.media
            raise RequestError(413, f"{len(texts)} images in one message; at most {most} are allowed", "too_many_media")
        if texts:
            return [await _upload(engine, text, hosts) for text in texts]
    return []


async def _upload(engine: Engine, text: str, hosts: Collection[str]) -> Upload:
    if is_web_address(text):
        return Upload(await engine.fetch(fetch, text.strip(), "image_url", hosts, engine.limits))
    return Upload(await engine.run(decode_inline, text, "image_url"))


def _reason(answer: Message) -> str:
    return "stop" if answer.finished else "length"


def _usage(answers: Sequence[Message]) -> dict[str, int]:
    tokens = sum(answer.tokens for answer in answers)
    return {"prompt_tokens": 0, "completion_tokens": tokens, "total_tokens": tokens}


async def _stream(head: dict[str, Any], answers: Sequence[Message], include_usage: bool) -> AsyncIterator[str]:
    """Server-sent events: the role, the words one by one, the reason of the end."""
    chunk = {**head, "object": "chat.completion.chunk"}
    for index, answer in enumerate(answers):
        words = answer.text.split(" ")
        texts = [word if number == 0 else f" {word}" for number, word in enumerate(words)]
        deltas: list[dict[str, str]] = [{"role": "assistant", "content": ""}, *({"content": text} for text in texts)]
        for delta in deltas:
            yield _event({**chunk, "choices": [{"index": index, "delta": delta, "finish_reason": None}]})
        yield _event({**chunk, "choices": [{"index": index, "delta": {}, "finish_reason": _reason(answer)}]})
    if include_usage:
        yield _event({**chunk, "choices": [], "usage": _usage(answers)})
    yield "data: [DONE]\n\n"


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value)}\n\n"
