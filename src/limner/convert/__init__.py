"""Old checkpoints -> run folders.  `SYSTEMS` is what `limner convert --from` knows."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from limner.convert.ort import convert as from_ort
from limner.convert.recnet import convert as from_recnet
from limner.convert.sa_lstm import convert as from_sa_lstm
from limner.convert.self_critical import convert as from_self_critical
from limner.convert.sftcap import convert as from_sftcap
from limner.convert.show_attend_tell import convert
from limner.convert.spatial import convert as from_spatial
from limner.convert.video_captioning_3d import convert as video_captioning_3d
from limner.convert.xlan import convert as from_xlan

# (checkpoint, word map, run folder to write, transformers encoder or "", channel order) -> what was done, in words
SYSTEMS: dict[str, Callable[[Path, Path, Path, str, Literal["RGB", "BGR"]], str]] = {
    "show-attend-tell": convert,
    "video-captioning-3d": video_captioning_3d,
    "sa-lstm": from_sa_lstm,
    "recnet": from_recnet,
    "spatial": from_spatial,
    "ort": from_ort,
    "self-critical": from_self_critical,
    "xlan": from_xlan,
    "sftcap": from_sftcap,
}

__all__ = ["SYSTEMS"]
