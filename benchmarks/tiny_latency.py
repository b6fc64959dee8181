"""From a JPEG in memory to the sentence: limner-tiny against Show, Attend and Tell on ResNet-101, beam 3, one thread.

    OMP_NUM_THREADS=1 python benchmarks/tiny_latency.py --rounds 5 [--model RUN]

The rival is the usual pipeline of that paper's reimplementations: 256 x 256 pixels, ResNet-101, 14 x 14 cells, an LSTM
of 512 with attention, here in limner's own fast decoding and with limner-tiny's words, which favours it.  Its weights
are random, which costs the same; so that both work equally long, both say sentences of ten or eleven words.
"""

import argparse
import io
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from PIL import Image

from limner.apps.demo import copy_photographs
from limner.encoders import build_encoder
from limner.encoders.resnet import ResNetConfig
from limner.inference.pipeline import Pipeline
from limner.models import build_model
from limner.models.show_attend_tell import ShowAttendTellConfig
from limner.runs.run import Run
from paired import report, take_turns

BAR, BEAM, WORDS = 8.0, 3, 10


def rival(words: Run) -> Pipeline:
    encoder = build_encoder(ResNetConfig())
    recipe = replace(words.recipe, encoder=encoder.config, model=ShowAttendTellConfig())
    model = build_model(recipe.model, len(words.vocabulary), encoder.dim)
    return Pipeline(replace(words, folder=Path("resnet101"), recipe=recipe, model=model, encoder=encoder))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", help="run or packed model (default: the one that is shipped)")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tiny = Pipeline.load(options.model)
    big = rival(tiny.run)
    pictures = []
    with tempfile.TemporaryDirectory() as folder:
        for path in copy_photographs(Path(folder)):
            buffer = io.BytesIO()
            Image.open(path).convert("RGB").resize((500, 375)).save(buffer, "JPEG", quality=90)  # as large as Flickr's
            pictures.append(buffer.getvalue())
    rules = replace(tiny.decoding.rules, min_length=WORDS, max_length=WORDS + 1)
    decoding = replace(tiny.decoding, size=BEAM, rules=rules)

    def caption(pipeline: Pipeline) -> list[str]:
        return [pipeline.caption(picture, decoding).text for picture in pictures]

    for pipeline in (tiny, big):  # warm, and equally long
        lengths = {len(text.split()) for text in caption(pipeline)}
        assert lengths <= {WORDS, WORDS + 1}, f"both say as many words, not {lengths}"
    both = {"limner-tiny": lambda: caption(tiny), "ResNet-101 + Show, Attend and Tell": lambda: caption(big)}
    seconds = take_turns(both, options.rounds)
    for name, times in seconds.items():
        print(f"{name}: {min(times) / len(pictures) * 1e3:.1f} ms a picture (fastest round)")
    report(seconds, dict.fromkeys(both, BAR))
    wall = []
    for picture in pictures * 3:
        begin = time.perf_counter()
        tiny.caption(picture, replace(tiny.decoding, size=BEAM))
        wall.append(time.perf_counter() - begin)
    print(f"limner-tiny as it is used, beam {BEAM}: {median(wall) * 1e3:.1f} ms a picture (median wall time)")


if __name__ == "__main__":
    main()
