"""`limner explain`: show where a captioner looks for each word."""

import argparse
import sys
from dataclasses import asdict, replace
from pathlib import Path

from limner import shipped
from limner.apps.shared.arguments import (
    WrongArguments,
    check_outputs,
    refuse_unknown,
    report_data_problems,
    report_notes,
    split_decoding,
)
from limner.apps.shared.console import open_console
from limner.apps.shared.decoding import beam_of
from limner.apps.shared.runs import open_run
from limner.core.addresses import refuse_address
from limner.core.files import write_json
from limner.core.types import Layout
from limner.data.media import is_clip
from limner.decode.options import Beam
from limner.explanations import video
from limner.explanations.clip_sentence import captioned
from limner.explanations.evaluation import score_run, scores_table
from limner.explanations.explanation_input import ExplanationInput, load_explanation_input
from limner.explanations.figure import FORMATS
from limner.explanations.fonts import check_font, glyph_note
from limner.explanations.maps import (
    METHODS,
    TargetSentence,
    default_method,
    explain,
    sentence_from_text,
)
from limner.explanations.page import PAGE, collect, find_references, write_page
from limner.explanations.saliency import parse_block
from limner.explanations.write import FILMS, write_explanation
from limner.metrics.breakdown import break_down
from limner.metrics.references import References
from limner.runs.run import Run


def run(options: argparse.Namespace, rest: list[str]) -> int:
    if options.join:
        refuse_unknown(rest)
        return join(options)
    unknown = set((options.method or "attention").split(",")) - set(METHODS)
    if unknown:
        raise WrongArguments(f"unknown method '{min(unknown)}'; known are {', '.join(METHODS)}")
    if options.score:
        return score(options, rest)
    return show(options, rest)


def show(options: argparse.Namespace, rest: list[str]) -> int:
    """Explain one image or video."""
    model, source = _model_and_source(options)
    out = options.out or Path(f"{Path(source).stem}-explained{'.mp4' if is_clip(source) else '.png'}")
    is_page = out.suffix.lower() == PAGE and not out.is_dir()
    if out.suffix.lower() not in ("", *FORMATS, *FILMS, PAGE) and not out.is_dir():
        raise WrongArguments(
            f"{out}: the ending chooses the format; known are {', '.join((*FORMATS, *FILMS, PAGE))}, and none for a "
            "folder"
        )
    _check_page_options(options, is_page)
    read = [path for path in (options.font, options.references) if path]
    check_outputs(options, out, inputs=[source, *read])
    if options.overwrite and out.resolve() == Path(source).resolve().parent:  # whose frames would be replaced
        raise ValueError(f"{out} holds {source}, which is explained: choose another folder")
    check_font(options.font)
    if options.method and "," in options.method:
        raise WrongArguments(f"--method {options.method}: several methods are for --score; give one")
    block = _block(options.unit)
    decoding_changes, changes = split_decoding(rest)
    known = find_references(source, options.reference, options.references)
    loaded = open_run(model, options, changes)
    method = options.method or default_method(loaded.model)
    if block and method != "saliency":
        raise WrongArguments(f"--unit is for saliency; {method} has a value for every cell: give --method saliency")
    decoding = beam_of(options, decoding_changes, loaded.recipe.decoding)
    given = None if options.sentence is None else sentence_from_text(loaded.vocabulary, options.sentence)
    subject = load_explanation_input(loaded, source, options.device, options.frames)
    bound = decoding.bind(loaded.vocabulary)
    if is_page:
        return page(options, loaded, subject, (source, out), bound, given, known)
    sentence, weights = captioned(loaded, subject.features, bound, options.clip, given)
    explanation = explain(
        loaded.model, subject.features, sentence, method, weights, **({"block": block} if block else {})
    )
    write_explanation(explanation, subject.display, out, options.overwrite, options.font)
    print(f"{explanation.text}\nwrote {out}")
    if sentence.unknown:
        print(f"not in the vocabulary, read as the unknown word: {', '.join(sentence.unknown)}", file=sys.stderr)
    if explanation.words and explanation.is_uniform:
        print(f"{method} is the same everywhere for every word; try another --method", file=sys.stderr)
    note = glyph_note(" ".join([explanation.text, *explanation.words]), options.font)
    report_notes([*subject.notes, *([note] if note else [])])
    return 0


def _check_page_options(options: argparse.Namespace, is_page: bool) -> None:
    """Raise WrongArguments for options that would have no effect."""
    if not is_page and (options.reference or options.references):
        raise WrongArguments("references are for a page: give --out page.html too")
    if is_page and (unused := [name for name in ("unit", "font") if getattr(options, name)]):
        raise WrongArguments(f"a page shows all cells, with the reader's fonts: leave out --{unused[0]}")


def page(
    options: argparse.Namespace,
    loaded: Run,
    subject: ExplanationInput,
    paths: tuple[str, Path],
    decoding: Beam,
    given: TargetSentence | None,
    known: tuple[References, str] | None,
) -> int:
    """Write the learning page; `paths` are the medium and the page, `known` the references and the medium's id."""
    source, out = paths
    content = collect(loaded, subject, source, decoding, options.clip, given, options.method)
    breakdown = None if known is None else break_down(*known, content.caption)
    write_page(replace(content, breakdown=breakdown), out)
    print(f"{content.caption}\nwrote {out}")
    if given is not None and given.unknown:
        print(f"not in the vocabulary, read as the unknown word: {', '.join(given.unknown)}", file=sys.stderr)
    report_notes([*content.notes, *(breakdown.notes if breakdown else ())])
    return 0


def _model_and_source(options: argparse.Namespace) -> tuple[str, str]:
    """The model and the file to explain, from `[RUN] FILE` and --model."""
    inputs = options.inputs
    if len(inputs) > 2:
        raise WrongArguments(f"explain takes one file, got {' '.join(inputs[1 if not options.model else 0 :])}")
    if len(inputs) == 2 and options.model:
        raise WrongArguments(f"the model is given twice: {inputs[0]} and --model {options.model}")
    if not inputs or (len(inputs) == 1 and not options.model and (shipped.folder_of(inputs[0]) / "run.json").is_file()):
        raise WrongArguments(f"{inputs[0] if inputs else 'limner explain'}: name an image or video, or give --score")
    refuse_address(inputs[-1])
    model = options.model or (inputs[0] if len(inputs) == 2 else shipped.DEFAULT)
    return model, inputs[-1]


def _block(unit: str) -> Layout | None:
    """The block of cells that --unit names; None when it is not given."""
    if not unit:
        return None
    try:
        return parse_block(unit)
    except ValueError as error:
        raise WrongArguments(str(error)) from error


def score(options: argparse.Namespace, rest: list[str]) -> int:
    """Score the explanations of a split."""
    named = [*options.inputs, *([options.model] if options.model else [])]
    if not named:
        raise WrongArguments("--score reads a run's data: name the run")
    if len(named) > 1:
        raise WrongArguments(f"--score reads the run's data: leave out {' '.join(named[1:])}")
    if unused := [name for name in ("sentence", "unit", "frames", "clip") if getattr(options, name)]:
        raise WrongArguments(f"--score explains the run's own captions cell by cell: leave out --{unused[0]}")
    if options.out and options.out.suffix != ".json":
        raise WrongArguments(f"{options.out}: scores are written as .json")
    check_outputs(options, options.out)
    methods = options.method.split(",") if options.method else tuple(METHODS)
    decoding_changes, changes = split_decoding(rest)
    loaded = open_run(named[0], options, changes)
    decoding = beam_of(options, decoding_changes, loaded.recipe.decoding).bind(loaded.vocabulary)
    scored = score_run(loaded, methods, options.split, decoding, options.limit, options.device)
    open_console().print(scores_table(scored))
    if options.out:
        facts = {"split": options.split, "media": scored.media, "decoding": asdict(decoding)}
        write_json(options.out, {**facts, "methods": [tally.means() for tally in scored.by_method]})
        print(f"wrote {options.out}")
    report_data_problems(scored.problems)
    return 3 if scored.problems else 0


def join(options: argparse.Namespace) -> int:
    """Make a film of PNG files."""
    if options.inputs:
        raise WrongArguments(f"--join makes a film of {options.join} alone: leave out {' '.join(options.inputs)}")
    if options.out is None or options.out.suffix.lower() != ".mp4":
        raise WrongArguments("--join needs --out film.mp4")
    check_outputs(options, options.out, inputs=options.join.glob("*.png"))
    count = video.pngs_to_mp4(options.join, options.out, options.pace)
    print(f"wrote {options.out}: {count} frames")
    return 0
