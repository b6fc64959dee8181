"""Check of a results file before it is sent to COCO's evaluation server, or read by COCO's tools.

The server wants `results.zip` with captions_val2014_NAME_results.json and captions_test2014_NAME_results.json; each is
a list of {"image_id": integer, "caption": text}, one for every image (https://cocodataset.org/#format-results).
nocaps and TextCaps take files of the same form.  `limner score` reads much more than that; here only this form passes.
"""

import json
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limner.core.torch_files import is_zip
from limner.core.untrusted import ZIP_ERRORS
from limner.data.captions_file import read_captions
from limner.data.image_ids import coco_id, medium_name
from limner.data.layouts.content import kind_of, read_bounded, read_text

NAME = re.compile(r"captions_(?P<split>[a-z]+20\d\d)_(?P<name>.+)_results\.json")  # COCO's name of a results file
SPLITS = {"val2014": 40504, "test2014": 40775}  # images for which the server wants captions
MANY_WORDS, MANY_BYTES = 60, 100_000_000
EXAMPLES = 3


@dataclass(frozen=True)
class ResultsCheck:
    """What is wrong with a results file.

    entries   captions in it
    problems  lines about what a server refuses or counts as wrong, with what to do
    notes     lines about what is allowed, and probably a mistake
    """

    path: str
    entries: int
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def check_results(path: str | Path, references: str | Path = "", split: str = "") -> list[ResultsCheck]:
    """Check a results file, or every results file in a ZIP.

    references  a file that has the ids: captions of any layout, or image information without captions, as COCO and
                nocaps publish it for their test sets.  Missing and unknown ids are then problems
    split       only the ids of this split of the references

    Raises OSError when a file cannot be read, ValueError when the ZIP or the references are damaged.
    """
    path = Path(path)
    expected = expected_ids(references, split) if str(references) else None
    if not is_zip(path):
        return [check_text(str(path), path.read_bytes(), expected)]
    checks = [check_text(f"{path}/{name}", content, expected) for name, content in _members(path)]
    splits = {match["split"] for check in checks if (match := NAME.fullmatch(Path(check.path).name))}
    missing = [split for split in SPLITS if split not in splits] if splits & set(SPLITS) else []
    lines = [f"no captions_{split}_NAME_results.json in it: COCO's server wants both files" for split in missing]
    if not checks:
        lines.append("no JSON file in it: put the results files into the ZIP, without a folder around them")
    return [ResultsCheck(str(path), 0, tuple(lines)), *checks] if lines else checks


def expected_ids(references: str | Path, split: str = "") -> set[int | str]:
    """Return the ids for which captions are wanted, integers where they are numbers.

    Raises ValueError when the file has none, or there is no such split.
    """
    path = Path(references)
    if path.is_file() and not split:
        try:
            saved = json.loads(read_text(path))
            images = saved["images"] if isinstance(saved, dict) and not saved.get("annotations") else []
            if ids := {image["id"] for image in images if isinstance(image.get("id"), int | str)}:
                return ids
        except (ValueError, KeyError, TypeError, AttributeError):
            pass  # another layout, or damaged, which the reader of captions names
    file = read_captions(path)
    captions = file.split(split).captions if split else file.captions
    return {coco_id(id) for id in captions}


def check_text(path: str, content: bytes, expected: Collection[int | str] | None = None) -> ResultsCheck:
    """Check the content of one results file.

    >>> check_text("r.json", b'[{"image_id": 1, "caption": null}]').problems
    ('1 of 1 captions are no text (entry 0: None): write a sentence in quotes',)
    """
    problems: list[str] = []
    notes = [f"{len(content) / 1e6:.0f} MB: servers take less; is it the right file?"] * (len(content) > MANY_BYTES)
    if not NAME.fullmatch(Path(path).name):
        notes.append("COCO's server wants the name captions_SPLIT_NAME_results.json, for example with val2014")
    rows = _parse(content, problems)
    if rows is None:
        return ResultsCheck(path, 0, tuple(problems), tuple(notes))
    _check_fields(rows, problems, notes)
    _check_captions(rows, problems, notes)
    ids = [row["image_id"] for row in rows if isinstance(row, dict) and type(row.get("image_id")) in (int, str)]
    if repeated := [id for id, count in Counter(ids).items() if count > 1]:
        problems.append(f"{_some(repeated)} occur more than once: keep one caption for each")
    if expected is not None:
        _check_expected([id for id in ids if isinstance(id, int)] or ids, expected, problems)
    elif (match := NAME.fullmatch(Path(path).name)) and len(set(ids)) != SPLITS.get(match["split"], len(set(ids))):
        wanted = SPLITS[match["split"]]
        problems.append(f"{len(set(ids))} images, but {match['split']} has {wanted}: caption all of them")
    return ResultsCheck(path, len(rows), tuple(problems), tuple(notes))


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of every JSON file in a ZIP.  Raises ValueError when it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                name = Path(info.filename)
                if name.suffix == ".json" and not name.name.startswith(".") and "__MACOSX" not in name.parts:
                    with archive.open(info) as file:
                        yield info.filename, read_bounded(file.read, info.compress_size, info.filename)
    except ZIP_ERRORS as error:
        raise ValueError(f"{path} is damaged ({error}): pack it again") from error


def _parse(content: bytes, problems: list[str]) -> list[Any] | None:
    """Return the list in a file; None when there is none, and a problem says why."""
    if content.startswith(b"\xef\xbb\xbf"):
        problems.append("it begins with a byte order mark, at which Python's json stops: save it as UTF-8 without BOM")
        content = content[3:]
    constants: Counter[str] = Counter()

    def note_constant(text: str) -> None:
        constants[text] += 1

    try:
        saved = json.loads(content.decode("utf-8"), parse_constant=note_constant)
    except UnicodeDecodeError as error:
        what, advice = kind_of(content) or ("not UTF-8", "save it as UTF-8")
        problems.append(f"it is {what} (byte {error.start}: {error.reason}): {advice}")
        return None
    except (json.JSONDecodeError, RecursionError) as error:
        lines = content.strip().splitlines()
        hint = "it looks like JSONL: put commas between the objects and [ ] around them" if len(lines) > 1 and all(
            line.lstrip()[:1] == b"{" for line in lines[:3]
        ) else "write it with json.dump"  # fmt: skip
        problems.append(f"it is not JSON ({error}): {hint}")
        return None
    for text, count in constants.items():
        problems.append(
            f"{text} is among the values, which is not JSON (count: {count}): leave such entries out, or give a caption"
        )
    if not isinstance(saved, list):
        hint = 'take the list [{"image_id": 1, "caption": "..."}, ...]'
        if isinstance(saved, dict) and saved:
            hint += f", not an object with the keys {', '.join(map(repr, list(saved)[:EXAMPLES]))}"
        problems.append(f"it holds {_kind(saved)}, not a list: {hint}")
        return None
    if not saved:
        problems.append("the list is empty: nothing would be scored")
    return saved


def _check_fields(rows: list[Any], problems: list[str], notes: list[str]) -> None:
    """Look at the types of all entries and of their ids."""
    objects = [(k, row) for k, row in enumerate(rows) if isinstance(row, dict)]
    _count(
        problems, rows, "entries are no objects", "each is {image_id, caption}", lambda row: not isinstance(row, dict)
    )
    for field in ("image_id", "caption"):
        absent = [k for k, row in objects if field not in row]
        if absent:
            keys = ", ".join(map(repr, list(objects[0][1])[:5])) or "no keys"
            problems.append(
                f"{len(absent)} of {len(rows)} entries have no {field} (entry {absent[0]}): the first entry has {keys}"
            )
    ids = {k: row["image_id"] for k, row in objects if "image_id" in row}
    advice = 'write numbers, 42 instead of "42"'
    _count(problems, ids, "image_ids are text in quotes", advice, lambda id: isinstance(id, str))
    _count(problems, ids, "image_ids are no integers", "write 42", lambda id: type(id) not in (int, str))
    _count(problems, ids, "image_ids are negative", "take the ids of the images", lambda id: type(id) is int and id < 0)
    if extra := sorted({str(key) for _, row in objects for key in row} - {"image_id", "caption"}):
        notes.append(
            f"further keys are ignored: {', '.join(extra[:EXAMPLES])}{', ...' if len(extra) > EXAMPLES else ''}"
        )


def _check_captions(rows: list[Any], problems: list[str], notes: list[str]) -> None:
    """Look at the captions."""
    found = {k: row["caption"] for k, row in enumerate(rows) if isinstance(row, dict) and "caption" in row}
    texts = {k: text for k, text in found.items() if isinstance(text, str)}
    _count(
        problems, found, "captions are no text", "write a sentence in quotes", lambda text: not isinstance(text, str)
    )
    _count(problems, texts, "captions are empty", "they score 0", lambda text: not text.strip())
    advice = "coco-caption's tokenizer reads one caption per line; write blanks"
    _count(problems, texts, "captions have line ends in them", advice, lambda text: len(text.splitlines()) > 1)
    broken = "write the text again as UTF-8"
    _count(problems, texts, "captions have half a character", broken, lambda text: not _is_utf8(text))
    _count(notes, texts, "captions have U+FFFD, a sign of a wrong encoding", broken, lambda text: "\ufffd" in text)
    _count(notes, texts, f"captions have more than {MANY_WORDS} words", "cut them to one sentence",
           lambda text: len(text.split()) > MANY_WORDS)  # fmt: skip
    specials = ("<eos>", "<end>", "</s>", "<pad>", "<unk>", "<start>", "[SEP]")
    _count(notes, texts, "captions hold special tokens", "leave these out",
           lambda text: any(token in text for token in specials))  # fmt: skip
    if len(texts) >= 100 and len(set(texts.values())) <= max(2, len(texts) // 50):
        notes.append(f"only {len(set(texts.values()))} different captions for {len(texts)} images")


def _check_expected(ids: Iterable[int | str], expected: Collection[int | str], problems: list[str]) -> None:
    """Compare the ids with those that are wanted."""
    given = set(ids)
    names = {str(coco_id(medium_name(str(id)))) for id in given}
    if missing := [id for id in expected if id not in given]:
        problems.append(f"no caption for {_some(missing)} of {len(expected)}: caption these images, too")
    if unknown := [id for id in given if id not in expected]:
        hint = "leave them out" if len(unknown) < len(given) else "are they of another data set or split?"
        if len(unknown) == len(given) and names & {str(id) for id in expected}:
            hint = "the ids are file names: write the numbers of the images"
        problems.append(f"{_some(unknown)} are not among the references: {hint}")


def _count(
    lines: list[str], values: dict[int, Any] | list[Any], what: str, advice: str, wrong: Callable[[Any], bool]
) -> None:
    """Add a line that counts the values that are wrong, and shows the first."""
    items = values.items() if isinstance(values, dict) else enumerate(values)
    if places := [(k, value) for k, value in items if wrong(value)]:
        first, value = places[0]
        lines.append(f"{len(places)} of {len(values)} {what} (entry {first}: {_short(value)}): {advice}")


def _some(ids: list[Any]) -> str:
    shown = ", ".join(map(repr, sorted(ids, key=str)[:EXAMPLES])) + (", ..." if len(ids) > EXAMPLES else "")
    return f"{len(ids)} image_id{'s' if len(ids) > 1 else ''} ({shown})"


def _short(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 50 else f"{text[:47]}..."


def _kind(value: Any) -> str:
    kinds = {dict: "an object", str: "a text", int: "a number", float: "a number", bool: "a truth value"}
    return kinds.get(type(value), "null")


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)
