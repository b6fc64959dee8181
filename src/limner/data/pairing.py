"""Candidates meet references: which caption is held against which references, or what is wrong with the two files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from limner.data.captions_file import CaptionsFile
from limner.data.karpathy import coco_id
from limner.data.media import MEDIA_SUFFIXES

Captions = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Pairs:
    """Candidates and references by the references' ids, in the references' order; `files` are their media, where one of
    the files names them.  `notes` tell what was assumed."""

    candidates: dict[str, tuple[str, ...]]
    references: dict[str, tuple[str, ...]]
    files: dict[str, str]
    notes: tuple[str, ...]


def pair(
    candidates: CaptionsFile,
    references: CaptionsFile,
    split: str = "",
    allow_missing: bool = False,
    several: bool = False,
) -> Pairs:
    """Find the references of every candidate.

    split          score this split of the references only (and of the candidates, if they know splits)
    allow_missing  references without a candidate are left out, and that is noted
    several        every id has more than one candidate (for diversity)
    Raises ValueError that names the mistake: swapped files, ids that do not match, several candidates for an id,
    references without a caption.
    """
    if split:
        references = references.split(split)
        candidates = candidates.split(split) if candidates.splits else candidates
    if not several:
        _one_each(candidates, references)
    matched, notes = _match(candidates.captions, references.captions)
    taken = set(matched.values())
    extra = [id for id in candidates.captions if id not in taken]
    missing = [id for id, texts in references.captions.items() if texts and id not in matched]
    if extra or (missing and not allow_missing) or not matched:
        raise ValueError(_mismatch(candidates, references, extra, missing))
    empty = [id for id in matched if not references.captions[id]]
    if empty:
        raise ValueError(
            f"{references.path} has no reference caption for {some(empty)}; leave such ids out of both files"
        )
    if missing:
        notes += (f"{len(missing)} of {len(missing) + len(matched)} references have no candidate and were left out",)
    files = {id: references.files.get(id) or candidates.files.get(own, "") for id, own in matched.items()}
    return Pairs(
        candidates={id: candidates.captions[own] for id, own in matched.items()},
        references={id: references.captions[id] for id in matched},
        files={id: file for id, file in files.items() if file},
        notes=(*candidates.notes, *references.notes, *notes),
    )


def plain_id(id: str) -> str:
    """An id without folder, media ending, COCO's prefix and leading zeros.

    "val2014/COCO_val2014_000000397133.jpg", "000000397133" and "397133" are one picture.
    """
    name = id.replace("\\", "/").rsplit("/", 1)[-1]
    ending = next((len(suffix) for suffix in MEDIA_SUFFIXES if name.lower().endswith(suffix)), 0)
    stem = str(coco_id(name[: len(name) - ending]))
    return (stem.lstrip("0") or "0") if stem.isascii() and stem.isdigit() else stem


def some(ids: Sequence[str]) -> str:
    """How many, and up to three examples."""
    shown = ", ".join(repr(id) for id in ids[:3]) + (", ..." if len(ids) > 3 else "")
    return f"{len(ids)} id{'s' if len(ids) > 1 else ''} ({shown})"


def _one_each(candidates: CaptionsFile, references: CaptionsFile) -> None:
    """Raises ValueError unless every candidate is alone."""
    twice = [id for id, texts in candidates.captions.items() if len(texts) > 1]
    without = [id for id, texts in candidates.captions.items() if not texts]
    if without:
        raise ValueError(f"{candidates.path} has no caption for {some(without)}")
    if 2 * len(twice) > len(candidates.captions) and all(len(texts) <= 1 for texts in references.captions.values()):
        raise ValueError(
            f"candidates and references look swapped: {candidates.path} holds several captions for {some(twice)}, "
            f"{references.path} at most one for each; swap --candidates and --references"
        )
    if twice:
        raise ValueError(
            f"{candidates.path} has several captions for {some(twice)}; candidates are one caption per id "
            "(--diversity is for several)"
        )


def _match(candidates: Captions, references: Captions) -> tuple[dict[str, str], tuple[str, ...]]:
    """Reference id -> candidate id, in the references' order; by plain ids if that finds more."""
    exact = {id: id for id in references if id in candidates}
    if len(exact) == len(candidates):
        return exact, ()
    own, theirs = {plain_id(id): id for id in candidates}, {plain_id(id): id for id in references}
    if len(own) < len(candidates) or len(theirs) < len(references):  # two would become one
        return exact, ()
    plain = {id: own[key] for key, id in theirs.items() if key in own}
    if len(plain) <= len(exact):
        return exact, ()
    reference, candidate = next((id, other) for id, other in plain.items() if id != other)
    note = "ids were matched without folders, endings, COCO's prefix and leading zeros: the candidates' "
    return plain, (f"{note}{candidate!r} is the references' {reference!r}",)


def _mismatch(candidates: CaptionsFile, references: CaptionsFile, extra: list[str], missing: list[str]) -> str:
    """Says how many ids do not match, and the likeliest reason."""
    parts = []
    if extra:
        parts.append(f"of {len(candidates.captions)} candidates, {some(extra)} without references")
    if missing:
        parts.append(f"of {len(references.captions)} references, {some(missing)} without a candidate")
    message = f"the ids of {candidates.path} and {references.path} do not match: {'; '.join(parts)}. "
    given = {plain_id(id) for id in candidates.captions}
    of_splits = {split for id, split in references.splits.items() if plain_id(id) in given}
    if len(of_splits) == 1 and len(set(references.splits.values())) > 1:
        return message + f"All candidates are of the split '{of_splits.pop()}': give it with --split"
    if len(extra) == len(candidates.captions):
        return message + "They share no id at all: are both of the same data set?"
    if extra:
        return message + "Remove the candidates that have no references, or give the references that hold them"
    return message + "Caption them too, or leave those references out with --allow-missing, as coco-caption's demo does"
