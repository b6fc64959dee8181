"""Patterns in the navigation of mkdocs.yml, which stand for the pages that exist."""

from fnmatch import fnmatch
from typing import Any

from mkdocs.plugins import event_priority


@event_priority(-100)  # after the hooks that add pages
def on_files(files: Any, config: Any, **_: Any) -> Any:
    """Replace the patterns in `config.nav`."""
    pages = [file.src_uri for file in files.documentation_pages()]
    config.nav = expand(config.nav, pages)
    return files


def expand(items: list[Any], pages: list[str]) -> list[Any]:
    """A navigation with every pattern replaced by its pages; a section without pages is left out.

    >>> expand(["index.md", {"Models": ["models/*.md"]}, {"Talks": ["talks/*.md"]}], ["index.md", "models/a.md"])
    ['index.md', {'Models': ['models/a.md']}]
    """
    found: list[Any] = []
    for item in items:
        if isinstance(item, dict):
            sections = {
                name: expand(value, pages) if isinstance(value, list) else value for name, value in item.items()
            }
            found += [{name: value} for name, value in sections.items() if value]
        elif "*" in item:
            matching = [page for page in pages if fnmatch(page, item) and page.count("/") == item.count("/")]
            found += sorted(matching, key=lambda page: (not page.endswith("/index.md"), page))
        else:
            found.append(item)
    return found
