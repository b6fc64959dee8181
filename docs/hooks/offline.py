"""A check of the built site: no page loads a script, style, font, image or frame from another host."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

LOADS = {  # tag -> attributes whose address a browser fetches by itself
    "script": ("src",),
    "img": ("src", "srcset"),
    "iframe": ("src",),
    "link": ("href",),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
    "audio": ("src",),
    "object": ("data",),
    "embed": ("src",),
}
IDLE = {"canonical", "prev", "next", "alternate", "license"}  # `rel` of links that are not fetched
STYLE = re.compile(r"""@import\s+["']([^"']+)|url\(\s*["']?([^"')]+)""")


def on_post_build(config: Any, **_: Any) -> None:
    """Raises PluginError that names every page and address."""
    found = foreign(Path(config.site_dir))
    if found:
        raise PluginError("the site loads files from other hosts:\n" + "\n".join(found))


def foreign(site: Path) -> list[str]:
    """One line `page: address` for everything that a page or style sheet loads from another host."""
    found = []
    for path in sorted(site.rglob("*.html")):
        parser = Loaded()
        parser.feed(path.read_text(encoding="utf-8"))
        found += [f"{path.relative_to(site)}: {address}" for address in parser.addresses if is_foreign(address)]
    for path in sorted(site.rglob("*.css")):
        addresses = [one or other for one, other in STYLE.findall(path.read_text(encoding="utf-8"))]
        found += [f"{path.relative_to(site)}: {address}" for address in addresses if is_foreign(address)]
    return found


def is_foreign(address: str) -> bool:
    """Whether an address names another host.

    >>> [is_foreign(it) for it in ("../a.css", "data:font/woff2;base64,AA", "https://example.org/a.js")]
    [False, False, True]
    """
    return bool(re.match(r"(?:[a-z][a-z0-9+.-]*:)?//", address.strip(), re.IGNORECASE))


class Loaded(HTMLParser):
    """Collects the `addresses` that a browser fetches when it opens a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.in_style = tag == "style"
        if tag == "link" and values.get("rel") in IDLE:
            return
        self.addresses += [values[name] for name in LOADS.get(tag, ()) if values.get(name)]
        self.addresses += [one or other for one, other in STYLE.findall(values.get("style", ""))]

    def handle_data(self, data: str) -> None:
        if self.in_style:
            self.addresses += [one or other for one, other in STYLE.findall(data)]
