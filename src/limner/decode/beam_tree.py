"""The steps of a beam search as a tree: every hypothesis is a node, the extension of its parent by one token.

captions, steps = traced_beam(model, inputs, options)
nodes = beam_tree(steps)
node_of(nodes, captions.tokens[0].tolist())      # the caption's place in the tree
"""

from collections.abc import Sequence
from typing import NamedTuple

from limner.core.torch_free import PAD
from limner.decode.options import Beam
from limner.decode.single_beam import BeamStep, Fate

ROOT = -1  # the parent of hypotheses of one token


class BeamNode(NamedTuple):
    """A hypothesis of `length` tokens.  `logprob` is the natural log of its probability, not normalised by length."""

    parent: int  # its place among the nodes, or ROOT
    token: int
    length: int
    logprob: float
    fate: Fate  # see `BeamStep`


def beam_tree(steps: Sequence[BeamStep]) -> list[BeamNode]:
    """The nodes of a search, step by step, and within a step the likeliest first.

    Two steps of a beam of 1: of the words 4 and 5 the first is kept; then it is extended by the end of the caption (2).

    >>> import numpy as np
    >>> first = BeamStep(np.array([0, 0]), np.array([4, 5]), np.log([0.6, 0.4]), ("kept", "outside"))
    >>> second = BeamStep(np.array([0]), np.array([2]), np.log([0.3]), ("ended",))
    >>> [(node.parent, node.token, node.length, node.fate) for node in beam_tree([first, second])]
    [(-1, 4, 1, 'kept'), (-1, 5, 1, 'outside'), (0, 2, 2, 'ended')]
    """
    nodes: list[BeamNode] = []
    kept = [ROOT]
    for length, step in enumerate(steps, 1):
        first = len(nodes)
        columns = (step.parent.tolist(), step.token.tolist(), step.logprob.tolist(), step.fate)
        nodes += [
            BeamNode(kept[parent], token, length, logprob, fate)
            for parent, token, logprob, fate in zip(*columns, strict=True)
        ]
        kept = [i for i in range(first, len(nodes)) if nodes[i].fate == "kept"]
    return nodes


def path_to(nodes: Sequence[BeamNode], place: int) -> list[int]:
    """The places of a node and its ancestors, the first token's first."""
    path = []
    while place != ROOT:
        path.append(place)
        place = nodes[place].parent
    return path[::-1]


def node_of(nodes: Sequence[BeamNode], tokens: Sequence[int]) -> int | None:
    """The place of the hypothesis with these tokens, which PAD may follow; None when the tree has none in the beam."""
    place = ROOT
    for token in tokens:
        if token == PAD:
            break
        here = (i for i, node in enumerate(nodes) if node.parent == place and node.token == token)
        found = next((i for i in here if nodes[i].fate != "outside"), None)
        if found is None:
            return None
        place = found
    return None if place == ROOT else place


def best_leaf(nodes: Sequence[BeamNode], options: Beam) -> int:
    """The place of the best caption in limner's own search: the ended one with the highest log-probability / divisor.

    When none has ended, it is the likeliest one that was kept in the last step.
    """
    ended = [i for i, node in enumerate(nodes) if node.fate == "ended"]
    if ended:
        return max(ended, key=lambda i: nodes[i].logprob / options.divisor(nodes[i].length))
    last = nodes[-1].length
    kept = [i for i, node in enumerate(nodes) if node.length == last and node.fate == "kept"]
    return max(kept, key=lambda i: nodes[i].logprob)
