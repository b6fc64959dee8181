"""The registry of captioners.

A new captioner is one file and one line here, or `limner.register` in a package of its own.
"""

from limner.core.registry import Buildable, Registry
from limner.models.captioner import Captioner, CaptionerConfig
from limner.models.sa_lstm import SaLstm, SaLstmConfig
from limner.models.sft import Sft, SftConfig
from limner.models.show_attend_tell import ShowAttendTell, ShowAttendTellConfig
from limner.models.spatial_transformer import SpatialTransformer, SpatialTransformerConfig
from limner.models.spatiotemporal import FirstToken, FirstTokenConfig, SpatioTemporal, SpatioTemporalConfig
from limner.models.up_down import UpDown, UpDownConfig
from limner.models.xlan import Xlan, XlanConfig

CAPTIONERS: Registry[Buildable] = Registry(
    "captioner",
    {
        "show_attend_tell": Buildable(ShowAttendTellConfig, ShowAttendTell),
        "first_token": Buildable(FirstTokenConfig, FirstToken),
        "spatio_temporal": Buildable(SpatioTemporalConfig, SpatioTemporal),
        "sa_lstm": Buildable(SaLstmConfig, SaLstm),
        "sft": Buildable(SftConfig, Sft),
        "spatial_transformer": Buildable(SpatialTransformerConfig, SpatialTransformer),
        "xlan": Buildable(XlanConfig, Xlan),
        "up_down": Buildable(UpDownConfig, UpDown),
    },
)
DEFAULT_CAPTIONER: CaptionerConfig = ShowAttendTellConfig()  # for a recipe that names no captioner


def build_model(config: CaptionerConfig, vocabulary_size: int, feature_dim: int) -> Captioner:
    """A captioner with new weights, for features of `feature_dim` channels."""
    model: Captioner = CAPTIONERS[config.name].build(config, vocabulary_size, feature_dim)
    return model


def leaves_parameters_unused(config: CaptionerConfig) -> bool:
    """Whether the captions of this captioner depend on only some of its parameters (`Captioner.partial`)."""
    return bool(CAPTIONERS[config.name].build.partial)  # type: ignore[attr-defined]
