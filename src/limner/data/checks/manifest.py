"""A data set without what a check has found, and the caption file that it is written to.  Originals are only read."""

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from limner.core.files import write_text
from limner.core.torch_free import Medium
from limner.data.checks.captions import caption_key
from limner.data.checks.findings import OF_CAPTIONS, Finding
from limner.text.caption_faults import CaptionRules, caption_faults, repair_encoding

SUFFIXES = (".jsonl", ".csv", ".json")  # of a manifest; .json has Karpathy's layout
OF_MEDIA = ("missing", "corrupt", "damaged", "no-caption")  # findings whose media are left out
OF_GROUPS = ("duplicate", "near-duplicate", "leak", "ids")  # findings of whose media the first is kept


@dataclass(frozen=True)
class CleanedData:
    """What is left of a data set.

    media     all that is left, in its order
    dropped   media that were left out
    captions  captions that were left out, those of dropped media not counted
    repaired  captions whose encoding was repaired
    """

    media: tuple[Medium, ...]
    dropped: int
    captions: int
    repaired: int


def clean(media: Sequence[Medium], findings: Iterable[Finding], rules: CaptionRules) -> CleanedData:
    """Leave out what the findings name.

    Files that cannot be used, and all but the first of a group of copies, are left out.  A group in several splits
    keeps the copy in test, else the one in val: training data can be spared, and scores stay comparable.  Captions with
    faults are left out, unless their encoding can be repaired; then a medium without captions is left out, too.
    """
    findings = list(findings)
    dropped = _dropped(findings)
    faults: dict[tuple[str, str], set[str]] = {}
    for finding in findings:
        if finding.kind in OF_CAPTIONS:
            faults.setdefault((finding.ids[0], finding.caption), set()).add(finding.kind)
    left, captions, repaired = [], 0, 0
    for medium in media:
        if medium.id in dropped:
            continue
        texts: dict[str, str] = {}  # what a caption says -> the first one that says so
        for text in medium.references:
            better = _cleaned(text, faults.get((medium.id, text), set()), rules)
            if better:
                repaired += texts.setdefault(caption_key(better), better) != text and better != text
        captions += len(medium.references) - len(texts)
        if texts:
            left.append(replace(medium, references=tuple(texts.values())))
    return CleanedData(tuple(left), len(media) - len(left), captions, repaired)


def _dropped(findings: Iterable[Finding]) -> set[str]:
    """The ids of media that are left out; of each group, the first member that is not among them stays."""
    groups = [finding.ids for finding in findings if finding.kind in OF_GROUPS and len(finding.ids) > 1]
    dropped = {id for finding in findings if finding.kind in OF_MEDIA for id in finding.ids}
    for ids in groups:
        left = [id for id in ids if id not in dropped]
        dropped.update(left[1:])
    return dropped


def _cleaned(text: str, faults: set[str], rules: CaptionRules) -> str:
    """A caption, with its encoding repaired; "" when it has another fault.

    That it occurs twice is no fault of the first one; the caller keeps one of them.
    """
    if faults == {"encoding"} and (better := repair_encoding(text)):
        return "" if any(caption_faults(better, rules)) else better
    return "" if faults - {"repeated"} else text


def write_manifest(media: Sequence[Medium], path: Path, root: str) -> None:
    """Write a caption file: a table (.csv), JSON lines (.jsonl) or Karpathy's layout (.json), by its suffix.

    File names are relative to `root`, the folder of the media, where they are below it.  Raises ValueError for parts
    of clips, which these layouts cannot name, and for another suffix.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: name a file that ends in {', '.join(SUFFIXES)}")
    if any(medium.start is not None or medium.end is not None for medium in media):
        raise ValueError("the data have parts of clips, with times, and a cleaned caption file cannot name these")
    names = {medium.id: _name(medium.path, root) for medium in media}
    if path.suffix == ".json":
        images = [_karpathy(medium, names[medium.id]) for medium in media]
        text = json.dumps({"images": images, "dataset": path.stem}, ensure_ascii=False) + "\n"
    elif path.suffix == ".jsonl":
        rows = ({"id": medium.id, "file": names[medium.id], "captions": medium.references, "split": medium.split}
                for medium in media)  # fmt: skip
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        table = io.StringIO(newline="")
        writer = csv.writer(table)
        writer.writerow(["id", "file", "caption", "split"])
        writer.writerows((it.id, names[it.id], text, it.split) for it in media for text in it.references)
        text = table.getvalue()
    write_text(path, text)


def _name(path: str, root: str) -> str:
    """A path relative to the folder of the media; itself when it is not below that.

    >>> _name("photos/a/1.jpg", "photos"), _name("elsewhere/1.jpg", "photos"), _name("1.jpg", "")
    ('a/1.jpg', 'elsewhere/1.jpg', '1.jpg')
    """
    if not root:
        return path
    name = os.path.relpath(path, root)
    return Path(path).as_posix() if name.startswith(os.pardir) else Path(name).as_posix()


def _karpathy(medium: Medium, name: str) -> dict[str, Any]:
    """An image of Karpathy's layout.  Its id is the name of the file without ending, or else `cocoid`."""
    folder, _, file = name.rpartition("/")
    image: dict[str, Any] = {"filepath": folder} if folder else {}
    if Path(file).stem != medium.id:
        is_number = medium.id.isascii() and medium.id.isdigit() and str(int(medium.id)) == medium.id
        image["cocoid"] = int(medium.id) if is_number else medium.id
    sentences = [{"raw": text, "tokens": text.lower().split()} for text in medium.references]
    return image | {"filename": file, "split": medium.split, "sentences": sentences}
