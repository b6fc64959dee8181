"""Encoders: frames in, cells out.  `ENCODERS` is the list of names a recipe may use."""

from limner.encoders.clip_frames import ClipFrames, ClipFramesConfig
from limner.encoders.detector import Detector, DetectorConfig
from limner.encoders.encoder import Encoder
from limner.encoders.pretrained import Pretrained, PretrainedConfig
from limner.encoders.resnet import ResNet, ResNetConfig
from limner.encoders.resnet3d import ResNet3D, ResNet3DConfig
from limner.encoders.small_cnn import SmallCNN, SmallCNNConfig
from limner.encoders.small_cnn3d import SmallCNN3D, SmallCNN3DConfig
from limner.encoders.tiny import Tiny, TinyConfig

EncoderConfig = (
    PretrainedConfig
    | DetectorConfig
    | ClipFramesConfig
    | ResNetConfig
    | ResNet3DConfig
    | SmallCNNConfig
    | SmallCNN3DConfig
    | TinyConfig
)

ENCODERS: dict[str, tuple[type, type[Encoder]]] = {
    "pretrained": (PretrainedConfig, Pretrained),
    "detector": (DetectorConfig, Detector),
    "clip_frames": (ClipFramesConfig, ClipFrames),
    "resnet": (ResNetConfig, ResNet),
    "resnet3d": (ResNet3DConfig, ResNet3D),
    "small_cnn": (SmallCNNConfig, SmallCNN),
    "small_cnn3d": (SmallCNN3DConfig, SmallCNN3D),
    "tiny": (TinyConfig, Tiny),
}


def build_encoder(config: EncoderConfig) -> Encoder:
    """The encoder a config names.  Raises ValueError for an unknown name or a source that cannot be loaded."""
    if config.name not in ENCODERS:
        raise ValueError(f"unknown encoder {config.name!r}; known are {', '.join(ENCODERS)}")
    return ENCODERS[config.name][1](config)


__all__ = [
    "ENCODERS",
    "ClipFrames",
    "ClipFramesConfig",
    "Detector",
    "DetectorConfig",
    "Encoder",
    "EncoderConfig",
    "Pretrained",
    "PretrainedConfig",
    "ResNet",
    "ResNet3D",
    "ResNet3DConfig",
    "ResNetConfig",
    "SmallCNN",
    "SmallCNN3D",
    "SmallCNN3DConfig",
    "SmallCNNConfig",
    "Tiny",
    "TinyConfig",
    "build_encoder",
]
