"""Layouts of text with one entry per line: tables (CSV, TSV, pipes), token files, Conceptual Captions, sentences."""

import csv
import io
import json
import re
import tokenize
from ast import literal_eval
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from limner.data.formulas import unmark_formula
from limner.data.layouts.entry import Columns, Entry, Reading, UnknownLayoutError, find_columns, is_row, shorten
from limner.data.media import MEDIA_SUFFIXES

MAX_FIELD = 64 << 20  # characters; the limit of 131072 of `csv` refuses long lists and images in base64
DELIMITERS = ("\t", "|", ";", ",")
OWN_COLUMNS = ("file", "caption", "logprob", "finished")  # of `limner caption`, which marks formulas
_SEP = re.compile(r"sep=(.)", re.IGNORECASE)  # a first line of Excel's, which names the delimiter
_TOKEN_ID = re.compile(r"(.+)#\d+")  # of Flickr8k and Flickr30k: name#number of the caption
MSVD_COLUMNS = frozenset({"VideoID", "Start", "End", "Language", "Description"})  # MSR Video Description Corpus.csv
_NUMBERED_CAPTION = re.compile(r"\s*(\d+)\s\s*(\S.*)")


class LineLayout(NamedTuple):
    """A layout of lines with a tab.

    matches  whether the first line, cut at its first tab, has this layout
    entry    makes the entry of a line from its two parts
    """

    name: str
    expected: str
    matches: Callable[[str, str], bool]
    entry: Callable[[str, str, str], Entry]


def parse_lines(text: str, reading: Reading) -> tuple[str, Iterator[Entry]]:
    """-> (name of the layout, entries) of a text with one entry per line.

    Raises UnknownLayoutError when its first line is not that of a known layout.
    """
    _check_line_lengths(text)
    if "\n" not in text:  # line ends of old Macs
        text = text.replace("\r", "\n")
    table = text.lstrip("\r\n")
    first_line = 1 + text.count("\n", 0, len(text) - len(table))
    first, _, rest = table.partition("\n")
    if given := _SEP.fullmatch(first.strip()):
        return "CSV", _table_entries(rest, given[1], reading, first_line + 1)
    delimiter = next((mark for mark in DELIMITERS if is_row(_split_header(first, mark), reading)), "")
    if delimiter:
        return "CSV", _table_entries(table, delimiter, reading, first_line)
    before, tab, after = first.rstrip("\r").partition("\t")
    if not tab:
        named = reading.file_column or reading.caption_column
        marks = [mark for mark in DELIMITERS if mark in first]
        if named or _looks_like_header(first):  # says which column is missing
            find_columns(_split_header(first, marks[0] if marks else ","), reading, "it")
        if any(_is_file_or_url(first.split(mark)[0].strip('" ')) for mark in marks):
            raise ValueError(
                f"it begins with {first.rstrip()[:80]!r}; a table needs a header: write the line 'file,caption' above"
            )
        raise UnknownLayoutError(f"it begins with {first.rstrip()[:80]!r}, which is not a known layout")
    layout = next(layout for layout in LINE_LAYOUTS if layout.matches(before.strip(), after.strip()))
    return layout.name, _line_entries(text, layout)


def _check_line_lengths(text: str) -> None:
    """Raise ValueError for a line of 32 to 64 million characters or more, which would take several times its memory."""
    half = MAX_FIELD // 2
    for start in range(0, len(text) - half, half):  # a line that long fills one of these windows
        if all(text.find(end, start, start + half) == -1 for end in "\n\r"):
            line = text.count("\n", 0, start) + 1
            raise ValueError(f"line {line} has more than {half:,} characters; is it a caption file?")


def _looks_like_header(line: str) -> bool:
    """Whether a line that names no id and caption is nevertheless a header: one of the two is there."""
    names = next((_split_header(line, mark) for mark in DELIMITERS if mark in line), [])
    return any(is_row([name, other], Reading()) for name in names for other in ("id", "caption"))


# --- tables -----------------------------------------------------------------------------------------------------------


def _split_header(line: str, delimiter: str) -> list[str]:
    return [field.strip().strip('"').strip() for field in line.rstrip("\r").split(delimiter)]


def _table_entries(text: str, delimiter: str, reading: Reading, first_line: int) -> Iterator[Entry]:
    """The rows below the header.

    Raises ValueError, with its line, for a row that has not as many fields as the header: a caption with a comma and
    without quotes would be cut.
    """
    csv.field_size_limit(MAX_FIELD)
    pipes = delimiter == "|"  # Flickr30k's results.csv: blanks around the fields, quotes are letters
    rows = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter,
        strict=not pipes,
        quoting=csv.QUOTE_NONE if pipes else csv.QUOTE_MINIMAL,
        skipinitialspace=f"{delimiter} " in text.partition("\n")[0],
    )
    last = 0  # the line where the row before ended
    try:
        names = _distinct(name.strip() if pipes else name for name in next(rows, []))
        columns = find_columns(names, reading, f"line {first_line}")
        place = {name: number for number, name in reversed(list(enumerate(names)))}
        last = rows.line_num
        own = tuple(names[: len(OWN_COLUMNS)]) == OWN_COLUMNS
        for row in rows:
            last = rows.line_num
            where = f"line {last + first_line - 1}"
            if not row:  # a blank line
                continue
            fields, note = (row, "") if len(row) == len(names) else _repaired(row, len(names), delimiter)
            if len(fields) != len(names):
                raise ValueError(
                    f"{where}: {len(row)} fields where the header has {len(names)}; "
                    f"put captions that have {delimiter!r} in them in double quotes"
                )
            if own:
                fields = [unmark_formula(field) for field in fields]
            make = _msvd_entry if place.keys() >= MSVD_COLUMNS else _table_entry
            yield make(where, {name: fields[number] for name, number in place.items()}, columns, note)
    except csv.Error as error:
        raise ValueError(f"line {last + first_line}: {error}; is a quote not closed there?") from error


def _distinct(names: Iterable[str]) -> list[str]:
    """The names of columns, a repeated one with its number, so that no column hides another.

    >>> _distinct(["file", "caption", "caption"])
    ['file', 'caption', 'caption 2']
    """
    seen: Counter[str] = Counter()
    distinct = []
    for name in names:
        seen[name] += 1
        distinct.append(name if seen[name] == 1 or not name.strip() else f"{name} {seen[name]}")
    return distinct


def _repaired(row: Sequence[str], width: int, delimiter: str) -> tuple[Sequence[str], str]:
    """A row of Flickr30k's results.csv that lacks the pipe between number and caption (one of the published file)."""
    if delimiter == "|" and len(row) == width - 1 and (match := _NUMBERED_CAPTION.fullmatch(row[-1])):
        return [*row[:-1], *match.groups()], "in some rows the '|' between number and caption was missing"
    return row, ""


def _table_entry(where: str, row: dict[str, str], columns: Columns, note: str) -> Entry:
    id = next((row[name] for name in columns.ids if row[name].strip()), "")
    captions = [text for name in columns.captions for text in parse_cell(row[name])]
    if len(columns.captions) > 1:  # caption_0, caption_1, ...: not every medium has the same number
        captions = [text for text in captions if text.strip()]
    file = row[columns.file].strip() if columns.file else None
    split = row[columns.split] if columns.split else ""
    return Entry(where, id, captions, split, file, note=note or columns.note, fields=row)


def _msvd_entry(where: str, row: dict[str, str], columns: Columns, note: str) -> Entry:
    """A description of a part of a YouTube video, which is the clip VideoID_Start_End; other languages are left out."""
    english = row["Language"].strip() == "English"
    captions = [row["Description"]] if english else []
    return Entry(where, f"{row['VideoID']}_{row['Start']}_{row['End']}", captions, left_out=[] if english else
                 ["written in another language than English"], note=note, fields=row)  # fmt: skip


def parse_cell(cell: str) -> list[str]:
    """The captions in a cell of a table: the cell itself, or the texts of a list as JSON, Python or NumPy write it.

    >>> parse_cell("a dog"), parse_cell('["a dog", "a cat"]'), parse_cell("['a dog' 'a cat']"), parse_cell("[man] hi")
    (['a dog'], ['a dog', 'a cat'], ['a dog', 'a cat'], ['[man] hi'])
    """
    text = cell.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return [cell]
    try:
        saved = json.loads(text)
    except (ValueError, RecursionError):
        saved = _python_texts(text)
    return saved if isinstance(saved, list) and saved and all(isinstance(item, str) for item in saved) else [cell]


def _python_texts(text: str) -> list[str] | None:
    """The texts of a list in Python's or NumPy's notation; None for anything else.

    NumPy writes no commas, so Python would join neighbouring texts: the tokens are read one by one.
    """
    texts = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.STRING:
                texts.append(literal_eval(token.string))
            elif token.string not in ("[", "]", ",") and token.string.strip():
                return None
    except (tokenize.TokenError, SyntaxError, ValueError):
        return None
    return texts


# --- lines with a tab -------------------------------------------------------------------------------------------------


def _line_entries(text: str, layout: LineLayout) -> Iterator[Entry]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            before, tab, after = line.removesuffix("\r").partition("\t")
            if not tab:
                raise ValueError(f"line {number}: expected '{layout.expected}', got {shorten(line)}")
            yield layout.entry(f"line {number}", before, after)


def _token_entry(where: str, name: str, caption: str) -> Entry:
    match = _TOKEN_ID.fullmatch(name.strip())
    if not match:
        raise ValueError(f"{where}: expected 'name#number<TAB>caption', got {shorten(name)}")
    return Entry(where, match[1], [caption], file=match[1])


def _conceptual_entry(where: str, caption: str, address: str) -> Entry:
    return Entry(where, address, [caption], file=address.strip())


def _sentence_entry(where: str, id: str, caption: str) -> Entry:
    return Entry(where, id, [caption], file=id.strip() if _is_file_or_url(id.strip()) else None)


def _is_file_or_url(text: str) -> bool:
    if " " in text or "\t" in text:
        return False
    return text.startswith(("http://", "https://")) or text.lower().endswith(MEDIA_SUFFIXES)


LINE_LAYOUTS = (  # the first one that matches is taken
    LineLayout(
        "Flickr tokens", "name#number<TAB>caption", lambda name, _: bool(_TOKEN_ID.fullmatch(name)), _token_entry
    ),
    LineLayout(
        "Conceptual Captions",
        "caption<TAB>address",
        lambda text, last: _is_file_or_url(last) and not _is_file_or_url(text),
        _conceptual_entry,
    ),
    LineLayout("sentences", "id<TAB>caption", lambda _, __: True, _sentence_entry),
)
