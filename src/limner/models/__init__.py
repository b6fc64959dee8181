"""Every captioner by name; a new one is one file and one line here."""

from limner.models.captioner import Captioner
from limner.models.sa_lstm import SaLstm, SaLstmConfig
from limner.models.sft import Sft, SftConfig
from limner.models.show_attend_tell import ShowAttendTell, ShowAttendTellConfig
from limner.models.spatial_transformer import SpatialTransformer, SpatialTransformerConfig
from limner.models.spatiotemporal import FirstToken, FirstTokenConfig, SpatioTemporal, SpatioTemporalConfig
from limner.models.up_down import UpDown, UpDownConfig
from limner.models.xlan import Xlan, XlanConfig

MODELS: dict[str, tuple[type, type[Captioner]]] = {
    "show_attend_tell": (ShowAttendTellConfig, ShowAttendTell),
    "first_token": (FirstTokenConfig, FirstToken),
    "spatio_temporal": (SpatioTemporalConfig, SpatioTemporal),
    "sa_lstm": (SaLstmConfig, SaLstm),
    "sft": (SftConfig, Sft),
    "spatial_transformer": (SpatialTransformerConfig, SpatialTransformer),
    "xlan": (XlanConfig, Xlan),
    "up_down": (UpDownConfig, UpDown),
}
ModelConfig = (
    ShowAttendTellConfig
    | FirstTokenConfig
    | SpatioTemporalConfig
    | SaLstmConfig
    | SftConfig
    | SpatialTransformerConfig
    | XlanConfig
    | UpDownConfig
)


def build_model(config: ModelConfig, vocabulary_size: int, feature_dim: int) -> Captioner:
    """A freshly initialised captioner."""
    return MODELS[config.name][1](config, vocabulary_size, feature_dim)
