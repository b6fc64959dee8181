"""What a request may ask for; the fields are those of `limner caption` and `limner explain`."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from limner.decode.options import Decoding, Sample, with_options
from limner.inference.load import CaptionPipeline
from limner.inference.pieces import Cut
from limner.service.errors import RequestError
from limner.service.limits import MAX_BEAM, MAX_LENGTH, MAX_MUST
from limner.text.alt_text import MAX_CHARS


def _words(value: Any) -> Any:
    """A form field holds words separated by commas."""
    return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value


Word = Annotated[str, Field(max_length=100)]


class Options(BaseModel):
    """Fields that all requests share."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(default="", description="Name of a model of /v1/models; the first one when it is left out")
    beam: int | None = Field(
        default=None, ge=1, le=MAX_BEAM, description="Hypotheses of beam search; 1 is greedy search"
    )
    max_length: int | None = Field(
        default=None, ge=2, le=MAX_LENGTH, description="Most tokens, end of sentence included"
    )


class CaptionOptions(Options):
    """Options of a caption."""

    n_best: int | None = Field(default=None, ge=1, le=MAX_BEAM, description="The N best different captions of the beam")
    must: Annotated[list[Word], BeforeValidator(_words), Field(max_length=MAX_MUST)] = Field(
        default_factory=list, description="Words that the caption must contain; this|that: one of them"
    )
    never: Annotated[list[Word], BeforeValidator(_words), Field(max_length=1000)] = Field(
        default_factory=list, description="Words that it must not contain"
    )
    sample: int | None = Field(default=None, ge=1, le=MAX_BEAM, description="Draw N captions at random instead")
    temperature: float | None = Field(default=None, gt=0, le=100, description="Of sample; below 1: safer captions")
    top_k: int | None = Field(default=None, ge=1, description="Of sample: only the K likeliest words")
    top_p: float | None = Field(default=None, gt=0, le=1, description="Of sample: only the likeliest words, sum P")
    seed: int = Field(default=0, ge=0, lt=1 << 63, description="Of sample")
    style: Literal["plain", "alt-text"] | None = Field(
        default=None, description="alt-text: one sentence for a screen reader; the service's own style when left out"
    )
    max_chars: int = Field(default=MAX_CHARS, ge=10, le=1000, description="Of the style alt-text")
    attention: bool = Field(default=False, description="Answer with the words and their attention maps, (t, h, w)")
    shots: bool = Field(default=False, description="Cut a clip into shots, with a caption each")
    every: float | None = Field(default=None, gt=0, description="Cut a clip into windows of so many seconds")
    whole: bool = Field(default=False, description="One caption for a clip, however long; else more than 60 s are cut")
    format: Literal["json", "jsonl", "srt", "vtt"] = Field(
        default="json",
        description="srt, vtt: the subtitles of a clip; jsonl: lines with the progress of a clip, then the answer",
    )

    @property
    def cut(self) -> Cut:
        """How a clip is cut.  Raises RequestError when two ways are given."""
        if (self.every is not None) + self.shots + self.whole > 1:
            raise RequestError(400, "every, shots and whole are three ways to cut a clip: give one of them")
        return Cut(self.every, self.shots, self.whole)


class ExplainOptions(Options):
    """Options of an explanation."""

    method: str = Field(
        default="", description="attention, gradcam, gradcam++ or saliency; the model's usual one if left out"
    )
    sentence: str = Field(default="", max_length=1000, description="Explained instead of the model's own caption")
    start: float | None = Field(default=None, ge=0, description="Of a clip: explain the part that begins here, seconds")
    end: float | None = Field(default=None, ge=0, description="... and ends here")
    format: Literal["png", "mp4", "json"] | None = Field(
        default=None, description="png for images and mp4 for clips if left out; json: maps and frames as data"
    )


def parse_options(kind: type[BaseModel], fields: dict[str, Any]) -> Any:
    """Check the fields of a request.  Raises RequestError, which names the first wrong field and what it takes."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(map(str, first["loc"]))[:100]
        if first["type"] == "extra_forbidden":
            known = ", ".join(kind.model_fields)
            raise RequestError(400, f"there is no option {name!r}; known are {known}", "unknown_option") from error
        raise RequestError(400, f"{name}: {first['msg'][0].lower()}{first['msg'][1:]}", "wrong_option") from error


def decoding_of(options: CaptionOptions, pipeline: CaptionPipeline) -> Decoding:
    """The decoding that a request asks of a model.

    Raises RequestError for options that exclude each other, or that the model does not have.
    """
    drawn: dict[str, Any] = {"temperature": options.temperature, "top_k": options.top_k, "top_p": options.top_p}
    drawn = {name: value for name, value in drawn.items() if value is not None}
    searched: dict[str, Any] = {"beam": options.beam, "n_best": options.n_best, "must": tuple(options.must) or None}
    searched = {name: value for name, value in searched.items() if value is not None}
    rules: dict[str, Any] = {"max_length": options.max_length, "never": tuple(options.never) or None}
    if options.sample is None and drawn:
        raise RequestError(400, f"{', '.join(drawn)}: only for drawn captions; give sample too", "wrong_option")
    if options.sample is not None and searched:
        raise RequestError(400, f"sample has no beam: leave out {', '.join(searched)}", "wrong_option")
    try:
        decoding = with_options(pipeline.decoding, **searched, **rules)
        if options.sample is not None:
            decoding = Sample(options.sample, rules=decoding.rules, **drawn)
        return decoding if pipeline.vocabulary is None else decoding.bind(pipeline.vocabulary)
    except ValueError as error:
        raise RequestError(400, str(error), "wrong_option") from error
