"""Reading a saved vocabulary, of words or of CLIP's byte pairs."""

from pathlib import Path

from limner.core.files import read_json
from limner.text.clip_bpe import ClipVocabulary
from limner.text.vocabulary import Vocabulary


def load_vocabulary(path: str | Path) -> Vocabulary:
    """The vocabulary that `Vocabulary.save` or `ClipVocabulary.save` wrote to a file.

    The file of a `ClipVocabulary` has the field `merges`.  Raises ValueError for a file that holds no vocabulary.
    """
    saved = read_json(path)
    try:
        return ClipVocabulary.from_json(saved) if "merges" in saved else Vocabulary.from_json(saved)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a vocabulary: expected words, tokenizer and min_count ({error})") from error
