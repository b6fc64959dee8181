"""MSR-VTT (Xu et al. 2016): 10,000 clips with 20 captions each, from the files as they are distributed."""

import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from limner.core.torch_free import Medium
from limner.data.clip_folder import clip_files
from limner.data.dataset import DataSet, drop_empty, without_captions
from limner.data.split_lists import split_name

EXPECTED = "{videos: [{video_id, ...}], sentences: [{video_id, caption, ...}]}"


def read(annotations: str | Path, media: str | Path = "", categories: Sequence[str] = ()) -> DataSet:
    """A `videodatainfo` JSON, a ZIP that holds some, or a folder of either (train_val and test, or the merged one).

    The split is the JSON's own, else the official one by number (train 0-6512, validate 6513-7009, test 7010-9999).
    Sentences are gathered by `video_id`: those of one video are not contiguous.  `start time` and `end time` are places
    in the YouTube original, and the clips are cut already.  `categories` (names of category.txt, or numbers) restricts
    the data set to those.  Videos without a caption, and sentences of unknown videos, are reported.
    """
    videos, sentences = _gather(annotations)
    wanted = _wanted(annotations, categories)
    files = clip_files(media)
    captions: dict[str, list[str]] = {id: [] for id in videos}
    strangers: dict[str, int] = {}
    for id, text in sentences:
        if id in captions:
            captions[id].append(text)
        else:
            strangers[id] = strangers.get(id, 0) + 1
    found = [
        Medium(id, files.get(id, str(Path(media) / f"{id}.mp4")), _split(video), tuple(captions[id]))
        for id, video in videos.items()
        if wanted is None or video.get("category") in wanted
    ]
    cleaned = drop_empty(found)
    problems = [f"{id}: {count} caption(s) of a video that is not listed" for id, count in strangers.items()]
    return DataSet(cleaned.media, (*cleaned.problems, *problems, *without_captions(cleaned.media)))


def category_names(annotations: str | Path) -> dict[str, int]:
    """`category.txt` (name<TAB>number per line) in the folder or beside the file, or in a ZIP there; {} without one."""
    texts = [text for name, text in _texts(_beside(annotations)) if Path(name).name == "category.txt"]
    pairs = (line.split("\t") for line in (texts or [""])[0].splitlines() if "\t" in line)
    return {name.strip(): int(number) for name, number in pairs}


def _wanted(annotations: str | Path, categories: Sequence[str]) -> set[int] | None:
    if not categories:
        return None
    names = category_names(annotations)
    unknown = [name for name in categories if name not in names and not name.isdigit()]
    if unknown:
        known = ", ".join(names) or "unknown: there is no category.txt beside the annotations, so give numbers"
        raise ValueError(f"data.categories: {', '.join(unknown)}: the categories are {known}")
    return {names[name] if name in names else int(name) for name in categories}


def _gather(annotations: str | Path) -> tuple[dict[str, dict[str, Any]], list[tuple[str, str]]]:
    """Videos by id, and (video id, caption) of every sentence, of all files together, doubles once."""
    videos: dict[str, dict[str, Any]] = {}
    sentences: dict[tuple[str, Any], str] = {}
    files = [(name, text) for name, text in _texts(_paths(annotations)) if name.endswith(".json")]
    for name, text in files:
        try:
            saved = json.loads(text)
            for video in saved["videos"]:
                id = str(video["video_id"])
                if videos.setdefault(id, video).get("split") != video.get("split"):
                    raise ValueError(f"{name}: {id} is in split {video.get('split')}, elsewhere in another")
            for number, row in enumerate(saved["sentences"]):
                id = str(row["video_id"])
                sentences.setdefault((id, row.get("sen_id", (name, number))), row["caption"] or "")
        except json.JSONDecodeError as error:
            raise ValueError(f"{name} is not a JSON file ({error})") from error
        except (KeyError, TypeError) as error:
            raise ValueError(f"{name} is not in MSR-VTT's format ({error}); expected {EXPECTED}") from error
    if not videos:
        raise ValueError(f"{annotations}: no videodatainfo JSON in it; expected {EXPECTED}, or a ZIP or folder with it")
    return videos, [(id, text) for (id, _), text in sentences.items()]


def _split(video: dict[str, Any]) -> str:
    if video.get("split"):
        return split_name(str(video["split"]))
    id = str(video["video_id"])
    number = video.get("id", id.removeprefix("video"))
    if not str(number).isdigit():
        raise ValueError(f"{id} has no split, and no number that could tell it")
    return "train" if int(number) < 6513 else "val" if int(number) < 7010 else "test"


def _paths(annotations: str | Path) -> list[Path]:
    """The files to read: the one that is given, or the JSONs and ZIPs of a folder."""
    path = Path(annotations)
    if not path.is_dir():
        return [path]
    found = [file for file in sorted(path.iterdir()) if file.suffix.lower() in (".json", ".zip")]
    return [file for file in found if file.suffix.lower() == ".zip" or "videodatainfo" in file.name]


def _beside(annotations: str | Path) -> list[Path]:
    path = Path(annotations)
    folder = path if path.is_dir() else path.parent
    return [file for file in sorted(folder.iterdir()) if file.name == "category.txt" or file.suffix.lower() == ".zip"]


def _texts(paths: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """(name, text) of every file, and of the annotations inside ZIPs."""
    for path in paths:
        try:
            if path.suffix.lower() != ".zip":
                yield str(path), path.read_text(encoding="utf-8-sig")
                continue
            with zipfile.ZipFile(path) as archive:
                for member in archive.namelist():
                    name = Path(member).name
                    if name == "category.txt" or ("videodatainfo" in name and name.endswith(".json")):
                        yield f"{path}/{member}", archive.read(member).decode("utf-8-sig")
        except (zipfile.BadZipFile, UnicodeDecodeError, EOFError) as error:
            raise ValueError(f"{path} is damaged ({error}); fetch it again") from error
