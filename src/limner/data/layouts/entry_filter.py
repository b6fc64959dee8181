"""`EntryFilter`: keeps the entries of a caption file whose fields have wanted values, and counts the others."""

from collections import Counter
from collections.abc import Mapping

from limner.data.layouts.entry import Entry, field_texts


class EntryFilter:
    """Keeps an entry when each field of `where` has one of its values.

    where  field -> values, as texts; a field that holds a list must have one of them in it

    An entry without fields (a caption in COCO's annotations) is kept when another entry of the same id was kept before.

    >>> keep = EntryFilter({"license": ("4", "5")})
    >>> keep("7", Entry("images[0]", 7, fields={"license": 4})), keep("7", Entry("annotations[0]", 7, ["A dog."]))
    (True, True)
    >>> keep("8", Entry("images[1]", 8, fields={"license": 1})), keep("8", Entry("annotations[1]", 8, ["A cat."]))
    (False, False)
    >>> keep.notes()[0]
    '1 of 2 images or clips are left out, because their license is not 4 or 5'
    >>> keep.notes()[1]
    'no license is 5; they are 4 (1), 1 (1)'
    """

    def __init__(self, where: Mapping[str, tuple[str, ...]]) -> None:
        self.where = where
        self.kept: set[str] = set()  # ids
        self.left_out: set[str] = set()
        self.values: dict[str, Counter[str]] = {name: Counter() for name in where}  # of all entries
        self.fields: dict[str, None] = {}

    def __call__(self, id: str, entry: Entry) -> bool:
        """Whether an entry of a medium is kept."""
        if not self.where:
            return True
        fields = entry.fields
        if fields is not None:
            self.fields.update(dict.fromkeys(fields))
            texts = {name: field_texts(fields[name]) if name in fields else () for name in self.where}
            for name, found in texts.items():
                self.values[name].update(found)
            if all(set(texts[name]) & set(wanted) for name, wanted in self.where.items()):
                self.kept.add(id)
                return True
        if fields is not None or id not in self.kept:
            self.left_out.add(id)
        return fields is None and id in self.kept

    def notes(self) -> list[str]:
        """How many media were left out, and the wanted values that no entry has.

        Raises ValueError, which lists fields or values, when no entry was kept.
        """
        if not self.where:
            return []
        if not self.kept:
            raise ValueError(self._nothing_kept())
        wanted = " and ".join(f"{name} is not {' or '.join(values)}" for name, values in self.where.items())
        out = len(self.left_out - self.kept)
        lines = [f"{out} of {out + len(self.kept)} images or clips are left out, because their {wanted}"]
        for name, values in self.where.items():
            if missing := [value for value in values if value not in self.values[name]]:
                lines.append(f"no {name} is {' or '.join(missing)}; they are {self._known_values(name)}")
        return lines

    def _nothing_kept(self) -> str:
        if not self.fields:
            return "`where` chooses entries by their fields, and the entries of this layout have none"
        if unknown := [name for name, values in self.values.items() if not values]:
            return f"`where` names the field '{unknown[0]}', which no entry has; they have {', '.join(self.fields)}"
        known = "; ".join(f"{name} is {self._known_values(name)}" for name in self.where)
        return f"no entry is as `where` says; {known}"

    def _known_values(self, name: str) -> str:
        """The most frequent values of a field, with the number of their entries."""
        return ", ".join(f"{value} ({count})" for value, count in self.values[name].most_common(10))
