"""The three forms of a request to limner's own interface: a form with files, JSON with base64, or the bytes alone."""

import json
from typing import Any

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from limner.service.engine import Engine
from limner.service.errors import RequestError
from limner.service.media import Upload, decode_inline

FORMS = "send a form with the file, JSON with base64 in the field image, or the bytes of the file as the body"


async def read_json(request: Request, engine: Engine) -> dict[str, Any]:
    """The JSON object of a request.  Raises RequestError for anything else."""
    value = await engine.run(_parse, await request.body())
    if not isinstance(value, dict):
        raise RequestError(400, f"expected a JSON object, got {type(value).__name__}", "invalid_json")
    return value


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body)
    except RecursionError as error:
        raise RequestError(400, "the JSON is nested too deep to be read", "invalid_json") from error
    except ValueError as error:  # also text that is not UTF-8, and a number of too many digits
        raise RequestError(400, f"the body is not JSON ({error})", "invalid_json") from error


async def read_media(request: Request, engine: Engine, field: str) -> tuple[dict[str, Any], list[Upload]]:
    """(options, media) of a request.

    `field` is "image" or "images", the field of JSON that holds one base64 text or a list of them.  Raises RequestError
    when the request has another form, or no medium.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == "multipart/form-data":
        options, media = await _read_form(request, engine)
    elif content_type.endswith("json"):
        options = await read_json(request, engine)
        media = await engine.run(_media_of_json, options, field)
    elif content_type.partition("/")[0] in ("image", "video") or content_type == "application/octet-stream":
        options, media = dict(request.query_params), [Upload(await request.body())]
    else:
        raise RequestError(415, f"a body of type {content_type[:100]!r} is not read: {FORMS}", "wrong_type")
    if not media:
        raise RequestError(400, f"there is no image or clip in the request: {FORMS}", "no_media")
    return options, media


def one_medium(media: list[Upload]) -> Upload:
    """The only medium of a request.  Raises RequestError when there are several."""
    if len(media) > 1:
        raise RequestError(400, f"expected one file, got {len(media)}: send several to /v1/caption/batch")
    return media[0]


async def _read_form(request: Request, engine: Engine) -> tuple[dict[str, Any], list[Upload]]:
    most = engine.limits.media
    try:
        form = await request.form(max_files=most + 1, max_fields=100)
    except HTTPException as error:
        if "Too many files" in error.detail:
            message = f"more than {most} files in one request: send several requests"
            raise RequestError(413, message, "too_many_media") from error
        raise RequestError(400, f"the form cannot be read: {error.detail}", "invalid_form") from error
    try:
        options: dict[str, Any] = {}
        media: list[Upload] = []
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                media.append(Upload(await value.read(), value.filename or ""))
            elif name in options:
                raise RequestError(400, f"the form has the field {name[:100]!r} twice", "invalid_form")
            elif value:  # an empty field of a form is one that was not filled in
                options[name] = value
        return options, media
    finally:
        await form.close()


def _media_of_json(options: dict[str, Any], field: str) -> list[Upload]:
    """Remove the media from the fields of a JSON request, and decode them."""
    value = options.pop(field, None)
    name = options.pop("name", "") if field == "image" else ""
    texts = [value] if field == "image" else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts) or not isinstance(name, str):
        kind = "text" if field == "image" else "a list of texts"
        raise RequestError(400, f"the field {field} must be {kind}: an image or clip in base64", "no_media")
    return [
        Upload(decode_inline(text, field if field == "image" else f"{field}[{number}]"), name)
        for number, text in enumerate(texts)
    ]
