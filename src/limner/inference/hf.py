"""`HuggingFacePipeline`: captions with models of `transformers`: BLIP, GIT (clips too), vision-encoder-decoder.

    HuggingFacePipeline.load("Salesforce/blip-image-captioning-base").caption("photo.jpg").text

A model is a local folder or a hub id.  Code in its repository is never run.  Captions have no attention maps.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from limner.core.torch_free import Caption, Failure, Source
from limner.data.frames import FrameSampling
from limner.data.media import frames_of
from limner.decode.clip_options import hypotheses_per_frame
from limner.decode.options import Beam, Decoding, with_options
from limner.decode.rules import Rules
from limner.encoders.pretrained import processor_side, quiet_transformers, weights_sha256
from limner.inference.batching import caption_in_batches, check_several_sources
from limner.inference.clip_reading import choose_by_consensus, clip_method_of
from limner.inference.generation import generate_arguments, generate_captions
from limner.inference.load import HF_PREFIX
from limner.inference.prompting import Prompting
from limner.inference.transformers_models import (
    ModelRefused,
    dtype_of,
    load_weights,
    model_folder,
    model_type_of,
    named_errors,
)

if TYPE_CHECKING:
    from limner.inference.vision_language import VisionLanguagePipeline


class Architecture(NamedTuple):
    """How models of one `model_type` are loaded and decoded."""

    model: str  # name of the class in `transformers`
    eos_token_id: Callable[[Any], Any] = lambda model: model.generation_config.eos_token_id  # an id, several, or None


ARCHITECTURES: dict[str, Architecture] = {
    "blip": Architecture("BlipForConditionalGeneration", lambda model: model.config.text_config.sep_token_id),
    "git": Architecture("GitForCausalLM"),
    "vision-encoder-decoder": Architecture("VisionEncoderDecoderModel"),
}


class HuggingFacePipeline:
    """Captions images and clips with a model of `transformers`; the same interface as `Pipeline`."""

    def __init__(
        self,
        name: str,
        architecture: Architecture,
        model: Any,
        processor: Any,
        tokenizer: Any,
        device: str = "cpu",
        frames: int | None = None,
        clip: str | None = None,
    ):
        """`frames` and `clip` as in `load`."""
        self.name, self.architecture, self.device = name, architecture, device
        self.model, self.processor, self.tokenizer = model.to(device).eval(), processor, tokenizer
        # frames that a video model reads together; 0 for image models
        self.clip_frames = int(getattr(model.config, "num_image_with_embedding", None) or 0)
        self.clip = clip_method_of(name, self.clip_frames > 0, clip)
        self.frames = self.clip_frames or (frames or FrameSampling().frames if self.clip == "consensus" else 1)
        self.sampling = FrameSampling(self.frames)
        self.vocabulary = None  # it has subword tokens, not words

    @classmethod
    def load(
        cls,
        source: str | PathLike[str],
        device: str = "cpu",
        frames: int | None = None,
        dtype: str = "float32",
        clip: str | None = None,
    ) -> "HuggingFacePipeline":
        """Load a model from a local folder or a hub id, with or without `hf:` before it.

        `dtype` is float32, bfloat16 or float16.  A model of images reads the middle frame of a clip, or with `clip`
        "consensus" `frames` frames one by one.  Raises ValueError when it cannot be fetched, lacks weights, has an
        unknown architecture, or does not read clips in the way that `frames` and `clip` ask for.
        """
        source = fspath(source).removeprefix(HF_PREFIX)
        pipeline = cls(source, *_load(source, dtype_of(dtype, device), device), device, frames, clip)
        if frames not in (None, pipeline.frames):
            reads = f"{pipeline.frames} frames of a clip" if pipeline.clip_frames else "images, and one frame of a clip"
            instead = "" if pipeline.clip_frames else ", or give clip consensus (--clip)"
            raise ValueError(f"{source} reads {reads}, not {frames}: leave out the number of frames{instead}")
        return pipeline

    @property
    def decoding(self) -> Beam:
        """Beam search with the options of the model's generation_config.json."""
        config = self.model.generation_config
        length = config.max_new_tokens or (config.max_length or 21) - 1  # max_length counts the start token too
        rules = Rules(
            min_length=config.min_new_tokens or 0, max_length=length, no_repeat_word=False, allow_unknown=True
        )
        penalty = 1.0 if config.length_penalty is None else config.length_penalty
        return Beam(config.num_beams or 1, penalty, replace(rules, no_repeat_trigram=config.no_repeat_ngram_size == 3))

    def fingerprint(self) -> str:
        """Hex digest of the weights."""
        return weights_sha256(self.model)

    def caption(self, source: Source, decoding: Decoding | None = None, **options: Any) -> Caption:
        """Caption one image or clip, as `Pipeline.caption`; the caption has no attention maps.

        Raises MediaError when the source cannot be read, ValueError for a decoding that `generate` does not have.
        """
        notes: list[str] = []
        search = with_options(decoding or self.decoding, **options)
        return replace(self.decode([self.read(source, notes)], search)[0], notes=tuple(notes))

    def captions(
        self, sources: Iterable[Source], decoding: Decoding | None = None, batch_size: int = 16, **options: Any
    ) -> Iterator[tuple[Source, Caption | Failure]]:
        """Caption many images or clips, as `Pipeline.captions`."""
        check_several_sources(sources)
        search = with_options(decoding or self.decoding, **options)
        generate_arguments(search)  # raises before anything is read
        return caption_in_batches(sources, self.read, lambda pixels: self.decode(pixels, search), batch_size)

    def read(self, source: Source, notes: list[str]) -> tuple[Float[Tensor, "T 3 h w"]]:
        """Read and preprocess a source; T is 1 for an image model."""
        frames = frames_of(source, self.sampling, notes, processor_side(self.processor))
        if self.clip_frames and len(frames) != self.frames:  # an image, or an array with more frames than it reads
            frames = frames[np.arange(self.frames) * len(frames) // self.frames]
        elif self.clip == "middle":
            frames = frames[len(frames) // 2][None]
        images = [np.ascontiguousarray(frame) for frame in frames]
        return (self.processor(images=images, input_data_format="channels_last", return_tensors="pt")["pixel_values"],)

    def decode(self, pixels: Sequence[tuple[Tensor]], decoding: Decoding | None) -> list[Caption]:
        """Caption sources that `read` has returned, together."""
        decoding = decoding or self.decoding
        if self.clip_frames or len(pixels[0][0]) == 1:
            return self._search([frames if self.clip_frames else frames[0] for (frames,) in pixels], decoding)
        wide = hypotheses_per_frame(decoding)
        return [choose_by_consensus(self._search([*frames], wide), decoding) for (frames,) in pixels]

    def _search(self, pixels: Sequence[Tensor], decoding: Decoding) -> list[Caption]:
        """Caption images (3, h, w), or the frames (T, 3, h, w) of clips for a video model."""
        stacked = torch.stack([*pixels]).to(self.device, self.model.dtype)
        eos = self.architecture.eos_token_id(self.model)
        return generate_captions(self.model, {"pixel_values": stacked}, decoding, self.tokenizer, eos)


def _load(source: str, dtype: str, device: str) -> tuple[Architecture, Any, Any, Any]:
    """Load (architecture, model, image processor, tokenizer).  Raises ValueError for a model that cannot be used."""
    import transformers  # imported here: it takes 3 s, and only these captioners need it

    folder = model_folder(source)
    model_type = model_type_of(source, folder)
    if model_type not in ARCHITECTURES:
        raise ModelRefused(f"{source} is a {model_type!r} model; supported here are {', '.join(ARCHITECTURES)}")
    architecture = ARCHITECTURES[model_type]
    with named_errors(source), quiet_transformers():
        # "pil": the processors without torchvision, which may be missing or not fit this PyTorch
        processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil", trust_remote_code=False)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    model = load_weights(source, folder, getattr(transformers, architecture.model), dtype, device)
    return architecture, model, processor, tokenizer


def load_transformers(
    source: str | PathLike[str],
    device: str = "cpu",
    frames: int | None = None,
    dtype: str = "",
    prompting: Prompting = Prompting(),
    clip: str | None = None,
) -> "HuggingFacePipeline | VisionLanguagePipeline":
    """Load a captioner of `transformers` of any family: by `HuggingFacePipeline` or by `VisionLanguagePipeline`.

    Raises ValueError as their `load`, for a model that is no captioner, and for a prompt that it cannot take.
    """
    name = fspath(source).removeprefix(HF_PREFIX)
    model_type = model_type_of(name, model_folder(name))
    if model_type in ARCHITECTURES:
        if prompting.prompt is not None or prompting.system:
            raise ModelRefused(
                f"{name} is a {model_type!r} model, which captions without a request: leave out --prompt and --system"
            )
        return HuggingFacePipeline.load(source, device, frames, dtype or "float32", clip)
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    from limner.inference.vision_language import FAMILIES, VisionLanguagePipeline

    if model_type not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        raise ModelRefused(
            f"{name} is a {model_type!r} model, which writes no text about images; supported captioners are "
            f"{', '.join([*ARCHITECTURES, *FAMILIES])}, and others that transformers lists as image-text-to-text"
        )
    return VisionLanguagePipeline.load(source, device, frames, dtype, prompting, clip)
