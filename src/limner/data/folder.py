"""Reader of a folder of media with a text file for each."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from limner.core.torch_free import Medium
from limner.data.dataset import SPLITS, Dataset, drop_empty_captions, split_by_hash
from limner.data.media_folder import media_below
from limner.data.split_names import normalise_split_name


def read_folder(annotations: str | Path, media: str | Path) -> Dataset:
    """Read the images and clips below the folder `media`, ordered by name; `dog.txt` holds the captions of `dog.jpg`.

    A text file has one caption per line.  It lies beside its medium, or in the same place below the folder
    `annotations` when that is given.  A parent folder named train, val or test, in any usual spelling, gives the split,
    otherwise a hash of the id does.  The id is the path below `media`.  Raises ValueError when there are no media.
    """
    root = Path(media)
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder; expected a folder with images or clips")
    texts = Path(annotations) if str(annotations) not in ("", ".") else root
    below = media_below(root)
    entries, problems = [], list(below.problems)
    for path in below.media:
        relative = path.relative_to(root)
        name = str(relative).encode(errors="backslashreplace").decode()
        if name != str(relative):  # such a name cannot be written to JSON or a terminal
            problems.append(f"{name}: the file name is not UTF-8; rename it")
            continue
        text = (texts / relative).with_suffix(".txt")
        captions: tuple[str, ...] = ()
        if text.is_file():
            with _open_text(text) as file:
                captions = tuple(file.read().splitlines())
        names = (normalise_split_name(part) for part in relative.parts[:-1])
        split = next((name for name in names if name in SPLITS), split_by_hash(relative.as_posix()))
        entries.append(Medium(relative.as_posix(), str(path), split, tuple(line for line in captions if line.strip())))
    if not entries:
        raise ValueError(f"no image or clip below {root}{'; ' + below.note(root) if below.others else ''}")
    cleaned = drop_empty_captions(entries)
    return Dataset(cleaned.media, (*problems, *cleaned.problems))


@contextmanager
def _open_text(path: str | Path) -> Iterator[TextIO]:
    """Open a UTF-8 file; line ends are not converted.  Raises ValueError when it is not UTF-8."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        try:
            yield file
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
