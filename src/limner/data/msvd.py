"""MSVD, the Microsoft Research Video Description Corpus (Chen and Dolan 2011): 1,970 clips, about 41 captions each."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from limner.core.torch_free import Medium
from limner.data.clip_folder import clip_files
from limner.data.dataset import DataSet, drop_empty, without_captions
from limner.data.split_lists import read_lists, use_lists

MAPPING = "youtube_mapping.txt"
COLUMNS = ("VideoID", "Start", "End", "Language", "Description")
EXPECTED = (
    "the CSV (MSR Video Description Corpus.csv), a file of sentences (vidN<TAB>caption), or a folder of "
    "sents_train*.txt, sents_val*.txt, sents_test*.txt"
)

Captions = dict[str, list[str]]


def read(annotations: str | Path, media: str | Path = "", mapping: str | Path = "", splits: str | Path = "") -> DataSet:
    """The clips of the CSV, or of sentence files.

    An id is the clip's name, `<youtube id>_<start>_<end>`, where the mapping (`youtube_mapping.txt`; by itself when it
    lies beside the annotations) or the CSV tells it, else vidN.  The split comes from the lists of the folder `splits`,
    else from vidN (train 1-1200, val 1201-1300, test 1301-1970).  Clips without a caption, and captions of clips that
    the mapping does not have, are reported.  Raises ValueError when nothing tells the split.
    """
    path = Path(annotations)
    names = _mapping(Path(mapping) if str(mapping) else _beside(path), bool(str(mapping)))
    captions = _corpus(path) if path.suffix.lower() == ".csv" else _sentences(path)
    clips = {names.get(id, id): texts for id, texts in captions.items()}
    numbers = {clip: id for id, clip in names.items()} or {clip: clip for clip in clips}
    files = clip_files(media)
    found = []
    for clip, number in numbers.items():
        place = files.get(clip, files.get(number, str(Path(media) / f"{clip}.avi")))
        found.append(Medium(clip, place, "" if str(splits) else _split(number), tuple(clips.get(clip, ()))))
    dataset = drop_empty(found)
    if str(splits):
        lists = {names.get(id, id): split for id, split in read_lists(splits).items()}
        dataset = use_lists(dataset, lists, splits)
    strangers = [
        f"{clip}: {len(texts)} caption(s) of a clip that {MAPPING} does not have"
        for clip, texts in clips.items()
        if clip not in numbers
    ]
    return DataSet(dataset.media, (*dataset.problems, *strangers, *without_captions(dataset.media)))


def _corpus(path: Path) -> Captions:
    """English descriptions by clip."""
    captions: Captions = {}
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            absent = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
            if absent:
                raise ValueError(f"{path} has the columns {rows.fieldnames}, but not {', '.join(absent)}")
            for row in rows:
                if (row["Language"] or "").strip() == "English":
                    id = f"{row['VideoID']}_{row['Start']}_{row['End']}"
                    captions.setdefault(id, []).append(row["Description"] or "")
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no CSV file in UTF-8 ({error}); expected {EXPECTED}") from error
    return captions


def _sentences(path: Path) -> Captions:
    """`vidN<TAB>caption` lines of one file, or of the sents_*.txt of a folder."""
    paths = sorted(path.glob("sents_*.txt")) if path.is_dir() else [path]
    captions: Captions = {}
    for file in paths:
        for number, line in _lines(file):
            id, tab, text = line.partition("\t")
            if not tab:
                raise ValueError(
                    f"{file}, line {number}: expected vidN<TAB>caption, got {line!r:.80}; MSVD is {EXPECTED}"
                )
            captions.setdefault(id.strip(), []).append(text.strip())
    if not captions:
        raise ValueError(f"{path}: no captions of MSVD; expected {EXPECTED}")
    return captions


def _mapping(path: Path, asked: bool) -> dict[str, str]:
    """vidN -> clip name, from lines `clip vidN`."""
    if not path.is_file():
        if asked:
            raise FileNotFoundError(
                f"data.mapping: no file at '{path}', expected {MAPPING} (clip name and vidN per line)"
            )
        return {}
    names = {}
    for number, line in _lines(path):
        words = line.split()
        if len(words) != 2:
            raise ValueError(f"{path}, line {number}: expected a clip name and vidN, got {line!r:.80}")
        names[words[1]] = words[0]
    return names


def _beside(path: Path) -> Path:
    return (path if path.is_dir() else path.parent) / MAPPING


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not blank."""
    try:
        lines: Iterable[str] = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    return ((number, line.rstrip("\r")) for number, line in enumerate(lines, 1) if line.strip())


def _split(id: str) -> str:
    """The standard split, which counts vidN."""
    number = id.removeprefix("vid")
    if not (id.startswith("vid") and number.isdigit()):
        raise ValueError(
            f"MSVD's standard split goes by vidN, and nothing tells that of '{id}': put {MAPPING} beside the "
            "annotations, or give data.mapping, or split lists with data.splits"
        )
    return "train" if int(number) <= 1200 else "val" if int(number) <= 1300 else "test"
