"""`VisionLanguagePipeline`: captions with vision-language models of `transformers`, all families by one path.

    VisionLanguagePipeline.load("HuggingFaceTB/SmolVLM2-500M-Video-Instruct").caption("photo.jpg").text

A picture (or several frames of a clip) and a request go through the model's processor and chat template; `generate`
writes the caption.  Code in a model's repository is never run.  Captions have no attention maps.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from os import PathLike, fspath
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from limner.core.files import sha256
from limner.core.torch_free import Caption, Failure, Source, WithContext
from limner.data.frames import FrameSampling
from limner.data.media import frames_of
from limner.decode.clip_options import hypotheses_per_frame
from limner.decode.options import Beam, Decoding, with_options
from limner.decode.rules import Rules
from limner.encoders.pretrained import quiet_transformers
from limner.inference.batching import caption_in_batches, check_several_sources
from limner.inference.clip_reading import choose_by_consensus, clip_method_of
from limner.inference.generation import generate_arguments, generate_captions
from limner.inference.load import HF_PREFIX
from limner.inference.processors import load_processor
from limner.inference.prompting import CLIP_FRAMES, MAX_NEW_TOKENS, PROMPT, Prompting, scaled_down
from limner.inference.transformers_models import (
    dtype_of,
    load_weights,
    model_folder,
    model_type_of,
    named_errors,
)


class Family(NamedTuple):
    """What limner needs to know about the models of one `model_type`; all else is in the model's own files."""

    prompt: str = PROMPT  # the request when the user gives none
    several: bool = True  # several images in one request; otherwise a clip is its middle frame
    free: bool = True  # the request is free text, so that it can hold what is known about a picture
    clips: dict[str, Any] = {}  # noqa: RUF012  options of the processor for the frames of a clip
    before: str = ""  # stands before the request of a model without a chat template


# pictures of the Idefics family and of InternVL are cut into tiles of full resolution; frames of a clip are not, as in
# these models' own treatment of videos
FAMILIES: dict[str, Family] = {
    "florence2": Family(
        "<CAPTION>", several=False, free=False
    ),  # a task of Xiao et al. 2024 (arXiv:2311.06242), table 13
    "idefics3": Family(clips={"do_image_splitting": False}),
    "smolvlm": Family(clips={"do_image_splitting": False}),
    "qwen2_5_vl": Family(),
    "qwen3_vl": Family(),
    "paligemma": Family(
        "caption en", several=False, free=False, before="<image>"
    ),  # Beyer et al. 2024 (arXiv:2407.07726)
    "gemma3": Family(),
    "llava_onevision": Family(),
    "internvl": Family(clips={"crop_to_patches": False}),
    "blip-2": Family("", several=False, free=False),  # trained to caption without a request
    # one of the requests for captions of Dai et al. 2023 (arXiv:2305.06500), appendix
    "instructblip": Family("A short image description:", several=False),
}


# the frames of a medium, one for an image, and an array of one text: what is known about it
Asked = tuple[UInt8[np.ndarray, "_ _ _ 3"], np.ndarray]


class VisionLanguagePipeline:
    """Captions images and clips with a vision-language model of `transformers`; the same interface as `Pipeline`."""

    def __init__(
        self,
        name: str,
        model_type: str,
        model: Any,
        processor: Any,
        prompting: Prompting = Prompting(),
        frames: int = 0,
        clip: str | None = None,
    ):
        """`frames` are sampled from a clip (0: 4, 8 for a consensus, 1 for the middle frame); `clip` as in `load`.

        Raises ValueError when the processor cannot make a request of an image and the prompt, or for a way to read
        clips that the model does not have.
        """
        self.name, self.model, self.processor, self.prompting = name, model, processor, prompting
        self.listed = model_type in FAMILIES
        self.family = FAMILIES.get(model_type, Family(several=False))
        self.tokenizer = getattr(processor, "tokenizer", processor)
        if not model.config.is_encoder_decoder:
            self.tokenizer.padding_side = "left"  # what is generated follows the request at once
        self.clip = clip_method_of(name, self.family.several, clip)
        if frames > 1 and self.clip == "middle":
            raise ValueError(
                f"{name} reads images, and one frame of a clip, not {frames}: leave out the number of frames, or give "
                "clip consensus (--clip)"
            )
        self.frames = frames or {"mosaic": CLIP_FRAMES, "consensus": FrameSampling().frames, "middle": 1}[self.clip]
        self.sampling = FrameSampling(self.frames)
        self.vocabulary = None  # it has subword tokens, not words
        self.template = getattr(processor, "chat_template", None) or getattr(self.tokenizer, "chat_template", None)
        if prompting.system and not self.template:
            raise ValueError(f"{name} has no chat template, so it takes no system message: leave out --system")
        if prompting.context:
            self._check_context()
        self._try_prompt()

    @classmethod
    def load(
        cls,
        source: str | PathLike[str],
        device: str = "cpu",
        frames: int | None = None,
        dtype: str = "",
        prompting: Prompting = Prompting(),
        clip: str | None = None,
    ) -> "VisionLanguagePipeline":
        """Load a model from a local folder or a hub id, with or without `hf:` before it.

        A model that takes one image at a time reads the middle frame of a clip, or with `clip` "consensus" `frames`
        frames one by one.
        `dtype` is float32, bfloat16 or float16 (default: float32 on the CPU, bfloat16 elsewhere).
        Raises ValueError when the model cannot be fetched, lacks weights, does not fit into memory, needs code of its
        own, or has a processor or chat template that fails.
        """
        import transformers

        source = fspath(source).removeprefix(HF_PREFIX)
        folder = model_folder(source)
        model_type = model_type_of(source, folder)
        with named_errors(source), quiet_transformers():
            processor = load_processor(folder, model_type)
        dtype = dtype_of(dtype, device)
        model = load_weights(source, folder, transformers.AutoModelForImageTextToText, dtype, device)
        pipeline = cls(source, model_type, model, processor, prompting, frames or 0, clip)
        pipeline._files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
        return pipeline

    _files: Sequence[Any] = ()

    @property
    def decoding(self) -> Beam:
        """Greedy search, or the beam of the model's generation_config.json, of at most 64 tokens."""
        config = self.model.generation_config
        rules = Rules(min_length=0, max_length=MAX_NEW_TOKENS, no_repeat_word=False, allow_unknown=True)
        penalty = 1.0 if config.length_penalty is None else config.length_penalty
        return Beam(config.num_beams or 1, penalty, replace(rules, no_repeat_trigram=config.no_repeat_ngram_size == 3))

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about this model, a line each."""
        if self.listed:
            return ()
        kind = self.model.config.model_type
        return (f"{self.name}: {kind!r} is not among the families that limner is tested with; look at the captions",)

    def settings(self) -> dict[str, Any]:
        """What decides about captions besides weights and decoding."""
        return {**self.prompting.settings(), "dtype": str(self.model.dtype).removeprefix("torch.")}

    def fingerprint(self) -> str:
        """Hex digest of the files of weights."""
        return hashlib.sha256("".join(map(sha256, self._files)).encode()).hexdigest()

    def caption(self, source: Source, decoding: Decoding | None = None, **options: Any) -> Caption:
        """Caption one image or clip, as `Pipeline.caption`; the caption has no attention maps.

        Raises MediaError when the source cannot be read, ValueError for a decoding that `generate` does not have, or
        for an image that the processor refuses.
        """
        notes: list[str] = []
        (caption,) = self.decode([self.read(source, notes)], with_options(decoding or self.decoding, **options))
        return replace(caption, notes=tuple(notes))

    def captions(
        self, sources: Iterable[Source], decoding: Decoding | None = None, batch_size: int = 16, **options: Any
    ) -> Iterator[tuple[Source, Caption | Failure]]:
        """Caption many images or clips, as `Pipeline.captions`; images of different sizes share a batch."""
        check_several_sources(sources)
        search = with_options(decoding or self.decoding, **options)
        generate_arguments(search)  # raises before anything is read
        decode = lambda parts: self._decode(parts, search)  # noqa: E731
        return caption_in_batches(sources, self.read, decode, batch_size, group_by=lambda parts: len(parts[0]) > 1)

    def read(self, source: Source, notes: list[str]) -> Asked:
        """The frames of a source, scaled down: one for an image, at most `self.frames` for a clip; and its context."""
        context = ""
        if isinstance(source, WithContext):
            self._check_context()
            context, source = self._without_tokens(source.text), source.source
        frames = frames_of(source, self.sampling, notes, self.prompting.max_side)
        if self.clip == "middle":
            frames = frames[len(frames) // 2][None]
        elif len(frames) > self.frames:  # an array with more frames than are read
            frames = frames[np.arange(self.frames) * len(frames) // self.frames]
        return np.stack([scaled_down(frame, self.prompting.max_side) for frame in frames]), np.array([context])

    def decode(self, pixels: Sequence[Asked], decoding: Decoding) -> list[Caption]:
        """Caption media that `read` has returned, all images or all clips.  Raises ValueError when the model fails."""
        captions = []
        for result in self._decode(pixels, decoding):
            if not isinstance(result, Caption):
                raise result
            captions.append(result)
        return captions

    def _check_context(self) -> None:
        """Raise ValueError when the request of this family cannot hold what is known about a picture."""
        if not self.family.free:
            raise ValueError(f"{self.name} takes a task, not free text, so no context: leave out --context")

    def _without_tokens(self, text: str) -> str:
        """A text without the special tokens of the model, for example `<image>` and `<|im_end|>`: they are no words."""
        tokens = {*self.tokenizer.all_special_tokens, *self.tokenizer.get_added_vocab()}
        for token in sorted(tokens, key=len, reverse=True):
            text = text.replace(token, " ")
        return " ".join(text.split())

    def _decode(self, parts: Sequence[Asked], decoding: Decoding) -> list[Caption | Exception]:
        """Caption sources, each with its frames and context.

        Where a batch fails, for want of memory or by one of its sources, its halves are tried, down to single sources.
        """
        try:
            if self.clip == "consensus" and len(parts[0][0]) > 1:
                return [self._agreed(frames, context, decoding) for frames, context in parts]
            return [*self._search(parts, decoding)]
        except torch.OutOfMemoryError as error:
            why: Exception = ValueError(
                "it does not fit into memory beside the model: give a smaller --max-side or fewer --frames"
            )
            why.__cause__ = error
        except (ValueError, RuntimeError, TypeError, IndexError) as error:  # for example a processor, for a long strip
            why = ValueError(f"the model fails on it ({str(error).strip().partition(chr(10))[0]:.200})")
            why.__cause__ = error
        if len(parts) == 1:
            return [why]
        half = len(parts) // 2
        return [*self._decode(parts[:half], decoding), *self._decode(parts[half:], decoding)]

    def _search(self, parts: Sequence[Asked], decoding: Decoding) -> list[Caption]:
        return generate_captions(self.model, self._inputs(parts), decoding, self.tokenizer, self._eos())

    def _agreed(self, frames: np.ndarray, context: np.ndarray, decoding: Decoding) -> Caption:
        """The caption of a clip from those of its frames, each asked about by itself."""
        wide = hypotheses_per_frame(decoding)
        return choose_by_consensus(self._search([(frame[None], context) for frame in frames], wide), decoding)

    def _inputs(self, parts: Sequence[Asked]) -> dict[str, Tensor]:
        """The arguments of `generate` for media: frames (one for an image) and a context each."""
        requests = [self._request(len(frames), str(context[0])) for frames, context in parts]
        nested: list[Any] = [[*frames] if self.template else frames[0] for frames, _ in parts]
        start = self.tokenizer.bos_token
        has_start = bool(self.template and start and requests[0].startswith(start))
        options = {
            **(self.family.clips if len(parts[0][0]) > 1 else {}),
            **({"add_special_tokens": False} if has_start else {}),
        }
        inputs = self.processor(
            images=nested,
            text=requests,
            padding=True,
            return_tensors="pt",
            input_data_format="channels_last",
            **options,
        )
        return {
            name: value.to(self.model.device, self.model.dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
            if isinstance(value, Tensor) and name != "labels"
        }

    def _request(self, frames: int, context: str = "") -> str:
        """The text that the processor gets with the frames of one medium."""
        text = self.prompting.text(frames, self.family.prompt, context)
        if not self.template:
            return self.family.before + text
        content = [*({"type": "image"} for _ in range(frames)), {"type": "text", "text": text}]
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if self.prompting.system:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": self.prompting.system}]})
        return self.processor.apply_chat_template(
            messages, chat_template=self.template, add_generation_prompt=True, tokenize=False
        )

    def _try_prompt(self) -> None:
        """Raise ValueError when the chat template or the processor fails for a grey image and the prompt."""
        try:
            self._inputs([(np.full((1, 32, 32, 3), 128, np.uint8), np.array([""]))])
        except Exception as error:  # a template is a program in the model's files: any error can come of it
            what = "chat template or processor" if self.template else "processor"
            prompt = self.prompting.text(1, self.family.prompt)
            raise ValueError(
                f"the {what} of {self.name} fails for an image and the prompt {prompt!r} "
                f"({type(error).__name__}: {str(error).strip().partition(chr(10))[0]:.200})"
            ) from error

    def _eos(self) -> Any:
        """The ids that end a caption: an id, several, or None."""
        ids = self.model.generation_config.eos_token_id
        if ids is None:
            ids = self.model.config.get_text_config(decoder=True).eos_token_id
        return self.tokenizer.eos_token_id if ids is None else ids
