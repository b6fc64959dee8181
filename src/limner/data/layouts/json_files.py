"""Layouts of JSON: COCO, Karpathy, MSR-VTT, VizWiz, TextCaps, VATEX, LAVIS, timed sentences, plain objects, JSONL."""

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from limner.data.layouts.entry import (
    Columns,
    Entry,
    Reading,
    UnknownLayoutError,
    as_list,
    find_columns,
    get,
    is_row,
    objects,
    shorten,
)
from limner.data.split_names import SPLIT_NAMES

Entries = Iterable[Entry]
TEXT_KEYS = ("caption", "raw", "sentence", "text")  # of captions that are objects


class JsonLayout(NamedTuple):
    """A layout of JSON files.

    matches  whether a value that was read from JSON has this layout, which its keys tell
    entries  yields the entries of such a value; raises ValueError, with the place, for what is wrong in it
    """

    name: str
    matches: Callable[[Any, Reading], bool]
    entries: Callable[[Any, Reading], Entries]


def parse_json(text: str, reading: Reading) -> tuple[str, Entries]:
    """-> (name of the layout, entries) of a text that holds JSON or JSONL."""
    try:
        saved = json.loads(text, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise ValueError(f"not JSON ({error}); is the file truncated?") from error
        return "JSONL", _row_entries(_parse_jsonl(text), reading)
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply; is it a caption file?") from error
    layout = next(layout for layout in JSON_LAYOUTS if layout.matches(saved, reading))  # an object or a list has one
    return layout.name, layout.entries(saved, reading)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object.  Raises ValueError for a repeated key, of which `json` would silently keep the last one."""
    made = dict(pairs)
    if len(made) < len(pairs):
        repeated = next(key for k, (key, _) in enumerate(pairs) if key in dict(pairs[:k]))
        raise ValueError(f"the key {repeated!r} occurs twice in one object; remove one of the two")
    return made


# --- rows -------------------------------------------------------------------------------------------------------------


def _parse_jsonl(text: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(text.split("\n"), 1):  # `splitlines` would split a caption at U+2028
        if line.strip():
            try:
                yield f"line {number}", json.loads(line, object_pairs_hook=_unique_keys)
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number}: not JSON ({error.msg}); is the file truncated?") from error
            except RecursionError as error:
                raise ValueError(f"line {number}: the JSON is nested too deeply") from error


def _row_entries(rows: Iterable[tuple[str, Any]], reading: Reading) -> Iterator[Entry]:
    """Entries of objects with an id and a caption, or a list of captions."""
    columns: dict[tuple[str, ...], Columns] = {}  # by the keys of a row, which are few
    for where, row in rows:
        if not isinstance(row, dict):
            raise ValueError(f"{where}: expected an object with an id and a caption, got {shorten(row)}")
        if (keys := tuple(row)) not in columns:
            columns[keys] = find_columns(keys, reading, where)
        chosen = columns[keys]
        id = next((row[name] for name in chosen.ids if row[name] not in (None, "")), row[chosen.ids[-1]])
        captions = list(chain.from_iterable(map(_texts, (row[name] for name in chosen.captions))))
        split, file = (row[name] if name else None for name in (chosen.split, chosen.file))
        yield Entry(where, id, captions, split, file, note=chosen.note, fields=row)


def _texts(value: Any) -> list[Any]:
    """The captions in a value: a caption, a list of captions, or a list of objects with one each."""
    if isinstance(value, dict):
        value = next((value[key] for key in ("captions", "sentences") if key in value), value)
    return [_text(item) for item in as_list(value)]


def _text(item: Any) -> Any:
    if not isinstance(item, dict):
        return item
    return next((item[key] for key in TEXT_KEYS if key in item), item)


def _list_entries(saved: list[Any], reading: Reading) -> Entries:
    return _row_entries(((f"item {k}", row) for k, row in enumerate(saved)), reading)


def _is_row(saved: Any, reading: Reading) -> bool:
    return isinstance(saved, dict) and is_row(saved, reading)


def _has_rows(saved: Any, reading: Reading) -> bool:
    """Whether an object holds rows under a single key, beside facts about the file."""
    lists = [value for value in saved.values() if isinstance(value, list)] if isinstance(saved, dict) else []
    return len(lists) == 1 and bool(lists[0]) and _is_row(lists[0][0], reading)


def _wrapped_entries(saved: dict[str, Any], reading: Reading) -> Entries:
    key = next(key for key, value in saved.items() if isinstance(value, list))
    return _row_entries(((f"{key}[{k}]", row) for k, row in enumerate(saved[key])), reading)


def _has_splits(saved: Any, reading: Reading) -> bool:
    """Whether an object holds lists of rows under the names of splits."""
    if not isinstance(saved, dict) or not saved or not all(name.strip().lower() in SPLIT_NAMES for name in saved):
        return False
    return all(isinstance(rows, list) and _is_row((rows or [None])[0], reading) for rows in saved.values())


def _split_entries(saved: dict[str, Any], reading: Reading) -> Iterator[Entry]:
    for split, rows in saved.items():
        for entry in _row_entries(((f"{split}[{k}]", row) for k, row in enumerate(rows)), reading):
            yield entry._replace(split=entry.split or split)


# --- COCO and its relatives -------------------------------------------------------------------------------------------


def _lists(saved: Any) -> set[str]:
    """The keys of an object whose values are lists, but not lists of texts."""
    if not isinstance(saved, dict):
        return set()
    return {key for key, value in saved.items() if isinstance(value, list) and not isinstance((value or [0])[0], str)}


def _is_coco(saved: Any, _: Reading) -> bool:
    return "annotations" in _lists(saved)


def _coco_entries(saved: dict[str, Any], reading: Reading) -> Iterator[Entry]:
    """Images first, because coco-caption scores in their order, and its tokens depend on the order.

    VizWiz marks captions as rejected or precanned; these are no references.
    """
    for k, image in enumerate(objects(saved.get("images", ()), "images")):
        file = image.get("file_name") or image.get("filename")
        where = f"images[{k}]"
        yield Entry(where, get(image, "id", where), split=image.get("split"), file=file, fields=image)
    for k, row in enumerate(objects(saved["annotations"], "annotations")):
        where = f"annotations[{k}]"
        id, caption = get(row, "image_id", where), get(row, "caption", where)
        reasons = [word for word in ("rejected", "precanned") if row.get(f"is_{word}") is True]
        reason = f"marked as {' and '.join(reasons)}"
        yield Entry(where, id, [] if reasons else [caption], left_out=[reason] if reasons else [])


def _is_msrvtt(saved: Any, _: Reading) -> bool:
    return {"videos", "sentences"} <= _lists(saved)


def _msrvtt_entries(saved: dict[str, Any], reading: Reading) -> Iterator[Entry]:
    for k, video in enumerate(objects(saved["videos"], "videos")):
        where = f"videos[{k}]"
        yield Entry(where, get(video, "video_id", where), split=video.get("split"), fields=video)
    for k, row in enumerate(objects(saved["sentences"], "sentences")):
        where = f"sentences[{k}]"
        yield Entry(where, get(row, "video_id", where), [get(row, "caption", where)])


def _is_karpathy(saved: Any, _: Reading) -> bool:
    if "images" not in _lists(saved):
        return False
    first = next(iter(saved["images"]), None)
    return not isinstance(first, dict) or "sentences" in first or "filename" in first


def _karpathy_entries(saved: dict[str, Any], reading: Reading) -> Iterator[Entry]:
    """Karpathy's splits (Karpathy and Li 2015, arXiv:1412.2306); the id is the `cocoid`, or else the name of the file.

    Restval images join the training split (82,783 train + 30,504 restval = 113,287 images of COCO).
    """
    seen = set()
    for k, image in enumerate(objects(saved["images"], "images")):
        where = f"images[{k}]"
        name = get(image, "filename", where)
        id = image["cocoid"] if "cocoid" in image else PurePosixPath(str(name)).stem
        problem = f"{where}: {id!r} occurs twice; ids must be unique" if id in seen else ""
        if problem and not reading.keep_going:
            raise ValueError(problem)
        seen.add(id)
        texts = [get(row, "raw", where) for row in objects(get(image, "sentences", where), f"{where}.sentences")]
        file = str(PurePosixPath(image.get("filepath") or "", str(name)))
        yield Entry(where, id, texts, image.get("split"), file, fields=image, problem=problem)


def _is_textcaps(saved: Any, _: Reading) -> bool:
    rows = saved.get("data") if isinstance(saved, dict) else None
    return isinstance(rows, list) and any(isinstance(row, dict) and _TEXTCAPS & row.keys() for row in rows[:1])


_TEXTCAPS = {"caption_str", "reference_strs"}


def _textcaps_entries(saved: dict[str, Any], reading: Reading) -> Iterator[Entry]:
    """A row is one caption of an image, and has all of them in `reference_strs`; these are taken once."""
    complete = set()
    for k, row in enumerate(objects(saved["data"], "data")):
        where = f"data[{k}]"
        id, all_captions = get(row, "image_id", where), row.get("reference_strs")
        captions = as_list(all_captions or row.get("caption_str") or [])
        if id in complete:
            captions = []
        elif all_captions:
            complete.add(id)
        yield Entry(where, id, captions, row.get("set_name"), row.get("image_path") or f"{id}.jpg", fields=row)


# --- sentences with times ---------------------------------------------------------------------------------------------


def _timed_videos(saved: Any) -> Any:
    """The object {video: its sentences with times} of a file, which may be the value of `results` or `database`."""
    if not isinstance(saved, dict):
        return None
    return next((saved[key] for key in ("results", "database") if isinstance(saved.get(key), dict)), saved)


def _is_timed(saved: Any, _: Reading) -> bool:
    videos = _timed_videos(saved)
    return bool(videos) and any(_times_of(video) is not None for video in videos.values())


def _times_of(video: Any) -> tuple[list[Any], list[Any]] | None:
    """(times, sentences) of a video as ActivityNet, YouCook2 and results of dense captioning have them, else None."""
    if isinstance(video, dict) and {"timestamps", "sentences"} <= video.keys():
        return as_list(video["timestamps"]), as_list(video["sentences"])
    rows = video.get("annotations") if isinstance(video, dict) else video
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return None
    keys = [(next((k for k in ("timestamp", "segment") if k in row), ""), "sentence" in row) for row in rows]
    if not rows or not all(time and sentence for time, sentence in keys):
        return None
    return [row[key] for row, (key, _) in zip(rows, keys, strict=True)], [row["sentence"] for row in rows]


def _sentences(video: dict[str, Any] | list[Any]) -> Any:
    return video if isinstance(video, list) else video.get("annotations") or video.get("sentences")


def _timed_entries(saved: dict[str, Any], reading: Reading) -> Iterator[Entry]:
    """Each sentence belongs to a part of its video, whose id is ID_START_END, in seconds, as in MSVD."""
    for id, video in _timed_videos(saved).items():
        where = f"key {id!r}"
        found = _times_of(video)
        if found is None and not (isinstance(video, dict | list) and not _sentences(video)):
            raise ValueError(f"{where}: expected timestamps and sentences, got {shorten(video)}")
        times, sentences = found or ([], [])  # a video without sentences, like those of YouCook2's test split
        if len(times) != len(sentences):
            raise ValueError(f"{where} has {len(times)} timestamps and {len(sentences)} sentences")
        split = video.get("subset") if isinstance(video, dict) else None
        for time, sentence in zip(times, sentences, strict=True):
            start, end = _seconds(time, where)
            yield Entry(where, f"{id}_{start:g}_{end:g}", [sentence], split, id, start=start, end=end)


def _seconds(time: Any, where: str) -> tuple[float, float]:
    if isinstance(time, list) and len(time) == 2 and all(type(value) in (int, float) for value in time):
        return float(time[0]), float(time[1])
    raise ValueError(f"{where}: a time must be [start, end] in seconds, got {shorten(time)}")


# --- other objects ----------------------------------------------------------------------------------------------------


def _mapping_entries(saved: dict[str, Any], reading: Reading) -> Iterator[Entry]:
    """Entries of {id: caption} or {id: [caption, ...]}; a caption may be {"caption": caption}."""
    for id, value in saved.items():
        texts = _texts(value)
        if not all(isinstance(text, str) for text in texts):
            raise UnknownLayoutError(f"the value of {id!r} is {shorten(value)}, not a caption or a list of captions")
        yield Entry(f"key {id!r}", id, texts)


JSON_LAYOUTS = (  # the first one that matches is taken
    JsonLayout("COCO results", lambda saved, _: isinstance(saved, list), _list_entries),
    JsonLayout("JSONL", _is_row, lambda saved, reading: _row_entries([("line 1", saved)], reading)),
    JsonLayout("COCO annotations", _is_coco, _coco_entries),
    JsonLayout("MSR-VTT", _is_msrvtt, _msrvtt_entries),
    JsonLayout("Karpathy", _is_karpathy, _karpathy_entries),
    JsonLayout("TextCaps", _is_textcaps, _textcaps_entries),
    JsonLayout("timed sentences", _is_timed, _timed_entries),
    JsonLayout("rows by split", _has_splits, _split_entries),
    JsonLayout("rows in an object", _has_rows, _wrapped_entries),
    JsonLayout("JSON", lambda saved, _: isinstance(saved, dict), _mapping_entries),
)
