"""`HuggingFacePipeline`: captions with models of `transformers`: BLIP, GIT (clips too), vision-encoder-decoder.

    HuggingFacePipeline.load("Salesforce/blip-image-captioning-base").caption("photo.jpg").text

A model is a local folder or a hub id.  Code in its repository is never run.  Captions have no attention maps.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from math import log
from os import PathLike, fspath
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from limner.core.hub import fetch_transformers_model
from limner.core.torch_free import Caption, Failure, Source
from limner.data.frames import FrameSampling
from limner.data.media import frames_of
from limner.decode.clip_options import ClipMethod, clip_method, hypotheses_per_frame
from limner.decode.options import Beam, Decoding, Sample, with_options
from limner.decode.rules import Rules
from limner.encoders.pretrained import processor_side, quiet_transformers, weights_sha256
from limner.inference.batching import caption_in_batches, check_several_sources
from limner.inference.load import HF_PREFIX
from limner.metrics.consensus import consensus

NO_ATTENTION = np.zeros((0, 1, 1, 1), np.float32)


class Architecture(NamedTuple):
    """How models of one `model_type` are loaded and decoded."""

    model: str  # name of the class in `transformers`
    decoder: Callable[[Any], Any] = lambda model: model  # model -> the part with `compute_transition_scores`
    eos_token_id: Callable[[Any], Any] = lambda model: model.generation_config.eos_token_id  # an id, several, or None


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
        self.clip = _clip_method(name, self.clip_frames, clip)
        self.frames = self.clip_frames or (frames or FrameSampling().frames if self.clip == "consensus" else 1)
        self.sampling = FrameSampling(self.frames)
        self.vocabulary = None  # it has subword tokens, not words

    @classmethod
    def load(
        cls, source: str | PathLike[str], device: str = "cpu", frames: int | None = None, clip: str | None = None
    ) -> "HuggingFacePipeline":
        """Load a model from a local folder or a hub id, with or without `hf:` before it.

        A model of images reads the middle frame of a clip, or with `clip` "consensus" `frames` frames one by one.
        Raises ValueError when it cannot be fetched, lacks weights, has an unknown architecture, or does not read
        clips in the way that `frames` and `clip` ask for.
        """
        source = fspath(source).removeprefix(HF_PREFIX)
        pipeline = cls(source, *_load(source), device, frames, clip)
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

    @torch.no_grad()
    def _search(self, pixels: Sequence[Tensor], decoding: Decoding) -> list[Caption]:
        """Caption images (3, h, w), or the frames (T, 3, h, w) of clips for a video model."""
        stacked = torch.stack([*pixels]).to(self.device)
        greedy = isinstance(decoding, Beam) and decoding.size == 1  # scores of greedy search are changed by the rules
        outputs = {"output_logits": greedy, "output_scores": not greedy, "return_dict_in_generate": True}
        with quiet_transformers():
            output = self.model.generate(pixel_values=stacked, **generate_arguments(decoding), **outputs)
        captions = [
            self._caption(ids, logprobs)
            for ids, logprobs in zip(output.sequences[:, 1:], self._token_logprobs(output, decoding), strict=True)
        ]
        groups = [captions[i : i + decoding.n_best] for i in range(0, len(captions), decoding.n_best)]
        return [replace(best, others=tuple(more)) for best, *more in groups]

    def _token_logprobs(self, output: Any, decoding: Decoding) -> Float[Tensor, "R L"]:
        """Return the natural log-probability of each token; for samples, under the distribution that is sampled."""
        decoder, beams = self.architecture.decoder(self.model), getattr(output, "beam_indices", None)
        if beams is not None:
            return decoder.compute_transition_scores(output.sequences, output.scores, beams)
        scores = output.scores if isinstance(decoding, Sample) else output.logits
        assert scores is not None
        return decoder.compute_transition_scores(output.sequences, scores, normalize_logits=True)

    def _caption(self, ids: Int[Tensor, " L"], logprobs: Float[Tensor, " L"]) -> Caption:
        """Convert token ids and their log-probabilities into a caption."""
        eos = self.architecture.eos_token_id(self.model)
        is_eos = torch.isin(ids, torch.tensor([] if eos is None else eos, dtype=ids.dtype, device=ids.device))
        finished = bool(is_eos.any())
        length = int(is_eos.int().argmax()) + 1 if finished else len(ids)  # the end token included
        text = " ".join(self.tokenizer.decode(ids[:length], skip_special_tokens=True).split())
        return Caption(text, float(logprobs[:length].sum()), (), NO_ATTENTION, finished)


def _clip_method(name: str, clip_frames: int, wanted: str | None) -> ClipMethod:
    """How a model reads clips: all frames together for a video model, the middle frame or a consensus for another."""
    if clip_frames:
        return clip_method("clips", wanted, name)
    if wanted == "mosaic":
        raise ValueError(f"{name} reads one image of a fixed size, and no mosaic of frames: give consensus or middle")
    return "middle" if wanted is None else clip_method("images", wanted, name)


def choose_by_consensus(frames: Sequence[Caption], decoding: Decoding) -> Caption:
    """The caption of a clip from those of its frames, each with `others`: what agrees most with all of them.

    Words are what blanks separate.  The log-probability is that which the caption has in its own frame, less the
    logarithm of the number of frames, because the model was not asked about it in the others.
    """
    captions = [each for frame in frames for each in (replace(frame, others=()), *frame.others)]
    ids: dict[str, int] = {}
    words = [[ids.setdefault(word, len(ids)) for word in each.text.split()] for each in captions]
    equal = isinstance(decoding, Sample)  # a sample counts once
    logprobs = np.array([0.0 if equal else each.logprob for each in captions])
    best, *others = (
        replace(captions[place], logprob=captions[place].logprob - log(len(frames)))
        for place in consensus(words, logprobs, decoding.n_best)
    )
    return replace(best, others=tuple(others))


def generate_arguments(decoding: Decoding) -> dict[str, Any]:
    """Return the arguments of `generate` for a decoding.  Raises ValueError for options that it does not have."""
    rules = decoding.rules
    refused = {
        "words that must not appear (--never)": rules.never,
        "rules about the last word (--decoding.rules.bad_endings)": rules.bad_endings,
        "a word that may not follow itself (--decoding.rules.no_repeat_word)": rules.no_repeat_word,
    }
    options: dict[str, Any] = {"max_new_tokens": rules.max_length, "num_return_sequences": decoding.n_best}
    options |= {"min_new_tokens": rules.min_length} if rules.min_length else {}
    options |= {"no_repeat_ngram_size": 3} if rules.no_repeat_trigram else {}
    if isinstance(decoding, Beam):
        refused |= {
            "words that must appear (--must)": decoding.must,
            "diverse beams (--decoding.groups)": decoding.groups > 1,
            "ended captions that compete with unfinished ones (--decoding.finished_compete)": decoding.finished_compete,
            "hypotheses that stay until they end (--decoding.drop_hopeless)": not decoding.drop_hopeless,
            "a predicted first token (--decoding.predict_start)": decoding.predict_start,
            "--decoding.normalise wu": decoding.normalise == "wu",
        }
        penalty = 1.0 if decoding.normalise == "avg" else decoding.length_penalty
        options |= {"do_sample": False, "num_beams": decoding.size, "length_penalty": penalty}
    elif isinstance(decoding, Sample):
        options |= {"do_sample": True, "num_beams": 1, "temperature": decoding.temperature}
        options |= {"top_k": decoding.top_k or 0, "top_p": 1.0 if decoding.top_p is None else decoding.top_p}
    else:
        raise ValueError(f"a model of transformers has no search {decoding.name!r}: use beam search or sampling")
    if requested := [name for name, value in refused.items() if value]:
        raise ValueError(
            f"{requested[0]}: a model of transformers generates subword tokens, by a search of its own that has no "
            "such option; leave it out"
        )
    return options


def _transformers() -> Any:
    import transformers  # imported here: it takes 3 s, and only these captioners need it

    return transformers


def _load(source: str) -> tuple[Architecture, Any, Any, Any]:
    """Load (architecture, model, image processor, tokenizer).  Raises ValueError for a model that cannot be used."""
    folder = _folder(source)
    transformers = _transformers()
    try:
        with quiet_transformers():
            name = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False).model_type
            if name not in ARCHITECTURES:
                raise _UnsupportedArchitecture(
                    f"{source} is a {name!r} model; supported captioners are {', '.join(ARCHITECTURES)}"
                )
            architecture = ARCHITECTURES[name]
            # "pil": the processors without torchvision, which may be missing or not fit this PyTorch
            processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil", trust_remote_code=False)
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            model, report = getattr(transformers, architecture.model).from_pretrained(
                folder, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
            )
    except _UnsupportedArchitecture:
        raise
    except Exception as error:  # damaged files raise errors of many classes
        why = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]:.150}"
        raise ValueError(
            f"{source} cannot be loaded ({why}); the folder needs config.json, preprocessor_config.json, a tokenizer "
            "and model.safetensors, undamaged"
        ) from error
    if report["missing_keys"] or report["mismatched_keys"]:
        missing = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
        raise ValueError(
            f"{source} lacks {len(missing)} weights of {architecture.model}, for example {missing[0]}: take a model "
            "with all its weights"
        )
    return architecture, model, processor, tokenizer


def _folder(source: str) -> Path:
    """Return a local folder, or the folder of a hub id in the hub's cache."""
    local = Path(source).expanduser()
    if local.is_dir():
        return local
    instead = f"a local folder, such as {HF_PREFIX}models/{local.name}, as save_pretrained writes it"
    return fetch_transformers_model(source, instead)


class _UnsupportedArchitecture(ValueError):
    """Raised for a model with an architecture that is not in ARCHITECTURES."""
