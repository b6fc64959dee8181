"""Data sets from caption files: any layout that `limner.data.captions_file` reads, with the files below a folder."""

from collections.abc import Callable, Mapping
from pathlib import Path

from limner.core.torch_free import Medium
from limner.data import folder
from limner.data.captions_file import CaptionsFile, metadata_files, read_entries
from limner.data.dataset import Dataset, drop_empty_captions, split_by_hash
from limner.data.layouts.entry import Reading, field_texts
from limner.data.media_finder import MediaFinder
from limner.data.media_folder import media_below


def read(
    annotations: str | Path,
    media: str | Path = "",
    file_column: str = "",
    caption_column: str = "",
    restval: bool = True,
    default_split: str = "",
    where: Mapping[str, object] | None = None,
    keep_going: bool = False,
) -> Dataset:
    """Read a caption file or a folder, in any layout that `limner.data.captions_file` reads, as a data set.

    media                        folder of the files; empty: the file names are relative to the working directory, or to
                                 the caption file
    file_column, caption_column  columns with unusual names
    restval                      Karpathy's restval images join the training split; False leaves them out
    default_split                split of every medium for which the file names none; empty: a hash of the id decides
                                 (about 80 % train, 10 % val, 10 % test)
    where                        field -> its value or list of values: entries of the file with other values are left
                                 out, and a note counts them
    keep_going                   an id with two files or two splits keeps the first, and adds a problem line

    Rows without an id and empty captions add a problem line, repairs a note.  Raises ValueError, with the place and
    what was expected there, when a file has no known layout, or no entry is as `where` says.
    """
    wanted = {name: field_texts(value) for name, value in (where or {}).items()}
    reading = Reading(
        file_column,
        caption_column,
        file_is_id=True,
        restval=restval,
        allow_gaps=True,
        where=wanted,
        keep_going=keep_going,
    )
    return _read_file(Path(annotations), default_split, media, reading)


def read_folder(annotations: str | Path, media: str | Path) -> Dataset:
    """Read a folder of images and clips, with captions in its metadata.csv or metadata.jsonl, or in text files.

    Metadata files are those of Hugging Face's image folders; `annotations` is the folder of the text files, when they
    do not lie beside the media.  Raises ValueError as `read` and `limner.data.folder.read_folder` do.
    """
    root = Path(media)
    if str(annotations) not in ("", ".") or not root.is_dir() or not metadata_files(root):
        return folder.read_folder(annotations, media)
    dataset = _read_file(root, "", root, Reading(file_is_id=True, allow_gaps=True))
    listed = {Path(medium.path) for medium in dataset.media}
    others = [path for path in media_below(root).media if path not in listed]
    notes = [f"{root}: {len(others)} images or clips are not in its metadata file and were left out"] if others else []
    return Dataset(dataset.media, dataset.problems, (*dataset.notes, *notes))


def _read_file(path: Path, default_split: str, media: str | Path, reading: Reading) -> Dataset:
    file = read_entries(path, reading)
    locate, located_problems = _locator(file, media)
    entries = []
    for id, texts in file.captions.items():
        split = file.splits.get(id) or default_split or split_by_hash(_without_times(id, file))
        start, end = file.times.get(id, (None, None))
        entries.append(Medium(id, locate(id), split, texts, start, end))
    cleaned = drop_empty_captions(entries)
    return Dataset(cleaned.media, (*file.problems, *cleaned.problems, *located_problems), file.notes)


def _without_times(id: str, file: CaptionsFile) -> str:
    """What the split of a medium depends on: its id, or for a part of a clip the clip, so that all parts share it."""
    return file.files.get(id, id) if id in file.times else id


def _locator(file: CaptionsFile, media: str | Path) -> tuple[Callable[[str], str], list[str]]:
    """(id -> path of its file, a list that gets a line for each name that fits several files)."""
    below = MediaFinder(media)

    def locate(id: str) -> str:
        name = file.files.get(id, id)
        beside = Path(file.path).parent / name
        if not str(media) and not Path(name).is_file() and beside.is_file():
            return str(beside)
        return below.locate(name)

    return locate, below.problems
