"""A teacher's captions of the media of a data set, row by row into a journal; the same rows after an interruption."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext

from limner.apps.shared.captioning import row_of
from limner.apps.shared.journal import Journal, Row, printable
from limner.apps.shared.progress import progress_bar
from limner.core.torch_free import Caption, Failure, Medium
from limner.decode.options import Decoding, Sample
from limner.inference.load import CaptionPipeline
from limner.inference.pieces import Piece
from limner.training.caption_filters import TeacherCaption

CHUNK = 64  # media that are captioned together: after an interruption they are captioned together again
ENDS = (".", "!", "?")


def caption_media(
    media: Sequence[Medium],
    captioner: CaptionPipeline,
    decoding: Decoding,
    journal: Journal,
    batch_size: int = 16,
    style: Callable[[str], str] = str,
) -> list[str]:
    """Caption the media that the journal does not hold yet -> notes about them.

    A medium without a caption has a row with `problem`, and `answer` when a server answered something else.  Requests
    that failed are made again when the command is resumed, answers are kept.  The last bits of a log-probability depend
    on the images that are captioned together, and drawn captions on those before; therefore a chunk of `CHUNK` media is
    captioned as a whole, also again.
    """
    done = {row["id"] for row in journal.rows.values() if "problem" not in row or "answer" in row}
    notes: list[str] = []
    with progress_bar(len(media), 0) if journal.out else nullcontext() as show_progress:
        for start in range(0, len(media), CHUNK):
            chunk = media[start : start + CHUNK]
            if done.issuperset(printable(medium.id) for medium in chunk):
                continue
            if isinstance(decoding, Sample):
                import torch

                torch.manual_seed(start)
            results = captioner.captions(chunk, decoding, batch_size)
            for place, (medium, (_, result)) in enumerate(zip(chunk, results, strict=True), start + 1):
                journal.add(media_row(medium, result, style))
                notes += result.notes if isinstance(result, Caption) else ()
                if show_progress:
                    show_progress(place)
    return notes


def media_row(medium: Medium, result: Caption | Failure, style: Callable[[str], str] = str) -> Row:
    """The row of a medium; `style` changes the texts, and may make a whole sentence of one that was cut off."""
    times = {} if medium.start is None or medium.end is None else {"start": medium.start, "end": medium.end}
    if isinstance(result, Failure):
        row: Row = {"file": printable(medium.path), "caption": "", "logprob": None, "finished": False, **times}
        answer = {} if result.answer is None else {"answer": result.answer}
        return {**row, "id": printable(medium.id), "problem": result.reason, **answer}
    row = row_of(Piece(medium.path, medium.start, medium.end), result)
    text = style(result.text)
    row["finished"] = result.finished or (text != result.text and text.endswith(ENDS))
    row["caption"] = text
    others = row.pop("others", [])
    row["id"] = printable(medium.id)  # before `others`, as a journal reads it again
    return {**row, "others": [[style(other), logprob] for other, logprob in others]} if others else row


def captions_of(rows: Sequence[Row]) -> dict[str, list[TeacherCaption]]:
    """All captions of each medium by its id, the best first; an answer in place of a caption is one, too.

    Media without an answer are left out.
    """
    captions = {}
    for row in rows:
        if "problem" in row:
            if "answer" in row:
                captions[row["id"]] = [TeacherCaption(row["answer"])]
            continue
        best = TeacherCaption(row["caption"], row["logprob"], row["finished"])
        captions[row["id"]] = [best, *(TeacherCaption(*other) for other in row.get("others", []))]
    return captions
