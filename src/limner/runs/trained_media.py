"""What a run was trained on: images or clips.  It decides how the run reads clips (`decode.clip_options`)."""

from collections.abc import Sequence
from typing import Literal

from limner.core.types import Features, Medium
from limner.data.media import is_clip
from limner.decode.clip_options import ClipMethod, clip_method
from limner.encoders import ClipFrames, Pretrained, ResNet3D, SmallCNN3D
from limner.runs.inputs import RecipeInputs
from limner.runs.run import Run

Kind = Literal["images", "clips", ""]  # "": it is not known
LOOKED_AT = 16  # training media, evenly over the split: a data set of images may hold a few animations


def kind_of_media(media: Sequence[Medium], inputs: RecipeInputs) -> Kind:
    """What a training split consists of, as a captioner sees it; the content of the files decides.

    Clips of which one frame is read are images.  Of stored features the layout of the first medium decides.
    """
    if not media:
        return ""
    if inputs.uses_stored_features:
        features = inputs.reader([(media[0], "full")])
        return "clips" if isinstance(features, Features) and features.layout.t > 1 else "images"
    looked_at = media[:: max(1, len(media) // LOOKED_AT)]
    clips = sum(is_clip(medium.path) for medium in looked_at)
    return "clips" if inputs.frames > 1 and 2 * clips > len(looked_at) else "images"


def trained_media(run: Run) -> Kind:
    """What a run was trained on.

    An encoder that reads several frames together tells it, or `run.info.media`.
    """
    video_backbone = isinstance(run.encoder, Pretrained) and run.encoder.family.reads_clips
    if video_backbone or isinstance(run.encoder, ResNet3D | SmallCNN3D):
        return "clips"
    if run.info.media in ("images", "clips"):
        return run.info.media  # type: ignore[return-value]
    return "clips" if isinstance(run.encoder, ClipFrames) else ""


def clip_method_of(runs: Sequence[Run], wanted: str | None) -> ClipMethod:
    """How a run, or several as an ensemble, reads clips; see `limner.decode.clip_options.clip_method`.

    An ensemble with a member that was trained on clips reads all frames together.
    """
    kinds = {trained_media(run) for run in runs}
    kind = kinds.pop() if len(kinds) == 1 else "clips" if "clips" in kinds else ""
    return clip_method(kind, wanted, str(runs[0].folder))
