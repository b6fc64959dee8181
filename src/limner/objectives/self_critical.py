"""Self-critical sequence training (Rennie et al. 2017, arXiv:1612.00563): captions the model draws are its lessons.

Captions are sampled without gradients, step by step with the cached decoder; then one `forward_teacher_forced` pass
along them gives their log-probabilities with gradients.  The loss is REINFORCE's,

    -1/M sum over captions of (reward - baseline) * sum over words of log p,        M words in all, the end included.

**One distribution.**  log p is that of the softmax which was drawn from: what the sampling forbids (PAD, BOS, UNK, what
the rules and top-k say) is outside the differentiated softmax too.  Left inside, a caption that is pushed down pushes
the forbidden words up, which are never drawn and never pushed back.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import AfterValidator
from torch import Tensor

from limner.core.fields import NonNegativeFloat
from limner.core.types import BOS, PAD, Batch, Features, Loss
from limner.decode.logits import warp_logits
from limner.decode.search import Sample, rollout
from limner.models.captioner import Captioner
from limner.objectives.context import Context, seen
from limner.objectives.cross_entropy import CrossEntropy
from limner.objectives.objective import ObjectiveConfig
from limner.objectives.rewards import REWARDS, Rewards

EVERY = 50  # calls: how often the greedy reward is logged where it is not the baseline; as often as log.jsonl's rows


def _known(reward: dict[str, float]) -> dict[str, float]:
    if not reward or set(reward) - set(REWARDS) or not any(reward.values()):
        raise ValueError(f"expected weights, not all 0, of {', '.join(REWARDS)}")
    return reward


@dataclass(frozen=True)
class SelfCritical(ObjectiveConfig):
    """The rewards of drawn captions above a baseline, plus `xe_weight` times the cross entropy of the batch's own."""

    name: Literal["scst"] = "scst"
    highest_lr: ClassVar[float] = 5e-4  # of those published the Object Relation Transformer's (arXiv:1906.05963)
    sample: Sample = field(default_factory=lambda: Sample(5))  # `count` captions per medium are drawn
    # greedy: the reward of the medium's greedy caption (the paper); leave_one_out: the mean of its other samples
    # (Luo 2020, arXiv:2003.09971), without a search of its own
    baseline: Literal["greedy", "leave_one_out"] = "leave_one_out"
    reward: Annotated[dict[str, NonNegativeFloat], AfterValidator(_known)] = field(
        default_factory=lambda: {"cider_d": 1.0}
    )  # cider_d is in [0, 10], bleu_4 in [0, 1]
    xe_weight: NonNegativeFloat = 0.0  # of the cross entropy of the batch's own captions
    xe: CrossEntropy = field(default_factory=CrossEntropy)  # that cross entropy
    dropout: bool = True  # in the differentiated pass; captions are always drawn without

    def __post_init__(self) -> None:
        if self.baseline == "leave_one_out" and self.sample.count < 2:
            raise ValueError(
                "baseline leave_one_out is the mean of a medium's other samples: sample.count is 2 or more"
            )

    def build(self, context: Context) -> "SelfCriticalTraining":
        """The training split is what a caption is held against, and tells what is rare."""
        bound = replace(self, sample=self.sample.bind(context.vocabulary))
        rewards = Rewards(self.reward, context.media, context.vocabulary)
        return SelfCriticalTraining(bound, rewards, context.warn, context.called)


class SelfCriticalTraining:
    """The objective; `silent` counts the steps in which no caption differed from its baseline, `called` all calls,
    those before training was resumed included."""

    def __init__(self, config: SelfCritical, rewards: Rewards, warn: Callable[[str], None], called: int = 0) -> None:
        self.config, self.rewards, self.warn, self.called = config, rewards, warn, called
        self.steps = self.silent = 0

    def __call__(self, model: Captioner, batch: Batch, epoch: int = 0) -> Loss:
        """Raises FloatingPointError where the model's scores are nan."""
        training = model.training
        self.called += 1
        features = seen(model, batch.inputs)  # an encoder that is trained along runs once, for samples and gradient
        model.eval()
        tokens, greedy = self.draw(model, features)
        torch.clear_autocast_cache()  # older versions of torch keep weights in it that were cast without gradients
        advantage, logs = self.judge(batch.ids, tokens, greedy)
        model.train(training and self.config.dropout)
        memory = model.encode(features)
        logp, keep = log_probabilities(model, memory, tokens, self.config.sample)
        loss = -(advantage.to(logp)[:, None].expand(keep.shape)[keep] * logp).sum() / len(logp)
        logs |= {"policy": loss.item(), "words": len(logp) / len(tokens)}
        if self.config.xe_weight:
            xe, terms = self.config.xe.score(self.config.xe.forward_teacher_forced(model, memory, batch, epoch), batch)
            loss, logs = loss + self.config.xe_weight * xe, logs | terms
        model.train(training)
        return Loss(loss, logs)

    @torch.no_grad()
    def draw(self, model: Captioner, features: Features) -> tuple[Int[Tensor, "R L"], Int[Tensor, "B L2"] | None]:
        """Samples, R = count * B rows, and greedy captions where they are the baseline or to be logged."""
        memory = model.encode(features)
        tokens = rollout(model, memory, self.config.sample).tokens
        asked = self._greedy or self.called == 1 or self.called % EVERY == 0
        return tokens, rollout(model, memory, self.config.sample.rules).tokens if asked else None

    @property
    def _greedy(self) -> bool:
        return self.config.baseline == "greedy"

    def judge(
        self, ids: Sequence[str], tokens: Int[Tensor, "R L"], greedy: Int[Tensor, "B L2"] | None
    ) -> tuple[Float[Tensor, " R"], dict[str, float]]:
        """-> reward minus baseline of every sample, and what is logged of it."""
        found, parts = self.rewards.score(tokens.cpu().numpy(), ids)
        reward = torch.from_numpy(found).view(len(ids), -1)  # (B, K)
        logs = {"reward": reward.mean().item()}
        logs |= {name: float(part.mean()) for name, part in parts.items()} if len(parts) > 1 else {}
        baseline = None
        if greedy is not None:
            baseline = torch.from_numpy(self.rewards.score(greedy.cpu().numpy(), ids)[0])[:, None]
            logs["reward_greedy"] = baseline.mean().item()
        if baseline is None or not self._greedy:
            baseline = (reward.sum(1, keepdim=True) - reward) / (reward.shape[1] - 1)
        advantage = reward - baseline
        advantage[advantage.abs() < 1e-9] = 0.0  # rounding in a mean of equal rewards is no lesson
        flat = (advantage == 0).all(1)
        logs |= {"reward_spread": advantage.abs().mean().item(), "constant": flat.double().mean().item()}
        self._watch(bool(flat.all()), reward)
        return advantage.flatten(), logs

    def _watch(self, constant: bool, reward: Float[Tensor, "B K"]) -> None:
        """Tell of steps without a lesson: the first, and whenever their number has doubled."""
        self.steps += 1
        self.silent += constant
        if constant and self.silent.bit_count() == 1:
            self.warn(
                f"self-critical training learnt nothing in {self.silent} of {self.steps} steps: all captions drawn "
                f"were worth as much as their baseline (mean reward {reward.mean().item():.3g}). Usual causes: "
                "references of other media, a reward that cannot tell captions apart, a model that always says the same"
            )


def log_probabilities(
    model: Captioner, memory: Any, tokens: Int[Tensor, "R L"], sample: Sample
) -> tuple[Float[Tensor, " M"], Bool[Tensor, "R L"]]:
    """-> the log-probability of each word that was drawn, under `sample`'s own distribution, and where they stand."""
    read = torch.cat([torch.full_like(tokens[:, :1], BOS), tokens[:, :-1]], 1)
    keep = tokens != PAD
    logits = model.forward_teacher_forced(memory, read).logits
    mask_special_tokens = forbidden(logits.detach(), tokens, keep, sample)
    scores = (
        logits[keep].float().masked_fill_(mask_special_tokens, -torch.inf)
    )  # in place: as much memory as cross entropy takes
    if sample.temperature != 1:
        scores = scores / sample.temperature
    return scores.log_softmax(-1).gather(1, tokens[keep][:, None]).squeeze(1), keep


@torch.no_grad()
def forbidden(
    logits: Float[Tensor, "R L V"], tokens: Int[Tensor, "R L"], keep: Bool[Tensor, "R L"], sample: Sample
) -> Bool[Tensor, "M V"]:
    """What could not be drawn at each of the M words, asked of the sampling itself; never the word that was drawn
    (dropout may put it outside of the top k here)."""
    place = keep.flatten().cumsum(0).view_as(keep) - 1
    mask_special_tokens = torch.ones(int(keep.sum()), logits.shape[2], dtype=torch.bool, device=logits.device)
    for t in range(tokens.shape[1]):
        rows = keep[:, t].nonzero().flatten()
        mask_special_tokens[place[rows, t]] = (
            warp_logits(sample, logits[rows, t].float(), tokens[rows, :t]) == -torch.inf
        )
    return mask_special_tokens.scatter_(1, tokens[keep][:, None], False)
