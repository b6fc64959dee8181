"""`load`: opens a run, a packed model, an exported folder, a hub id or a model of `transformers`."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike, fspath
from typing import Any, Protocol, runtime_checkable

from limner import shipped
from limner.core.addresses import refuse_address
from limner.core.distributions import missing_part
from limner.core.torch_free import Caption, Failure, Source
from limner.data.frames import FrameSampling
from limner.decode.clip_options import ClipMethod
from limner.decode.options import Beam, Decoding
from limner.inference.onnx.model import is_exported
from limner.inference.prompting import MAX_SIDE, Prompting
from limner.inference.server.address import OPENAI_PREFIX
from limner.text.vocabulary import Vocabulary

__all__ = ["CaptionPipeline", "PromptedPipeline", "is_exported", "is_server", "is_transformers", "load"]

HF_PREFIX = "hf:"


@runtime_checkable
class CaptionPipeline(Protocol):
    """Interface of `Pipeline`, `OnnxPipeline` and `HuggingFacePipeline`: media in, captions out."""

    frames: int  # frames that are sampled from a clip
    clip: ClipMethod  # how clips are read

    @property
    def name(self) -> str:
        """Path or hub id of the model."""
        ...

    @property
    def decoding(self) -> Beam:
        """Beam search that is used when `caption` gets no other decoding."""
        ...

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The model's words; None for models of `transformers`, which have a tokenizer of their own."""
        ...

    @property
    def sampling(self) -> FrameSampling:
        """How frames are taken from a clip."""
        ...

    def fingerprint(self) -> str:
        """Hex digest of the weights."""
        ...

    def caption(self, source: Source, decoding: Decoding | None = None, **options: Any) -> Caption:
        """Caption one image or clip."""
        ...

    def captions(
        self, sources: Iterable[Source], decoding: Decoding | None = None, batch_size: int = 16, **options: Any
    ) -> Iterator[tuple[Source, Caption | Failure]]:
        """Caption many images or clips, in order."""
        ...

    def read(self, source: Source, notes: list[str]) -> tuple[Any, ...]:
        """Read and preprocess one image or clip: one array of shape (frames, ...) per member of the model."""
        ...

    def decode(self, pixels: Sequence[Any], decoding: Decoding) -> Sequence[Caption]:
        """Caption media that `read` has returned, all of one shape."""
        ...


@runtime_checkable
class PromptedPipeline(CaptionPipeline, Protocol):
    """Interface of pipelines that ask a vision-language model, on this machine or behind a server."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about the model, a line each."""
        ...

    def settings(self) -> dict[str, Any]:
        """What decides about captions besides weights and decoding, as JSON values."""
        ...


def load(
    model: str | PathLike[str] | None = None,
    *,
    device: str = "cpu",
    frames: int | None = None,
    encoder: str = "",
    clip: str | None = None,
    dtype: str = "",
    prompt: str | None = None,
    system: str = "",
    max_side: int = MAX_SIDE,
) -> CaptionPipeline:
    """Load a captioner.

    `model` is a run folder, a packed model or its hub id, the name of a model inside limner ("limner-small"), a folder
    of `limner export`, a model of `transformers` (`hf:OWNER/NAME`, or a folder that `save_pretrained` has written), or
    one behind a server (`openai:http://127.0.0.1:8000/v1#NAME`); `http://HOST:PORT` asks a `limner serve` (its token is
    in the variable LIMNER_TOKEN); None is the model that comes with limner.
    `device` is a device name of PyTorch.  `frames` are sampled from a clip (None: as in training).  `encoder` replaces
    the path of a pretrained encoder that has moved.  `clip` is how a captioner of images reads clips: "consensus" (the
    default: the sentence that agrees most with those of all frames), "mosaic" (the frames as one large image) or
    "middle" (the middle frame).
    For vision-language models and servers: `prompt` is the request (None: one plain sentence), `system` the system
    message, `max_side` the pixels to which larger pictures are scaled down; `dtype` is the float type of a model of
    `transformers` ("": float32 on the CPU, bfloat16 elsewhere).
    Raises FileNotFoundError when there is no such model, ValueError when it is damaged, cannot be fetched, the device
    does not exist, or a captioner of clips is asked to read them in another way.

    >>> captioner = load("runs/mine")
    >>> captioner.caption("photo.jpg").text == captioner.caption("photo.jpg", beam=2).text
    True
    """
    if model is not None and is_server(model):
        from limner.inference.server.pipeline import OpenAIPipeline

        return OpenAIPipeline.load(model, frames, Prompting(prompt, system, max_side), clip=clip)
    check_device(device)
    if is_service(model):
        if frames is not None or clip is not None:
            raise ValueError(f"{model} decides itself how clips are read: leave out frames and clip")
        from limner.client import Client

        return Client(fspath(model or ""), os.environ.get("LIMNER_TOKEN", ""))
    refuse_address(fspath(model or "").removeprefix(HF_PREFIX))
    if is_transformers(model):
        from limner.inference.hf import load_transformers

        prompting = Prompting(prompt, system, max_side)
        return load_transformers(fspath(model or ""), device, frames, dtype, prompting, clip)
    if is_exported(shipped.DEFAULT if model is None else model):
        from limner.inference.onnx.pipeline import OnnxPipeline

        return OnnxPipeline.load(shipped.DEFAULT if model is None else model, frames, clip=clip)
    try:
        from limner.inference.pipeline import Pipeline
    except ImportError as error:
        raise ImportError(missing_part(error) or str(error), name=error.name) from error

    return Pipeline.load(model, encoder, device, frames, clip=clip)


def check_device(name: str) -> None:
    """Raise ValueError for a device that PyTorch does not know or that this machine does not have."""
    if name == "cpu":  # always there; checked without PyTorch, which exported models do not need
        return
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # AssertionError: PyTorch was built without CUDA
        raise ValueError(f"the device {name} cannot be used: {str(error).splitlines()[0]}") from error


def is_service(model: str | PathLike[str] | None) -> bool:
    """Whether a model is that of a `limner serve`: an address without a path, which would be that of a file.

    >>> is_service("http://localhost:8000"), is_service("http://localhost:8000/#fast"), is_service("runs/mine")
    (True, True, False)
    >>> is_service("https://example.com/model.limner")
    False
    """
    return isinstance(model, str) and re.fullmatch(r"https?://[^/#?\s]+/?(#.*)?", model, re.IGNORECASE) is not None


def is_server(model: str | PathLike[str]) -> bool:
    """Whether a model is one behind a server: `openai:URL#NAME`."""
    return fspath(model).startswith(OPENAI_PREFIX)


def is_transformers(model: str | PathLike[str] | None) -> bool:
    """Whether a model is one of `transformers`: it begins with `hf:`, or is a folder that `save_pretrained` wrote."""
    if model is None or fspath(model).startswith(HF_PREFIX):
        return model is not None
    folder = shipped.folder_of(model)
    return (folder / "config.json").is_file() and not (folder / "run.json").is_file()
