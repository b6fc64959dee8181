"""CLIPScore and RefCLIPScore with any CLIP model.  Hessel et al., "CLIPScore", EMNLP 2021.

Published scores are those of openai/clip-vit-base-patch32; the scores of another CLIP are not comparable.  The
`clip_score` of torchmetrics is another number: 100 max(cos, 0), without the prompt.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError
from torch import Tensor, nn

from limner.core.hub import fetch_transformers_model, is_hub_id
from limner.core.types import Medium
from limner.data.frames import FrameSampling
from limner.data.media import read_medium
from limner.encoders.pretrained import processor_side, weights_sha256
from limner.metrics.references import Score

PROMPT = "A photo depicts "
WEIGHT = 2.5
BATCH = 32


class ClipScores(NamedTuple):
    """CLIPScore in [0, 2.5], and RefCLIPScore in [0, 1.43], which is None without references."""

    clip_score: Score
    ref_clip_score: Score | None


@dataclass(frozen=True)
class ClipModel:
    """A CLIP model with its tokenizer and preprocessing; `load_clip` makes it."""

    model: Any
    tokenizer: Any
    processor: Any
    source: str

    def provenance(self) -> dict[str, str]:
        """The name of the model and the hash of its weights.  Scores with other values are not comparable."""
        return {"CLIP": Path(self.source).name, "CLIP sha256": weights_sha256(self.model)}

    def encode_texts(self, captions: Sequence[str]) -> Float[Tensor, "N D"]:
        """Unit vectors of captions with the prompt.  Tokens beyond CLIP's context (77) are cut off."""
        vectors = []
        for start in range(0, len(captions), BATCH):
            tokens = self.tokenizer(
                [PROMPT + caption for caption in captions[start : start + BATCH]],
                padding=True,
                truncation=True,
                max_length=self.model.config.text_config.max_position_embeddings,
                return_tensors="pt",
            ).to(self.model.device)
            with torch.no_grad():
                vectors.append(self.model.text_projection(self.model.text_model(**tokens).pooler_output))
        return nn.functional.normalize(torch.cat(vectors), dim=-1).cpu()

    def preprocess(self, frames: UInt8[np.ndarray, "T H W 3"]) -> Float[Tensor, "T 3 h w"]:
        """RGB frames in [0, 255], preprocessed as the folder's preprocessor_config.json says."""
        images = [np.ascontiguousarray(frame) for frame in frames]
        return self.processor(images=images, input_data_format="channels_last", return_tensors="pt")["pixel_values"]

    def encode_frames(self, pixels: Float[Tensor, "N 3 h w"]) -> Float[Tensor, "N D"]:
        """Unit vectors of preprocessed frames."""
        with torch.no_grad():
            pooled = self.model.vision_model(pixel_values=pixels.to(self.model.device)).pooler_output
            return nn.functional.normalize(self.model.visual_projection(pooled), dim=-1).cpu()


def load_clip(source: str, device: str = "cpu") -> ClipModel:
    """A CLIP model saved by transformers: a local folder, or a hub id (from transformers' cache or the network).

    Raises ValueError when the model is missing or incomplete, or when it is no CLIP.
    """
    import transformers  # takes 3 s

    if Path(source).exists() and not (Path(source) / "config.json").is_file():
        raise ValueError(f"{source} has no config.json; give a folder saved by transformers, or a hub id")
    logging: Any = transformers.utils.logging
    progress_bar_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        hub = not Path(source).exists() and is_hub_id(source)
        where = str(fetch_transformers_model(source, "a local folder")) if hub else source
        kind = transformers.AutoConfig.from_pretrained(where, trust_remote_code=False).model_type
        if kind != "clip":
            raise ValueError(f"it is a {kind!r} model")
        loaded: Any = transformers.CLIPModel.from_pretrained(where, dtype=torch.float32, output_loading_info=True)
        model, report = loaded
        missing = sorted({*report["missing_keys"], *map(str, report["mismatched_keys"])})
        if missing:
            raise ValueError(f"{len(missing)} of its weights are missing or of another shape, for example {missing[0]}")
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(where, trust_remote_code=False)
        words = model.config.text_config.vocab_size
        if len(tokenizer) != words:  # without the tokenizer's files transformers makes an empty one and says nothing
            raise ValueError(f"its tokenizer has {len(tokenizer)} words, its text model {words}")
        # The PIL processor is chosen because a broken installation of torchvision must not matter
        processor = transformers.AutoImageProcessor.from_pretrained(where, backend="pil", trust_remote_code=False)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(
            f"{source} cannot be loaded as a CLIP: {str(error).splitlines()[0]}; expected a folder with config.json, "
            "model.safetensors, preprocessor_config.json and tokenizer files, or a hub id that can be reached"
        ) from error
    finally:
        if progress_bar_enabled:
            logging.enable_progress_bar()
    return ClipModel(model.eval().to(device), tokenizer, processor, source)


def clip_score(
    media: Mapping[str, Medium | str],
    captions: Mapping[str, str],
    references: Mapping[str, Sequence[str]] | None,
    clip: ClipModel,
    frames: int = 8,
    progress: Callable[[int], object] = lambda done: None,
) -> ClipScores:
    """CLIPScore and RefCLIPScore of one caption per medium.

    CLIPScore is 2.5 max(cos(image, caption), 0).  For a video it is the mean over `frames` sampled frames.
    RefCLIPScore is, per medium, the harmonic mean of CLIPScore and max(0, the largest cos(caption, reference)).
    Captions and references are encoded with the prompt before them.

    media       {id: medium, or its path}; must have all ids of `captions`
    references  {id: list of captions}, or None for CLIPScore alone
    progress    called with the number of media that are done

    Segments are in the order of `captions`; the corpus value is their mean.  Raises ValueError for an id without a
    medium or without references, and MediaError for a medium that cannot be read.
    """
    for what, known in (("medium", media), ("references", references)):
        missing = [id for id in captions if known is not None and not known.get(id)]
        if missing:
            raise ValueError(f"CLIPScore: {len(missing)} captions have no {what}, for example that of {missing[0]!r}")
    if not captions:
        raise ValueError("CLIPScore: there are no captions")
    texts = clip.encode_texts(list(captions.values()))
    frame_vectors = _frame_vectors([media[id] for id in captions], clip, frames, progress)
    cosines = [vectors @ text for vectors, text in zip(frame_vectors, texts, strict=True)]
    score = _score([WEIGHT * float(cosine.clamp(min=0).mean()) for cosine in cosines])
    if references is None:
        return ClipScores(score, None)
    counts = [len(references[id]) for id in captions]
    reference_vectors = clip.encode_texts([text for id in captions for text in references[id]]).split(counts)
    closest = np.array(
        [max(0.0, float((vectors @ text).max())) for vectors, text in zip(reference_vectors, texts, strict=True)]
    )
    total = score.segments + closest
    harmonic = np.divide(2 * score.segments * closest, total, out=np.zeros_like(total), where=total > 0)
    return ClipScores(score, _score(harmonic))


def several_clip_scores(
    media: Mapping[str, Medium | str],
    captions: Mapping[str, Sequence[str]],
    clip: ClipModel,
    frames: int = 8,
    progress: Callable[[int], object] = lambda done: None,
) -> dict[str, list[float]]:
    """CLIPScore, in [0, 2.5], of several captions of each medium, which is read once.

    Arguments as in `clip_score`.  Raises KeyError for an id without a medium, and MediaError for a medium that cannot
    be read.
    """
    vectors = _frame_vectors([media[id] for id in captions], clip, frames, progress)
    return {
        id: [WEIGHT * float((cells @ text).clamp(min=0).mean()) for text in clip.encode_texts(texts)]
        for (id, texts), cells in zip(captions.items(), vectors, strict=True)
    }


def _frame_vectors(
    media: Sequence[Medium | str], clip: ClipModel, frames: int, progress: Callable[[int], object]
) -> Iterator[Float[Tensor, "T D"]]:
    """The unit vectors of each medium's frames, computed for about BATCH frames at a time."""
    waiting: list[Float[Tensor, "T 3 h w"]] = []
    for done, medium in enumerate(media, 1):
        waiting.append(clip.preprocess(read_medium(medium, FrameSampling(frames), side=processor_side(clip.processor))))
        lengths = [len(pixels) for pixels in waiting]
        if sum(lengths) >= BATCH or done == len(media):
            yield from clip.encode_frames(torch.cat(waiting)).split(lengths)
            waiting = []
            progress(done)


def _score(segments: Sequence[float] | Float[np.ndarray, " I"]) -> Score:
    return Score(float(np.mean(segments)), np.array(segments))
