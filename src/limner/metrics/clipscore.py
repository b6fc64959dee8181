"""CLIPScore and RefCLIPScore with any CLIP.  Hessel et al., "CLIPScore", EMNLP 2021.

Published scores are those of openai/clip-vit-base-patch32; another CLIP is another scale.  torchmetrics' `clip_score`
is 100 max(cos, 0) without the prompt: not this number.
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

from limner.core.types import Medium
from limner.data.media import read
from limner.encoders.pretrained import weights_sha256
from limner.metrics.references import Score

PROMPT = "A photo depicts "
WEIGHT = 2.5
BATCH = 32


class ClipScores(NamedTuple):
    """`score` in [0, 2.5], `reference` (RefCLIPScore) in [0, 1.43]; None without references."""

    score: Score
    reference: Score | None


@dataclass(frozen=True)
class Clip:
    """A CLIP with its tokenizer and preprocessing; made by `load_clip`."""

    model: Any
    tokenizer: Any
    processor: Any
    source: str

    def provenance(self) -> dict[str, str]:
        """What must be equal before two scores may be compared."""
        return {"CLIP": Path(self.source).name, "CLIP sha256": weights_sha256(self.model)}

    def texts(self, captions: Sequence[str]) -> Float[Tensor, "N D"]:
        """Unit vectors of prompted captions; what goes beyond CLIP's context (77 tokens) is cut off."""
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
        """RGB [0, 255] frames as the folder's preprocessor_config.json says."""
        images = [np.ascontiguousarray(frame) for frame in frames]
        return self.processor(images=images, input_data_format="channels_last", return_tensors="pt")["pixel_values"]

    def frames(self, pixels: Float[Tensor, "N 3 h w"]) -> Float[Tensor, "N D"]:
        """Unit vectors of preprocessed frames."""
        with torch.no_grad():
            pooled = self.model.vision_model(pixel_values=pixels.to(self.model.device)).pooler_output
            return nn.functional.normalize(self.model.visual_projection(pooled), dim=-1).cpu()


def load_clip(source: str, device: str = "cpu") -> Clip:
    """A CLIP that transformers has saved, from a local folder or by its hub id (transformers' cache, or the network).

    Raises ValueError when it is missing, incomplete, or no CLIP.
    """
    import transformers  # 3 s

    if Path(source).exists() and not (Path(source) / "config.json").is_file():
        raise ValueError(f"{source} has no config.json; give a folder saved by transformers, or a hub id")
    logging: Any = transformers.utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        kind = transformers.AutoConfig.from_pretrained(source).model_type
        if kind != "clip":
            raise ValueError(f"it is a {kind!r} model")
        loaded: Any = transformers.CLIPModel.from_pretrained(source, dtype=torch.float32, output_loading_info=True)
        model, report = loaded
        lost = sorted({*report["missing_keys"], *map(str, report["mismatched_keys"])})
        if lost:
            raise ValueError(f"{len(lost)} of its weights are missing or of another shape, such as {lost[0]}")
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(source)
        words = model.config.text_config.vocab_size
        if len(tokenizer) != words:  # without its files transformers makes an empty one and says nothing
            raise ValueError(f"its tokenizer has {len(tokenizer)} words, its text model {words}")
        # the torchvision twins of this class are never needed, and a broken torchvision must not matter
        processor = transformers.AutoImageProcessor.from_pretrained(source, backend="pil")
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(
            f"{source} cannot be loaded as a CLIP: {str(error).splitlines()[0]}; expected a folder with config.json, "
            "model.safetensors, preprocessor_config.json and tokenizer files, or a hub id that can be reached"
        ) from error
    finally:
        if shown:
            logging.enable_progress_bar()
    return Clip(model.eval().to(device), tokenizer, processor, source)


def clip_score(
    media: Mapping[str, Medium | str],
    captions: Mapping[str, str],
    references: Mapping[str, Sequence[str]] | None,
    clip: Clip,
    frames: int = 8,
    progress: Callable[[int], object] = lambda done: None,
) -> ClipScores:
    """CLIPScore 2.5 max(cos(picture, caption), 0), and RefCLIPScore: per medium the harmonic mean of that and of
    max(0, the largest cos(caption, reference)).

    A clip's CLIPScore is the mean over `frames` sampled frames.  Captions and references are compared with the prompt
    before them.  Segments are in the order of the captions; the corpus value is their mean.  `progress` hears how many
    media are done.  Raises ValueError for ids without medium or reference, MediaError for a medium that cannot be read.
    """
    for what, known in (("medium", media), ("references", references)):
        without = [id for id in captions if known is not None and not known.get(id)]
        if without:
            raise ValueError(f"CLIPScore: {len(without)} captions have no {what}, such as that of {without[0]!r}")
    if not captions:
        raise ValueError("CLIPScore: there are no captions")
    texts = clip.texts(list(captions.values()))
    seen = _seen([media[id] for id in captions], clip, frames, progress)
    cosines = [vectors @ text for vectors, text in zip(seen, texts, strict=True)]
    score = _score([WEIGHT * float(cosine.clamp(min=0).mean()) for cosine in cosines])
    if references is None:
        return ClipScores(score, None)
    counts = [len(references[id]) for id in captions]
    others = clip.texts([text for id in captions for text in references[id]]).split(counts)
    closest = np.array([max(0.0, float((vectors @ text).max())) for vectors, text in zip(others, texts, strict=True)])
    total = score.segments + closest
    harmonic = np.divide(2 * score.segments * closest, total, out=np.zeros_like(total), where=total > 0)
    return ClipScores(score, _score(harmonic))


def _seen(
    media: Sequence[Medium | str], clip: Clip, frames: int, progress: Callable[[int], object]
) -> Iterator[Float[Tensor, "T D"]]:
    """Vectors of each medium's frames, computed for about BATCH frames at a time."""
    waiting: list[Float[Tensor, "T 3 h w"]] = []
    for done, medium in enumerate(media, 1):
        waiting.append(clip.preprocess(read(medium, frames)))
        lengths = [len(pixels) for pixels in waiting]
        if sum(lengths) >= BATCH or done == len(media):
            yield from clip.frames(torch.cat(waiting)).split(lengths)
            waiting = []
            progress(done)


def _score(segments: Sequence[float] | Float[np.ndarray, " I"]) -> Score:
    return Score(float(np.mean(segments)), np.array(segments))
