"""A caption told at three levels from what a captioner has in mind before its first word: objects, actions, sentence.

h is the hidden state that the first word is read from: it has seen the medium, and no word yet.  Slots are made of it,

    s_j = tanh(W_j h),    p_j = softmax(U s_j),    j = 1 .. J for objects, J more for actions, one for the sentence

L_objects is the mean of -log p_j(w) over the pairs (j, w) of the cheapest assignment (Kuhn 1955) of object slots to the
nouns of the medium's captions in the batch, L_actions the same of action slots and verbs, and L_sentence the mean of
-log p(w) over all their words.  This is what SFTCap's levels (`hierarchical`) tell, for any captioner with hidden
states; W and U are thrown away for captioning.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from limner.core.types import UNK
from limner.models.layers import WordHead
from limner.objectives.assignment import match
from limner.objectives.hierarchical import Labels
from limner.text.vocabulary import Vocabulary

WIDTH = 64  # of a slot


class Levels(nn.Module):
    """`levels` are those that count, of objects, actions and sentence."""

    def __init__(self, levels: tuple[str, ...], hidden: int, slots: int, vocabulary: Vocabulary):
        super().__init__()
        self.labels = Labels(vocabulary)
        sizes = {"objects": slots, "actions": slots, "sentence": 1}
        self.slots = nn.ModuleDict({level: nn.Linear(hidden, sizes[level] * WIDTH) for level in levels})
        self.tell = WordHead(WIDTH, len(vocabulary))

    def forward(self, state: Float[Tensor, "B H"], tokens: Int[Tensor, "R T"]) -> dict[str, Float[Tensor, ""]]:
        """`tokens` are K neighbouring captions per medium.  A level without a word to tell is 0."""
        rows = tokens.unflatten(0, (len(state), -1))
        words = [self.labels.of_tokens(captions) for captions in rows]
        named = {"objects": [nouns for nouns, _ in words], "actions": [verbs for _, verbs in words]}
        named["sentence"] = [captions.unique().tolist() for captions in rows]
        return {level: self.level(level, state, named[level]) for level in self.slots}

    def level(self, level: str, state: Float[Tensor, "B H"], named: list[list[int]]) -> Float[Tensor, ""]:
        slots = torch.tanh(self.slots[level](state)).unflatten(1, (-1, WIDTH))
        logp = self.tell(slots).float().log_softmax(-1)
        # a gradient of 0 where there is no word: data-parallel training waits for one
        found = [0.0 * (slots.sum() + self.tell.weight.sum() + self.tell.bias.sum())]
        for row, wanted in enumerate(named):
            ids = [word for word in wanted if word > UNK]
            if not ids:
                continue
            told = logp[row][:, ids]
            if level == "sentence":
                found += told[0].unbind()
            else:
                found += [told[pair] for pair in match((-told.detach()).tolist())]
        return -torch.stack(found).sum() / max(1, len(found) - 1)
