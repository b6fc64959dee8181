"""Residual networks of four stages, of which the first blocks may be frozen."""

from torch import nn

from limner.encoders.encoder import Encoder


class FourStages(Encoder):
    """A stem (`conv1`, `bn1`) and the blocks of `layer1` to `layer4`, counted over all stages."""

    conv1: nn.Module
    bn1: nn.Module
    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def freeze(self, first: int | None) -> None:
        """Train the blocks from index `first` on (negative: from the end); 0 trains everything, None nothing.

        Raises ValueError when there is no such block.
        """
        blocks: list[nn.Module] = [*self.layer1, *self.layer2, *self.layer3, *self.layer4]
        if first is not None and not -len(blocks) <= first < len(blocks):
            raise ValueError(
                f"encoder.trainable_from is {first}, but this ResNet has {len(blocks)} blocks: "
                f"give {-len(blocks)} .. {len(blocks) - 1}, or null to freeze it"
            )
        kept = len(blocks) if first is None else first % len(blocks)
        self._frozen = [self.conv1, self.bn1, *blocks[:kept]] if kept else []
        for module in self._frozen:
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> "FourStages":
        """As usual, but frozen parts stay in evaluation: their BatchNorm statistics do not move."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self
