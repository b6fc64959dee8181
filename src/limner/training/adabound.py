"""AdaBound optimiser (Luo et al. 2019, arXiv:1902.09843): Adam with element-wise bounds on the learning rate.

The bounds start at 0 and infinity and converge to one rate, `final_lr`: Adam turns into SGD.
"""

from collections.abc import Callable, Iterable
from math import sqrt
from typing import Any

import torch
from torch import Tensor


class AdaBound(torch.optim.Optimizer):
    """Algorithm 2 of the paper: x -= clip(a / sqrt(v), low, high) * m, element by element.

    At step t, low = final_lr * (1 - 1 / (gamma t + 1)) and high = final_lr * (1 + 1 / (gamma t)); section 4 writes
    1 - beta2 for gamma.  As in the paper's experiments, `a` includes Adam's bias corrections, and the factor
    1 / sqrt(t), which only the regret bound needs, is left out.  A schedule that scales `lr` scales the bounds too.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        final_lr: float = 0.1,
        gamma: float = 1e-3,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        """`weight_decay` is an L2 term in the gradient, as in Adam."""
        defaults = {"lr": lr, "betas": betas, "final_lr": final_lr, "gamma": gamma, "eps": eps}
        super().__init__(params, {**defaults, "weight_decay": weight_decay})
        for group in self.param_groups:
            group.setdefault("base_lr", group["lr"])  # a schedule changes lr; the training loop sets base_lr itself

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all parameters once -> the loss that `closure` returns (None without a closure)."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    _update(weight, weight.grad, self.state[weight], group)
        return loss


def _update(weight: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
    if not state:
        state["step"] = torch.zeros(())
        state["exp_avg"] = torch.zeros_like(weight)
        state["exp_avg_sq"] = torch.zeros_like(weight)
    state["step"] += 1
    t, (beta1, beta2), gamma = state["step"].item(), group["betas"], group["gamma"]
    if group["weight_decay"]:
        gradient = gradient.add(weight, alpha=group["weight_decay"])
    m = state["exp_avg"].lerp_(gradient, 1 - beta1)
    v = state["exp_avg_sq"].lerp_(gradient.square(), 1 - beta2)
    adam = group["lr"] * sqrt(1 - beta2**t) / (1 - beta1**t)
    final = group["final_lr"] * (group["lr"] / group["base_lr"] if group["base_lr"] else 0.0)
    low, high = final * (1 - 1 / (gamma * t + 1)), final * (1 + 1 / (gamma * t))
    weight.addcmul_((adam / (v.sqrt() + group["eps"])).clamp_(low, high), m, value=-1)
