"""The decoding step of the spatial transformer for a search on a CPU: `SpatialTransformer.step` on a tree of words.

`step` keeps the keys and values of a row's words in the row's state, so a beam copies them all when it reorders its
rows, and again when it joins the new word.  Here every word that the search reads is a node of a tree that all
hypotheses of a medium share.  Its keys and values are written once, and a row has only the numbers of its nodes:

    a dog runs        nodes of the medium   0: a   1: dog   2: cat   3: runs   4: sleeps   5: sits
    a dog sleeps      path of the rows      0 1 3  /  0 1 4  /  0 2 5
    a cat sits        blocked for "sits"    1, 3 and 4, which are no words of its caption

All queries of a medium are multiplied with all its keys in one product, and the nodes that are not on a row's path are
blocked.  With 5 hypotheses of 16 words these are 76 nodes instead of 16, and the product is still a fiftieth of a
step's work.  The products of a word with the query, key and value matrices are one product.
"""

from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from limner.models.attention_blocks import DotProduct, KeyValue, sinusoidal_table
from limner.models.captioner import Step
from limner.models.packed_linear import PackedLinear
from limner.models.spatial_transformer import DecoderLayer, Memory, SpatialTransformer, State, WordCache

MAX_ROWS = 16  # of a medium; with more of them the blocked products cost more than copies
FIRST_NODES = 64  # for which a tree has room at first: a beam of 5 over 13 words


class WordTree:
    """Keys (B, H, d, C) and values (B, H, C, d) of the words of B media in every layer, with room for C nodes each.

    Nodes are only added.  `used` is their number per medium; a state that knows fewer of them has been continued.
    """

    def __init__(self, keys: list[Tensor], values: list[Tensor], used: int):
        self.keys, self.values, self.used = keys, values, used

    @classmethod
    def empty(cls, like: Tensor, layers: int, media: int, heads: int, dim: int) -> "WordTree":
        """A tree without nodes, of the type and device of a tensor."""
        keys = [like.new_empty(media, heads, dim, FIRST_NODES) for _ in range(layers)]
        return cls(keys, [like.new_empty(media, heads, FIRST_NODES, dim) for _ in range(layers)], 0)

    def of_media(self, media: Int[Tensor, " b"], count: int) -> "WordTree":
        """A copy with the first `count` nodes of these media."""
        keys, values = ([x.index_select(0, media) for x in side] for side in (self.keys, self.values))
        return WordTree(keys, values, count)

    def reserve(self, count: int) -> None:
        """Make room for `count` nodes."""
        room = self.keys[0].shape[3]
        if count <= room:
            return
        more = max(room, count - room)
        self.keys = [torch.cat([x, x.new_empty(*x.shape[:3], more)], 3) for x in self.keys]
        self.values = [torch.cat([x, x.new_empty(*x.shape[:2], more, x.shape[3])], 2) for x in self.values]


class TreeState(NamedTuple):
    """The state of R rows that read t words: their nodes in a tree.  K neighbouring rows are of one medium."""

    path: Int[Tensor, "R t"]
    medium: Int[Tensor, " R"]  # among those of the tree
    output: Float[Tensor, "R D"]  # the vector from which the last logits were computed
    tree: WordTree
    nodes: int  # of a medium, that belong to this state or to its siblings

    def copied(self) -> State:
        """The same state as `SpatialTransformer.step` keeps it."""
        rows, words = self.medium[:, None], self.path
        past = (
            # (R, t, H, d) -> (R, H, t, d)
            WordCache(key[rows, :, :, words].transpose(1, 2), value[rows, :, words].transpose(1, 2))
            for key, value in zip(self.tree.keys, self.tree.values, strict=True)
        )
        return State(tuple(past), self.output)


class TreeStep:
    """`SpatialTransformer.step` in evaluation mode, without gradients; it follows the weights that `model` has now."""

    def __init__(self, model: SpatialTransformer):
        self.model = model
        self.heads, self.width = model.config.heads, model.config.dim // model.config.heads
        self.layers = [cast(DecoderLayer, layer) for layer in model.word_layers]
        self.query_key_value = [_joined(layer.attend_words) for layer in self.layers]
        self.whole: Tensor | None = None  # the mask that was last found to be True everywhere

    def __call__(self, token: Int[Tensor, " R"], state: State | TreeState, memory: Memory) -> Step:
        """One token per row -> as `SpatialTransformer.step`."""
        media = len(memory.mask)
        fits = memory.key_values[0].key.dtype == torch.float32 and 0 < len(token) <= MAX_ROWS * media
        if isinstance(state, State):
            if not fits or state.past[0].key.shape[2]:
                return self.model.step(token, state, memory)
            state = self._at_the_root(state, media)
        if not fits:
            return self.model.step(token, state.copied(), memory)
        state, blocked = self._grow(state, media)
        position = torch.tensor([state.path.shape[1] - 1])
        x = self.model.embed(token) * self.model.config.dim**0.5 + sinusoidal_table(position, self.model.config.dim)
        attention = []
        for index, cells in enumerate(memory.key_values):
            layer = self.layers[index]
            x = x + self._attend_words(index, layer.norms[0](x), state, blocked)
            attended, weights = self._attend_cells(layer, layer.norms[1](x).view(media, -1, x.shape[1]), cells, memory)
            x = x + attended.reshape(x.shape)
            x = x + layer.feed_forward(layer.norms[2](x))
            attention.append(weights)
        x = self.model.word_norm(x)
        maps = torch.stack(attention).mean(0).flatten(0, 1)
        return Step(self.model.head(x), state._replace(output=x), maps)

    def _at_the_root(self, state: State, media: int) -> TreeState:
        """The state before the first word."""
        rows = len(state.output)
        path = torch.empty(rows, 0, dtype=torch.long)
        medium = torch.arange(media).repeat_interleave(rows // media)
        tree = WordTree.empty(state.output, len(self.layers), media, self.heads, self.width)
        return TreeState(path, medium, state.output, tree, 0)

    def _grow(self, state: TreeState, media: int) -> tuple[TreeState, Float[Tensor, "B 1 K n"]]:
        """A node more for every row -> the state with it, and 0 at the nodes of a row's path, -inf elsewhere."""
        tree, count, K = state.tree, state.nodes, len(state.medium) // media
        kept, every = state.medium[::K], torch.arange(media)
        if tree.used != count or len(tree.keys[0]) != media or not torch.equal(kept, every):
            tree = tree.of_media(kept, count)  # media have left, or another state has continued the tree
        tree.reserve(count + K)
        tree.used = count + K
        own = torch.arange(count, count + K).repeat(media)
        path = torch.cat([state.path, own[:, None]], 1)
        blocked = torch.full((len(path), count + K), -torch.inf).scatter_(1, path, 0.0)
        grown = TreeState(path, every.repeat_interleave(K), state.output, tree, count + K)
        return grown, blocked.view(media, 1, K, -1)

    def _attend_words(self, index: int, normed: Float[Tensor, "R D"], state: TreeState, blocked: Tensor) -> Tensor:
        """Attention over the words of a row, its newest one included, whose key and value are added to the tree."""
        media, K, count = len(blocked), blocked.shape[2], state.nodes
        projected = self.query_key_value[index](normed).view(media, K, 3, self.heads, self.width)
        query, key, value = projected.permute(2, 0, 3, 1, 4)  # (B, H, K, d) each
        keys, values = state.tree.keys[index], state.tree.values[index]
        keys[..., count - K : count] = key.transpose(2, 3)
        values[:, :, count - K : count] = value
        weights = (query @ keys[..., :count]).add_(blocked).softmax(-1)
        read = weights @ values[:, :, :count]
        output: Tensor = self.layers[index].attend_words.output(read.transpose(1, 2).reshape(normed.shape))
        return output

    def _attend_cells(
        self, layer: DecoderLayer, queries: Float[Tensor, "B K D"], cells: KeyValue, memory: Memory
    ) -> tuple[Float[Tensor, "B K D"], Float[Tensor, "B K N"]]:
        """Attention over the cells -> outputs, and weights averaged over the heads."""
        if memory.mask is not self.whole and memory.mask.all():
            self.whole = memory.mask
        if memory.mask is not self.whole or not isinstance(layer.attend_cells, DotProduct):
            pair: tuple[Tensor, Tensor] = layer.attend_cells(queries, cells, memory.mask[:, None])
            return pair
        key, value = (x.unflatten(2, (self.heads, -1)).transpose(1, 2) for x in cells)
        attended, weights = layer.attend_cells.attend_split(queries, key, value, None)
        return attended, weights.mean(1)


def _joined(attend: DotProduct) -> PackedLinear:
    """The query, key and value matrices as one; queries are divided by the root of the width of a head."""
    scale = (attend.query.out_features // attend.heads) ** -0.5
    bias = attend.query.bias
    return PackedLinear(
        torch.cat([attend.query.weight * scale, attend.key.weight, attend.value.weight]),
        torch.cat([bias * scale, torch.zeros_like(bias), attend.value.bias]),
    )
