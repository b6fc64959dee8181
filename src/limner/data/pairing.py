"""Matching of candidate captions with their references, and error messages for files that do not match."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from limner.data.captions_file import CaptionsFile
from limner.data.image_ids import coco_id, medium_name


@dataclass(frozen=True)
class CaptionPairs:
    """Candidates and references by the ids of the references, in their order.

    `files` are the paths of the media, where one of the two files has them; `notes` say what was assumed.
    """

    candidates: dict[str, tuple[str, ...]]
    references: dict[str, tuple[str, ...]]
    files: dict[str, str]
    notes: tuple[str, ...]


def pair_captions(
    candidates: CaptionsFile,
    references: CaptionsFile,
    split: str = "",
    allow_missing: bool = False,
    multiple_candidates: bool = False,
    allow_extra: bool = False,
) -> CaptionPairs:
    """Find the references of every candidate.

    split                take only this split of the references (and of the candidates, if their file has splits)
    allow_missing        leave out references without a candidate, and add a note
    multiple_candidates  accept several candidates for an id (to measure diversity)
    allow_extra          leave out candidates without references, and add a note
    Raises ValueError, which names the likely mistake: swapped files, ids that do not match, several candidates for an
    id, or an id without a reference caption.
    """
    if split:
        references = references.split(split)
        candidates = candidates.split(split) if candidates.splits else candidates
    if not multiple_candidates:
        _check_one_each(candidates, references)
    matched, notes = match_ids(_names(candidates), _names(references))
    used = set(matched.values())
    if marked := [id for id in matched if id in references.unusable]:
        matched = {id: other for id, other in matched.items() if id not in references.unusable}
        notes += (f"{len(marked)} candidates were left out, because all references of their images are unusable",)
    extra = [id for id in candidates.captions if id not in used]
    missing = [id for id, texts in references.captions.items() if texts and id not in matched]
    if (extra and not allow_extra) or (missing and not allow_missing) or not matched:
        raise ValueError(_mismatch_message(candidates, references, extra, missing))
    empty = [id for id in matched if not references.captions[id]]
    if empty:
        raise ValueError(
            f"{references.path} has no reference caption for {summarise_ids(empty)}; leave such ids out of both files"
        )
    if blank := sum(not text.strip() for id in matched for text in references.captions[id]):
        notes += (
            f"{blank} reference captions are empty; training leaves such captions out, but scores keep them, as "
            "coco-caption does",
        )
    if extra:
        notes += (f"{len(extra)} of {len(candidates.captions)} candidates have no references and were left out",)
    if missing:
        notes += (f"{len(missing)} of {len(missing) + len(matched)} references have no candidate and were left out",)
    files = {id: references.files.get(id) or candidates.files.get(other, "") for id, other in matched.items()}
    return CaptionPairs(
        candidates={id: candidates.captions[other] for id, other in matched.items()},
        references={id: references.captions[id] for id in matched},
        files={id: file for id, file in files.items() if file},
        notes=(*candidates.notes, *references.notes, *notes),
    )


def normalise_id(id: str) -> str:
    """An id without folder, media suffix, COCO's prefix and leading zeros, in one Unicode form.

    >>> {normalise_id(id) for id in ("val2014/COCO_val2014_000000397133.jpg", "000000397133", "397133")}
    {'397133'}
    """
    stem = str(coco_id(medium_name(unicodedata.normalize("NFC", id))))
    return (stem.lstrip("0") or "0") if stem.isascii() and stem.isdigit() else stem


def summarise_ids(ids: Sequence[str]) -> str:
    """The number of ids and the first three, for messages.

    >>> summarise_ids(["a", "b", "c", "d"])
    "4 ids ('a', 'b', 'c', ...)"
    """
    shown = ", ".join(repr(id) for id in ids[:3]) + (", ..." if len(ids) > 3 else "")
    return f"{len(ids)} id{'s' if len(ids) > 1 else ''} ({shown})"


def _names(file: CaptionsFile) -> dict[str, str]:
    """The file name of every id; "" where it is not known, and for parts of clips, which share a file."""
    return {id: "" if id in file.times else file.files.get(id, "") for id in file.captions}


def _check_one_each(candidates: CaptionsFile, references: CaptionsFile) -> None:
    """Raises ValueError unless every id has exactly one candidate."""
    multiple = [id for id, texts in candidates.captions.items() if len(texts) > 1]
    without = [id for id, texts in candidates.captions.items() if not texts]
    if without:
        raise ValueError(f"{candidates.path} has no caption for {summarise_ids(without)}")
    if 2 * len(multiple) > len(candidates.captions) and all(len(texts) <= 1 for texts in references.captions.values()):
        raise ValueError(
            f"candidates and references look swapped: {candidates.path} holds several captions for "
            f"{summarise_ids(multiple)}, {references.path} at most one for each; swap --candidates and --references"
        )
    if multiple:
        raise ValueError(
            f"{candidates.path} has several captions for {summarise_ids(multiple)}; candidates are one caption per id "
            "(--diversity scores several)"
        )


def match_ids(candidates: Mapping[str, str], references: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Find the candidate of every reference: -> (id of the reference -> id of the candidate, notes).

    Both are {id: file name, or "" where it is not known}.  Ids are compared as they are, then without folder, file type
    and zeros, then by the names of the files (COCO's and VizWiz's annotations number the images); the first way that
    matches the most candidates is taken, and a note says so unless ids are equal.

    >>> match_ids({"dog": ""}, {"17": "val/dog.jpg"})[0]
    {'17': 'dog'}
    """
    exact = {id: id for id in references if id in candidates}
    if len(exact) == len(candidates):
        return exact, ()
    normalised = _match_keys({id: normalise_id(id) for id in candidates}, {id: normalise_id(id) for id in references})
    named = _match_keys(
        {id: normalise_id(file or id) for id, file in candidates.items()},
        {id: normalise_id(file or id) for id, file in references.items()},
    )
    best = max((exact, normalised, named), key=len)  # of equal ones the first
    if best is exact:
        return exact, ()
    reference, candidate = next((id, other) for id, other in best.items() if id != other)
    if best is normalised:
        note = "ids were matched without folders, file types, COCO's prefix and leading zeros: candidate "
        return best, (f"{note}{candidate!r} is reference {reference!r}",)
    note = "ids were matched by the names of the files: candidate "
    return best, (f"{note}{candidate!r} is reference {reference!r} ({references[reference] or candidates[candidate]})",)


def _match_keys(candidates: Mapping[str, str], references: Mapping[str, str]) -> dict[str, str]:
    """Id of the reference -> id of the candidate with the same key; {} when two ids have one key."""
    by_key = {key: id for id, key in candidates.items()}
    if len(by_key) < len(candidates) or len(set(references.values())) < len(references):
        return {}
    return {id: by_key[key] for id, key in references.items() if key in by_key}


def _mismatch_message(candidates: CaptionsFile, references: CaptionsFile, extra: list[str], missing: list[str]) -> str:
    """The message for ids that do not match: how many, and the most likely reason."""
    parts = []
    if extra:
        parts.append(f"of {len(candidates.captions)} candidates, {summarise_ids(extra)} have no references")
    if missing:
        parts.append(f"of {len(references.captions)} references, {summarise_ids(missing)} have no candidate")
    message = f"the ids of {candidates.path} and {references.path} do not match: {'; '.join(parts)}. "
    given = {normalise_id(id) for id in candidates.captions}
    splits = {split for id, split in references.splits.items() if normalise_id(id) in given}
    if len(splits) == 1 and len(set(references.splits.values())) > 1:
        return message + f"All candidates are in the split '{splits.pop()}': give it with --split"
    if len(extra) == len(candidates.captions):
        return message + "They have no id in common: are they of the same dataset?"
    if extra:
        both = " and --allow-missing" if missing else ""
        return message + f"Give the references of all candidates, or leave the others out with --allow-extra{both}"
    return message + "Caption those media too, or leave them out with --allow-missing, as coco-caption's demo does"
