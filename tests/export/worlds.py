"""Small runs with random weights, and exports of them by the command, as a user would make them."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

from limner.core.tensors import save_tensors
from limner.core.types import Pixels
from limner.data.frames import FrameSampling
from limner.data.media import frames_of
from limner.decode.options import Beam
from limner.decode.rules import Rules
from limner.encoders import Encoder, EncoderConfig, SmallCNNConfig, build_encoder
from limner.export.check import microworld_media
from limner.models import build_model
from limner.models.captioner import CaptionerConfig, FromPixels
from limner.runs.recipe import Recipe
from limner.runs.run import RunInfo, create_run, run_state_dict
from limner.text.vocabulary import Vocabulary

WORDS = "a the dog cat man woman ball runs jumps sits red blue green big small on in with and plays water grass"


def random_run(
    folder: Path, model: CaptionerConfig, encoder: EncoderConfig | None = None, frames: int = 4, seed: int = 0
) -> Path:
    """A run whose next-word distributions are as peaked as trained ones."""
    torch.manual_seed(seed)
    config = encoder or SmallCNNConfig(size=32, width=8, dim=12)
    eyes = build_encoder(config)
    words = Vocabulary.build([WORDS], 1)
    tell_apart(eyes)
    captioner = build_model(model, len(words), eyes.dim)
    with torch.no_grad():
        for name, parameter in captioner.named_parameters():
            if "head" in name:
                parameter.mul_(6)
    recipe = Recipe(encoder=config, model=model, frames=frames, decoding=Beam(3, 0.3, Rules(2, 8)))
    create_run(folder, recipe, words, RunInfo(eyes.dim, eyes.provenance(), encoder_trained=True))
    save_tensors(folder / "model.safetensors", run_state_dict(FromPixels(eyes.eval(), captioner.eval())))
    return folder


@torch.no_grad()
def tell_apart(eyes: Encoder) -> None:
    """A random network sees the same in all pictures: its last layer is changed so that the means over the cells of
    drawn pictures and clips have mean 0 and deviation 2."""
    seen = []
    for medium in microworld_media(images=True, clips=True):
        grid = eyes.eval()(Pixels(eyes.preprocess(frames_of(medium, FrameSampling(4)))[None])).grid
        seen.append(grid.mean(1))
    pooled, out = torch.cat(seen), eyes.out
    assert isinstance(out, (nn.Conv2d, nn.Conv3d)) and out.bias is not None
    factor = 2 / pooled.std(0)
    out.bias.copy_((out.bias - pooled.mean(0)) * factor)
    out.weight.mul_(factor.view(-1, *[1] * (out.weight.dim() - 1)))


def limner(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own: here the checks of every shape would stand between torch.export and the
    models."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "limner", *map(str, arguments)],
        capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done
