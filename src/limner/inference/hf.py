"""Captioners of `transformers` in use: BLIP, GIT (clips too) and vision-encoder-decoder; files in, captions out.

    HuggingFacePipeline.load("Salesforce/blip-image-captioning-base").caption("photo.jpg").text

A local folder or a hub id; code that lies beside the weights is never run.  They tell nothing of where they looked, so
that captions have no attention maps.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from limner.core.torch_free import Caption, Failure, Source
from limner.data.frames import FrameSampling
from limner.data.media import frames_of
from limner.decode.options import Beam, Decoding, Sample, with_options
from limner.decode.rules import Rules
from limner.encoders.pretrained import _quiet, weights_sha256
from limner.inference.batching import caption_in_batches, check_several_sources
from limner.runs.package import fetch_from_hub

PREFIX = "hf:"
NO_ATTENTION = np.zeros((0, 1, 1, 1), np.float32)


class Architecture(NamedTuple):
    """How one architecture is loaded, and which of its parts speaks."""

    model: str  # class name
    speaker: Callable[[Any], Any] = lambda model: model
    ends: Callable[[Any], Any] = lambda model: model.generation_config.eos_token_id


ARCHITECTURES: dict[str, Architecture] = {
    "blip": Architecture(
        "BlipForConditionalGeneration",
        lambda model: model.text_decoder,
        lambda model: model.config.text_config.sep_token_id,
    ),
    "git": Architecture("GitForCausalLM"),
    "vision-encoder-decoder": Architecture("VisionEncoderDecoderModel"),
}


class HuggingFacePipeline:
    """A captioner of `transformers`, used as a Pipeline is."""

    def __init__(self, name: str, kind: Architecture, model: Any, processor: Any, tokenizer: Any, device: str = "cpu"):
        self.name, self.kind, self.device = name, kind, device
        self.model, self.processor, self.tokenizer = model.to(device).eval(), processor, tokenizer
        self.clip = int(getattr(model.config, "num_image_with_embedding", None) or 0)  # frames it reads together
        self.frames = self.clip or 1  # of a clip; others see the one in its middle
        self.sampling = FrameSampling(self.frames)
        self.vocabulary = None  # pieces of its own tokenizer

    @classmethod
    def load(cls, source: str | PathLike[str], device: str = "cpu", frames: int | None = None) -> "HuggingFacePipeline":
        """`source` is a local folder or a hub id, `hf:` before it or not.

        Raises ValueError when it cannot be had, lacks weights, is of another kind, or does not read so many `frames`.
        """
        source = fspath(source).removeprefix(PREFIX)
        found = cls(source, *_load(source), device)
        if frames not in (None, found.frames):
            reads = f"{found.frames} frames of a clip" if found.clip else "pictures, and of a clip one frame"
            raise ValueError(f"{source} reads {reads}, never {frames}: leave out the number of frames")
        return found

    @property
    def decoding(self) -> Beam:
        """How its own generation_config.json lets it search."""
        own = self.model.generation_config
        length = own.max_new_tokens or (own.max_length or 21) - 1  # max_length counts what the caption begins with
        rules = Rules(min_length=own.min_new_tokens or 0, max_length=length, no_repeat_word=False, allow_unknown=True)
        penalty = 1.0 if own.length_penalty is None else own.length_penalty
        return Beam(own.num_beams or 1, penalty, replace(rules, no_repeat_trigram=own.no_repeat_ngram_size == 3))

    def fingerprint(self) -> str:
        """Hex digest of what it has learnt."""
        return weights_sha256(self.model)

    def caption(self, source: Source, decoding: Decoding | None = None, **options: Any) -> Caption:
        """As `Pipeline.caption`; the caption has no attention maps.

        Raises MediaError when the source cannot be read, ValueError for a decoding that such a model cannot do.
        """
        notes: list[str] = []
        search = with_options(decoding or self.decoding, **options)
        return replace(self._decode([self._pixels(source, notes)], search)[0], notes=tuple(notes))

    def captions(
        self, sources: Iterable[Source], decoding: Decoding | None = None, batch_size: int = 16, **options: Any
    ) -> Iterator[tuple[Source, Caption | Failure]]:
        """As `Pipeline.captions`."""
        check_several_sources(sources)
        search = with_options(decoding or self.decoding, **options)
        generate_arguments(search)  # raises before anything is read
        return caption_in_batches(sources, self._pixels, lambda pixels: self._decode(pixels, search), batch_size)

    def _pixels(self, source: Source, notes: list[str]) -> tuple[Float[Tensor, "T 3 h w"]]:
        frames = frames_of(source, self.sampling, notes)
        if len(frames) != self.frames:  # a picture for a model of clips, or more frames than are read
            frames = (
                frames[np.arange(self.frames) * len(frames) // self.frames]
                if self.clip
                else frames[len(frames) // 2][None]
            )
        images = [np.ascontiguousarray(frame) for frame in frames]
        return (self.processor(images=images, input_data_format="channels_last", return_tensors="pt")["pixel_values"],)

    @torch.no_grad()
    def _decode(self, pixels: Sequence[tuple[Tensor]], decoding: Decoding | None) -> list[Caption]:
        decoding = decoding or self.decoding
        stacked = torch.stack([frames if self.clip else frames[0] for (frames,) in pixels]).to(self.device)
        greedy = isinstance(decoding, Beam) and decoding.size == 1  # whose scores are not those of the model alone
        ask = {"output_logits": greedy, "output_scores": not greedy, "return_dict_in_generate": True}
        with _quiet(_transformers()):
            made = self.model.generate(pixel_values=stacked, **generate_arguments(decoding), **ask)
        found = [
            self._caption(ids, ways)
            for ids, ways in zip(made.sequences[:, 1:], self._token_logprobs(made, decoding), strict=True)
        ]
        groups = [found[i : i + decoding.n_best] for i in range(0, len(found), decoding.n_best)]
        return [replace(best, others=tuple(more)) for best, *more in groups]

    def _token_logprobs(self, made: Any, decoding: Decoding) -> Float[Tensor, "R L"]:
        """Natural log-probability of each token: the model's own, or when drawing that of what it was drawn from."""
        speaker, beams = self.kind.speaker(self.model), getattr(made, "beam_indices", None)
        if beams is not None:
            return speaker.compute_transition_scores(made.sequences, made.scores, beams)
        scores = made.scores if isinstance(decoding, Sample) else made.logits
        assert scores is not None
        return speaker.compute_transition_scores(made.sequences, scores, normalize_logits=True)

    def _caption(self, ids: Tensor, ways: Tensor) -> Caption:
        ends = self.kind.ends(self.model)  # an id, several, or none
        end = torch.isin(ids, torch.tensor([] if ends is None else ends, dtype=ids.dtype, device=ids.device))
        finished = bool(end.any())
        length = int(end.int().argmax()) + 1 if finished else len(ids)  # the end included
        text = " ".join(self.tokenizer.decode(ids[:length], skip_special_tokens=True).split())
        return Caption(text, float(ways[:length].sum()), (), NO_ATTENTION, finished)


def generate_arguments(decoding: Decoding) -> dict[str, Any]:
    """Options of a decoding as `generate` takes them.  Raises ValueError for those that it cannot do."""
    rules = decoding.rules
    refused = {
        "words that must not appear (--never)": rules.never,
        "rules about the last word (--no-bad-endings)": rules.bad_endings,
        "a word that may not follow itself": rules.no_repeat_word,
    }
    options: dict[str, Any] = {"max_new_tokens": rules.max_length, "num_return_sequences": decoding.n_best}
    options |= {"min_new_tokens": rules.min_length} if rules.min_length else {}
    options |= {"no_repeat_ngram_size": 3} if rules.no_repeat_trigram else {}
    if isinstance(decoding, Beam):
        refused |= {
            "words that must appear (--must)": decoding.must,
            "diverse beams (--groups)": decoding.groups > 1,
            "a finished_compete of ended and unfinished captions": decoding.finished_compete,
            "--normalise wu": decoding.normalise == "wu",
        }
        penalty = 1.0 if decoding.normalise == "avg" else decoding.length_penalty
        options |= {"do_sample": False, "num_beams": decoding.size, "length_penalty": penalty}
    elif isinstance(decoding, Sample):
        options |= {"do_sample": True, "num_beams": 1, "temperature": decoding.temperature}
        options |= {"top_k": decoding.top_k or 0, "top_p": 1.0 if decoding.top_p is None else decoding.top_p}
    else:
        raise ValueError(f"a model of transformers has no search {decoding.name!r}: give a beam, or draw samples")
    if asked := [name for name, value in refused.items() if value]:
        raise ValueError(
            f"{asked[0]}: a model of transformers speaks in pieces of words, by a search of its own that has no such "
            "option; leave it out"
        )
    return options


def _transformers() -> Any:
    import transformers  # 3 s, and only these captioners need it

    return transformers


def _load(source: str) -> tuple[Architecture, Any, Any, Any]:
    folder = _folder(source)
    transformers = _transformers()
    try:
        with _quiet(transformers):
            name = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False).model_type
            if name not in ARCHITECTURES:
                raise _UnsupportedArchitecture(
                    f"{source} is a {name!r} model; captioners that are known are {', '.join(ARCHITECTURES)}"
                )
            kind = ARCHITECTURES[name]
            # the torchvision twins of these classes are never needed, and a broken torchvision must not matter
            processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil", trust_remote_code=False)
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            model, report = getattr(transformers, kind.model).from_pretrained(
                folder, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
            )
    except _UnsupportedArchitecture:
        raise
    except Exception as error:  # whatever damaged files make of it
        why = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]:.150}"
        raise ValueError(
            f"{source} cannot be loaded ({why}); the folder needs config.json, preprocessor_config.json, a tokenizer "
            "and model.safetensors, undamaged"
        ) from error
    if report["missing_keys"] or report["mismatched_keys"]:
        lacking = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
        raise ValueError(f"{source} lacks weights of {kind.model} ({len(lacking)}, such as {lacking[0]})")
    return kind, model, processor, tokenizer


def _folder(source: str) -> Path:
    """A local folder, or that of the hub's cache."""
    local = Path(source).expanduser()
    if local.is_dir():
        return local
    instead = f"a local folder, such as {PREFIX}models/{local.name}, as save_pretrained writes it"
    found = fetch_from_hub(source, (".json", ".txt", ".model", ".safetensors"), instead)
    if not any(found.glob("*.safetensors")):  # older repositories; tensors are all that is read of it
        found = fetch_from_hub(source, (".json", ".txt", ".model", "pytorch_model.bin"), instead)
    return found


class _UnsupportedArchitecture(ValueError):
    """A model of a kind that is not supported."""
