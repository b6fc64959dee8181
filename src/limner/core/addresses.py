"""Addresses (URLs) in the place of files: limner downloads nothing, so it refuses them by name."""

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

# A scheme has two letters at least: C:\ and C:/ are drives.  Path() makes https:/x of https://x, and a folder of media
# may stand before an address: media/https:/x
_ADDRESS = re.compile(r"(?:^|[/\\])([A-Za-z][A-Za-z0-9+.-]+):/{1,3}(?=[^/\s])")
_FILE_ADDRESS = re.compile(r"file:/+", re.IGNORECASE)
_DATA_ADDRESS = re.compile(r"data:[\w.+-]*/?[\w.+-]*(?:;[\w=.-]+)*,", re.IGNORECASE)


def address_error(source: str | os.PathLike[str]) -> str:
    """What to do where an address is given in place of a file; "" for a path.

    >>> address_error("https://example.com/dog.jpg")
    'https://example.com/dog.jpg is an address (URL), not a file: download it first, and give the path of the file'
    >>> address_error("file:///home/me/dog.jpg")
    'file:///home/me/dog.jpg is an address (URL): give the path itself, /home/me/dog.jpg'
    >>> address_error("photos/10:30 dog.jpg"), address_error("C:/photos/dog.jpg"), address_error("at 10:/dog.jpg")
    ('', '', '')
    """
    text = os.fspath(source)
    if _DATA_ADDRESS.match(text):
        return f"{text[:40]}... is the data of a file (a data URL), not its path: write the data to a file first"
    found = _ADDRESS.search(text)
    if not found or Path(text).exists():
        return ""
    scheme, rest = found[1], text[found.end() :]
    if _FILE_ADDRESS.match(text):
        path = "/" + unquote(urlsplit(f"file:///{rest}").path).removeprefix("/").removeprefix("localhost/")
        return f"file:///{rest} is an address (URL): give the path itself, {path}"
    return f"{scheme}://{rest} is an address (URL), not a file: download it first, and give the path of the file"


def refuse_address(source: str | os.PathLike[str]) -> None:
    """Raise ValueError when an address is given in place of a file or folder."""
    if error := address_error(source):
        raise ValueError(error)
