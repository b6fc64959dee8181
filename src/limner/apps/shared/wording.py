"""The words that are written beside or into a file: a template around its caption, joined to words that are there."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

from limner.apps.shared.arguments import WrongArguments
from limner.apps.shared.journal import Row

FIELDS = ("caption", "name", "folder")  # of a template


@dataclass(frozen=True)
class Wording:
    """How a caption becomes the words of a file.

    existing  what happens to words that are there: skip (the file gets no caption), overwrite, append or prepend
    template  the text that is written, with {caption}, {name} (dog) and {folder} (photos)

    Raises WrongArguments for a template without {caption} or with other fields.
    """

    existing: str = "skip"
    template: str = "{caption}"

    def __post_init__(self) -> None:
        try:
            parts = [part for part in Formatter().parse(self.template) if part[1] is not None]
        except ValueError as error:
            raise WrongArguments(f"--template {self.template!r}: {error}; write {{{{ for a brace") from error
        if wrong := [name for _, name, form, conversion in parts if name not in FIELDS or form or conversion]:
            known = ", ".join(f"{{{name}}}" for name in FIELDS)
            raise WrongArguments(f"--template has {{{wrong[0]}}}; it may have {known}, and {{{{ for a brace")
        if "caption" not in [name for _, name, _, _ in parts]:
            raise WrongArguments(f"--template {self.template!r} has no {{caption}}, so all files would get the same")

    def text(self, file: str, rows: Sequence[Row]) -> str:
        """The template with the captions of a file, one per part of a video; "" when all are empty."""
        texts = [row["caption"] for row in rows if row["caption"]]
        name, folder = Path(file).stem, Path(os.path.abspath(file)).parent.name
        return self.template.format(caption=" ".join(texts), name=name, folder=folder) if texts else ""

    def joined(self, before: str, text: str) -> str:
        """Words that were there and new ones, for append and prepend; unchanged when the new ones are there already.

        >>> Wording("append").joined("Rex.", "a dog"), Wording("prepend").joined("Rex", "a dog")
        ('Rex. a dog', 'a dog, Rex')
        """
        before = before.strip()
        first, second = (before, text) if self.existing == "append" else (text, before)
        if not before or before == text:
            return text
        joint = " " if first[-1] in ".!?,;:" else ", "
        there = before.endswith(("\n" + text, ", " + text, " " + text))
        if self.existing == "prepend":
            there = before.startswith((text + "\n", text + ", ", text + " "))
        return before if there else first + joint + second
