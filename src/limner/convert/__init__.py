"""Conversion of other systems' checkpoints to run folders.  `SYSTEMS` maps the names of `limner convert --from`."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from limner.convert.ort import convert as convert_ort
from limner.convert.recnet import convert as convert_recnet
from limner.convert.sa_lstm import convert as convert_sa_lstm
from limner.convert.self_critical import convert as convert_self_critical
from limner.convert.sftcap import convert as convert_sftcap
from limner.convert.show_attend_tell import convert as convert_show_attend_tell
from limner.convert.spatial import convert as convert_spatial
from limner.convert.video_captioning_3d import convert as convert_video_captioning_3d
from limner.convert.xlan import convert as convert_xlan

# name -> function (checkpoint, word map, run folder to write, encoder or "", channel order) -> summary for the user
SYSTEMS: dict[str, Callable[[Path, Path, Path, str, Literal["RGB", "BGR"]], str]] = {
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

__all__ = ["SYSTEMS"]
