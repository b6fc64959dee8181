"""Pretrained word vectors: a GloVe text file, `word v1 v2 ...` per line (Pennington et al. 2014)."""

from pathlib import Path

import torch
from torch import nn

from limner.text.vocabulary import Vocabulary


@torch.no_grad()
def load_vectors(path: str | Path, vocabulary: Vocabulary, embedding: nn.Module) -> int:
    """Copy the vectors of known words into `embedding`; the others stay as they are.  -> how many were found.

    Raises ValueError when the vectors are not as wide as the embedding.
    """
    assert isinstance(embedding, nn.Embedding)
    found, width, found_width = 0, embedding.embedding_dim, False
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            word, *values = line.rstrip().split(" ")
            if number == 1 and len(values) == 1:
                continue  # word2vec's header: count and width
            if found_width and len(values) > width:  # GloVe 840B has words with blanks in them, such as ". . ."
                word, *values = line.rstrip().rsplit(" ", width)
            if len(values) != width:
                raise ValueError(
                    f"{path}, line {number}: a vector of {len(values)} numbers, but model.embed is {width}"
                )
            found_width = True
            if word in vocabulary.ids:
                embedding.weight[vocabulary.ids[word]] = torch.tensor([float(value) for value in values])
                found += 1
    if found == 0:
        raise ValueError(f"{path} has a vector for none of the {len(vocabulary)} words of the vocabulary")
    return found
