"""Pretrained word vectors: a GloVe text file, `word v1 v2 ...` per line (Pennington et al. 2014), or CLIP's tokens."""

from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from limner.core.torch_free import BOS, EOS
from limner.text.clip_bpe import ClipVocabulary
from limner.text.vocabulary import SPECIALS, Vocabulary

CLIPS = "token_embedding.weight"


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


@torch.no_grad()
def load_clip_vectors(folder: str | Path, vocabulary: Vocabulary, *layers: nn.Module) -> int:
    """Copy what a CLIP model in `folder` has learnt of its tokens into the weights of `layers`, embeddings or word
    heads of its byte pairs.  -> how many were copied.

    Raises ValueError for words of another kind, for another width, and for a folder without such weights.
    """
    path = Path(folder) / "model.safetensors"
    if not isinstance(vocabulary, ClipVocabulary):
        raise ValueError(f"{folder} has vectors of CLIP's byte pairs: set vocabulary.byte_pairs to its folder as well")
    if not path.is_file():
        raise ValueError(f"{folder} has no model.safetensors to read CLIP's vectors from")
    with safe_open(path, "pt") as file:
        names = [name for name in file.keys() if name.endswith(CLIPS)]  # noqa: SIM118
        if not names:
            raise ValueError(f"{path} has no {CLIPS}: it is not CLIP's text model")
        vectors = file.get_tensor(names[0])
    for layer in layers:
        weight = layer.get_parameter("weight")
        asked = (len(vocabulary) - 1, weight.shape[1])  # CLIP has a piece that limner has not, and lacks PAD and UNK
        if vectors.shape != asked:
            raise ValueError(f"{path} has vectors {tuple(vectors.shape)}, but the model's words are {asked}")
        weight[len(SPECIALS) :] = vectors[1:-2].to(weight)
        weight[BOS], weight[EOS] = vectors[-2].to(weight), vectors[-1].to(weight)
    return len(vocabulary) - 2
