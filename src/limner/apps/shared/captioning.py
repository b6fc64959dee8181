"""Captions of files as rows: what `limner caption` and `limner watch` share."""

import argparse
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from functools import partial
from math import isnan
from typing import Any

from limner.apps.shared.confidence import confidence_fields
from limner.apps.shared.journal import Row, printable
from limner.core.files import sha256
from limner.core.torch_free import Caption, Failure, Source, WithContext
from limner.decode.options import Decoding
from limner.inference.load import CaptionPipeline, PromptedPipeline
from limner.inference.pieces import Cut, Piece, Problems, pieces
from limner.text.alt_text import MAX_CHARS, alt_text
from limner.text.sentences import first_sentence
from limner.text.subtitles import timestamp


def style_of(options: argparse.Namespace) -> Callable[[str], str]:
    """The function that --style applies to every caption."""
    if options.style != "alt-text":
        return first_sentence if options.style == "sentence" else str
    return partial(alt_text, max_chars=options.max_chars or MAX_CHARS)


def provenance_of(
    options: argparse.Namespace, captioner: CaptionPipeline, decoding: Decoding, cut: Cut | None
) -> dict[str, Any]:
    """What decides about the captions; rows with another provenance are never mixed.  `cut`: None without videos."""
    made_with = provenance(captioner.fingerprint(), decoding)
    if options.style != "plain":
        made_with["style"] = {options.style: options.max_chars or MAX_CHARS}
    if isinstance(captioner, PromptedPipeline):
        made_with |= captioner.settings()
    if options.min_confidence is not None:
        made_with["min_confidence"] = options.min_confidence
    if options.others:
        from limner.runs.resolve import resolve_model

        members = [sha256(resolve_model(other) / "model.safetensors") for other in options.others]
        made_with["ensemble"] = {"members": members, "weights": options.weights, "of": options.average}
    if cut is not None:
        made_with["clips"] = {"frames": captioner.frames, **asdict(cut)}
        if captioner.clip != "mosaic":  # the only way of limner 0.2, whose outputs name none
            made_with["clips"]["read by"] = captioner.clip
    return made_with


def provenance(model: str, decoding: Decoding) -> dict[str, Any]:
    """The hash of a model's weights and the decoding, as JSON values."""
    return {"model": model, "decoding": json.loads(json.dumps(asdict(decoding)))}


def captioned(
    files: Iterable[str],
    captioner: CaptionPipeline,
    decoding: Decoding,
    cut: Cut,
    batch_size: int,
    problems: Problems,
    style: Callable[[str], str],
    context: Callable[[str], str] | None = None,
) -> Iterator[tuple[Piece, Caption | Failure]]:
    """The caption of every piece of the files, in order; a Failure where there is none.

    `context` is what is known about a file, `style` is applied to every caption.  Files whose pieces cannot be found
    add a line to `problems` and give nothing here.
    """
    waiting: deque[Piece] = deque()

    def sources() -> Iterator[Source]:
        for piece, source in pieces(files, cut, captioner.sampling, problems):
            waiting.append(piece)
            yield WithContext(source, known) if context and (known := context(piece.file)) else source

    for _, result in captioner.captions(sources(), decoding, batch_size):
        yield waiting.popleft(), result if isinstance(result, Failure) else in_style(result, style)


def in_style(caption: Caption, style: Callable[[str], str]) -> Caption:
    """A caption, and the next best ones, with `style` applied to the texts."""
    others = tuple(replace(other, text=style(other.text)) for other in caption.others)
    return replace(caption, text=style(caption.text), others=others)


def printed_line(piece: Piece, text: str, files: int) -> str:
    """A caption as it is printed: after its file name if there are several files, and after its time in a video."""
    name = [] if files == 1 else [printable(piece.file)]
    if not piece.whole_file and piece.start is not None and piece.end is not None:
        name.append(f"{timestamp(piece.start)} - {timestamp(piece.end)}")
    return ": ".join([" ".join(name), text] if name else [text])


def row_of(piece: Piece, caption: Caption, min_confidence: float | None = None) -> Row:
    """A caption as a row of the output; times in seconds.  One below `min_confidence` is withheld."""
    times = {} if piece.start is None or piece.end is None else {"start": piece.start, "end": piece.end}
    withheld = min_confidence is not None and caption.confidence is not None and caption.confidence < min_confidence
    return {
        "file": printable(piece.file),
        "caption": "" if withheld else caption.text,
        "logprob": _rounded(caption.logprob),
        "finished": caption.finished,
        **{name: round(value, 3) for name, value in times.items()},
        **confidence_fields(caption),
        **({"withheld": caption.text} if withheld else {}),
        **({"others": [[it.text, _rounded(it.logprob)] for it in caption.others]} if caption.others else {}),
    }


def _rounded(logprob: float) -> float | None:
    """A log-probability as in outputs; None for NaN: a server told none."""
    return None if isnan(logprob) else round(logprob, 4)
