"""A training step of SFT's whole system at its published size against the straightforward one; CPU time compared.

    OMP_NUM_THREADS=1 python benchmarks/sft_training.py --rounds 3

Teacher and student with shared weights of 512, caption head of 2 layers, 15 frames of 512 channels, 49,408 pieces,
16 pairs of a video and a caption of 4 to 20 pieces, T = .5, lam_o = .3, lam_a = .2, smoothing .3, sums, as published.

`straightforward` does what the equations say: teacher and student each see the clip, the caption head runs over all 22
text positions of both, the word matrix is multiplied with those and with all 15 objects and actions, and the divergence
to the smoothed target, a number for each of 49,408 pieces, is summed where there is a label.  Loss and gradients are
checked to be equal before anything is timed.
"""

import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limits import counted
from limner.core.types import BOS, EOS, PAD, Features, Layout
from limner.models.sft import Sft, SftConfig
from limner.objectives.hierarchical import SftLoss, SftTraining, WordLabels
from limner.text.vocabulary import SPECIALS, Vocabulary
from paired import arguments, report, take_turns
from sft_decoding import CHANNELS, FRAMES, LENGTH, PIECES, whole

PAIRS = 16
LOSS = SftLoss(teacher_weight=0.5, objects=0.3, actions=0.2, label_smoothing=0.3, published=True)
TRAINING = SftTraining(LOSS, WordLabels(Vocabulary(SPECIALS)))


def make_batch(seed: int = 0) -> tuple[Features, Tensor, Tensor]:
    """Captions as long as people's: 4 to 20 pieces, mean about 11; two labels per clip, the noun's piece and EOS."""
    draw = torch.Generator().manual_seed(seed)
    grid = torch.randn(PAIRS, FRAMES, CHANNELS, generator=draw)
    lengths = (4 + torch.empty(PAIRS).exponential_(1 / 7, generator=draw)).round().long().clamp(max=LENGTH - 2)
    tokens = torch.full((PAIRS, LENGTH), PAD)
    tokens[:, 0] = BOS
    for row, length in zip(tokens, lengths.tolist(), strict=True):
        row[1 : 1 + length] = torch.randint(4, PIECES, (length,), generator=draw)
        row[1 + length] = EOS
    labels = torch.full((PAIRS, FRAMES), PAD)
    labels[:, 0], labels[:, 1] = torch.randint(4, PIECES, (PAIRS,), generator=draw), EOS
    return Features(grid, torch.ones(PAIRS, FRAMES, dtype=torch.bool), Layout(FRAMES, 1, 1)), tokens, labels


Data = tuple[Features, Tensor, Tensor]


def fresh() -> Sft:
    torch.manual_seed(0)
    return Sft(SftConfig(shared="all", published=True, mask_special_tokens=False, dropout=0.0), PIECES, CHANNELS)


def limner(model: Sft, data: Data) -> Tensor:
    return TRAINING.published_loss(model, *data).value


def divergence(logits: Tensor, targets: Tensor) -> Tensor:
    """KL to the smoothed target, summed where there is a label."""
    epsilon = LOSS.label_smoothing
    smooth = torch.full_like(logits, epsilon / (PIECES - 1)).scatter_(-1, targets[..., None], 1 - epsilon)
    every = F.kl_div(logits.log_softmax(-1), smooth, reduction="none").sum(-1)
    return (every * (targets != PAD)).sum()


def straightforward(model: Sft, data: Data) -> Tensor:
    features, tokens, labels = data
    following = F.pad(tokens[:, 1:], (0, 1), value=PAD)
    sides = [
        model.network.encode_clip(model.network.encode_objects(features.grid, features.mask), module)
        for module in (True, False)
    ]
    teacher, student = (divergence(whole(model.head, features.grid, side.vector, tokens), following) for side in sides)
    objects, actions = (
        divergence(model.head.words(model.head.transform(semantics)), labels)
        for semantics in (sides[1].object_semantics, sides[1].action_semantics)
    )
    return (
        LOSS.teacher_weight * teacher
        + (1 - LOSS.teacher_weight) * student
        + LOSS.objects * objects
        + LOSS.actions * actions
    )


def gradients(loss: Callable[[Sft, Data], Tensor], data: Data) -> tuple[float, dict[str, Tensor]]:
    model = fresh()
    value = loss(model, data)
    value.backward()
    return value.item(), {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def train_step(loss: Callable[[Sft, Data], Tensor], data: Data) -> Callable[[], None]:
    """One optimiser step on a model of its own, seeded alike for everyone."""
    model = fresh()
    optimizer = torch.optim.AdamW(model.parameters(), 2e-4, eps=1e-6, weight_decay=0.01)

    def step() -> None:
        loss(model, data).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def main() -> int:
    rounds, data = arguments(__doc__, rounds=3).rounds, make_batch()
    words = (data[1] > EOS).sum(1)
    print(f"{PAIRS} captions of {words.min()} to {words.max()} pieces, mean {words.float().mean():.1f}")
    value, wanted = gradients(straightforward, data)
    other, found = gradients(limner, data)
    gap = max(float((found[n] - g).abs().max() / g.abs().max().clamp(min=1e-3)) for n, g in wanted.items())
    print(f"loss {other:.4f} (straightforward {value:.4f}), largest relative gap of a gradient {gap:.1e}")
    if found.keys() != wanted.keys() or abs(other / value - 1) > 1e-5 or gap > 1e-3:
        return 1
    del wanted, found
    variants = {"limner, training step": train_step(limner, data), "straightforward": train_step(straightforward, data)}
    _, work = counted(variants)  # this allocates the moments, too
    report(
        take_turns(variants, rounds),
        {"straightforward": 1.5},
        paired_with="the equations as they are written, in one batch: the public code's training step was not rebuilt",
        work=work,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
