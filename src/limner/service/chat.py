"""What the interfaces of OpenAI and Ollama share: an image of a conversation in, a caption as a message out."""

from collections.abc import Sequence
from dataclasses import dataclass

from limner.decode.options import Decoding
from limner.inference.load import CaptionPipeline
from limner.service.answers import styled
from limner.service.engine import Engine
from limner.service.errors import RequestError
from limner.service.media import Upload
from limner.service.options import CaptionOptions, decoding_of

NO_IMAGE = "there is no image in the request, and a captioner does nothing without one: send an image with the message"


@dataclass(frozen=True)
class Message:
    """The text of an answer."""

    text: str
    tokens: int  # the end of the sentence included
    finished: bool


async def caption_media(
    engine: Engine, pipeline: CaptionPipeline, media: Sequence[Upload], count: int, max_tokens: int | None, style: str
) -> list[Message]:
    """Caption the media of a message: `count` answers with a line for each medium, the best answer first.

    `max_tokens` shortens the captions; more than the model's own length changes nothing.  Raises RequestError when
    there is no medium or one that cannot be read.
    """
    if not media:
        raise RequestError(400, NO_IMAGE, "no_image")
    length = pipeline.decoding.rules.max_length
    if max_tokens is not None:
        length = max(2, min(length, max_tokens))
    beam = max(count, pipeline.decoding.size)
    options = CaptionOptions(
        max_length=None if length == pipeline.decoding.rules.max_length else length,
        n_best=count if count > 1 else None,
        beam=beam if count > 1 else None,
    )
    decoding = decoding_of(options, pipeline)
    with engine.admit(len(media)):
        answers = [
            await engine.within_time(_messages(engine, pipeline, upload, decoding, options, style)) for upload in media
        ]
    # of several images, an answer holds a line for each
    return [
        Message("\n".join(each.text for each in row), sum(each.tokens for each in row), all(e.finished for e in row))
        for row in zip(*answers, strict=False)
    ]


async def _messages(
    engine: Engine, pipeline: CaptionPipeline, upload: Upload, decoding: Decoding, options: CaptionOptions, style: str
) -> list[Message]:
    """The captions of one medium, the best first; of a clip in pieces, a line for each piece."""
    try:
        found = await engine.caption(upload, pipeline, decoding)
    except ValueError as error:
        raise RequestError(400, upload.reason(error), "unreadable_image") from error
    if len(found.pieces) > 1:
        captions = [caption for _, caption in found.pieces]
        text = "\n".join(styled(caption.text, options, style) for caption in captions)
        return [Message(text, sum(len(caption.words) + 1 for caption in captions), True)]
    best = found.pieces[0][1]
    return [
        Message(styled(each.text, options, style), len(each.text.split()) + each.finished, each.finished)
        for each in (best, *best.others)
    ]
