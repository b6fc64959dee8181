"""Data sets that are published as one caption file per split: each file is read, and its name gives the split."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from limner.data import caption_dataset
from limner.data.dataset import Dataset, missing_caption_problems
from limner.data.layouts.content import read_text
from limner.data.media_folder import visible_files

JSON = (".json", ".gz", ".zip")


def read(
    annotations: str | Path,
    media: str | Path,
    split_of: Callable[[str], str],
    expected: str,
    caption_column: str = "",
) -> Dataset:
    """Read one caption file, or all those of a folder that `split_of` knows.

    split_of  name of a file -> its split; "" for a file that is not of this data set
    expected  what the files are, for the message when there are none

    A split whose captions are not published adds a note, and has no media.  Raises ValueError when the folder has no
    such file, two files have the same split, or a file is of another layout.
    """
    path = Path(annotations)
    files = [file for file in visible_files(path, JSON) if split_of(file.name)] if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path}: none of the files that were expected is in it: {expected}")
    splits = [split_of(file.name) for file in files]
    if repeated := next((split for split in splits if split and splits.count(split) > 1), ""):
        names = ", ".join(file.name for file, split in zip(files, splits, strict=True) if split == repeated)
        raise ValueError(f"{path} has several files for the split {repeated}: {names}; name the one you mean")
    found, notes = [], []
    for file, split in zip(files, splits, strict=True):
        if without_captions(file):
            note = f"{file.name} has no captions, because those of its split are not published; it was left out"
            if len(files) == 1:
                raise ValueError(f"{note}: caption its images with limner caption, and send the results to the server")
            notes.append(note)
            continue
        part = caption_dataset.read(file, media, caption_column=caption_column, default_split=split or "train")
        found.append(_with_split(part, split))
    merged = tuple(medium for part in found for medium in part.media)
    problems = [line for part in found for line in part.problems]
    lines = [*notes, *(note for part in found for note in part.notes)]
    return Dataset(merged, (*problems, *missing_caption_problems(merged)), tuple(lines))


def _with_split(dataset: Dataset, split: str) -> Dataset:
    return replace(dataset, media=tuple(replace(medium, split=split) for medium in dataset.media)) if split else dataset


def without_captions(file: Path) -> bool:
    """Whether a JSON file lists images or clips, and no caption of any."""
    try:
        saved: Any = json.loads(read_text(file))
    except ValueError:
        return False  # the reader of captions says what is wrong with it
    if isinstance(saved, dict) and isinstance(saved.get("images"), list):
        return not saved.get("annotations") and not any("sentences" in row for row in _rows(saved["images"]))
    rows = _rows(saved["data"] if isinstance(saved, dict) and isinstance(saved.get("data"), list) else saved)
    keys = {key for row in rows for key in row}
    return bool(rows) and not keys & {"caption", "captions", "caption_str", "reference_strs", "enCap", "chCap"}


def _rows(values: Any) -> Sequence[dict[str, Any]]:
    return [row for row in values if isinstance(row, dict)] if isinstance(values, list) else []
