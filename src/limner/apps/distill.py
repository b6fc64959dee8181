"""`limner distill`: a teacher captions the media of training, and a student is trained on its captions.

The run folder gets `teacher/` (captions.jsonl has all that the teacher said, pseudo_captions.jsonl what the student
learns from, rejected.jsonl the rest with reasons), and distill.html and distill.json, which compare both.
"""

import argparse
import hashlib
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from limner.apps.shared.arguments import (
    Override,
    WrongArguments,
    overrides,
    report_failed,
    report_lines,
    report_notes,
)
from limner.apps.shared.captioning import provenance
from limner.apps.shared.decoding import decoding_of
from limner.apps.shared.journal import Journal, Row, finished_rows, printable
from limner.apps.shared.models import open_captioner
from limner.apps.shared.teacher_files import TeacherFiles
from limner.apps.shared.teaching import caption_media, captions_of
from limner.apps.shared.teaching_report import compare_with_teacher
from limner.apps.train import Watcher
from limner.core.files import write_text
from limner.core.locks import lock_output
from limner.core.plugins import load_entry_points
from limner.core.torch_free import Medium
from limner.inference.load import PromptedPipeline
from limner.runs.recipe import Recipe
from limner.runs.teaching import SMALL, TeachingData, is_recipe, plan_teaching, student_recipe, write_plan
from limner.text.language import language_of
from limner.text.sentences import first_sentence
from limner.training.caption_filters import CaptionFilters, ClipScorer, FilteredCaptions, filter_captions
from limner.training.train import check_folder, train

# the options that decide about the teacher's captions
OF_TEACHER = (
    *("teacher", "n_best", "sample", "temperature", "beam", "max_length", "frames"),
    *("prompt", "system", "dtype", "max_side", "split", "limit"),
)
MIN_CLIP_SCORE = 0.5  # a cosine of 0.2 between image and caption


def run(options: argparse.Namespace, rest: list[str]) -> int:
    changes = overrides(rest)
    _check_options(options)
    load_entry_points()
    with lock_output(TeacherFiles(options.out).folder):
        return _distill(options, changes)


def interrupted(options: argparse.Namespace, command: str) -> str:
    """What is kept of an interrupted call, and the command that continues it."""
    if not can_resume(options):
        return "the teacher has not begun"
    return f"what the teacher said so far is in {TeacherFiles(options.out).folder}; continue with: {command}"


def can_resume(options: argparse.Namespace) -> bool:
    """Whether there is something that --resume would continue."""
    return TeacherFiles(options.out).settings.is_file()


def _check_options(options: argparse.Namespace) -> None:
    """Raise WrongArguments for options that contradict each other."""
    if options.min_clip_score is not None and not options.clip:
        raise WrongArguments("--min-clip-score needs a CLIP: give --clip MODEL")
    if options.min_agreement and max(options.n_best or 1, options.sample or 1) < 2:
        raise WrongArguments("--min-agreement compares several captions of an image: give --sample N or --n-best N")
    if options.student is None:
        options.student = options.data if is_recipe(options.data) else SMALL[0]
    elif options.student not in SMALL and not is_recipe(options.student):
        raise WrongArguments(f"--student {options.student}: give small, or a recipe that ends in .yaml")
    if options.max_words is not None and options.max_words < options.min_words:
        raise WrongArguments(f"--max-words {options.max_words} is less than --min-words {options.min_words}")


def _distill(options: argparse.Namespace, changes: Sequence[Override]) -> int:
    """Caption, filter, train and compare, while the lock of the captions is held."""
    files = TeacherFiles(options.out)
    is_training = check_folder(options.out, options.resume)
    if files.settings.is_file() and not options.resume:
        raise FileExistsError(
            f"{files.folder} holds captions of an interrupted call: continue it with --resume, or choose another --out"
        )
    data = plan_teaching(
        options.data, files.folder / "splits", options.media, options.file_column, options.caption_column, changes
    )
    command = shlex.join(["limner", "distill", options.data, "--teacher", options.teacher, "--out", str(options.out)])
    make_recipe = partial(student_recipe, options.student, data, files.kept, run=options.out, command=command)
    recipe, _ = make_recipe(captions={}, changes=changes)  # a mistake in it is found before the teacher works
    taught, compared, notes = _media(data, recipe, options)
    asked = list(dict.fromkeys([*taught, *compared]))
    begun = {"data": _hash_of(data.media), "options of the teacher": {name: vars(options)[name] for name in OF_TEACHER}}
    files.check_settings(begun)
    rows, more = (finished_rows(files.captions), []) if is_training else _teach(options, files, asked, begun)
    filtered = _filter(options, files, recipe, taught, rows, is_training)
    _check_kept(files, recipe, taught, filtered)
    recipe, text = make_recipe(captions=_texts(filtered), changes=changes)
    if not is_training:
        write_plan(data)
        if text:
            write_text(files.recipe, text)
    print(f"training {options.out}", flush=True)
    with Watcher(options.out) as watcher:
        train(recipe, options.out, is_training, watcher)
    more += compare_with_teacher(options.teacher, files, taught, compared, rows, filtered, options.batch_size)
    failed = [row["problem"] for row in rows if "problem" in row and "answer" not in row]
    report_lines(data.missing, "file is missing", "files are missing", 5)
    report_failed(failed)
    report_notes([*data.notes, *notes, *more])
    return 3 if failed or data.missing or watcher.skipped else 0


def _media(
    data: TeachingData, recipe: Recipe, options: argparse.Namespace
) -> tuple[list[Medium], list[Medium], list[str]]:
    """-> (media whose captions are taught, media that are compared in the end, notes).

    Taught are the captions of training, and of validation where people's are missing.
    """
    validation = [medium for medium in data.split(recipe.validation.split) if not medium.references]
    compared, notes = data.split(options.split), []
    if not compared:
        compared = data.split(recipe.validation.split)
        notes.append(f"no media in the split {options.split}: {recipe.validation.split} is compared instead")
    return [*data.split("train"), *validation], compared[: options.limit], notes


def _hash_of(media: Sequence[Medium]) -> str:
    """Hash of the ids and splits of media."""
    lines = "".join(f"{printable(medium.id)}\t{medium.split}\n" for medium in media)
    return hashlib.sha256(lines.encode()).hexdigest()


def _texts(filtered: FilteredCaptions) -> dict[str, list[str]]:
    return {id: [caption.text for caption in own] for id, own in filtered.kept.items()}


def _teach(
    options: argparse.Namespace, files: TeacherFiles, media: Sequence[Medium], settings: Mapping[str, Any]
) -> tuple[list[Row], list[str]]:
    """Caption the media with the teacher -> (a row for each, notes).  `settings` are written with the teacher's own."""
    values = {"model": options.teacher, "engine": None, "threads": None, "clip": None, "context": None, "seed": None}
    ensemble: dict[str, Any] = {"others": [], "weights": None, "average": "probabilities"}
    asked = argparse.Namespace(**{**vars(options), **values, **ensemble})
    captioner = open_captioner(asked)
    decoding = decoding_of(asked, {}, captioner.decoding, captioner.vocabulary)
    made_with: dict[str, Any] = provenance(captioner.fingerprint(), decoding)
    notes: list[str] = []
    style: Callable[[str], str] = str
    if isinstance(captioner, PromptedPipeline):  # language models say more than a caption
        made_with |= {**captioner.settings(), "style": "sentence"}
        notes += captioner.notes
        style = first_sentence
    files.check_settings({"teacher": made_with})
    journal = Journal(files.captions, files.settings.is_file(), made_with, finished_known=True)
    files.write_settings({**settings, "teacher": made_with})
    print(f"{options.teacher} captions {len(media):,} images and clips", flush=True)
    notes += caption_media(media, captioner, decoding, journal, options.batch_size, style)
    ids = [printable(medium.id) for medium in media]
    journal.finish(ids)
    rows = {row["id"]: row for row in journal.rows.values()}
    return [rows[id] for id in ids], notes


def _filter(
    options: argparse.Namespace,
    files: TeacherFiles,
    recipe: Recipe,
    taught: Sequence[Medium],
    rows: Sequence[Row],
    is_training: bool,
) -> FilteredCaptions:
    """Filter the captions that are taught, and write what is kept and rejected; while training those files stay."""
    filters = _filters(options, recipe, taught)
    settings = {"filters": {**vars(filters), "clip": options.clip}}
    if is_training:
        files.check_settings(settings)
        return files.read_filtered()
    ids = {printable(medium.id) for medium in taught}
    captions = {id: own for id, own in captions_of(rows).items() if id in ids}
    scorer = _clip_scorer(options, taught) if options.clip else None
    filtered = filter_captions(captions, filters, recipe.vocabulary.tokenizer, scorer)
    files.write_filtered(filtered, equal_weights=options.sample is not None)
    files.write_settings(settings)
    said = sum(map(len, captions.values()))
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in filtered.reasons().items())
    print(f"kept {filtered.count:,} of {said:,} captions{f'; rejected: {reasons}' if reasons else ''}", flush=True)
    return filtered


def _filters(options: argparse.Namespace, recipe: Recipe, taught: Sequence[Medium]) -> CaptionFilters:
    """The bounds of the filters; language and script are those of people's captions, or English."""
    texts = [text for medium in taught for text in medium.references]
    language = options.language or (language_of(texts) if texts else "en")
    letters = "".join(sorted({char for text in texts for char in text.lower() if char.isalpha()})) or "a"
    return CaptionFilters(
        min_words=options.min_words,
        max_words=options.max_words or recipe.vocabulary.max_words,
        language="" if language == "any" else language,
        letters="" if language == "any" else letters,
        min_agreement=options.min_agreement,
        min_clip_score=MIN_CLIP_SCORE if options.min_clip_score is None else options.min_clip_score,
    )


def _clip_scorer(options: argparse.Namespace, media: Sequence[Medium]) -> ClipScorer:
    """CLIPScore with the model that --clip names."""
    from limner.metrics.clipscore import load_clip, several_clip_scores

    clip = load_clip(options.clip, options.device)
    return partial(several_clip_scores, {printable(medium.id): medium for medium in media}, clip=clip)


def _check_kept(files: TeacherFiles, recipe: Recipe, taught: Sequence[Medium], filtered: FilteredCaptions) -> None:
    """Raise ValueError when there is nothing to train or to validate with."""
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in filtered.reasons().items())
    if not any(printable(medium.id) in filtered.kept for medium in taught if medium.split == "train"):
        why = f"all {len(filtered.rejected):,} were rejected ({reasons})" if reasons else "there are none"
        raise ValueError(
            f"no caption of the teacher is left to learn from: {why}; see {files.rejected} and {files.captions}. "
            "Change the teacher or its prompt with another --out, or the filters with --resume"
        )
    split = recipe.validation.split
    validation = [medium for medium in taught if medium.split == split]
    if validation and not any(printable(medium.id) in filtered.kept for medium in validation):
        print(f"note: no caption of the split {split} is left", file=sys.stderr)
