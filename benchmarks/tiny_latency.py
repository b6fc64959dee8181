"""From a JPEG in memory to the sentence: a small model against Show, Attend and Tell on ResNet-101, beam 3, one thread.

    OMP_NUM_THREADS=1 python benchmarks/tiny_latency.py --rounds 5 [--model RUN] [--exported FOLDER]

The model is limner-small, or RUN.  The rival is the usual pipeline of that paper's reimplementations: 256 x 256 pixels,
ResNet-101 as its layers are trained, 14 x 14 cells, an LSTM of 512 with attention, here in limner's own fast decoding
and with the small model's words, which favours it.  Its weights are random, which costs the same; so that both work
equally long, both say sentences of ten or eleven words.  With --exported, the model as `limner export` has written it
is timed too; its captions must be those of PyTorch.
"""

import argparse
import io
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import torch
from PIL import Image

from limits import counted
from limner.apps.demo import copy_photographs
from limner.encoders import build_encoder
from limner.encoders.resnet import ResNetConfig
from limner.inference.onnx.pipeline import OnnxPipeline
from limner.inference.pipeline import Pipeline
from limner.models import build_model
from limner.models.show_attend_tell import ShowAttendTellConfig
from limner.runs.run import Run
from paired import report, take_turns

BAR, BAR_EXPORTED, BEAM, WORDS = 6.0, 12.0, 3, 10
RIVAL = "ResNet-101 + Show, Attend and Tell"


def rival(words: Run) -> Pipeline:
    encoder = build_encoder(ResNetConfig())
    recipe = replace(words.recipe, encoder=encoder.config, model=ShowAttendTellConfig())
    model = build_model(recipe.model, len(words.vocabulary), encoder.dim)
    return Pipeline(replace(words, folder=Path("resnet101"), recipe=recipe, model=model, encoder=encoder))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", help="run or packed model (default: the one that is shipped)")
    parser.add_argument("--exported", help="the same model as `limner export` has written it")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    small = Pipeline.load(options.model)
    name = options.model or "limner-small"
    pipelines = {name: small, RIVAL: rival(small.run)}
    pictures = []
    with tempfile.TemporaryDirectory() as folder:
        for path in copy_photographs(Path(folder)):
            buffer = io.BytesIO()
            Image.open(path).convert("RGB").resize((500, 375)).save(buffer, "JPEG", quality=90)  # as large as Flickr's
            pictures.append(buffer.getvalue())
    rules = replace(small.decoding.rules, min_length=WORDS, max_length=WORDS + 1)
    decoding = replace(small.decoding, size=BEAM, rules=rules)

    def caption(pipeline: Pipeline | OnnxPipeline) -> list[str]:
        return [pipeline.caption(picture, decoding).text for picture in pictures]

    for pipeline in pipelines.values():  # warm, and equally long
        lengths = {len(text.split()) for text in caption(pipeline)}
        assert lengths <= {WORDS, WORDS + 1}, f"both say as many words, not {lengths}"
    both = {each: partial(caption, pipeline) for each, pipeline in pipelines.items()}
    if options.exported:
        engine = OnnxPipeline.load(options.exported, threads=1)
        assert caption(engine) == caption(small), "the exported model says other captions than PyTorch"
        both = {f"{name}, exported": partial(caption, engine), **both}
    seconds = take_turns(both, options.rounds)
    for each, times in seconds.items():
        print(f"{each}: {min(times) / len(pictures) * 1e3:.1f} ms a picture (fastest round)")
    paired_with = "another model, which runs in limner's fast form too: the public pipelines are slower"
    _, work = counted({each: both[each] for each in (name, RIVAL)})
    report({each: seconds[each] for each in (name, RIVAL)}, {RIVAL: BAR}, paired_with=paired_with, work=work)
    if options.exported:
        pair = {each: seconds[each] for each in (f"{name}, exported", RIVAL)}
        report(pair, {RIVAL: BAR_EXPORTED}, paired_with=paired_with, work={RIVAL: work[RIVAL]})
    wall = []
    for picture in pictures * 3:
        begin = time.perf_counter()
        small.caption(picture, replace(small.decoding, size=BEAM))
        wall.append(time.perf_counter() - begin)
    print(f"{name} as it is used, beam {BEAM}: {median(wall) * 1e3:.1f} ms a picture (median wall time)")


if __name__ == "__main__":
    main()
