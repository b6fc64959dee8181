"""Every captioner by name; a new one is one file and one line here."""

from limner.models.captioner import Captioner
from limner.models.sa_lstm import SaLstm, SaLstmConfig
from limner.models.show_attend_tell import ShowAttendTell, ShowAttendTellConfig
from limner.models.spatiotemporal import FirstToken, FirstTokenConfig, SpatioTemporal, SpatioTemporalConfig

MODELS: dict[str, tuple[type, type[Captioner]]] = {
    "show_attend_tell": (ShowAttendTellConfig, ShowAttendTell),
    "first_token": (FirstTokenConfig, FirstToken),
    "spatio_temporal": (SpatioTemporalConfig, SpatioTemporal),
    "sa_lstm": (SaLstmConfig, SaLstm),
}
ModelConfig = ShowAttendTellConfig | FirstTokenConfig | SpatioTemporalConfig | SaLstmConfig


def build_model(config: ModelConfig, vocabulary_size: int, feature_dim: int) -> Captioner:
    """A freshly initialised captioner."""
    return MODELS[config.name][1](config, vocabulary_size, feature_dim)
