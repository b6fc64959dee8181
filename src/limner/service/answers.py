"""The JSON of captions, with examples that the OpenAPI description shows and a test repeats."""

from pydantic import BaseModel, Field

from limner.core.torch_free import Caption
from limner.inference.pieces import Piece
from limner.service.engine import Captions
from limner.service.options import CaptionOptions
from limner.text.alt_text import alt_text
from limner.text.subtitles import WRITERS, Cue


class OtherCaption(BaseModel):
    """A further caption of the same medium."""

    caption: str
    logprob: float = Field(description="Natural log of its probability")


class WordMap(BaseModel):
    """A word and where the model looked when it wrote it."""

    word: str
    attention: list[list[list[float]]] = Field(description="Weights over cells (t, h, w); their sum is 1")


class CaptionPiece(OtherCaption):
    """The caption of an image, or of a piece of a clip."""

    finished: bool = Field(description="false: the length limit was reached before the end of the sentence")
    start: float | None = Field(default=None, description="Of a clip: seconds since the beginning of the file")
    end: float | None = None
    confidence: float | None = Field(
        default=None,
        description="Probability that people's captions agree; of calibrated models and their usual search",
    )
    unfamiliar: bool | None = Field(
        default=None, description="Of calibrated models; true: the picture is unlike those of training"
    )
    others: list[OtherCaption] = Field(default_factory=list, description="With n_best or sample above 1")
    words: list[WordMap] | None = Field(default=None, description="With attention")


class CaptionAnswer(CaptionPiece):
    """The caption of an image or clip; of a clip that was cut, the first piece, and all of them in `pieces`."""

    file: str = Field(default="", description="The name that the client gave")
    model: str
    pieces: list[CaptionPiece] | None = Field(default=None, description="The pieces of a clip, at least one")
    notes: list[str] = Field(default_factory=list, description="A line for each damaged part that could be skipped")


class MediumError(BaseModel):
    """A file of a batch that could not be captioned."""

    file: str = ""
    error: str


class BatchAnswer(BaseModel):
    """The answers to a batch, in the order of its media."""

    model: str
    results: list[CaptionAnswer | MediumError]


def styled(text: str, options: CaptionOptions, style: str) -> str:
    """A caption in the style of a request, or else in that of the service."""
    return alt_text(text, options.max_chars) if (options.style or style) == "alt-text" else text


def caption_answer(found: Captions, name: str, model: str, options: CaptionOptions, style: str) -> CaptionAnswer:
    """The answer for one medium."""
    rows = [_piece(piece, caption, options, style) for piece, caption in found.pieces]
    return CaptionAnswer(
        **rows[0].model_dump(), file=name, model=model, pieces=rows if found.is_clip else None, notes=list(found.notes)
    )


def subtitles(answer: CaptionAnswer, kind: str) -> str:
    """The subtitles of a clip: `kind` is srt or vtt."""
    cues = [Cue(row.start or 0.0, row.end or 0.0, row.caption) for row in answer.pieces or ()]
    return WRITERS[f".{kind}"](cues)


def _piece(piece: Piece, caption: Caption, options: CaptionOptions, style: str) -> CaptionPiece:
    maps = None
    if options.attention:
        maps = [
            WordMap(word=word, attention=weights.astype(float).round(5).tolist())
            for word, weights in zip(caption.words, caption.attention, strict=False)  # some models have no maps
        ]
    return CaptionPiece(
        caption=styled(caption.text, options, style),
        logprob=round(caption.logprob, 4),
        finished=caption.finished,
        start=None if piece.start is None else round(piece.start, 3),
        end=None if piece.end is None else round(piece.end, 3),
        confidence=None if caption.confidence is None else round(caption.confidence, 4),
        unfamiliar=caption.unfamiliar,
        others=[
            OtherCaption(caption=styled(other.text, options, style), logprob=round(other.logprob, 4))
            for other in caption.others
        ],
        words=maps,
    )
