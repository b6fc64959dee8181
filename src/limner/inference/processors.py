"""Processors of vision-language models of `transformers`, built without torchvision.

Image processors are those of the backend "pil".  Several families also have a video processor, which needs torchvision.
limner gives them the frames of a clip as images, so a stand-in takes its place.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

VIDEO_STAND_IN = SimpleNamespace(num_frames=1, fps=1)  # SmolVLM reads these two when it is made


def load_processor(folder: Path, model_type: str) -> Any:
    """Load the processor of a vision-language model: images and text in, arguments of `generate` out.

    The class is the one that `transformers` has for `model_type`, whatever the files of the folder name.  Raises the
    errors of `transformers`; ValueError when it has no processor for this type.
    """
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    name = PROCESSOR_MAPPING_NAMES.get(model_type)
    if not name:
        raise ValueError(f"transformers {transformers.__version__} has no processor for {model_type!r}")
    kind = getattr(transformers, name)
    options: dict[str, Any] = {"trust_remote_code": False}
    if "video_processor" not in kind.get_attributes():
        return transformers.AutoProcessor.from_pretrained(folder, backend="pil", **options)
    parts = {
        "image_processor": lambda: transformers.AutoImageProcessor.from_pretrained(folder, backend="pil", **options),
        "tokenizer": lambda: transformers.AutoTokenizer.from_pretrained(folder, **options),
        "video_processor": lambda: VIDEO_STAND_IN,
    }
    if unknown := [part for part in kind.get_attributes() if part not in parts]:
        raise ValueError(f"its processor needs a part that limner cannot make: {unknown[0]}")
    settings, _ = kind.get_processor_dict(folder)
    with _without_num2words(kind):
        return _any_parts(kind).from_args_and_dict([parts[name]() for name in kind.get_attributes()], settings)


def _any_parts(kind: type) -> Any:
    """A processor class that takes its parts as they are; `transformers` itself accepts only its own classes."""

    class WithParts(kind):
        __repr__ = object.__repr__  # the inherited one writes all parts as JSON

        def check_argument_for_proper_class(self, name: str, argument: Any) -> type:
            return type(argument)

    WithParts.__name__ = kind.__name__
    return WithParts


@contextmanager
def _without_num2words(kind: type) -> Iterator[None]:
    """SmolVLM's processor is not made without num2words, with which it writes the number of frames of a video only."""
    module = import_module(kind.__module__)
    if getattr(module, "num2words", kind) is not None:  # it is there, or this family has no use for it
        yield
        return
    module.num2words = str  # type: ignore[attr-defined]
    try:
        yield
    finally:
        module.num2words = None  # type: ignore[attr-defined]
