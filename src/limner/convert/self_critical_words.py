"""Vocabularies of ruotianluo/self-critical.pytorch and its descendants.

Published ids: 0 is start, end and padding at once; 1 .. V-1 are words, and one of them, UNK, stands for all other
words.  limner puts UNK first.

Example with the published words 1 "a", 2 "UNK", 3 "b": limner's ids PAD, BOS, EOS, UNK, "a", "b" are 0 .. 5, and their
rows are the published rows 0, 0, 0, 2, 1, 3 (`published_ids`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limner.convert.checkpoint import PickledObject, id_problem, is_cut, near_names, read_pickle
from limner.core.files import read_json
from limner.text.vocabulary import SPECIALS, Vocabulary

UNKNOWN_WORDS = ("UNK", "<unk>", "<UNK>")  # names that a published vocabulary may have for the unknown word


def read_words(path: Path) -> tuple[tuple[str, ...], Mapping[str, Any]]:
    """Read a vocabulary -> words in the order of their ids from 1 on, training options.  Raises ValueError.

    The file is an infos pickle {vocab, opt, ...}, JSON {ix_to_word: {"1": word}}, {"1": word} or {word: 1}, or a text
    file with one word per line, which begins with the word of id 1.
    """
    kind = path.suffix.lower()
    tree: Any
    if kind == ".txt":
        tree = dict(enumerate(path.read_text(encoding="utf-8-sig").rstrip("\n").split("\n"), 1))
    else:
        tree = _read_infos(path) if kind in (".pkl", ".p", ".pickle") else read_json(path)
    if not isinstance(tree, Mapping):
        raise ValueError(f"{path} holds no vocabulary, but {type(tree).__name__}")
    if "opt" in tree and not {"vocab", "ix_to_word"} & tree.keys():
        raise ValueError(f"{path} has no 'vocab' {{id: word}}, but {', '.join(map(str, [*tree][:8]))}")
    ids = tree.get("vocab", tree.get("ix_to_word", tree))
    options = tree.get("opt", {})
    ids = ids.items if isinstance(ids, PickledObject) else ids
    options = options.state if isinstance(options, PickledObject) else options
    if not isinstance(ids, Mapping) or not ids:
        raise ValueError(f"{path} holds no vocabulary: expected 'vocab' or 'ix_to_word', {{id: word}}")
    if all(type(id) is int for id in ids.values()):
        ids = {id: word for word, id in ids.items()}
    words = {str(id): word for id, word in ids.items()}
    size = len(words)
    if not_text := [id for id, word in words.items() if not isinstance(word, str)]:
        raise ValueError(f"{path}: every word must be text; that of id {not_text[0]} is not")
    if any(str(i) not in words for i in range(1, size + 1)):
        problem = id_problem({word: int(id) for id, word in words.items() if id.isdigit()}, 1)
        raise ValueError(
            f"{path}: the ids of {size} words must be 1 .. {size}, each once: {problem or 'some are text'}"
        )
    ordered = tuple(words[str(i)] for i in range(1, size + 1))
    if sum(word in UNKNOWN_WORDS for word in ordered) != 1:
        near = near_names(UNKNOWN_WORDS[:1], ordered)
        raise ValueError(f"{path}: exactly one of {', '.join(UNKNOWN_WORDS)} must be among the {size} words{near}")
    invalid = {word for word in (*SPECIALS[:3], *ordered) if ordered.count(word) > (word not in SPECIALS[:3])}
    if invalid:
        raise ValueError(
            f"{path}: {', '.join(sorted(invalid)[:5])} occur twice, or have the name of a special token of limner"
        )
    return ordered, options if isinstance(options, Mapping) else {}


def _read_infos(path: Path) -> Any:
    """Read a pickle of Python 2 or 3 without executing it.  Raises ValueError."""
    reason: Exception | None = None
    for encoding in ("utf-8", "latin-1"):  # latin-1 for arrays that Python 2 wrote as text
        try:
            return read_pickle(path, encoding)
        except OSError:
            raise
        except Exception as error:  # a malicious or damaged pickle can fail anywhere
            reason = error
            if is_cut(error):
                raise ValueError(f"{path} is cut: the pickle ends too early; copy it again") from error
    raise ValueError(
        f"{path} is not a pickle that can be read without executing it: {type(reason).__name__}: {reason}"
    ) from reason


def published_ids(words: tuple[str, ...]) -> list[int]:
    """The published id of every id of limner: 0 for PAD, BOS and EOS, then that of UNK, then the words in their order.

    >>> published_ids(("a", "UNK", "b"))
    [0, 0, 0, 2, 1, 3]
    """
    unknown = next(i for i, word in enumerate(words, 1) if word in UNKNOWN_WORDS)
    return [0, 0, 0, unknown, *(i for i in range(1, len(words) + 1) if i != unknown)]


def build_vocabulary(words: tuple[str, ...]) -> Vocabulary:
    """limner's vocabulary of the published words.  The published code kept words that occur at least 6 times."""
    return Vocabulary((*SPECIALS, *(word for word in words if word not in UNKNOWN_WORDS)), "simple", 6)
