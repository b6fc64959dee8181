"""GloVe files: the numbers of known words land in the embedding, and nothing else moves."""

from pathlib import Path

import pytest
import torch
from torch import nn

from limner.text.vectors import load_vectors
from limner.text.vocabulary import Vocabulary

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
