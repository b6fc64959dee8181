"""The end of a distillation: the student captions what the teacher has captioned, and a page compares both."""

from collections.abc import Mapping, Sequence

from limner.apps.shared.journal import Journal, Row, printable
from limner.apps.shared.teacher_files import TeacherFiles
from limner.apps.shared.teaching import caption_media, captions_of
from limner.comparison.compare import Comparison, compare, to_json
from limner.comparison.compared_runs import ComparedRun
from limner.comparison.teaching_page import TeachingFacts, teacher_agreement, teaching_page
from limner.core.files import write_json, write_text
from limner.core.types import UNK, Medium
from limner.inference.pipeline import Pipeline
from limner.runs.run import Run, load_run
from limner.text.tokens import scoring_tokenizer
from limner.training.caption_filters import REASONS, FilteredCaptions

EXAMPLES = 3  # rejected captions of each reason that are shown


def compare_with_teacher(
    teacher: str,
    files: TeacherFiles,
    taught: Sequence[Medium],
    compared: Sequence[Medium],
    rows: Sequence[Row],
    filtered: FilteredCaptions,
    batch_size: int = 16,
) -> list[str]:
    """Write distill.html and distill.json into the run folder -> notes.

    rows  what the teacher said about all media
    """
    student_run = load_run(files.run)
    if student_run.encoder is None:
        return [f"{files.run} reads stored features only, so that it cannot be compared here: see limner compare"]
    student = Pipeline(student_run)
    notes: list[str] = []
    journal = Journal(None, False, {})
    print(f"{files.run} captions {len(compared):,} images and clips", flush=True)
    notes += caption_media(compared, student, student.decoding, journal, batch_size)
    media = {printable(medium.id): medium for medium in compared}
    ours = {row["id"]: row["caption"] for row in journal.rows.values() if "problem" not in row}
    theirs = {row["id"]: row["caption"] for row in rows if "problem" not in row and row["id"] in ours}
    if without := len(media) - len(theirs):
        notes.append(f"{without} of {len(media)} compared images and clips have no caption of both")
    tokenizer = scoring_tokenizer(student_run.vocabulary.tokenizer)
    facts = _facts(teacher, student_run, taught, rows, filtered)
    comparison = _comparison(teacher, files, media, theirs, ours, tokenizer)
    agreement = teacher_agreement(theirs, ours, tokenizer)
    text, missing = teaching_page(facts, comparison, agreement, media, theirs, ours)
    write_text(files.run / "distill.html", text)
    write_json(
        files.run / "distill.json",
        {
            **facts.to_json(),
            "student against teacher": agreement.to_json() if agreement else None,
            "comparison": to_json(comparison) if comparison else None,
            "captions": [{"id": id, "teacher": theirs.get(id), "student": text} for id, text in ours.items()],
        },
    )
    if comparison is not None:
        from limner.apps.compare import table
        from limner.apps.shared.console import open_console

        open_console().print(table(comparison))
        notes += comparison.warnings
    elif agreement is not None:
        score = 100 * agreement.scores["CIDEr"]
        print(f"the student's captions against those of the teacher: CIDEr {score:.1f} ({len(agreement.ids)} items)")
    print(f"wrote {files.run / 'distill.html'} and {files.run / 'distill.json'}")
    return [*notes, *missing]


def _comparison(
    teacher: str,
    files: TeacherFiles,
    media: Mapping[str, Medium],
    theirs: Mapping[str, str],
    ours: Mapping[str, str],
    tokenizer: str,
) -> Comparison | None:
    """Teacher and student against people's captions; None for less than two media that have all three."""
    ids = [id for id, medium in media.items() if medium.references and id in theirs and id in ours]
    if len(ids) < 2:
        return None
    runs = [
        ComparedRun(name, path, {id: captions[id] for id in ids}, ())
        for name, path, captions in (
            (f"teacher {teacher}", files.captions, theirs),
            (f"student {files.run}", files.run, ours),
        )
    ]
    return compare(runs, {id: media[id] for id in ids}, tokenizer)


def _facts(
    teacher: str, student: Run, taught: Sequence[Medium], rows: Sequence[Row], filtered: FilteredCaptions
) -> TeachingFacts:
    """The numbers of captions that were asked for, kept and rejected."""
    ids = {printable(medium.id) for medium in taught}
    failed = sum("problem" in row and "answer" not in row for row in rows if row["id"] in ids)
    said = {id: own for id, own in captions_of(rows).items() if id in ids}
    words = [word for own in filtered.kept.values() for it in own for word in student.vocabulary.encode(it.text)[1:-1]]
    counts = {
        "images and clips that the teacher was asked about": len(ids),
        "without an answer": failed,
        "captions": sum(map(len, said.values())),
        "rejected captions": len(filtered.rejected),
        "captions that the student learns from": filtered.count,
        "images and clips with such a caption": len(filtered.kept),
        "their words": len(words),
        "of these not in the student's vocabulary": sum(word == UNK for word in words),
    }
    rejected = {
        reason: (
            count,
            REASONS[reason],
            [(it.id, it.caption.text, it.detail) for it in filtered.rejected if it.reason == reason][:EXAMPLES],
        )
        for reason, count in filtered.reasons().items()
    }
    return TeachingFacts(teacher, str(student.folder), counts, rejected)
