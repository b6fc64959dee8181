"""Reader of clips as folders of frames: one folder per clip, `video0/00001.jpg`, `video0/00002.jpg`, ...

The captions are in `video0.txt` beside the folder, one per line, or in a caption file.
"""

from pathlib import Path

from limner.core.torch_free import Medium
from limner.data.captions_file import read_captions
from limner.data.dataset import SPLITS, Dataset, drop_empty_captions, missing_caption_problems, split_by_hash
from limner.data.frame_folders import frame_files
from limner.data.media_folder import visible_below
from limner.data.split_lists import SPLIT_NAMES


def read(annotations: str | Path, media: str | Path) -> Dataset:
    """Read every folder below `media` that has images in it as one clip, ordered by name; its id is its path below it.

    `annotations` is a caption file in any layout that limner reads, whose ids are the ids or names of the folders, or a
    folder of text files; empty means text files beside the clips.  The split is that of the caption file, else a parent
    folder named train, val or test, else a hash of the id decides.  Raises ValueError when there is no such folder, or
    no id of the caption file fits.
    """
    root = Path(media)
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder; expected a folder with one folder of frames per clip")
    folders = [path for path in visible_below(root) if path.is_dir()]
    clips = {path.relative_to(root).as_posix(): path for path in folders if frame_files(path)}
    if not clips:
        raise ValueError(f"no folder below {root} holds images; expected one folder of frames per clip")
    problems: list[str] = []
    captions: dict[str, tuple[str, ...]] = {}
    splits: dict[str, str] = {}
    if str(annotations) not in ("", ".") and Path(annotations).is_file():
        file = read_captions(annotations)
        known = {name: id for id in file.captions for name in (Path(id).name, Path(id).stem, id)}
        matched = {id: known[name] for id in clips if (name := _known(id, known))}
        if not matched:
            examples = f"{', '.join([*file.captions][:2])}, ... and {', '.join([*clips][:2])}, ..."
            raise ValueError(
                f"{annotations}: none of its {len(file.captions)} ids is a folder below {root} ({examples})"
            )
        captions = {id: file.captions[name] for id, name in matched.items()}
        splits = {id: file.splits[name] for id, name in matched.items() if name in file.splits}
        if absent := sorted(file.captions.keys() - set(matched.values())):
            problems.append(f"{len(absent)} ids of {annotations} have no folder of frames, the first is {absent[0]}")
        problems += file.notes
    else:
        texts = Path(annotations) if str(annotations) not in ("", ".") else root
        for id in clips:
            text = texts / f"{id}.txt"
            if text.is_file():
                captions[id] = tuple(read_lines(text))
    entries = []
    for id, path in clips.items():
        parent = next((part for part in Path(id).parts[:-1] if part in SPLITS), "")
        split = SPLIT_NAMES.get(splits.get(id, ""), splits.get(id, "")) or parent or split_by_hash(id)
        entries.append(Medium(id, str(path), split, captions.get(id, ())))
    cleaned = drop_empty_captions(entries)
    return Dataset(cleaned.media, (*problems, *cleaned.problems, *missing_caption_problems(cleaned.media)))


def _known(id: str, known: dict[str, str]) -> str:
    return id if id in known else Path(id).name if Path(id).name in known else ""


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file that are not blank.  Raises ValueError when it is not UTF-8."""
    try:
        return [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
