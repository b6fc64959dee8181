"""Rules that forbid words while decoding: their scores become -inf."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from limner.text.vocabulary import Vocabulary
from limner.types import EOS, UNK

# a caption that ends with one of these was cut off: articles, prepositions, conjunctions, forms of "be"
ENDINGS = (
    *(
        "a",
        "an",
        "the",
        "this",
        "his",
        "her",
        "its",
        "their",
        "some",
        "and",
        "or",
        "but",
        "while",
        "that",
        "which",
        "who",
    ),
    *("of", "in", "on", "at", "to", "for", "from", "with", "by", "into", "onto", "over", "under", "near", "behind"),
    *("beside", "between", "through", "across", "along", "around", "as", "is", "are", "was", "were", "am", "be"),
)

Words = tuple[str, ...] | tuple[int, ...]  # ids after `Rules.bind`


@dataclass(frozen=True)
class Rules:
    """What a caption may not do.  Rules about particular words know their ids after `bind`."""

    min_length: int = 1  # words before EOS is allowed
    max_length: int = 20  # tokens, EOS included; a longer caption stays unfinished
    no_repeat: bool = True  # the same word twice in a row
    unknown: bool = False  # may the unknown word be spoken?
    no_trigram: bool = False  # the same three words in a row twice (Paulus et al. 2018, arXiv:1705.04304)
    not_last: Words = ()  # words that may not be the last one, such as ENDINGS
    never: Words = ()  # words that may not appear

    def __post_init__(self) -> None:
        if not 0 <= self.min_length < self.max_length:
            raise ValueError(f"expected 0 <= min_length < max_length, got {self.min_length} and {self.max_length}")

    def bind(self, vocabulary: Vocabulary) -> "Rules":
        """The same with words as ids; what is not in the vocabulary is never said anyway."""
        return replace(self, not_last=word_ids(self.not_last, vocabulary), never=word_ids(self.never, vocabulary))

    def apply(self, scores: Float[Tensor, "R V"], tokens: Int[Tensor, "R t"]) -> Float[Tensor, "R V"]:
        """Logits or log-probabilities of the next word after `tokens` (without BOS).

        A row in which the rules would leave nothing keeps its scores, so that there always is a next word.
        """
        forbidden = [] if self.unknown else [UNK]
        if tokens.shape[1] < self.min_length:
            forbidden.append(EOS)
        forbidden += _ids(self.never)
        repeated = tokens[:, -1:] if self.no_repeat else tokens[:, :0]
        if forbidden or repeated.numel() or self.not_last or self.no_trigram:
            ruled = scores.clone()
            ruled[:, forbidden] = -torch.inf
            ruled.scatter_(1, repeated, -torch.inf)
            if self.not_last and tokens.shape[1]:
                ends = torch.tensor(_ids(self.not_last), device=tokens.device)
                ruled[torch.isin(tokens[:, -1], ends), EOS] = -torch.inf
            if self.no_trigram and tokens.shape[1] > 2:
                said = tokens.unfold(1, 3, 1)  # (R, t - 2, 3)
                row, place = (said[..., :2] == tokens[:, None, -2:]).all(-1).nonzero(as_tuple=True)
                ruled[row, said[row, place, 2]] = -torch.inf
            return torch.where(ruled.amax(1, keepdim=True) == -torch.inf, scores, ruled)  # amax keeps nan
        return scores


def word_ids(words: Sequence[str] | Sequence[int], vocabulary: Vocabulary) -> tuple[int, ...]:
    """The ids of those words that the vocabulary has."""
    return tuple(i for word in words if (i := word if isinstance(word, int) else vocabulary.ids.get(word)) is not None)


def _ids(words: Words) -> list[int]:
    ids = [word for word in words if isinstance(word, int)]
    assert len(ids) == len(words), "rules about words are bound to a vocabulary first: Rules.bind"
    return ids
