"""What a vision-language model is told, and how large the pictures are that it gets."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

PROMPT = "Describe this image in one plain sentence."
CLIP_PROMPT = "These images are frames of one video, in order. Describe the video in one plain sentence."
CONTEXT = "{context}"  # in a prompt: what is known about the picture
KNOWN = "This is known about it: "
MAX_SIDE = 1024  # pixels
CLIP_FRAMES = 4  # of a clip, where a model takes several images
MAX_NEW_TOKENS = 64  # a sentence has 10 to 30 tokens


@dataclass(frozen=True)
class Prompting:
    """What a vision-language model is told about each picture or clip.

    prompt    the request; None: one plain sentence, in the words that the family was trained on
    system    the system message of chat models; "": none
    max_side  pixels of the longer side of a picture; larger ones are scaled down before the model gets them
    context   where words about a picture come from (`context.SOURCES`); "": nowhere
    """

    prompt: str | None = None
    system: str = ""
    max_side: int = MAX_SIDE
    context: str = ""

    def text(self, frames: int, default: str = PROMPT, context: str = "") -> str:
        """The request for a picture (`frames` 1) or for the frames of a clip.

        `context` is what is known about it: it takes the place of `{context}` in the prompt, or follows the prompt.

        >>> Prompting().text(1), Prompting("What is this?").text(4)
        ('Describe this image in one plain sentence.', 'What is this?')
        >>> print(Prompting("Describe it.").text(1, context="Rex at the lake"))
        Describe it.
        This is known about it: Rex at the lake
        """
        text = CLIP_PROMPT if frames > 1 and default == PROMPT else default
        if self.prompt is not None:
            text = self.prompt
        if CONTEXT in text:
            return text.replace(CONTEXT, context)
        return f"{text}\n{KNOWN}{context}" if context else text

    def settings(self) -> dict[str, Any]:
        """What decides about captions, as JSON values: captions of other settings are not mixed with these."""
        return asdict(self)


def scaled_down(frame: UInt8[np.ndarray, "h w 3"], max_side: int) -> UInt8[np.ndarray, "H W 3"]:
    """A frame whose longer side is at most `max_side` pixels; smaller frames stay as they are.

    >>> scaled_down(np.zeros((10, 40, 3), np.uint8), 20).shape
    (5, 20, 3)
    """
    height, width = frame.shape[:2]
    if max(height, width) <= max_side:
        return frame
    factor = max_side / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))
