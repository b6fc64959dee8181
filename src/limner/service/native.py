"""limner's own interface: captions, batches, explanations and models."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from limner.service import examples
from limner.service.answers import BatchAnswer, CaptionAnswer, MediumError, caption_answer, subtitles
from limner.service.engine import Engine, Progress
from limner.service.errors import RequestError, error_body
from limner.service.explaining import explain_medium, methods_of
from limner.service.media import Upload
from limner.service.options import CaptionOptions, ExplainOptions, decoding_of, parse_options
from limner.service.request_body import one_medium, read_media

SUBTITLE_TYPES = {"srt": "application/x-subrip", "vtt": "text/vtt"}
EXPLANATION_TYPES = {"png": "image/png", "mp4": "video/mp4", "json": "application/json"}


def native_routes(engine: Engine, style: str, created: int) -> APIRouter:
    """The routes; `style` is that of captions whose request names none, `created` when the service began (seconds)."""
    routes = APIRouter(tags=["limner"])
    _add_captions(routes, engine, style)
    _add_explanations(routes, engine)
    _add_models(routes, engine, created)
    return routes


async def _caption(
    engine: Engine,
    upload: Upload,
    options: CaptionOptions,
    style: str,
    on_progress: Progress = lambda fraction: None,
) -> CaptionAnswer:
    """The caption of one medium.  Raises RequestError when it cannot be read."""
    name, pipeline = engine.model(options.model)
    decoding = decoding_of(options, pipeline)
    try:
        found = await engine.caption(upload, pipeline, decoding, options.cut, options.seed, on_progress)
    except ValueError as error:
        raise RequestError(422, upload.reason(error), "unreadable") from error
    return caption_answer(found, upload.label, name, options, style)


async def _lines(engine: Engine, upload: Upload, options: CaptionOptions, style: str) -> AsyncIterator[str]:
    """The answer of format jsonl: {"progress": fraction} while a clip is captioned, then the answer or the error."""
    loop, fractions = asyncio.get_running_loop(), asyncio.Queue[float]()

    def on_progress(fraction: float) -> None:
        loop.call_soon_threadsafe(fractions.put_nowait, fraction)

    async def whole() -> dict[str, Any]:
        try:
            with engine.admit(1):
                answer = await engine.within_time(_caption(engine, upload, options, style, on_progress))
            return {"answer": answer.model_dump(exclude_none=True)}
        except RequestError as error:
            engine.metrics.refused.labels(error.code).inc()
            return {**error_body("", error.status, error.message, error.code), "status": error.status}
        except OSError as error:
            message = f"the service cannot write its temporary files ({error.strerror})"
            return {**error_body("", 507, message, "disk"), "status": 507}

    work = asyncio.ensure_future(whole())
    try:
        while not work.done():
            waiting = asyncio.ensure_future(fractions.get())
            await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                yield json.dumps({"progress": round(waiting.result(), 4)}) + "\n"
            waiting.cancel()
        yield json.dumps(work.result()) + "\n"
    finally:
        work.cancel()


def _add_captions(routes: APIRouter, engine: Engine, style: str) -> None:
    @routes.post(
        "/v1/caption",
        response_model=CaptionAnswer,
        response_model_exclude_none=True,
        openapi_extra=examples.body(CaptionOptions, "image", examples.CAPTION),
        responses=examples.answer(examples.CAPTION_ANSWER),
    )
    async def caption(request: Request) -> Any:
        """Caption an image or a clip."""
        fields, media = await read_media(request, engine, "image")
        options = parse_options(CaptionOptions, fields)
        upload = one_medium(media)
        if options.format == "jsonl":
            decoding_of(options, engine.model(options.model)[1])  # wrong options have a status of their own
            return StreamingResponse(_lines(engine, upload, options, style), media_type="application/jsonl")
        with engine.admit(1):
            answer = await engine.within_time(_caption(engine, upload, options, style))
        if options.format == "json":
            return answer
        if answer.pieces is None:
            raise RequestError(400, f"format {options.format}: subtitles are of a clip, and this is an image")
        return Response(subtitles(answer, options.format), media_type=SUBTITLE_TYPES[options.format])

    @routes.post(
        "/v1/caption/batch",
        response_model=BatchAnswer,
        response_model_exclude_none=True,
        openapi_extra=examples.body(CaptionOptions, "images", examples.BATCH),
        responses=examples.answer(examples.BATCH_ANSWER),
    )
    async def batch(request: Request) -> Any:
        """Caption several images or clips; one that cannot be read has an `error` in the place of its caption."""
        fields, media = await read_media(request, engine, "images")
        options = parse_options(CaptionOptions, fields)
        name, pipeline = engine.model(options.model)
        decoding_of(options, pipeline)  # wrong options are an error of the request, not of each medium
        if options.format != "json":
            raise RequestError(400, f"format {options.format} is for one file: send it to /v1/caption")

        async def one(upload: Upload) -> CaptionAnswer | MediumError:
            try:
                return await _caption(engine, upload, options, style)
            except RequestError as error:
                return MediumError(file=upload.label, error=error.message)

        with engine.admit(len(media)):
            results = await engine.within_time(asyncio.gather(*map(one, media)))
        return BatchAnswer(model=name, results=list(results))


def _add_explanations(routes: APIRouter, engine: Engine) -> None:
    @routes.post(
        "/v1/explain",
        response_class=Response,
        openapi_extra=examples.body(ExplainOptions, "image", examples.EXPLAIN),
        responses={200: {"content": {kind: {} for kind in EXPLANATION_TYPES.values()}}},
    )
    async def explain(request: Request) -> Response:
        """Show where the model looked for each word: a figure (PNG) of an image, a film (MP4) of a clip, or maps."""
        fields, media = await read_media(request, engine, "image")
        options = parse_options(ExplainOptions, fields)
        upload = one_medium(media)
        _, pipeline = engine.model(options.model)
        with engine.admit(1):
            try:
                content, kind = await engine.within_time(explain_medium(engine, pipeline, upload, options))
            except ValueError as error:
                raise RequestError(422, upload.reason(error), "unreadable") from error
        return Response(content, media_type=EXPLANATION_TYPES[kind])


def _add_models(routes: APIRouter, engine: Engine, created: int) -> None:
    @routes.get("/v1/models", responses=examples.answer(examples.MODELS_ANSWER))
    async def models() -> dict[str, Any]:
        """The models of this service, the default one first; OpenAI's clients read this list too."""
        return {"object": "list", "data": [model_info(engine, name, created) for name in engine.models]}

    @routes.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        """One model."""
        return model_info(engine, engine.model(name)[0], created)


def model_info(engine: Engine, name: str, created: int) -> dict[str, Any]:
    """What is known about a model."""
    pipeline = engine.models[name]
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "limner",
        "fingerprint": engine.fingerprints[name],
        "words": None if pipeline.vocabulary is None else len(pipeline.vocabulary),
        "frames": pipeline.frames,
        "clip": pipeline.clip,
        "decoding": asdict(pipeline.decoding),
        "methods": methods_of(pipeline),
    }
