"""The references that a page scores its caption against: given as sentences, or found in a caption file."""

from collections.abc import Sequence

from limner.data.captions_file import read_captions
from limner.data.pairing import normalise_id
from limner.metrics.breakdown import find_id
from limner.metrics.references import References


def find_references(source: str, given: Sequence[str], file: str = "") -> tuple[References, str] | None:
    """The references of a data set, and the id of the medium `source`, a path or an id; None without references.

    given  references of this medium; they replace those of the file
    file   a caption file of any layout, or a folder.  All its media count for the idf weights of CIDEr

    Raises ValueError when the file does not name the medium, with near ids.
    """
    if any(not text.strip() for text in given):
        raise ValueError('a reference is empty: give a sentence, --reference "a dog runs"')
    if not file:
        return (References({source: list(given)}), source) if given else None
    read = read_captions(file)
    texts = {id: list(captions) for id, captions in read.captions.items() if captions}
    try:
        id = _id_of(source, texts, read.files)
    except ValueError as error:
        if not given:
            raise ValueError(f'{file}: {error}; or give references with --reference "..."') from error
        id = source
    if given:
        texts[id] = list(given)
    return References(texts), id


def _id_of(source: str, texts: dict[str, list[str]], files: dict[str, str]) -> str:
    """The id of the medium in a caption file: by the name of its file, or by the id itself."""
    named = [id for id, file in files.items() if id in texts and normalise_id(file) == normalise_id(source)]
    if source not in texts and len(named) == 1:
        return named[0]
    return find_id(source if source in texts else normalise_id(source), texts)
