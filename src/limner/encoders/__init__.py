"""Encoders: frames in, cells out.  `ENCODERS` is the list of names a recipe may use."""

from limner.encoders.encoder import Encoder
from limner.encoders.pretrained import Pretrained, PretrainedConfig
from limner.encoders.resnet import ResNet, ResNetConfig
from limner.encoders.small_cnn import SmallCNN, SmallCNNConfig

EncoderConfig = PretrainedConfig | ResNetConfig | SmallCNNConfig

ENCODERS: dict[str, tuple[type, type[Encoder]]] = {
    "pretrained": (PretrainedConfig, Pretrained),
    "resnet": (ResNetConfig, ResNet),
    "small_cnn": (SmallCNNConfig, SmallCNN),
}


def build_encoder(config: EncoderConfig) -> Encoder:
    """The encoder a config names.  Raises ValueError for an unknown name or a source that cannot be loaded."""
    if config.name not in ENCODERS:
        raise ValueError(f"unknown encoder {config.name!r}; known are {', '.join(ENCODERS)}")
    return ENCODERS[config.name][1](config)


__all__ = [
    "ENCODERS",
    "Encoder",
    "EncoderConfig",
    "Pretrained",
    "PretrainedConfig",
    "ResNet",
    "ResNetConfig",
    "SmallCNN",
    "SmallCNNConfig",
    "build_encoder",
]
