"""Conversion of other systems' checkpoints to run folders.  `SYSTEMS` maps the names of `limner convert --from`."""

from pathlib import Path
from typing import Literal, Protocol

from limner.convert.ort import convert as convert_ort
from limner.convert.recnet import convert as convert_recnet
from limner.convert.sa_lstm import convert as convert_sa_lstm
from limner.convert.self_critical import convert as convert_self_critical
from limner.convert.settings import NONE_GIVEN, Settings, check_settings
from limner.convert.sftcap import convert as convert_sftcap
from limner.convert.show_attend_tell import convert as convert_show_attend_tell
from limner.convert.spatial import convert as convert_spatial
from limner.convert.video_captioning_3d import convert as convert_video_captioning_3d
from limner.convert.xlan import convert as convert_xlan


class Conversion(Protocol):
    """Converts a checkpoint to a run folder -> a summary for the user."""

    def __call__(
        self,
        checkpoint: Path,
        word_map: Path,
        out: Path,
        encoder: str = "",
        channels: Literal["RGB", "BGR"] = "RGB",
        settings: Settings = NONE_GIVEN,
    ) -> str: ...


SYSTEMS: dict[str, Conversion] = {
    "show-attend-tell": convert_show_attend_tell,
    "video-captioning-3d": convert_video_captioning_3d,
    "sa-lstm": convert_sa_lstm,
    "recnet": convert_recnet,
    "spatial": convert_spatial,
    "ort": convert_ort,
    "self-critical": convert_self_critical,
    "xlan": convert_xlan,
    "sftcap": convert_sftcap,
}

__all__ = ["SYSTEMS", "Settings", "check_settings"]
