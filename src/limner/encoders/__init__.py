"""Every encoder by name: frames in, cells out.  A new one is one file and one line here, or `limner.register`."""

from limner.core.registry import Buildable, Registry
from limner.encoders.clip_frames import ClipFrames, ClipFramesConfig
from limner.encoders.detector import Detector, DetectorConfig
from limner.encoders.efficientnet_lite import EfficientNetLite, EfficientNetLiteConfig
from limner.encoders.encoder import Encoder, EncoderConfig
from limner.encoders.pretrained import Pretrained, PretrainedConfig
from limner.encoders.resnet import ResNet, ResNetConfig
from limner.encoders.resnet3d import ResNet3D, ResNet3DConfig
from limner.encoders.small_cnn import SmallCNN, SmallCNNConfig
from limner.encoders.small_cnn3d import SmallCNN3D, SmallCNN3DConfig
from limner.encoders.tiny import Tiny, TinyConfig

ENCODERS: Registry[Buildable] = Registry(
    "encoder",
    {
        "pretrained": Buildable(PretrainedConfig, Pretrained),
        "detector": Buildable(DetectorConfig, Detector),
        "clip_frames": Buildable(ClipFramesConfig, ClipFrames),
        "resnet": Buildable(ResNetConfig, ResNet),
        "resnet3d": Buildable(ResNet3DConfig, ResNet3D),
        "small_cnn": Buildable(SmallCNNConfig, SmallCNN),
        "small_cnn3d": Buildable(SmallCNN3DConfig, SmallCNN3D),
        "efficientnet_lite": Buildable(EfficientNetLiteConfig, EfficientNetLite),
        "tiny": Buildable(TinyConfig, Tiny),
    },
)
DEFAULT_ENCODER: EncoderConfig = SmallCNNConfig()  # of a recipe that names none


def build_encoder(config: EncoderConfig) -> Encoder:
    """The encoder a config names.  Raises ValueError for an unknown name or a source that cannot be loaded."""
    encoder: Encoder = ENCODERS[config.name].build(config)
    return encoder


__all__ = [
    "DEFAULT_ENCODER",
    "ENCODERS",
    "ClipFrames",
    "ClipFramesConfig",
    "Detector",
    "DetectorConfig",
    "EfficientNetLite",
    "EfficientNetLiteConfig",
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
