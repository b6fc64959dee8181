"""`load()`: one call for a run, a packed model, an exported folder, a hub id or a model of `transformers`."""

from collections.abc import Iterable, Iterator
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from limner.core.torch_free import Caption, Failure, Source
from limner.data.frames import FrameSampling
from limner.decode.options import Beam, Decoding
from limner.inference.onnx.model import is_exported
from limner.text.vocabulary import Vocabulary

__all__ = ["CaptionPipeline", "is_exported", "is_transformers", "load"]

PREFIX = "hf:"


@runtime_checkable
class CaptionPipeline(Protocol):
    """Media in, captions out: what `Pipeline`, `OnnxPipeline` and `HuggingFacePipeline` have in common."""

    frames: int  # how many are sampled from a clip

    @property
    def name(self) -> str: ...

    @property
    def decoding(self) -> Beam: ...

    @property
    def vocabulary(self) -> Vocabulary | None: ...

    @property
    def sampling(self) -> FrameSampling: ...

    def fingerprint(self) -> str:
        """Hex digest of the weights."""
        ...

    def caption(self, source: Source, decoding: Decoding | None = None, **options: Any) -> Caption: ...

    def captions(
        self, sources: Iterable[Source], decoding: Decoding | None = None, batch_size: int = 16, **options: Any
    ) -> Iterator[tuple[Source, Caption | Failure]]: ...


def load(
    model: str | PathLike[str] | None = None, *, device: str = "cpu", frames: int | None = None, encoder: str = ""
) -> CaptionPipeline:
    """Load a captioner.

    `model` is a run folder, a packed model or its hub id, a folder of `limner export`, or a model of `transformers`
    (`hf:OWNER/NAME`, or a folder as `save_pretrained` writes it); None is the model that comes with limner.  `frames`
    are sampled from a clip (None: as in training).  `encoder` replaces the path of a pretrained encoder that has moved.
    Raises ValueError or FileNotFoundError when there is no such model, or it cannot be read.

    >>> captioner = load("runs/mine")
    >>> captioner.caption("photo.jpg").text == captioner.caption("photo.jpg", beam=2).text
    True
    """
    check_device(device)
    if is_transformers(model):
        from limner.inference.hf import HuggingFacePipeline

        return HuggingFacePipeline.load(fspath(model or ""), device, frames)
    if model is not None and is_exported(model):
        from limner.inference.onnx.pipeline import OnnxPipeline

        return OnnxPipeline.load(model, frames)
    from limner.inference.pipeline import Pipeline

    return Pipeline.load(model, encoder, device, frames)


def check_device(name: str) -> None:
    """Raises ValueError for a device that torch does not know or that this machine does not have."""
    if name == "cpu":  # every machine has one, and exported models need no torch
        return
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # the latter from a torch that was built without CUDA
        raise ValueError(f"the device {name} cannot be used: {str(error).splitlines()[0]}") from error


def is_transformers(model: str | PathLike[str] | None) -> bool:
    """Whether a model is one of `transformers`: by its prefix, or a folder as `save_pretrained` writes it."""
    if model is None or fspath(model).startswith(PREFIX):
        return model is not None
    folder = Path(model).expanduser()
    return (folder / "config.json").is_file() and not (folder / "run.json").is_file()
