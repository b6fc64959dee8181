"""Every captioner by name; a new one is one file and one line here."""

from limner.models.captioner import Captioner
from limner.models.show_attend_tell import ShowAttendTell, ShowAttendTellConfig

MODELS: dict[str, tuple[type, type[Captioner]]] = {
    "show_attend_tell": (ShowAttendTellConfig, ShowAttendTell),
}
ModelConfig = ShowAttendTellConfig


def build_model(config: ModelConfig, vocabulary_size: int, feature_dim: int) -> Captioner:
    """A freshly initialised captioner."""
    return MODELS[config.name][1](config, vocabulary_size, feature_dim)
