"""A self-critical step against a cross-entropy step at equal captions: CPU time, and peak memory.

    OMP_NUM_THREADS=1 python benchmarks/scst.py --rounds 5

Show, Attend and Tell at its published size (hidden = embed = attention = 512, raw cells) with weights that end captions
as a trained net's do (`beam_search.crafted`), 16 pictures of 49 x 1280 cells, 2,550 words, 5 captions each.  A step is
forward, backward, clipping and Adam.  The self-critical one samples, rewards with CIDEr-D (references of 6,000 media)
and learns; cross entropy learns the very captions that it drew.  Memory is what allocations of tensors add at the
most to what is held before the step (torch's own account of them).
"""

import gc
import random
import sys
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from beam_search import VOCABULARY, crafted, pictures
from limits import counted
from limner.core.types import BOS, Batch, Medium
from limner.decode.rules import Rules
from limner.decode.search import Sample
from limner.models.show_attend_tell import ShowAttendTell
from limner.objectives.context import Context
from limner.objectives.cross_entropy import CrossEntropy
from limner.objectives.objective import ObjectiveFunction
from limner.objectives.self_critical import SelfCritical
from limner.text.vocabulary import SPECIALS, Vocabulary
from paired import arguments, report, take_turns

MEDIA, SAMPLES, TRAINING = 16, 5, 6000
STEP_BAR, MEMORY_BAR = 2.5, 1.3
SAMPLING = Sample(SAMPLES, rules=Rules(min_length=3, max_length=25))


def training_split(words: list[str]) -> list[Medium]:
    draw = random.Random(0)
    return [
        Medium(str(k), "", "train", tuple(" ".join(draw.choices(words, k=draw.randint(5, 16))) for _ in range(5)))
        for k in range(TRAINING)
    ]


def step_of(objective: ObjectiveFunction, batch: Batch) -> tuple[Callable[[], None], ShowAttendTell]:
    """One optimiser step on a model of its own."""
    model = crafted().train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-12)  # captions stay what they are

    def step() -> None:
        objective(model, batch, 0).value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step, model


def peak(step: Callable[[], None]) -> int:
    """Bytes that a step holds at the most beyond what it found."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as log:
        step()
    held = most = 0
    for event in log.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def main() -> int:
    rounds = arguments(__doc__, rounds=5).rounds
    torch.manual_seed(0)
    vocabulary = Vocabulary((*SPECIALS, *(f"w{i}" for i in range(VOCABULARY - 4))))
    inputs = pictures().map(lambda x: x[:MEDIA])
    ids = tuple(map(str, range(MEDIA)))
    objectives = {
        baseline: SelfCritical(sample=SAMPLING, baseline=baseline).build(
            Context(media=training_split(list(vocabulary.words[4:])), vocabulary=vocabulary)
        )
        for baseline in ("leave_one_out", "greedy")
    }
    tokens, _ = objectives["leave_one_out"].sample_captions(crafted().eval(), inputs)
    drawn = torch.cat([torch.full_like(tokens[:, :1], BOS), tokens], 1)
    print(f"{len(tokens)} captions of {(tokens > 0).sum(1).float().mean():.1f} tokens, EOS included")
    batch = Batch(ids, inputs, drawn)
    for objective in objectives.values():  # the same captions for both, though each step pays for drawing some
        draw = objective.sample_captions
        objective.sample_captions = lambda *args, draw=draw: (tokens, draw(*args)[1])  # type: ignore[method-assign]
    xe, _ = step_of(CrossEntropy(), batch)
    variants = {"cross entropy": xe} | {f"scst, {name}": step_of(it, batch)[0] for name, it in objectives.items()}
    _, work = counted(variants)  # this allocates the moments, too
    report(
        take_turns(variants, rounds),
        {f"scst, {name}": STEP_BAR for name in objectives},
        paired_with="limner's own step of cross entropy",
        work=work,
    )
    memory = {name: peak(step) for name, step in variants.items()}
    for name, most in memory.items():
        print(f"{name:<24} peak {most / 2**20:7.1f} MiB   {most / memory['cross entropy']:.2f}x; bar {MEMORY_BAR}x")
    return int(max(memory.values()) > MEMORY_BAR * memory["cross entropy"])


if __name__ == "__main__":
    sys.exit(main())
