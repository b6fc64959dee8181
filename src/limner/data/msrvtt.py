"""Reader of MSR-VTT (Xu et al. 2016): 10,000 clips with 20 captions each, in the files that its authors distribute."""

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from limner.core.files import parse_json
from limner.core.messages import short_repr
from limner.core.torch_free import Medium
from limner.core.untrusted import ZIP_ERRORS
from limner.data.clip_folder import clip_files
from limner.data.dataset import Dataset, drop_empty_captions, missing_caption_problems
from limner.data.layouts.content import read_bounded
from limner.data.media_folder import visible_files
from limner.data.split_names import parse_split_name

EXPECTED = "{videos: [{video_id, ...}], sentences: [{video_id, caption, ...}]}"


def read(annotations: str | Path, media: str | Path = "", categories: Sequence[str] = ()) -> Dataset:
    """Read a `videodatainfo` JSON, a ZIP file with such files, or a folder of either (train_val and test, or merged).

    The split is the one in the JSON, or else the official split by video number (train 0-6512, validate 6513-7009, test
    7010-9999).  Sentences are collected by `video_id`, because those of one video are not contiguous.  `start time` and
    `end time` are ignored: they refer to the original YouTube video, from which the clips are already cut.
    `categories` keeps only these categories (names of category.txt, or numbers).  A video without a caption and a
    sentence of an unknown video add a problem line.  Raises ValueError when a file is damaged or of another layout.
    """
    videos, sentences = _read_annotations(annotations)
    wanted = _category_numbers(annotations, categories)
    files = clip_files(media)
    captions: dict[str, list[str]] = {id: [] for id in videos}
    unknown: dict[str, int] = {}  # id of a video that is not listed -> number of its captions
    for id, text in sentences:
        if id in captions:
            captions[id].append(text)
        else:
            unknown[id] = unknown.get(id, 0) + 1
    entries = [
        Medium(id, files.get(id, str(Path(media) / f"{id}.mp4")), _split(video), tuple(captions[id]))
        for id, video in videos.items()
        if wanted is None or any(video.get("category") == number for number in wanted)
    ]
    cleaned = drop_empty_captions(entries)
    problems = [f"{id}: {count} caption(s) of a video that is not listed" for id, count in unknown.items()]
    return Dataset(cleaned.media, (*cleaned.problems, *problems, *missing_caption_problems(cleaned.media)))


def category_names(annotations: str | Path) -> dict[str, int]:
    """Category name -> number, from `category.txt` (name<TAB>number per line); {} when there is no such file.

    It is looked for in the folder of the annotations, and in the ZIP files there.
    """
    texts = [text for name, text in _read_texts(_category_files(annotations)) if Path(name).name == "category.txt"]
    pairs = (line.split("\t") for line in (texts or [""])[0].splitlines() if "\t" in line)
    return {name.strip(): int(number) for name, number in pairs}


def _category_numbers(annotations: str | Path, categories: Sequence[str]) -> set[int] | None:
    """The numbers of `categories`; None, which means all, when there are none.  Raises ValueError for unknown names."""
    if not categories:
        return None
    names = category_names(annotations)
    unknown = [name for name in categories if name not in names and not name.isdigit()]
    if unknown:
        known = ", ".join(names) or "not known, because category.txt is not beside the annotations; give their numbers"
        raise ValueError(f"data.categories: no category {', '.join(unknown)}; the categories are {known}")
    return {names[name] if name in names else int(name) for name in categories}


def _read_annotations(annotations: str | Path) -> tuple[dict[str, dict[str, Any]], list[tuple[str, str]]]:
    """Videos by id, and (video id, caption) of every sentence, of all files together and without duplicates."""
    videos: dict[str, dict[str, Any]] = {}
    sentences: dict[tuple[str, Any], str] = {}
    files = [(name, text) for name, text in _read_texts(_annotation_files(annotations)) if name.endswith(".json")]
    for name, text in files:
        try:
            saved = parse_json(text, name)
            for video in saved["videos"]:
                id = str(video["video_id"])
                if videos.setdefault(id, video).get("split") != video.get("split"):
                    raise ValueError(
                        f"{name}: {id} is in split {video.get('split')}, but in another file in another split"
                    )
            for number, row in enumerate(saved["sentences"]):
                id = str(row["video_id"])
                words = row["caption"] or ""
                if not isinstance(words, str):
                    raise TypeError(f"a caption is {short_repr(words)}")
                sentences.setdefault((id, row.get("sen_id", (name, number))), words)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{name} is not in MSR-VTT's format ({error}); expected {EXPECTED}") from error
    if not videos:
        raise ValueError(f"{annotations}: no videodatainfo JSON in it; expected {EXPECTED}, or a ZIP or folder with it")
    return videos, [(id, text) for (id, _), text in sentences.items()]


def _split(video: dict[str, Any]) -> str:
    if video.get("split"):
        return parse_split_name(str(video["split"]))
    id = str(video["video_id"])
    number = video.get("id", id.removeprefix("video"))
    if not str(number).isdigit():
        raise ValueError(f"{id} has no field 'split', and no number from which the official split follows")
    return "train" if int(number) < 6513 else "val" if int(number) < 7010 else "test"


def _annotation_files(annotations: str | Path) -> list[Path]:
    """The files to read: the given file, or the JSON and ZIP files of the given folder."""
    path = Path(annotations)
    if not path.is_dir():
        return [path]
    files = visible_files(path, (".json", ".zip"))
    return [file for file in files if file.suffix.lower() == ".zip" or "videodatainfo" in file.name]


def _category_files(annotations: str | Path) -> list[Path]:
    """The files that may be or hold `category.txt`."""
    path = Path(annotations)
    folder = path if path.is_dir() else path.parent
    return [file for file in visible_files(folder) if file.name == "category.txt" or file.suffix.lower() == ".zip"]


def _read_texts(paths: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """(name, text) of every file; of a ZIP file, of the annotations in it.  Raises ValueError when one is damaged."""
    for path in paths:
        try:
            if path.suffix.lower() != ".zip":
                yield str(path), path.read_text(encoding="utf-8-sig")
                continue
            with zipfile.ZipFile(path) as archive:
                for member in archive.namelist():
                    name = Path(member).name
                    if name == "category.txt" or ("videodatainfo" in name and name.endswith(".json")):
                        packed = archive.getinfo(member).compress_size
                        with archive.open(member) as file:
                            yield f"{path}/{member}", read_bounded(file.read, packed, member).decode("utf-8-sig")
        except (*ZIP_ERRORS, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is damaged ({error}); download it again") from error
