"""`MediaFinder`: finds the files that captions name below a folder."""

import os
import unicodedata
from pathlib import Path, PurePosixPath

from limner.data.image_ids import coco_id, medium_name
from limner.data.media_folder import media_below


class MediaFinder:
    """The images and clips below a folder, by path, by name, by name without ending, and by COCO's number.

    A name that an annotation gives may lack its folder or its ending, have folders of another computer, or be the
    address from which the file was downloaded.  The folder is listed when a name is first not found as it is written.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root)
        self._listed: dict[Path, frozenset[str]] = {}
        self._by_name: dict[str, list[Path]] | None = None
        self.problems: list[str] = []  # a line for each name that fits several files

    def locate(self, name: str) -> str:
        """The path of the file that is called `name`.

        When there is none, it is `root`/`name`, or the address, which reading refuses by name.
        """
        path = self.root / name
        if self._exists(path):
            return str(path)
        address = name.startswith(("http://", "https://"))
        short = PurePosixPath(name.partition("?")[0] if address else name).name
        found = next((paths for key in _keys(short) if (paths := self._named(key))), [])
        if len(found) > 1:
            tail = [other for other in found if other.as_posix().endswith("/" + name)]
            found = tail or found
        if len(found) > 1:
            self.problems.append(
                f"{name}: two files below {self.root} have this name, {found[0]} and {found[1]}; give its folder in "
                "the annotations"
            )
        return str(found[0]) if len(found) == 1 else name if address else str(path)

    def _exists(self, path: Path) -> bool:
        """Whether a file exists, from one listing of its folder."""
        folder = path.parent
        if folder not in self._listed:
            try:
                self._listed[folder] = frozenset(os.listdir(folder))
            except (OSError, ValueError):
                self._listed[folder] = frozenset()
        return path.name in self._listed[folder]

    def _named(self, name: str) -> list[Path]:
        if self._by_name is None:
            self._by_name = {}
            for path in media_below(self.root).media if str(self.root) not in ("", ".") else ():
                for key in dict.fromkeys(_keys(path.name)):
                    self._by_name.setdefault(key, []).append(path)
        return self._by_name.get(name, [])


def _keys(name: str) -> tuple[str, str, str, str]:
    """What files of one name share, the closest first: name, name without ending, COCO's number, small letters.

    Letters with accents are compared in one Unicode form, because macOS writes file names in another than most tools.
    """
    name = unicodedata.normalize("NFC", name)
    stem = medium_name(name)
    return name, stem, str(coco_id(stem)), stem.casefold()
