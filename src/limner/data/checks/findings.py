"""What the check of a data set can find: the kinds of findings, and one `Finding` for each thing that is wrong."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Kind(NamedTuple):
    """A kind of finding: its title, and what to do about it."""

    title: str
    advice: str


KINDS = {
    "missing": Kind("files that are not there", "give their folder with --media, or remove their captions"),
    "corrupt": Kind("files that cannot be read", "replace or remove them"),
    "damaged": Kind("files that are cut or damaged, but can be read in part", "replace or remove them"),
    "duplicate": Kind("files with equal bytes", "keep one of each group; a picture twice counts twice in training"),
    "near-duplicate": Kind("pictures that look the same", "look at them, and keep one of each group"),
    "leak": Kind("pictures or captions in two splits", "remove those in train: scores on training data say little"),
    "ids": Kind("ids that are broken or occur twice", "give every image or clip one id, one file and one split"),
    "rows": Kind("parts of the annotations that were left out", "correct these places"),
    "no-caption": Kind("files without a caption", "write captions, or remove the files"),
    "empty": Kind("empty captions", "remove them; they are left out in training"),
    "short": Kind("captions with few words", "write whole sentences, or allow fewer words with --min-words"),
    "long": Kind("captions with many words", "shorten them: training cuts them; --max-words allows more"),
    "repeated": Kind("captions that occur twice at one file", "remove the second: it counts twice in training"),
    "widespread": Kind("captions that many files share", "replace them: a caption for everything describes nothing"),
    "language": Kind("captions in another language", "translate or remove them; --language names the right one"),
    "encoding": Kind("captions with a wrong encoding", "save them as UTF-8; --fix repairs those that can be repaired"),
    "template": Kind("text of a template in captions", "write what is in the picture"),
    "unknown-words": Kind("splits with many unknown words", "put captions of the same kind into all splits"),
    "feature-store": Kind("a feature store that does not fit", "make it again with limner extract"),
    "no-features": Kind("files without features", "run limner extract again: it adds what is missing"),
    "extra-features": Kind("features of files that are not in the data", "harmless, or the store is of other data"),
}
OF_CAPTIONS = ("short", "long", "repeated", "widespread", "language", "encoding", "template")


class Finding(NamedTuple):
    """One thing that is wrong.

    kind     a key of `KINDS`
    ids      the media that it is about; of a group of equal ones, the first is the one that a cleaned data set keeps
    detail   what is wrong, in a few words
    caption  the caption that it is about; "" when it is about the media
    """

    kind: str
    ids: tuple[str, ...] = ()
    detail: str = ""
    caption: str = ""


def by_kind(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    """The findings of each kind that has some, in the order of `KINDS`.

    >>> list(by_kind([Finding("short", ("1",)), Finding("missing", ("2",))]))
    ['missing', 'short']
    """
    groups: dict[str, list[Finding]] = {kind: [] for kind in KINDS}
    for finding in findings:
        groups[finding.kind].append(finding)
    return {kind: found for kind, found in groups.items() if found}


def count_of(found: Sequence[Finding]) -> str:
    """How many there are of one kind; of groups, also how many media are in them.

    >>> count_of([Finding("duplicate", ("1", "2", "3"))]), count_of([Finding("short", ("1",))] * 2)
    ('1 group of 3', '2')
    """
    media = sum(len(finding.ids) for finding in found)
    if any(len(finding.ids) > 1 for finding in found):
        return f"{len(found):,} group{'s' if len(found) > 1 else ''} of {media:,}"
    return f"{len(found):,}"
