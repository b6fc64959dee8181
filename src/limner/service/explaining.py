"""Explanations for requests: a figure of an image, a film of a clip."""

from tempfile import gettempdir
from typing import Any

import torch

from limner.core.temporaries import temporary_folder
from limner.core.types import Medium, Pixels
from limner.data.archives import temporary_file
from limner.explanations.clip_sentence import captioned
from limner.explanations.explanation_input import DisplayFrames, display_frames
from limner.explanations.exported import explain_exported
from limner.explanations.maps import (
    METHODS,
    Explanation,
    default_method,
    explain,
    sentence_from_text,
)
from limner.explanations.write import write_explanation
from limner.inference.load import CaptionPipeline
from limner.inference.onnx.pipeline import OnnxPipeline
from limner.inference.pipeline import Pipeline
from limner.service.engine import Engine
from limner.service.errors import RequestError
from limner.service.explanation_data import explanation_data
from limner.service.media import Upload, check_image
from limner.service.options import CaptionOptions, ExplainOptions, decoding_of

NO_MAPS = "this model cannot show where it looked: it has no attention, or it is several models, or not one of limner's"


def methods_of(pipeline: CaptionPipeline) -> list[str]:
    """The methods that explain a model, the usual one first: attention alone of exported models, none of ensembles and
    models of `transformers`."""
    if isinstance(pipeline, OnnxPipeline):
        return ["attention"] if pipeline.model.manifest.attends else []
    if not isinstance(pipeline, Pipeline) or pipeline.others:
        return []
    usual = default_method(pipeline.model)
    others = [name for name in METHODS if name != usual and (name != "attention" or pipeline.model.attends)]
    return [usual, *others]


async def explain_medium(
    engine: Engine, pipeline: CaptionPipeline, upload: Upload, options: ExplainOptions
) -> tuple[bytes, str]:
    """Explain an image or clip -> the file and its kind, png or mp4.

    Raises RequestError for a model or a method that cannot be had, ValueError when the medium cannot be read.
    """
    methods = methods_of(pipeline)
    if not methods or not isinstance(pipeline, Pipeline | OnnxPipeline):
        raise RequestError(400, NO_MAPS, "no_maps")
    method = options.method or methods[0]
    if method not in methods:
        raise RequestError(400, f"method {method[:100]!r}: this model has {', '.join(methods)}", "wrong_option")
    loaded: Pipeline | OnnxPipeline = pipeline
    searched = CaptionOptions(beam=options.beam, max_length=options.max_length)
    decoding: Any = decoding_of(searched, loaded)
    is_clip = await engine.run(lambda: upload.is_clip)
    part = (options.start, options.end) if is_clip else (None, None)
    pixels, shown = await (engine.fetch if is_clip else engine.run)(_read, engine, loaded, upload, is_clip, part)

    def maps() -> Explanation:
        given = sentence_from_text(loaded.vocabulary, options.sentence) if options.sentence else None
        if isinstance(loaded, OnnxPipeline):
            return explain_exported(loaded, pixels, decoding, given)
        with torch.no_grad():
            features = loaded.encode(Pixels(pixels[None].to(loaded.device)))
        sentence, weights = captioned(loaded.run, features, decoding, loaded.clip, given)
        return explain(loaded.model, features, sentence, method, weights)

    explanation = await engine.on_worker(maps)
    kind = options.format or ("mp4" if is_clip else "png")
    if kind == "json":
        return await engine.draw(lambda: explanation_data(explanation, shown).model_dump_json().encode()), kind
    return await engine.draw(lambda: _drawn(explanation, shown, kind)), kind


def _read(
    engine: Engine,
    pipeline: Pipeline | OnnxPipeline,
    upload: Upload,
    is_clip: bool,
    part: tuple[float | None, float | None],
) -> tuple[Any, DisplayFrames]:
    """The frames as `pipeline.read` gives them, and the frames to draw on; `part` of a clip in seconds."""
    check_image(upload, engine.limits)
    with engine.local_clip(upload) if is_clip else temporary_file(upload.content, upload.local_name) as path:
        medium = Medium("", path, start=part[0], end=part[1])
        seen = pipeline.preprocess if isinstance(pipeline, OnnxPipeline) else pipeline.encoder
        return pipeline.read(medium, [])[0], display_frames(medium, seen, pipeline.sampling)


def _drawn(explanation: Explanation, shown: DisplayFrames, kind: str) -> bytes:
    with temporary_folder(gettempdir(), "limner-explanation") as folder:
        path = folder / f"explanation.{kind}"
        write_explanation(explanation, shown, path)
        return path.read_bytes()
