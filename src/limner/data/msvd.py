"""Reader of MSVD, the Microsoft Video Description Corpus (Chen and Dolan 2011): 1,970 clips, about 41 captions each."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from limner.core.torch_free import Medium
from limner.data.clip_folder import clip_files
from limner.data.dataset import Dataset, drop_empty_captions, missing_caption_problems
from limner.data.split_lists import apply_split_lists, read_split_lists

MAPPING = "youtube_mapping.txt"
COLUMNS = ("VideoID", "Start", "End", "Language", "Description")
EXPECTED = (
    "the CSV (MSR Video Description Corpus.csv), a file of sentences (vidN<TAB>caption), or a folder of "
    "sents_train*.txt, sents_val*.txt, sents_test*.txt"
)

CaptionsById = dict[str, list[str]]


def read(annotations: str | Path, media: str | Path = "", mapping: str | Path = "", splits: str | Path = "") -> Dataset:
    """Read the corpus from its CSV file, or from sentence files (`vidN<TAB>caption`).

    The id of a clip is its name, `<youtube id>_<start>_<end>`.  The CSV has the names; for sentence files they come
    from `mapping` (default: `youtube_mapping.txt` beside the annotations), and without one the id is vidN.  The split
    comes from the lists in the folder `splits`, or else from vidN (train 1-1200, val 1201-1300, test 1301-1970).  A
    clip without a caption, and captions of a clip that the mapping lacks, add a problem line.  Raises ValueError when
    the split of a clip is not known, FileNotFoundError when `mapping` is given and does not exist.
    """
    path = Path(annotations)
    names = _read_mapping(Path(mapping) if str(mapping) else _default_mapping(path), bool(str(mapping)))
    captions = _read_csv(path) if path.suffix.lower() == ".csv" else _read_sentences(path)
    clips = {names.get(id, id): texts for id, texts in captions.items()}
    numbers = {clip: id for id, clip in names.items()} or {clip: clip for clip in clips}
    files = clip_files(media)
    entries = []
    for clip, number in numbers.items():
        video = files.get(clip, files.get(number, str(Path(media) / f"{clip}.avi")))
        entries.append(Medium(clip, video, "" if str(splits) else _standard_split(number), tuple(clips.get(clip, ()))))
    dataset = drop_empty_captions(entries)
    if str(splits):
        lists = {names.get(id, id): split for id, split in read_split_lists(splits).items()}
        dataset = apply_split_lists(dataset, lists, splits)
    unmapped = [
        f"{clip}: {len(texts)} caption(s) of a clip that {MAPPING} does not have"
        for clip, texts in clips.items()
        if clip not in numbers
    ]
    return Dataset(dataset.media, (*dataset.problems, *unmapped, *missing_caption_problems(dataset.media)))


def _read_csv(path: Path) -> CaptionsById:
    """The English descriptions of each clip."""
    captions: CaptionsById = {}
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
            if missing:
                raise ValueError(f"{path} has the columns {rows.fieldnames}, but not {', '.join(missing)}")
            for row in rows:
                if (row["Language"] or "").strip() == "English":
                    id = f"{row['VideoID']}_{row['Start']}_{row['End']}"
                    captions.setdefault(id, []).append(row["Description"] or "")
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a CSV file in UTF-8 ({error}); expected {EXPECTED}") from error
    return captions


def _read_sentences(path: Path) -> CaptionsById:
    """Captions by vidN, from the lines `vidN<TAB>caption` of one file, or of the files sents_*.txt of a folder."""
    paths = sorted(path.glob("sents_*.txt")) if path.is_dir() else [path]
    captions: CaptionsById = {}
    for file in paths:
        for number, line in _numbered_lines(file):
            id, tab, text = line.partition("\t")
            if not tab:
                raise ValueError(
                    f"{file}, line {number}: expected vidN<TAB>caption, got {line!r:.80}; MSVD comes as {EXPECTED}"
                )
            captions.setdefault(id.strip(), []).append(text.strip())
    if not captions:
        raise ValueError(f"{path}: no captions of MSVD in it; expected {EXPECTED}")
    return captions


def _read_mapping(path: Path, required: bool) -> dict[str, str]:
    """vidN -> clip name, from the lines `clip vidN`; {} when the file does not exist and is not required."""
    if not path.is_file():
        if required:
            raise FileNotFoundError(
                f"data.mapping: no file at '{path}', expected {MAPPING} with a clip name and vidN per line"
            )
        return {}
    names = {}
    for number, line in _numbered_lines(path):
        words = line.split()
        if len(words) != 2:
            raise ValueError(f"{path}, line {number}: expected a clip name and vidN, got {line!r:.80}")
        names[words[1]] = words[0]
    return names


def _default_mapping(path: Path) -> Path:
    return (path if path.is_dir() else path.parent) / MAPPING


def _numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number, line) for every line that is not blank."""
    try:
        lines: Iterable[str] = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    return ((number, line.rstrip("\r")) for number, line in enumerate(lines, 1) if line.strip())


def _standard_split(id: str) -> str:
    """The standard split of vidN, which goes by N."""
    number = id.removeprefix("vid")
    if not (id.startswith("vid") and number.isdigit()):
        raise ValueError(
            f"the vidN of '{id}' is not known, and MSVD's standard split goes by vidN: put {MAPPING} beside the "
            "annotations, or give its path as data.mapping, or split lists as data.splits"
        )
    return "train" if int(number) <= 1200 else "val" if int(number) <= 1300 else "test"
