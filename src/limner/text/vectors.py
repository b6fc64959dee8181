"""Pretrained word vectors: GloVe's text files and the token embeddings of CLIP.

A GloVe file has one word per line, `word v1 v2 ...` (Pennington, Socher, Manning, EMNLP 2014).
"""

from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from limner.core.torch_free import BOS, EOS
from limner.text.clip_bpe import ClipVocabulary
from limner.text.vocabulary import SPECIALS, Vocabulary

CLIP_EMBEDDING = "token_embedding.weight"  # end of the tensor's name in CLIP's weights


@torch.no_grad()
def load_vectors(path: str | Path, vocabulary: Vocabulary, embedding: nn.Module) -> int:
    """Copy the vectors of a GloVe file into an embedding, for the words of the vocabulary that the file has.

    The rows of all other words stay as they are.  Returns the number of copied vectors.  Raises ValueError when a
    vector is not as wide as the embedding, and when the file has none of the words.
    """
    assert isinstance(embedding, nn.Embedding)
    copied, width, width_is_known = 0, embedding.embedding_dim, False
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            word, *values = line.rstrip().split(" ")
            if number == 1 and len(values) == 1:
                continue  # word2vec's header: count and width
            if width_is_known and len(values) > width:  # GloVe 840B has words with blanks inside, for example ". . ."
                word, *values = line.rstrip().rsplit(" ", width)
            if len(values) != width:
                raise ValueError(
                    f"{path}, line {number}: a vector of {len(values)} numbers, but model.embed is {width}"
                )
            width_is_known = True
            if word in vocabulary.ids:
                embedding.weight[vocabulary.ids[word]] = torch.tensor([float(value) for value in values])
                copied += 1
    if copied == 0:
        raise ValueError(f"{path} has a vector for none of the {len(vocabulary)} words of the vocabulary")
    return copied


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
