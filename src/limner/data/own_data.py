"""`find_data`: the fields `data` of a recipe for a file or folder that a user names.

    find_data("photos.csv")  ->  DataConfig(name="captions", annotations="photos.csv", media="images")

The kind of the data set is recognised by its content, as the readers do it, and the folder of the media is looked for.
"""

import glob
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from limner.core.addresses import refuse_address
from limner.data.arrow_tables import ARROW_SUFFIXES
from limner.data.captions_file import coco_files, metadata_files, read_entries
from limner.data.datasets import DataConfig
from limner.data.frame_folders import looks_like_frames
from limner.data.layouts.content import read_text
from limner.data.layouts.entry import Reading
from limner.data.media_finder import MediaFinder
from limner.data.media_folder import media_below, visible_below, visible_files
from limner.data.stored_captions import PREPARED_KEY
from limner.data.tar_files import TAR_SUFFIXES

CAPTION_SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".csv.gz", ".jsonl.gz", ".json.gz")  # of a file beside the media
SAMPLE = 200  # names whose files are looked for, to find the folder of the media
# folders beside that of the caption file in which media are looked for when there are none below it
NEIGHBOURS = ("images", "image", "imgs", "pictures", "photos", "media", "videos", "clips")


def find_data(path: str | Path, media: str = "", file_column: str = "", caption_column: str = "") -> DataConfig:
    """Find out how the data at `path` are read -> the fields `data` of a recipe.

    `path` is a caption file, a folder, a tar, a Parquet file, or a pattern of these two.  `media` is the folder of the
    media; when it is empty, it is looked for: the paths in the file are tried from the working directory, from the
    folder of the file, and from the folders in it.  `file_column` and `caption_column` name columns with unusual names.
    Raises FileNotFoundError when there is nothing at `path`, ValueError when a caption file has no known layout.
    """
    refuse_address(path)
    refuse_address(media)
    path = Path(path)
    if not path.exists() and not (glob.glob(str(path)) or "{" in path.name):
        raise FileNotFoundError(f"there is no file or folder {path}; give a caption file or a folder with captions")
    config = _folder(path, media) if path.is_dir() else _file(path, media)
    config = replace(config, file_column=file_column, caption_column=caption_column)
    if config.name != "captions" or config.media:
        return config
    return replace(config, media=_media_folder(Path(config.annotations), file_column, caption_column))


def _file(path: Path, media: str) -> DataConfig:
    name = path.name.lower()
    if name.endswith(TAR_SUFFIXES):
        return DataConfig("webdataset", media=str(path))
    if name.endswith(ARROW_SUFFIXES):  # its rows hold the media, or their paths
        return DataConfig("parquet", media or str(path.parent), str(path))
    if name == "truth.json":
        return DataConfig("shapes", media=str(path.parent))
    if name.endswith(".json") and f'"{PREPARED_KEY}"' in read_text(path):
        return DataConfig("cocotalk", media, str(path))
    return DataConfig("captions", media, str(path))


def _folder(folder: Path, media: str) -> DataConfig:
    """The first kind of data set that the files in a folder speak for."""
    names = [path.name.lower() for pattern in ("*", "*/*") for path in folder.glob(pattern)]
    below = (path for path in visible_below(folder) if path.is_dir() and path.with_suffix(".txt").is_file())
    kinds: dict[str, Callable[[], bool]] = {
        "shapes": (folder / "truth.json").is_file,
        "show_attend_tell": lambda: any(name.startswith("wordmap_") and name.endswith(".json") for name in names),
        "folder": lambda: bool(metadata_files(folder)),
        "captions": lambda: bool(coco_files(folder)),
        "webdataset": lambda: any(name.endswith(TAR_SUFFIXES) for name in names),
        "huggingface": lambda: any(name.endswith(ARROW_SUFFIXES) for name in names),
        "frames": lambda: any(looks_like_frames(path) for path in below),
    }
    kind = next((name for name, speaks in kinds.items() if speaks()), "")
    if kind == "captions":
        return DataConfig(kind, media, str(folder))
    if not kind and (file := _only_caption_file(folder)):
        return _file(file, media or str(folder))
    return DataConfig(kind or "folder", media=str(folder))


def _only_caption_file(folder: Path) -> Path | None:
    """The one caption file in a folder of media without text files.

    Raises ValueError when there are several, since one has to be named.
    """
    files = [path for path in visible_files(folder, ()) if path.name.lower().endswith(CAPTION_SUFFIXES)]
    if not files or any(path.with_suffix(".txt").is_file() for path in media_below(folder).media):
        return None
    readable = [path for path in files if path.is_file() and _has_captions(path)]
    if len(readable) > 1:
        names = ", ".join(path.name for path in readable)
        raise ValueError(f"{folder} holds {len(readable)} caption files ({names}): name one of them")
    return readable[0] if readable else None


def _has_captions(path: Path) -> bool:
    try:
        read_entries(path, Reading(file_is_id=True, allow_gaps=True, keep_going=True))
    except (ValueError, OSError):
        return False
    return True


def _media_folder(annotations: Path, file_column: str, caption_column: str) -> str:
    """The folder below which most of the files lie that a caption file names.

    "" when the paths are right as they are written, and when no file is found.
    """
    file = read_entries(
        annotations, Reading(file_column, caption_column, file_is_id=True, allow_gaps=True, keep_going=True)
    )
    names = [file.files.get(id, id) for id in file.captions]
    names = names[:: -(-len(names) // SAMPLE)]
    parent = annotations if annotations.is_dir() else annotations.parent
    best, most = "", 0
    folders = _media_folders(parent)
    for folder in [Path(), parent, *folders]:  # as the paths are written, without listing the folders
        found = sum((folder / name).is_file() for name in names)
        if found > most:
            best, most = str(folder) if folder != Path() else "", found
    for folder in folders:
        if most == len(names):
            break
        finder = MediaFinder(folder)
        found = sum(Path(finder.locate(name)).is_file() for name in names)
        if found > most:
            best, most = str(folder), found
    return best


def _media_folders(parent: Path) -> list[Path]:
    """The folders that may hold the media of a caption file in the folder `parent`, the likeliest first."""
    at_root = str(parent) == "."
    above = Path(os.pardir) if at_root else parent.parent
    neighbours = [path for path in _folders_in(above) if path.name.lower() in NEIGHBOURS]
    here = Path.cwd() if at_root else parent  # below "." no file is looked for by its name
    return [*_folders_in(parent), here, *neighbours]


def _folders_in(folder: Path) -> list[Path]:
    return [path for path in visible_files(folder) if path.is_dir()]
