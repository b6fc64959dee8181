"""Self-critical sequence training (Rennie et al. 2017, arXiv:1612.00563): REINFORCE on sampled captions.

Captions are sampled without gradients, step by step with the cached decoder.  One `forward_teacher_forced` pass along
them then gives their log-probabilities with gradients.  The loss is

    -1/M sum over captions of (reward - baseline) * sum over words of log p,        M words in all, EOS included.

Example: one medium, two samples, baseline `leave_one_out`.

    sample             reward   baseline   advantage   sum of log p
    a dog EOS          1.0      0.4         0.6        -2.0
    a cat sits EOS     0.4      1.0        -0.6        -3.0

    loss = -(0.6 * -2.0 + -0.6 * -3.0) / 7 = -0.0857

The gradient raises the probability of the first caption and lowers that of the second.

**One distribution.**  log p belongs to the softmax that the words were sampled from: words that sampling forbids (PAD,
BOS, UNK, rules, top-k) are also outside the differentiated softmax.  If they were inside, lowering a caption would
raise the forbidden words, which are never sampled and so never lowered again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import AfterValidator
from torch import Tensor

from limner.core.fields import NonNegativeFloat
from limner.core.processes import mean_over_processes
from limner.core.types import BOS, PAD, Batch, Features, Loss
from limner.decode.logits import warp_logits
from limner.decode.search import Sample, rollout
from limner.models.captioner import Captioner
from limner.objectives.context import Context, to_features
from limner.objectives.cross_entropy import CrossEntropy
from limner.objectives.objective import ObjectiveConfig
from limner.objectives.rewards import REWARDS, Rewards

LOG_GREEDY_EVERY = 50  # calls between logs of the greedy reward when it is not the baseline; as often as log.jsonl


def _check_reward(reward: dict[str, float]) -> dict[str, float]:
    if not reward or set(reward) - set(REWARDS) or not any(reward.values()):
        raise ValueError(f"expected weights, not all 0, of {', '.join(REWARDS)}; got {reward}")
    return reward


@dataclass(frozen=True)
class SelfCritical(ObjectiveConfig):
    """The objective `scst`: the self-critical loss, plus `xe_weight` times the cross entropy of the references."""

    name: Literal["scst"] = "scst"
    highest_lr: ClassVar[float] = 5e-4  # published for the Object Relation Transformer (arXiv:1906.05963)
    sample: Sample = field(default_factory=lambda: Sample(5))  # `count` captions per medium are sampled
    # greedy: the reward of the medium's greedy caption (the paper); leave_one_out: the mean reward of its other samples
    # (Luo 2020, arXiv:2003.09971), which needs no greedy search
    baseline: Literal["greedy", "leave_one_out"] = "leave_one_out"
    reward: Annotated[dict[str, NonNegativeFloat], AfterValidator(_check_reward)] = field(
        default_factory=lambda: {"cider_d": 1.0}
    )  # cider_d is in [0, 10], bleu_4 in [0, 1]
    xe_weight: NonNegativeFloat = 0.0  # weight of the cross entropy of the batch's captions
    xe: CrossEntropy = field(default_factory=CrossEntropy)  # options of that cross entropy
    dropout: bool = True  # of the differentiated pass; captions are always sampled without dropout

    def __post_init__(self) -> None:
        if self.baseline == "leave_one_out" and self.sample.count < 2:
            raise ValueError(
                "baseline leave_one_out is the mean of a medium's other samples: set sample.count to 2 or more"
            )

    def build(self, context: Context) -> "SelfCriticalTraining":
        """The training split gives the references and the document frequencies."""
        bound = replace(self, sample=self.sample.bind(context.vocabulary))
        rewards = Rewards(self.reward, context.media, context.vocabulary)
        return SelfCriticalTraining(bound, rewards, context.warn, context.batches_done)


class SelfCriticalTraining:
    """The function of the objective.

    `calls` counts all calls, including those before training was resumed.  `steps` counts the calls since then, and
    `constant_steps` those of them in which every caption's reward was equal to its baseline.
    """

    def __init__(self, config: SelfCritical, rewards: Rewards, warn: Callable[[str], None], called: int = 0) -> None:
        self.config, self.rewards, self.warn, self.calls = config, rewards, warn, called
        self.steps = self.constant_steps = 0

    def __call__(self, model: Captioner, batch: Batch, epoch: int = 0) -> Loss:
        """The loss of a batch.  Raises FloatingPointError when the model's scores are nan."""
        training = model.training
        self.calls += 1
        features = to_features(model, batch.inputs)  # an encoder that is trained along runs once
        model.eval()
        tokens, greedy = self.sample_captions(model, features)
        torch.clear_autocast_cache()  # older versions of torch cache weights cast without gradients
        advantage, logs = self.advantages(batch.ids, tokens, greedy)
        model.train(training and self.config.dropout)
        memory = model.encode(features)
        logp, keep = log_probabilities(model, memory, tokens, self.config.sample)
        loss = -mean_over_processes(advantage.to(logp)[:, None].expand(keep.shape)[keep] * logp)
        logs |= {"policy": loss.item(), "words": len(logp) / len(tokens)}
        if self.config.xe_weight:
            xe, terms = self.config.xe.loss(self.config.xe.forward_teacher_forced(model, memory, batch, epoch), batch)
            loss, logs = loss + self.config.xe_weight * xe, logs | terms
        model.train(training)
        return Loss(loss, logs)

    @torch.no_grad()
    def sample_captions(
        self, model: Captioner, features: Features
    ) -> tuple[Int[Tensor, "R L"], Int[Tensor, "B L2"] | None]:
        """-> samples, R = count * B rows, and greedy captions when they are the baseline or to be logged."""
        memory = model.encode(features)
        tokens = rollout(model, memory, self.config.sample).tokens
        wants_greedy = self._baseline_is_greedy or self.calls == 1 or self.calls % LOG_GREEDY_EVERY == 0
        return tokens, rollout(model, memory, self.config.sample.rules).tokens if wants_greedy else None

    @property
    def _baseline_is_greedy(self) -> bool:
        return self.config.baseline == "greedy"

    def advantages(
        self, ids: Sequence[str], tokens: Int[Tensor, "R L"], greedy: Int[Tensor, "B L2"] | None
    ) -> tuple[Float[Tensor, " R"], dict[str, float]]:
        """-> reward minus baseline of every sample, and values for the log."""
        rewards, parts = self.rewards.score(tokens.cpu().numpy(), ids)
        reward = torch.from_numpy(rewards).view(len(ids), -1)  # (B, K)
        logs = {"reward": reward.mean().item()}
        logs |= {name: float(part.mean()) for name, part in parts.items()} if len(parts) > 1 else {}
        baseline = None
        if greedy is not None:
            baseline = torch.from_numpy(self.rewards.score(greedy.cpu().numpy(), ids)[0])[:, None]
            logs["reward_greedy"] = baseline.mean().item()
        if baseline is None or not self._baseline_is_greedy:
            baseline = (reward.sum(1, keepdim=True) - reward) / (reward.shape[1] - 1)
        advantage = reward - baseline
        advantage[advantage.abs() < 1e-9] = 0.0  # rounding errors in the mean of equal rewards
        flat = (advantage == 0).all(1)
        logs |= {"reward_spread": advantage.abs().mean().item(), "constant": flat.double().mean().item()}
        self._warn_if_constant(bool(flat.all()), reward)
        return advantage.flatten(), logs

    def _warn_if_constant(self, constant: bool, reward: Float[Tensor, "B K"]) -> None:
        """Count a step whose advantages are all 0; warn at the first one and whenever their number has doubled."""
        self.steps += 1
        self.constant_steps += constant
        if constant and self.constant_steps.bit_count() == 1:
            self.warn(
                f"self-critical training learnt nothing in {self.constant_steps} of {self.steps} steps: all sampled "
                f"captions had the reward of their baseline (mean reward {reward.mean().item():.3g}). Usual causes: "
                "references of other media, a reward that is the same for all captions, a model that always writes the "
                "same caption"
            )


def log_probabilities(
    model: Captioner, memory: Any, tokens: Int[Tensor, "R L"], sample: Sample
) -> tuple[Float[Tensor, " M"], Bool[Tensor, "R L"]]:
    """-> the log-probability of each of the M sampled words under `sample`'s distribution, and where they stand."""
    inputs = torch.cat([torch.full_like(tokens[:, :1], BOS), tokens[:, :-1]], 1)
    keep = tokens != PAD
    logits = model.forward_teacher_forced(memory, inputs).logits
    forbidden = forbidden_words(logits.detach(), tokens, keep, sample)
    # in place: takes no more memory than cross entropy does
    scores = logits[keep].float().masked_fill_(forbidden, -torch.inf)
    if sample.temperature != 1:
        scores = scores / sample.temperature
    return scores.log_softmax(-1).gather(1, tokens[keep][:, None]).squeeze(1), keep


@torch.no_grad()
def forbidden_words(
    logits: Float[Tensor, "R L V"], tokens: Int[Tensor, "R L"], keep: Bool[Tensor, "R L"], sample: Sample
) -> Bool[Tensor, "M V"]:
    """Which words could not be sampled at each of the M positions: those that `warp_logits` sets to -inf.

    The sampled word itself is never forbidden, although dropout in this pass may move it out of the top k.
    """
    place = keep.flatten().cumsum(0).view_as(keep) - 1
    forbidden = torch.ones(int(keep.sum()), logits.shape[2], dtype=torch.bool, device=logits.device)
    for t in range(tokens.shape[1]):
        rows = keep[:, t].nonzero().flatten()
        forbidden[place[rows, t]] = warp_logits(sample, logits[rows, t].float(), tokens[rows, :t]) == -torch.inf
    return forbidden.scatter_(1, tokens[keep][:, None], False)
