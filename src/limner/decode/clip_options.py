"""How captioners that were trained on images read clips: the choices, and the search that a consensus needs.

consensus  every sampled frame is captioned with its n best sentences; of all these the one is taken that agrees most
           with the others, by the CIDEr-D that is expected where each has the probability that its frame gives it
mosaic     the sampled frames are one large image, to whose cells the captioner attends together
middle     the middle one of the sampled frames is captioned alone

`limner.runs.clip_search` does it with PyTorch, `limner.inference.onnx` without.  A captioner that was trained on clips
reads all frames together, and nothing else fits its weights.
"""

from dataclasses import replace
from typing import Literal, get_args

from limner.decode.options import Beam, SearchOptions

ClipMethod = Literal["consensus", "mosaic", "middle"]
CLIP_METHODS: tuple[ClipMethod, ...] = get_args(ClipMethod)
CONSENSUS_HYPOTHESES = 8  # sentences per frame; docs/experiments/video-captioning.md has scores with 3, 5, 8 and 16


def clip_method(kind: str, wanted: str | None, model: str) -> ClipMethod:
    """How a model that was trained on `kind` reads clips; `wanted` None is the default.

    That is the consensus of its frames for a captioner of images.  Others read all frames together ("mosaic").
    Raises ValueError for an unknown method, and for another one than "mosaic" with a captioner of clips.
    """
    if wanted is None:
        return "consensus" if kind == "images" else "mosaic"
    if wanted not in CLIP_METHODS:
        raise ValueError(f"clip is {wanted!r}; expected one of {', '.join(CLIP_METHODS)}")
    if kind == "clips" and wanted != "mosaic":
        raise ValueError(
            f"{model} was trained on clips and reads all their frames together: leave out clip {wanted} (--clip), "
            "which is for captioners of images"
        )
    return wanted


def hypotheses_per_frame(options: SearchOptions) -> SearchOptions:
    """The search of every frame for a consensus: the options with a beam that returns all its hypotheses.

    The beam has at least `CONSENSUS_HYPOTHESES`, in the groups that it is made of.  Samples, the one caption of
    `finished_compete`, and searches of plug-ins are taken as they are.

    >>> wide = hypotheses_per_frame(Beam(size=3))
    >>> wide.size, wide.n_best
    (8, 8)
    """
    if not isinstance(options, Beam) or options.finished_compete:
        return options
    size = -(-max(options.size, CONSENSUS_HYPOTHESES) // options.groups) * options.groups
    return replace(options, size=size, n_best=size)
