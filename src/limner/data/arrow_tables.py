"""Rows of Parquet files and of Arrow files, as Hugging Face data sets are distributed and saved to disk.

The name of a medium is `ROW/COLUMN.ENDING`, for example `17/image.jpg`.  Needs pyarrow: pip install limner[parquet].
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Any

PARQUET_SUFFIXES = (".parquet", ".pq")
ARROW_SUFFIXES = (*PARQUET_SUFFIXES, ".arrow", ".feather")
PARQUET_MAGIC, ARROW_MAGIC = b"PAR1", b"ARROW1"
CLIP_COLUMNS = ("video", "clip")
KEPT_BYTES = 1 << 29  # groups of rows that are kept, of all Parquet files: a row cannot be read without its group
_kept: dict[tuple[Path, int, int, str], Any] = {}  # (file, its time, group, column) -> values
_lock = Lock()


class ArrowTable:
    """One Parquet or Arrow file: the number of rows, the columns, and the values of some rows."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError when the file is damaged, ImportError when pyarrow is not installed."""
        self.path = path
        self.problems: list[str] = []  # such a file is whole or unreadable
        self._modified = path.stat().st_mtime_ns
        check_parquet(path)
        arrow = import_pyarrow(path)
        try:
            self._open(arrow)
        except (arrow.ArrowException, OSError) as error:
            raise ValueError(f"{path} is a damaged {self.kind} file ({error}): download it again") from error

    @property
    def kind(self) -> str:
        """ "Parquet" or "Arrow"."""
        return "Parquet" if self.path.suffix.lower() in PARQUET_SUFFIXES else "Arrow"

    def _open(self, arrow: Any) -> None:
        if self.kind == "Parquet":
            import pyarrow.parquet

            with pyarrow.parquet.ParquetFile(self.path) as file:
                self._metadata, self.schema = file.metadata, file.schema_arrow
            sizes = [self._metadata.row_group(k).num_rows for k in range(self._metadata.num_row_groups)]
        else:
            import pyarrow.ipc

            mapped = arrow.memory_map(str(self.path))
            is_file = mapped.read(len(ARROW_MAGIC)) == ARROW_MAGIC
            mapped.seek(0)
            table = pyarrow.ipc.open_file(mapped).read_all() if is_file else pyarrow.ipc.open_stream(mapped).read_all()
            self._metadata, self._batches = None, table.to_batches()
            sizes, self.schema = [len(batch) for batch in self._batches], table.schema
        self._ends = list(accumulate(sizes))
        self.rows = self._ends[-1] if self._ends else 0

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(self.schema.names)

    def values(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The given columns of all rows; `image.path` is the field `path` of the column `image`."""
        for number in range(len(self._ends)):
            if self._metadata is not None:
                parts = [self._column(self._read_group(number, name), name) for name in columns]
            else:
                parts = [self._column(self._batches[number], name) for name in columns]
            for row in zip(*(part.to_pylist() for part in parts), strict=True):
                yield dict(zip(columns, row, strict=True))

    def _column(self, table: Any, name: str) -> Any:
        head, *fields = name.split(".") if name not in table.schema.names else [name]
        column = table.column(head)
        for field in fields:
            import pyarrow.compute

            column = pyarrow.compute.struct_field(column, field)
        return column

    def names(self) -> list[str]:
        """The names of the media: of the first column that holds images or clips."""
        column = find_media_column(self.schema)
        if column is None or not holds_bytes(self.schema.field(column).type):
            return []
        return list(self.media_names(column))

    def media_names(self, column: str) -> Iterator[str]:
        """The name of the medium of each row, `ROW/COLUMN.ENDING`; the ending is that of the stored path."""
        default = ".mp4" if column.lower() in CLIP_COLUMNS else ""
        for row, path in enumerate(self.stored_paths(column)):
            yield f"{row}/{column}{PurePosixPath(path or '').suffix or default}"

    def stored_paths(self, column: str) -> Iterable[str | None]:
        """The path that each row of an image column stores beside the bytes; None where there is none."""
        type = self.schema.field(column).type
        if not (is_struct(type) and type.get_field_index("path") >= 0):
            return [None] * self.rows
        return (values[f"{column}.path"] for values in self.values([f"{column}.path"]))

    def read(self, name: str) -> bytes:
        """The bytes of a medium.  Raises ValueError when there is no such row or column, or it is empty."""
        row, _, column = name.partition("/")
        column = column if column in self.schema.names else str(PurePosixPath(column).with_suffix(""))
        if not row.isdecimal() or int(row) >= self.rows or column not in self.schema.names:
            raise ValueError(
                f"there is no such row or column; the file has {self.rows} rows, columns {', '.join(self.columns)}"
            )
        number = bisect_right(self._ends, int(row))
        with _lock:
            value = self._group(number, column)[int(row) - (self._ends[number - 1] if number else 0)].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise ValueError(f"the row holds no bytes of an image or clip, but {str(content)[:40]!r}")
        return content

    def _read_group(self, number: int, column: str) -> Any:
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(self.path, metadata=self._metadata) as file:
            return file.read_row_group(number, [column])

    def _group(self, number: int, column: str) -> Any:
        """The values of a column in a group of rows; of Parquet files the last groups are kept."""
        if self._metadata is None:
            return self._batches[number].column(column)
        key = self.path, self._modified, number, column
        if key not in _kept:
            values = self._read_group(number, column).column(column)
            while _kept and sum(each.nbytes for each in _kept.values()) + values.nbytes > KEPT_BYTES:
                del _kept[next(iter(_kept))]
            _kept[key] = values
        return _kept[key]


def check_parquet(path: Path) -> None:
    """Raise ValueError when a file that is called Parquet is none, or is too short for what its footer says."""
    if path.suffix.lower() not in PARQUET_SUFFIXES:
        return
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(4)
        file.seek(max(0, size - 8))
        footer = file.read(8)
    if head != PARQUET_MAGIC:
        raise ValueError(f"{path} is not a Parquet file: it begins with {head!r}, not with {PARQUET_MAGIC!r}")
    if size < 12 or footer[-4:] != PARQUET_MAGIC or int.from_bytes(footer[:4], "little") > size - 12:
        raise ValueError(
            f"{path} is a damaged Parquet file of {size} bytes, its end is missing or wrong: download it again"
        )


def import_pyarrow(path: Path) -> Any:
    """The module pyarrow.  Raises ImportError with the line that installs it."""
    try:
        import pyarrow
    except ImportError as error:
        raise ImportError(f"{path} needs pyarrow, which is not installed: pip install 'limner[parquet]'") from error
    return pyarrow


def is_struct(type: Any) -> bool:
    """Whether a column's values have named fields."""
    import pyarrow

    return bool(pyarrow.types.is_struct(type))


def holds_bytes(type: Any) -> bool:
    """Whether a column holds the bytes of files: binary values, or the structure {bytes, path} of `datasets`."""
    import pyarrow

    if is_struct(type):
        return bool(type.get_field_index("bytes") >= 0)
    return bool(pyarrow.types.is_binary(type) or pyarrow.types.is_large_binary(type))


def find_media_column(schema: Any) -> str | None:
    """The first column that holds the bytes of files; None when no column does."""
    return next((field.name for field in schema if holds_bytes(field.type)), None)
