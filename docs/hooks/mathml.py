r"""Formulas as MathML, which browsers show by themselves: no script, no font and no network are needed.

Arithmatex turns `$x$` into `<span class="arithmatex">\(x\)</span>`, and `$$x$$` into a `div` with `\[x\]`.
"""

import html
import re
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(text: str, page: Any, **_: Any) -> str:
    """The HTML of a page with its formulas as MathML.  Raises PluginError for LaTeX that cannot be read."""

    def mathml(match: re.Match[str]) -> str:
        latex = html.unescape(match[3]).strip()
        try:
            return convert(latex, display="inline" if match[2] == "(" else "block")
        except Exception as error:  # whatever the parser raises
            raise PluginError(f"{page.file.src_uri}: this formula cannot be read: {latex} ({error!r})") from error

    return FORMULA.sub(mathml, text)
