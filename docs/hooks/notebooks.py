"""Notebooks as pages: `x.ipynb` becomes `x.md`, with the outputs that are stored in it, and links to it follow."""

import base64
import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File

Cell = dict[str, Any]
NOTEBOOK_LINK = re.compile(r"(\]\([\w./-]+)\.ipynb((?:#[\w-]+)?\))")


def on_files(files: Any, config: Any, **_: Any) -> Any:
    """Add a page for every notebook, and a file for every image in it."""
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        path = PurePosixPath(notebook.src_uri)
        text, images = page(json.loads(Path(notebook.abs_src_path).read_text(encoding="utf-8")), path.stem)
        text += f'\n<a href="{path.name}" download>Download this notebook</a>\n'
        files.append(File.generated(config, str(path.with_suffix(".md")), content=text))
        for name, data in images.items():
            files.append(File.generated(config, str(path.parent / name), content=data))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links to notebooks, which work in the repository, lead to their pages.

    >>> on_page_markdown("[first](tutorials/first.ipynb#train)")
    '[first](tutorials/first.md#train)'
    """
    return NOTEBOOK_LINK.sub(r"\1.md\2", markdown)


def page(notebook: dict[str, Any], stem: str) -> tuple[str, dict[str, bytes]]:
    """-> the Markdown of a notebook, and its images by file name.

    >>> page({"cells": [{"cell_type": "markdown", "source": ["# Hello"]}]}, "x")
    ('# Hello\\n', {})
    """
    parts: list[str] = []
    images: dict[str, bytes] = {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif cell["cell_type"] == "code" and source.strip():
            parts.append(fence(source, "python"))
            parts += [shown(output, stem, images) for output in cell.get("outputs", [])]
    return "\n\n".join(part for part in parts if part) + "\n", images


def shown(output: Cell, stem: str, images: dict[str, bytes]) -> str:
    """The Markdown of one output; an image is added to `images`.  Raises ValueError for a stored error."""
    if output["output_type"] == "error":
        raise ValueError(f"{stem}.ipynb holds an error, {output['ename']}: {output['evalue']}; run it again")
    if output["output_type"] == "stream":
        return fence("".join(output["text"]), "text") if output["name"] == "stdout" else ""
    data = output["data"]
    if "image/png" in data:
        name = f"{stem}_{len(images) + 1}.png"
        images[name] = base64.b64decode("".join(data["image/png"]))
        return f"![Output of the cell above]({name})"
    return fence("".join(data.get("text/plain", "")), "text") if "text/plain" in data else ""


def fence(text: str, language: str) -> str:
    """A code block."""
    return f"```{language}\n{text.rstrip()}\n```"
