"""SFT captioner at its published size: greedy captions of 8 videos x 22 tokens against re-running everything.

    OMP_NUM_THREADS=1 python benchmarks/sft_decoding.py --rounds 3

Widths 512, 2 layers, 8 heads, 15 frames of 512 channels, CLIP's 49,408 pieces.  `rerun` is what the published loop does
at each of 22 steps, a whole forward pass: teacher and student see the clip anew, the caption head runs for both over
16 visual and 22 text positions, and the word matrix is multiplied with all 22 of them, with the objects and actions of
all frames and with both global vectors.  The teacher decodes after each of its six rounds, and the attention module
sums its pre-activations, as published.  `captions alone` leaves out the word matrix's products with objects, actions
and vectors, which no caption needs.  Both share this model's layers and weights; their attention is torch's own.

Random weights: captions never end, so all have 22 tokens.  Tokens and log-probabilities are checked to be equal before
anything is timed.  The copy of the word matrix that steps multiply with is made in the check, once for as long as the
weights do not change.
"""

import sys

import torch
from torch import Tensor
from torch.nn import functional as F

from limits import counted
from limner.core.types import BOS, EOS, Features, Layout
from limner.decode.rules import Rules
from limner.decode.search import greedy
from limner.models.sft import Sft, SftConfig
from limner.models.sft_head import FRAME_TYPE, GLOBAL_TYPE, WORD_TYPE, SftHead
from limner.models.sft_network import ENCODER_ROUNDS, HierarchicalAttention, ObjectFeatures, PublishedTransformerTeacher
from paired import PUBLISHED, arguments, report, take_turns

VIDEOS, FRAMES, CHANNELS, PIECES, LENGTH = 8, 15, 512, 49_408, 22
RULES = Rules(min_length=0, max_length=LENGTH, no_repeat_word=False, allow_unknown=True)


def captioner() -> Sft:
    torch.manual_seed(0)
    model = Sft(SftConfig(shared="all", published=True, mask_special_tokens=False), PIECES, CHANNELS).eval()
    with torch.no_grad():
        model.head.words.weight.mul_(20)  # words as sure as a trained net's
        model.head.embed.weight.mul_(20)
        model.head.words.bias[EOS] = -1e4
    return model


def videos() -> Features:
    draw = torch.Generator().manual_seed(1)
    grid = torch.randn(VIDEOS, 1, CHANNELS, generator=draw) + 0.5 * torch.randn(
        VIDEOS, FRAMES, CHANNELS, generator=draw
    )
    return Features(grid, torch.ones(VIDEOS, FRAMES, dtype=torch.bool), Layout(FRAMES, 1, 1))


def teacher_actions(module: PublishedTransformerTeacher, looked: ObjectFeatures) -> Tensor:
    """Six rounds, of which each decodes from the same query."""
    memory, mask = looked.objects, looked.present
    query = looked.frames.amax(1, keepdim=True).expand_as(memory)
    for _ in range(ENCODER_ROUNDS):
        found = module.self_attend(memory, memory, mask)
        memory = module.feed_forward(module.norm(module.dense(found) + found))
        own = module.norm(module.dense(module.self_attend(query, query, mask)) + query)
        actions = module.feed_forward(module.norm(own + module.dense(module.attend(own, memory, mask))))
    return actions


def global_vector(ham: HierarchicalAttention, actions: Tensor, frames: Tensor) -> Tensor:
    """Sums of pre-activations (B, T, J, H)."""
    seen = ham.of_frames(frames)[:, :, None]
    first = seen + ham.of_actions(actions)[:, None]
    first = (ham.score_actions(torch.tanh(first)).softmax(2) * first).sum(2)
    second = seen + (first + ham.of_read)[:, None]
    second = (ham.score_read(torch.tanh(second)).softmax(2) * second).sum(2)
    return ham.out(ham.lstm(torch.cat([frames, second, first], -1))[0].amax(1))


def whole(head: SftHead, frames: Tensor, vector: Tensor, tokens: Tensor) -> Tensor:
    """All positions of the prefix language model at once -> the scores after every text position (B, T, V)."""
    visual, length = frames.shape[1] + 1, tokens.shape[1]
    x = torch.cat([head.read_frames(torch.cat([frames, vector[:, None]], 1)), head.read_words(head.embed(tokens))], 1)
    kind = torch.tensor([FRAME_TYPE] * (visual - 1) + [GLOBAL_TYPE] + [WORD_TYPE] * length)
    x = head._add_type_and_position(x, kind, torch.arange(visual + length).expand(len(x), -1))
    mask = torch.ones(visual + length, visual + length, dtype=torch.bool).tril()
    mask[:visual, :visual], mask[:, :visual] = True, True
    for block in head.blocks:
        q, k, v = (head._split(y) for y in (block.query(x), block.key(x), block.value(x)))
        x = block.after_attention(x, F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2))
    return head.words(head.dense_norm(F.gelu(head.dense(x[:, visual:]))))


@torch.no_grad()
def rerun(model: Sft, features: Features, everything: bool) -> tuple[Tensor, Tensor]:
    """The published loop: tokens (B, 22) and the sum of their log-probabilities."""
    tokens = torch.zeros(len(features), LENGTH + 1, dtype=torch.long)
    tokens[:, 0], total = BOS, torch.zeros(len(features))
    net, head = model.network, model.head
    assert isinstance(net.module, PublishedTransformerTeacher) and net.ham is not None
    for t in range(LENGTH):
        looked = net.encode_objects(features.grid, features.mask)
        actions = (teacher_actions(net.module, looked), looked.objects)
        vectors = [global_vector(net.ham, some, looked.frames) for some in actions]
        both = [whole(head, features.grid, vector, tokens[:, :LENGTH]) for vector in vectors]
        if everything:
            told = [net.semantics(looked.objects), net.semantics(actions[0])]
            head.words(
                head.transform(torch.cat([*told, *(head.read_frames(vector)[:, None] for vector in vectors)], 1))
            )
        best = both[1][:, t].log_softmax(-1).max(-1)
        tokens[:, t + 1], total = best.indices, total + best.values
    return tokens[:, 1:], total


def main() -> int:
    rounds = arguments(__doc__, rounds=3).rounds
    model, features = captioner(), videos()
    variants = {
        "limner.greedy": lambda: greedy(model, features, RULES),
        "rerun": lambda: rerun(model, features, True),
        "rerun, captions alone": lambda: rerun(model, features, False),
    }
    results, work = counted(variants)
    ours, (tokens, total) = results["limner.greedy"], results["rerun, captions alone"]
    gap = float((ours.logprob - total).abs().max())
    unequal = int((ours.tokens != tokens).any(1).sum())
    print(
        f"{VIDEOS} captions of {LENGTH} tokens, {len(set(map(tuple, tokens.tolist())))} different, "
        f"{len(tokens.unique())} words; unequal captions: {unequal}; largest gap of a log-probability {gap:.1e}"
    )
    if unequal or gap > 1e-2:
        return 1
    report(
        take_turns(variants, rounds),
        {"rerun": 40},
        paired_with=f"{PUBLISHED}, all videos in one batch, and the part of it that captions need",
        work=work,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
