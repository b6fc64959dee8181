"""Captions as data sets: metadata.jsonl of an image folder, a Parquet file, a Hugging Face data set folder.

The image folder is that of Hugging Face `datasets`: each line of metadata.jsonl has `file_name`, relative to its
folder, and `text`.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from limner.apps.shared.journal import METADATA, Row, finished_rows, to_jsonl
from limner.core.files import atomic_write, write_text
from limner.core.replace_folder import recover_folder, replace_folder
from limner.core.temporaries import temporary_folder
from limner.data.archives import find_archive
from limner.data.arrow_tables import import_pyarrow
from limner.data.media import is_clip

PARQUET, DATA_SET = ".parquet", ".hf"
SPLIT = "train"  # of a data set folder


def is_data_set(out: Path) -> bool:
    """Whether this module writes an output."""
    return out.name == METADATA or out.suffix in (PARQUET, DATA_SET)


def check_data_set(out: Path, files: Sequence[str], resume: bool, overwrite: bool) -> None:
    """Check before the work that the files can be in the data set, and that nothing is lost.

    Raises ValueError for files that cannot be in it and for a folder that this command did not write, FileExistsError
    for one that it did write, ImportError without pyarrow.
    """
    if out.suffix == PARQUET:
        import_pyarrow(out)
        return
    if inside := [file for file in files if find_archive(file)]:
        raise ValueError(f"{inside[0]} lies inside another file, so {out} cannot list it: choose .parquet or .jsonl")
    if out.name == METADATA:
        for file in files:
            relative_name(out, file)
        if resume:
            finished_rows(out)
        return
    if clips := [file for file in files if is_clip(file) or os.path.isdir(file)]:
        raise ValueError(f"{clips[0]} is a clip, and {out} holds images: choose .parquet or .jsonl for clips")
    if not out.exists():
        return
    if sorted(path.name for path in out.iterdir()) != [SPLIT] or not (out / SPLIT / METADATA).is_file():
        raise ValueError(f"{out} is a folder that limner did not write: choose another name for --out")
    if not overwrite:
        raise FileExistsError(f"{out} exists: give --overwrite to replace it, or choose another name")


def write_data_set(out: Path, rows: Sequence[Row], paths: Mapping[str, str]) -> None:
    """Write an output, atomically.  `paths`: file of a row -> its path."""
    if out.suffix == PARQUET:
        _write_parquet(out, rows)
        return
    texts: dict[str, list[str]] = {}
    for row in rows:
        texts.setdefault(row["file"], []).append(row["caption"])
    joined = {file: " ".join(filter(None, parts)) for file, parts in texts.items()}
    if out.name == METADATA:
        names = {file: relative_name(out, paths.get(file, file)) for file in joined}
        lines = {names[file]: text for file, text in joined.items()}
        write_text(out, to_jsonl([{"file_name": name, "text": text} for name, text in lines.items()]))
    else:
        _write_image_folder(out, {paths.get(file, file): text for file, text in joined.items()})


def relative_name(out: Path, file: str) -> str:
    """The name of a file in metadata.jsonl: its path from there, with slashes.

    Raises ValueError for a file that is not below the folder of `out`, and for a name that is not UTF-8.

    >>> relative_name(Path("photos/metadata.jsonl"), "photos/dogs/rex.jpg")
    'dogs/rex.jpg'
    """
    name = os.path.relpath(os.path.abspath(file), os.path.abspath(out.parent))
    if name.split(os.sep)[0] == os.pardir:
        raise ValueError(
            f"{file} is not below {out.parent}, so {out} cannot name it: put {METADATA} into the folder of the images, "
            f"or choose --out NAME{DATA_SET}, which has copies of them"
        )
    try:
        return name.encode("utf-8").decode().replace(os.sep, "/")
    except UnicodeEncodeError as error:
        raise ValueError(f"{file!r}: {out.name} cannot name a file whose name is not UTF-8; rename it") from error


def _write_parquet(out: Path, rows: Sequence[Row]) -> None:
    """A table with a row per caption; further captions of a row are one column, as JSON."""
    arrow = import_pyarrow(out)
    import pyarrow.parquet

    kinds = {"file": arrow.string(), "caption": arrow.string(), "logprob": arrow.float64(), "finished": arrow.bool_()}
    more = {name: arrow.float64() for name in ("start", "end", "confidence")}
    more |= {"unfamiliar": arrow.bool_(), "withheld": arrow.string(), "others": arrow.string()}
    kinds |= {name: kind for name, kind in more.items() if any(name in row for row in rows)}
    values: list[dict[str, Any]] = [
        {**row, "others": json.dumps(row["others"], ensure_ascii=False)} if "others" in row else row for row in rows
    ]
    table = arrow.Table.from_pylist(values, schema=arrow.schema(kinds.items()))
    with atomic_write(out) as temporary:
        pyarrow.parquet.write_table(table, temporary)


def _write_image_folder(out: Path, texts: Mapping[str, str]) -> None:
    """Copies of the images and their metadata.jsonl, in the folder of one split.

    The caller holds the lock of `out`.
    """
    recover_folder(out)
    with temporary_folder(out.parent, out.name) as work:
        folder = work / "new" / SPLIT
        folder.mkdir(parents=True)
        names = _flat_names(list(texts))
        for file, name in names.items():
            shutil.copyfile(file, folder / name)
        lines = [{"file_name": name, "text": texts[file]} for file, name in names.items()]
        (folder / METADATA).write_text(to_jsonl(lines), encoding="utf-8")
        replace_folder(work / "new", out)


def _flat_names(files: Sequence[str]) -> dict[str, str]:
    """A name of its own for each file; a number where several share theirs, or it is not UTF-8.

    Folders are left out: `datasets` would take those named test or validation for splits.

    >>> _flat_names(["a/dog.jpg", "b/dog.jpg", "cat.jpg"])
    {'a/dog.jpg': '0001-dog.jpg', 'b/dog.jpg': '0002-dog.jpg', 'cat.jpg': 'cat.jpg'}
    """
    shared = Counter(Path(file).name.casefold() for file in files)
    names = {}
    for number, file in enumerate(files, 1):
        name = Path(file).name.encode("utf-8", "replace").decode()
        alone = shared[Path(file).name.casefold()] == 1 and name == Path(file).name and name != METADATA
        names[file] = name if alone else f"{number:04}-{name}"
    return names
