"""Pretrained word vectors: GloVe's text files and the token embeddings of CLIP.

A GloVe file has one word per line, `word v1 v2 ...` (Pennington, Socher, Manning, EMNLP 2014).
"""

import gzip
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import torch
from safetensors import safe_open
from torch import nn

from limner.core.addresses import refuse_address
from limner.core.torch_free import BOS, EOS
from limner.core.untrusted import ZIP_ERRORS, bounded_lines, check_safetensors
from limner.text.clip_bpe import ClipVocabulary
from limner.text.vocabulary import SPECIALS, Vocabulary

CLIP_EMBEDDING = "token_embedding.weight"  # end of the tensor's name in CLIP's weights
GZIP_MAGIC, ZIP_MAGIC, UTF8_MARK = b"\x1f\x8b", b"PK\x03\x04", b"\xef\xbb\xbf"
MOST_LINE = 1 << 20  # bytes; vectors of 1,000 numbers take 10,000
BEGIN = 4096  # bytes that are looked at
BINARY_KINDS = {
    b"\xba\x16\x4f\x2f": "a model of fastText (.bin; the vectors are in the .vec file beside it)",
    b"\x93NUMPY": "a NumPy array",
    b"\x89HDF": "an HDF5 file",
    b"\x80": "a Python pickle",
    b"\x1f\x8b": "gzip data inside gzip data",
    b"PK\x03\x04": "a ZIP file",
    b"BZh": "bzip2 data (unpack it)",
    b"\xfd7zXZ": "xz data (unpack it)",
    b"7z\xbc\xaf": "a 7z file (unpack it)",
    b"Rar!": "a RAR file (unpack it)",
    b"\xff\xfe": "text in UTF-16 (save it as UTF-8)",
    b"\xfe\xff": "text in UTF-16 (save it as UTF-8)",
}
BINARY_MAGICS = tuple(BINARY_KINDS)


@torch.no_grad()
def load_vectors(path: str | Path, vocabulary: Vocabulary, embedding: nn.Module, notes: list[str] | None = None) -> int:
    """Copy the vectors of a GloVe file into an embedding, for the words of the vocabulary that the file has.

    The file is text, as it is or in gzip, or the only file of a ZIP; blanks or tabs separate the numbers.  The rows of
    all other words stay as they are.  Returns the number of words with a vector.  A line is added to `notes` for what
    was left out: vectors with nan or infinity, words that are not UTF-8.  Raises ValueError, with the file, when it is
    no text, when a vector is not as wide as the embedding, and when the file has none of the words.
    """
    refuse_address(path)
    assert isinstance(embedding, nn.Embedding)
    width, found = embedding.embedding_dim, set()
    seen: list[str] = []
    not_finite, not_utf8 = [], 0
    with _open_text(Path(path)) as lines:
        for number, line in enumerate(bounded_lines(lines.readline, MOST_LINE, str(path)), 1):
            name, values = _split_line(line.strip(b"\r\n"), width, f"{path}, line {number}", number == 1)
            if not values:
                continue
            word = name.decode("utf-8", "replace")
            not_utf8 += b"\xef\xbf\xbd" not in name and "\ufffd" in word
            seen += [word] if len(seen) < 3 else []
            if word in vocabulary.ids:
                vector = torch.tensor(_numbers(values, f"{path}, line {number}"))
                if vector.isfinite().all():
                    embedding.weight[vocabulary.ids[word]] = vector
                    found.add(word)
                else:
                    not_finite.append(f"{word!r} in line {number}")
    if not found:
        words = f"; its words are like {', '.join(map(repr, seen))}" if seen else ": it is empty"
        raise ValueError(f"{path} has a vector for none of the {len(vocabulary)} words of the vocabulary{words}")
    if notes is not None:
        if not_finite:
            notes.append(f"{path}: {len(not_finite)} vectors have nan or inf and were left out: {not_finite[0]}")
        if not_utf8:
            notes.append(f"{path}: {not_utf8} words are not UTF-8 and were left out")
    return len(found)


def _split_line(line: bytes, width: int, where: str, is_first: bool) -> tuple[bytes, list[bytes]]:
    """The word of a line and its numbers; no numbers in an empty line and in the header of word2vec.

    GloVe 840B has words with blanks inside, for example ". . .": the last `width` fields are the numbers.
    """
    separator = b"\t" if line.count(b"\t") >= width else b" "
    word, *values = line.removeprefix(UTF8_MARK if is_first else b"").rstrip(b" \t").split(separator)
    if (not word and not values) or (is_first and len(values) == 1 and word.isdigit() and values[0].isdigit()):
        return b"", []  # word2vec's header: count and width
    if len(values) > width and not _is_number(values[-width - 1]):
        word, values = separator.join([word, *values[:-width]]), values[-width:]
    if len(values) != width:
        raise ValueError(f"{where}: a vector of {len(values)} numbers, but model.embed is {width}")
    return word, values


def _is_number(text: bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers(values: list[bytes], where: str) -> list[float]:
    if wrong := [value for value in values if not _is_number(value)]:
        raise ValueError(f"{where}: {wrong[0].decode(errors='replace')!r} is not a number; expected 'word v1 v2 ...'")
    return [float(value) for value in values]


@contextmanager
def _open_text(path: Path) -> Iterator[IO[bytes]]:
    """A vector file for reading, unpacked.  Raises ValueError, with the file, when it holds no text."""
    with open(path, "rb") as file:
        magic = file.read(4)
    try:
        if magic.startswith(GZIP_MAGIC):
            with gzip.open(path) as unpacked:
                _refuse_binary(path, unpacked.peek(BEGIN)[:BEGIN])
                yield unpacked
        elif magic == ZIP_MAGIC:
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if name[-1:] != "/" and not name.startswith("__MACOSX")]
                if len(names) != 1:
                    raise ValueError(
                        f"{path} is a ZIP file with {len(names)} files ({', '.join(names[:5])}): unpack it, and name "
                        "the file whose vectors are as wide as model.embed"
                    )
                with _open_member(path, archive, names[0]) as member:
                    yield member
        else:
            with open(path, "rb") as plain:
                _refuse_binary(path, plain.peek(BEGIN)[:BEGIN])
                yield plain
    except (*ZIP_ERRORS, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: its compressed data is damaged or cut off ({error}); get it again") from error


def _open_member(path: Path, archive: zipfile.ZipFile, name: str) -> zipfile.ZipExtFile:
    """A file of a ZIP.  Raises ValueError when it has a password, an unknown compression, or no text."""
    try:
        member = cast(zipfile.ZipExtFile, archive.open(name))
    except (RuntimeError, NotImplementedError) as error:
        raise ValueError(f"{path}: {error}: unpack it, and name the file in it") from error
    _refuse_binary(path, member.peek(BEGIN)[:BEGIN])
    return member


def _refuse_binary(path: Path, begin: bytes) -> None:
    """Raise ValueError, with the file and what it is, when its first bytes are not those of a text file."""
    header = re.match(rb"\d+ \d+\n", begin)
    # the numbers of a text are ASCII, whatever the encoding of its words is
    binary = b"\0" in begin or begin.startswith(BINARY_MAGICS)
    letters = re.sub(rb"[\s0-9.eE+-]", b"", begin)
    if not binary and not (header and len(letters) * 2 > len(begin)):
        return
    if header:
        kind = "word2vec's binary format: load it with gensim (KeyedVectors.load_word2vec_format(FILE, binary=True))"
        raise ValueError(f"{path} is in {kind} and save it as text (save_word2vec_format(FILE))")
    kind = next((kind for magic, kind in BINARY_KINDS.items() if begin.startswith(magic)), "a binary file")
    raise ValueError(f"{path} is {kind}, not a text file of word vectors: expected lines of 'word v1 v2 ...'")


@torch.no_grad()
def load_clip_vectors(folder: str | Path, vocabulary: Vocabulary, *layers: nn.Module) -> int:
    """Copy the token embeddings of a CLIP model in `folder` into the weights of `layers`.

    The layers are embeddings or output layers, with a weight of shape (words of the vocabulary, CLIP's width).  Returns
    the number of copied vectors.  Raises ValueError for a vocabulary that is not CLIP's, for another width, and for a
    folder without these embeddings.
    """
    path = Path(folder) / "model.safetensors"
    if not isinstance(vocabulary, ClipVocabulary):
        raise ValueError(f"{folder} has vectors of CLIP's byte pairs: set vocabulary.byte_pairs to its folder as well")
    if not path.is_file():
        raise ValueError(f"{folder} has no model.safetensors to read CLIP's vectors from")
    check_safetensors(path)
    with safe_open(path, "pt") as file:
        names = [name for name in file.keys() if name.endswith(CLIP_EMBEDDING)]  # noqa: SIM118
        if not names:
            raise ValueError(f"{path} has no {CLIP_EMBEDDING}: it is not CLIP's text model")
        vectors = file.get_tensor(names[0])
    for layer in layers:
        weight = layer.get_parameter("weight")
        # CLIP has one piece that limner lacks (id 0); limner has PAD and UNK, which CLIP lacks
        expected = (len(vocabulary) - 1, weight.shape[1])
        if vectors.shape != expected:
            raise ValueError(f"{path} has vectors {tuple(vectors.shape)}, but the model's words are {expected}")
        weight[len(SPECIALS) :] = vectors[1:-2].to(weight)
        weight[BOS], weight[EOS] = vectors[-2].to(weight), vectors[-1].to(weight)
    return len(vocabulary) - 2
