"""Word vectors of GloVe and CLIP: those of known words are copied into the embedding, and no other row changes."""

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
        ("zebra 1 2 3\n", "a vector for none of the 7 words"),
        ("", "a vector for none of the 7 words"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, text: str, message: str):
    (tmp_path / "g.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_vectors(tmp_path / "g.txt", VOCABULARY, embedding())


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
