"""Word vectors of GloVe and CLIP: those of known words are copied into the embedding, and no other row changes."""

import gzip
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from limner.core.files import read_json
from limner.core.torch_free import BOS, EOS, PAD, UNK
from limner.text.clip_bpe import read_clip_vocabulary
from limner.text.vectors import load_clip_vectors, load_vectors
from limner.text.vocabulary import Vocabulary
from tests.text.test_clip_bpe import write

VOCABULARY = Vocabulary.build(["a dog runs"], 1)  # a 4, dog 5, runs 6
GLOVE = "dog 1 2.5 -3\nzebra 9 9 9\na 0.5 0 1e-1\n"


def embedding() -> nn.Embedding:
    table = nn.Embedding(len(VOCABULARY), 3)
    nn.init.constant_(table.weight, 7.0)
    return table


@pytest.mark.parametrize("header", ["", "3 3\n"])  # GloVe's own files have none, word2vec's have one
def test_known_words_are_copied_and_the_others_stay(tmp_path: Path, header: str):
    (tmp_path / "g.txt").write_text(header + GLOVE)
    table = embedding()
    assert load_vectors(tmp_path / "g.txt", VOCABULARY, table) == 2
    expected = torch.full((7, 3), 7.0)
    expected[4], expected[5] = torch.tensor([0.5, 0.0, 0.1]), torch.tensor([1.0, 2.5, -3.0])
    assert torch.equal(table.weight, expected) and table.weight.requires_grad


def test_a_word_with_blanks_as_in_glove_840b(tmp_path: Path):
    (tmp_path / "g.txt").write_text("zebra 1 1 1\n. . . 5 5 5\ndog 1 2 3\n")
    table = embedding()
    assert load_vectors(tmp_path / "g.txt", VOCABULARY, table) == 1
    assert table.weight[5].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dog 1 2\n", r"g\.txt, line 1: a vector of 2 numbers, but model\.embed is 3"),
        ("dog 1 2 3 4\n", "line 1: a vector of 4 numbers"),
        ("dog 1 2 3\na 1 2\n", "line 2: a vector of 2 numbers"),
        ("zebra 1 2 3\n", "a vector for none of the 7 words of the vocabulary; its words are like 'zebra'"),
        ("", "a vector for none of the 7 words of the vocabulary: it is empty"),
        ("dog 1 2 3 4 5\n", "line 1: a vector of 5 numbers"),  # not a word with blanks inside: "1" is a number
        ("zebra 1 2 3\na 1 2,5 3\n", r"g\.txt, line 2: '2,5' is not a number; expected 'word v1 v2 ...'"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, text: str, message: str):
    (tmp_path / "g.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_vectors(tmp_path / "g.txt", VOCABULARY, embedding())


AS_TEXT = {
    "windows": "3 3\r\n" + GLOVE.replace("\n", "\r\n"),
    "tabs": GLOVE.replace(" ", "\t"),
    "tabs, and a word with blanks": "new york\t1\t1\t1\n" + GLOVE.replace(" ", "\t"),
    "a word with blanks first": ". . . 5 5 5\n" + GLOVE,
    "no-break blank and NEL as words": "new\xa0york 1 1 1\n\x85 1 1 1\n" + GLOVE,
    "blanks at the ends, an empty line": GLOVE.replace("\n", " \n") + "\n",
    "byte order mark": "\ufeff" + GLOVE,
}


@pytest.mark.parametrize("text", AS_TEXT.values(), ids=[*AS_TEXT])
@pytest.mark.parametrize("packed", ["", "gzip", "zip"])
def test_every_way_to_write_a_file(tmp_path: Path, text: str, packed: str):
    path, data = tmp_path / "vectors", text.encode()
    path.write_bytes(gzip.compress(data) if packed == "gzip" else data)
    if packed == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("glove.txt", data)
            archive.writestr("__MACOSX/._glove.txt", "x")
    table, notes = embedding(), []
    assert load_vectors(path, VOCABULARY, table, notes) == 2
    assert table.weight[[4, 5]].tolist() == [[0.5, 0.0, pytest.approx(0.1)], [1.0, 2.5, -3.0]] and notes == []


def test_what_is_left_out_is_noted(tmp_path: Path):
    (tmp_path / "g.txt").write_bytes(b"caf\xe9 1 1 1\nruns nan 1 2\na 1 inf 2\n" + b"dog 1 2 3\n")
    table, notes = embedding(), []
    assert load_vectors(tmp_path / "g.txt", VOCABULARY, table, notes) == 1
    assert table.weight[[4, 6]].eq(7).all()
    assert notes == [
        f"{tmp_path / 'g.txt'}: 2 vectors have nan or inf and were left out: 'runs' in line 2",
        f"{tmp_path / 'g.txt'}: 1 words are not UTF-8 and were left out",
    ]


WORD2VEC = b"2 3\n" + b"".join(word + b" " + struct.pack("<3f", 0.1, 0.7, -0.3) + b"\n" for word in (b"dog", b"a"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (WORD2VEC, r"vectors is in word2vec's binary format: .* save it as text"),
        (gzip.compress(WORD2VEC), r"vectors is in word2vec's binary format"),
        (b"\xba\x16\x4f\x2f\x0c\0\0\0", r"vectors is a model of fastText \(\.bin"),
        (b"\x93NUMPY\x01\0", "vectors is a NumPy array, not a text file of word vectors"),
        (b"\x80\x04\x95", "vectors is a Python pickle"),
        (b"BZh91AY", r"vectors is bzip2 data \(unpack it\)"),
        (GLOVE.encode("utf-16"), r"vectors is text in UTF-16 \(save it as UTF-8\)"),
        (b"\0\1\2", "vectors is a binary file"),
        (gzip.compress(GLOVE.encode() * 99)[:-20], "vectors: its compressed data is damaged or cut off"),
        (b"PK\x03\x04 and no more", "vectors: its compressed data is damaged or cut off"),
    ],
)
def test_what_is_no_text_is_named(tmp_path: Path, data: bytes, message: str):
    (tmp_path / "vectors").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        load_vectors(tmp_path / "vectors", VOCABULARY, embedding())


def test_a_zip_with_several_files(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "glove.zip", "w") as archive:
        for width in (50, 100):
            archive.writestr(f"glove.{width}d.txt", GLOVE)
    message = r"glove\.zip is a ZIP file with 2 files \(glove\.50d\.txt, glove\.100d\.txt\): unpack it"
    with pytest.raises(ValueError, match=message):
        load_vectors(tmp_path / "glove.zip", VOCABULARY, embedding())


def test_clips_tokens(tmp_path: Path):
    """Rows 1 .. V-3 of CLIP's matrix are the pieces behind the special tokens; its last two rows are BOS and EOS."""
    vocabulary = read_clip_vocabulary(write(tmp_path))
    size, width = len(vocabulary) - 1, 3
    theirs = torch.arange(size * width, dtype=torch.float32).view(size, width)
    save_file({"text_model.embeddings.token_embedding.weight": theirs}, tmp_path / "model.safetensors")
    layers = nn.Embedding(size + 1, width), nn.Linear(width, size + 1)
    kept = layers[0].weight[[PAD, UNK]].clone()
    assert load_clip_vectors(tmp_path, vocabulary, *layers) == size - 1
    word_map = read_json(tmp_path / "vocab.json")
    for layer in layers:
        for piece, id in word_map.items():
            if 0 < id < size - 2:
                assert torch.equal(layer.weight[vocabulary.ids[piece]], theirs[id])
        assert torch.equal(layer.weight[[BOS, EOS]], theirs[-2:])
    assert torch.equal(layers[0].weight[[PAD, UNK]], kept)
    with pytest.raises(ValueError, match=rf"vectors \({size}, 3\), but the model's words are \({size}, 4\)"):
        load_clip_vectors(tmp_path, vocabulary, nn.Embedding(size + 1, 4))
    with pytest.raises(ValueError, match=r"set vocabulary.byte_pairs"):
        load_clip_vectors(tmp_path, Vocabulary.build(["a dog"], 1), nn.Embedding(6, 3))
    save_file({"x": theirs}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"has no token_embedding\.weight: it is not CLIP's text model"):
        load_clip_vectors(tmp_path, vocabulary, *layers)
