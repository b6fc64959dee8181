"""Base class of four-stage residual networks whose first blocks can be frozen."""

from torch import nn

from limner.encoders.encoder import Encoder


class FourStageEncoder(Encoder):
    """Encoder with a stem (`conv1`, `bn1`) and four stages of blocks, `layer1` to `layer4`.

    Block indices count over all stages: with stages of 3, 4, 6 and 3 blocks, block 3 is the first of `layer2`.
    """

    conv1: nn.Module
    bn1: nn.Module
    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def freeze(self, first: int | None) -> None:
        """Freeze the stem and all blocks before index `first`; the others are trained.

        A negative index counts from the end, 0 trains everything, None trains nothing.  Raises ValueError when there
        is no such block.
        """
        blocks: list[nn.Module] = [*self.layer1, *self.layer2, *self.layer3, *self.layer4]
        if first is not None and not -len(blocks) <= first < len(blocks):
            raise ValueError(
                f"encoder.trainable_from is {first}, but this ResNet has {len(blocks)} blocks: "
                f"give {-len(blocks)} .. {len(blocks) - 1}, or null to freeze it"
            )
        frozen = len(blocks) if first is None else first % len(blocks)
        self._frozen = [self.conv1, self.bn1, *blocks[:frozen]] if frozen else []
        for module in self._frozen:
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> "FourStageEncoder":
        """Set the mode; frozen parts stay in evaluation mode, so their BatchNorm statistics do not change."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self
