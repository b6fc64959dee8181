"""Which captioner `--model` names: limner's own, a run, a packed model or its hub id, or one of transformers (hf:)."""

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

from limner.apps.arguments import WrongArguments
from limner.data.frames import Sampling
from limner.decode.options import Beam, Decoding
from limner.plain import Caption, Failure, Source
from limner.text.vocabulary import Vocabulary

PREFIX = "hf:"
MODEL = "run folder; packed model or its hub id; hf:ID or folder of transformers (default: limner's own model)"


@runtime_checkable
class Captioner(Protocol):
    """What the commands ask of a captioner; Pipeline is one."""

    frames: int  # of a clip

    @property
    def name(self) -> str: ...

    @property
    def decoding(self) -> Beam: ...

    @property
    def vocabulary(self) -> Vocabulary | None: ...

    @property
    def sampling(self) -> Sampling: ...

    def identity(self) -> str:
        """Hex digest of what it has learnt."""
        ...

    def caption(self, source: Source, decoding: Decoding | None = None) -> Caption: ...

    def captions(
        self, sources: Iterable[Source], decoding: Decoding | None = None, batch_size: int = 16
    ) -> Iterator[tuple[Source, Caption | Failure]]: ...


def open_captioner(options: argparse.Namespace) -> Captioner:
    """The one that --model names, with --encoder, --frames, --device and, where they are given, --with.

    Raises ValueError or FileNotFoundError when there is none by that name.
    """
    if options.engine == "onnx":
        return _exported(options)
    if of_transformers(options.model):
        return _external(options)
    from limner.pipeline import Pipeline

    ensemble = (options.others, options.weights, options.average)
    return Pipeline.load(options.model, options.encoder, options.device, options.frames, *ensemble)


def of_transformers(model: str | None) -> bool:
    """Whether a model is one of transformers: by its prefix, or a folder as `save_pretrained` leaves it."""
    if model is None or model.startswith(PREFIX):
        return model is not None
    folder = Path(model).expanduser()
    return (folder / "config.json").is_file() and not (folder / "run.json").is_file()


def _external(options: argparse.Namespace) -> Captioner:
    from limner.external import External

    given = {"--encoder": options.encoder, "--with": options.others, "--weights": options.weights}
    if idle := [name for name, value in given.items() if value]:
        raise WrongArguments(f"{idle[0]} is about runs of limner, and {options.model} is a model of transformers")
    return External.load(options.model, options.device, options.frames)


def _exported(options: argparse.Namespace) -> Captioner:
    """By the engine that needs no PyTorch: the folder that was exported, or RUN.onnx beside the run."""
    from limner.engine.engine import Engine
    from limner.engine.model import is_exported

    given = {"--encoder": options.encoder, "--with": options.others, "--weights": options.weights}
    if idle := [name for name, value in given.items() if value]:
        raise WrongArguments(f"{idle[0]} is about runs: what is exported is one whole model")
    if options.model is None or options.device != "cpu":
        raise WrongArguments("--engine onnx runs an exported model on the CPU: give --model FOLDER, and no --device")
    beside = f"{options.model.rstrip('/')}.onnx"
    folder = beside if not is_exported(options.model) and is_exported(beside) else options.model
    return Engine.load(folder, options.frames)
