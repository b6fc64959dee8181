"""Auxiliary heads that predict a caption's nouns, verbs and words from the hidden state before the first word.

h is the hidden state that predicts the first word: it depends on the medium and on no word.  Each head has slots,

    s_j = tanh(W_j h),    p_j = softmax(U s_j),    J slots for objects, J for actions, one for the sentence

- L_objects: mean of -log p_j(w) over the pairs (j, w) of the cheapest assignment (Kuhn 1955) of object slots to the
  nouns of the medium's captions in the batch;
- L_actions: the same for action slots and verbs;
- L_sentence: mean of -log p(w) over all words of these captions, from the one sentence slot.

Example with two object slots and the nouns dog and ball, where -log p is

            dog   ball
    slot 1  0.2   0.9
    slot 2  0.3   2.0

The cheapest assignment pairs slot 1 with ball and slot 2 with dog, 0.9 + 0.3 = 1.2 (the other one costs 2.2), so
L_objects is 0.6.

These are the levels of SFTCap (`hierarchical`) for any captioner with hidden states.  Captioning does not use W and U.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from limner.core.processes import mean_over_processes
from limner.core.types import UNK
from limner.models.layers import WordHead
from limner.objectives.assignment import min_cost_assignment
from limner.objectives.hierarchical import WordLabels
from limner.text.vocabulary import Vocabulary

SLOT_WIDTH = 64  # of s_j


class LevelHeads(nn.Module):
    """The slots of `levels`, a selection of objects, actions and sentence, and the word layer U that they share."""

    def __init__(self, levels: tuple[str, ...], hidden: int, slots: int, vocabulary: Vocabulary):
        super().__init__()
        self.labels = WordLabels(vocabulary)
        sizes = {"objects": slots, "actions": slots, "sentence": 1}
        self.slots = nn.ModuleDict({level: nn.Linear(hidden, sizes[level] * SLOT_WIDTH) for level in levels})
        self.tell = WordHead(SLOT_WIDTH, len(vocabulary))

    def forward(self, state: Float[Tensor, "B H"], tokens: Int[Tensor, "R T"]) -> dict[str, Float[Tensor, ""]]:
        """The loss of each level.  `tokens`: K neighbouring captions per medium.  A level without any word gives 0."""
        rows = tokens.unflatten(0, (len(state), -1))
        words = [self.labels.from_tokens(captions) for captions in rows]
        targets = {"objects": [nouns for nouns, _ in words], "actions": [verbs for _, verbs in words]}
        targets["sentence"] = [captions.unique().tolist() for captions in rows]
        return {level: self.level_loss(level, state, targets[level]) for level in self.slots}

    def level_loss(self, level: str, state: Float[Tensor, "B H"], targets: list[list[int]]) -> Float[Tensor, ""]:
        """Mean -log p of the target words, a list of ids for each medium."""
        slots = torch.tanh(self.slots[level](state)).unflatten(1, (-1, SLOT_WIDTH))
        logp = self.tell(slots).float().log_softmax(-1)
        # the first term is 0 with a gradient of 0: data-parallel training waits for a gradient of every layer
        terms = [0.0 * (slots.sum() + self.tell.weight.sum() + self.tell.bias.sum())]
        for row, words in enumerate(targets):
            ids = [word for word in words if word > UNK]
            if not ids:
                continue
            word_logp = logp[row][:, ids]  # (slots, words)
            if level == "sentence":
                terms += word_logp[0].unbind()
            else:
                terms += [word_logp[pair] for pair in min_cost_assignment((-word_logp.detach()).tolist())]
        return -mean_over_processes(torch.stack(terms), len(terms) - 1)
