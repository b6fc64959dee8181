"""One picture at a time, from a JPEG in memory to the sentence: the fast paths against their slow twins, one thread.

    OMP_NUM_THREADS=1 python benchmarks/one_image.py RUN [--exported FOLDER] --rounds 7

The twin is the same model with its layers as they are trained: BatchNorm after every convolution, `step` for every
word, and the search over batches.  Captions and log-probabilities are equal on every picture, or nothing is timed.
Every caption has ten or eleven words, so that all rounds do the same work.  Parts of the way are timed one by one, with
their floating-point operations per second beside those of large matrix products, and the bytes of weights that decoding
reads per second beside those of a plain reading loop over as many bytes.  A photograph of 12 megapixels is timed too.
"""

import argparse
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image

from limits import counted, gemm_peak, read_peak, report_shares
from limner.core.torch_free import Caption
from limner.core.types import Features, Pixels
from limner.data.media import frames_of
from limner.decode import search
from limner.decode.options import Beam
from limner.inference.onnx.pipeline import OnnxPipeline
from limner.inference.pipeline import Pipeline
from limner.profiling.measure import count_flops
from limner.runs.resolve import resolve_model
from limner.runs.run import load_run
from paired import OWN, report, take_turns

WORDS, TOLERANCE, LARGE_BAR = 10, 1e-3, 1.3
PICTURES = ("astronaut", "chelsea", "coffee", "rocket")  # photographs that come with scikit-image


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", help="run folder, or a packed model")
    parser.add_argument("--exported", help="the same run as `limner export` has written it")
    parser.add_argument("--beam", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=7, help="turns per variant (default 7)")
    torch.set_num_threads(1)
    return parser.parse_args()


def jpeg(name: str, width: int, height: int) -> bytes:
    """A photograph of scikit-image as a JPEG of this size, with noise as a camera's sensor has it where it is large."""
    import skimage.data

    image = Image.fromarray(getattr(skimage.data, name)()).convert("RGB").resize((width, height))
    if width > 2000:
        noise = np.random.default_rng(0).normal(0, 4, (height, width, 3))
        image = Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


@contextmanager
def batch_search() -> Iterator[None]:
    """Search one medium as a batch of one."""
    single = search._beam_of_one

    def as_batch(model: Any, inputs: Any, options: Beam) -> Any:
        work = search._BeamSearch(model, inputs, options)
        for _ in range(options.rules.max_length):
            if not work.step():
                break
        return work.finish()

    search._beam_of_one = as_batch
    try:
        yield
    finally:
        search._beam_of_one = single


class Twin:
    """The same captioner without its fast paths."""

    def __init__(self, run: str):
        self.pipeline = Pipeline(load_run(resolve_model(run)))
        self.pipeline._run_encoder = self.pipeline.encoder
        self.pipeline.model.decoding_step = lambda: self.pipeline.model.step  # type: ignore[method-assign]

    def caption(self, picture: bytes, decoding: Beam) -> Caption:
        with batch_search():
            return self.pipeline.caption(picture, decoding)


def check_equal(captions: dict[str, list[Caption]]) -> None:
    (first, expected), *others = captions.items()
    for name, found in others:
        for a, b in zip(expected, found, strict=True):
            assert a.text == b.text, f"{first} says {a.text!r}, {name} says {b.text!r}: nothing is timed"
            assert abs(a.logprob - b.logprob) <= TOLERANCE * max(1, abs(a.logprob)), (name, a.logprob, b.logprob)
    lengths = sorted({len(caption.words) for caption in expected})
    print(f"{len(expected)} pictures, equal captions of {lengths} words: {', '.join(captions)}")


def parts(pipeline: Pipeline, picture: bytes, decoding: Beam, rounds: int) -> None:
    """Time reading, encoder and decoding one by one, with their operations and the weights that decoding reads."""

    def read() -> Pixels:
        frames = frames_of(picture, pipeline.sampling, side=pipeline.encoder.reading_side())
        return Pixels(pipeline.encoder.preprocess(frames)[None])

    pixels, options = read(), decoding.bind(pipeline.vocabulary)
    features: Features = pipeline.encode(pixels)
    decode = partial(search.beam, pipeline.model, features, options)
    work: dict[str, Callable[[], Any]] = {
        "read and resize": read, "encode": partial(pipeline.encode, pixels), f"decode, beam {options.size}": decode,
    }  # fmt: skip
    seconds = take_turns({name: lambda f=f: [f() for _ in range(5)] for name, f in work.items()}, rounds)
    for name, times in seconds.items():
        print(f"{name:<44} {min(times) / 5 * 1e3:6.2f} ms")
    names = list(work)
    operations = {names[1]: count_flops(partial(pipeline.encoder, pixels)), names[2]: count_flops(decode)}
    report_shares({name: 5 * count for name, count in operations.items()}, seconds, gemm_peak())
    steps = decode().tokens.shape[1]
    embedding = sum(layer.weight.numel() for layer in pipeline.model.token_vector_layers())  # type: ignore[operator]
    size = 4 * (sum(p.numel() for p in pipeline.model.parameters()) - embedding)
    speed, peak = size * steps / (min(seconds[names[2]]) / 5), read_peak(size)
    print(
        f"decoding reads at most {size / 1e6:.1f} MB of weights in each of {steps} steps: {speed / 1e9:.1f} GB/s, "
        f"{speed / peak:.0%} of the {peak / 1e9:.1f} of a reading loop"
    )


def main() -> None:
    options = arguments()
    pipeline, twin = Pipeline(load_run(resolve_model(options.run))), Twin(options.run)
    rules = replace(pipeline.decoding.rules, min_length=WORDS, max_length=WORDS + 1)
    decoding = replace(pipeline.decoding, size=options.beam, rules=rules)
    engines: dict[str, Any] = {"PyTorch": pipeline, "PyTorch, slow twin": twin}
    if options.exported:
        engines = {"exported": OnnxPipeline.load(options.exported, threads=1), **engines}
    pictures = [jpeg(name, 512, 512) for name in PICTURES]
    large = [jpeg(name, 4000, 3000) for name in PICTURES[:2]]

    def each(engine: Any, files: list[bytes]) -> list[Caption]:
        return [engine.caption(file, decoding) for file in files]

    check_equal({name: each(engine, pictures) for name, engine in engines.items()})
    seconds = take_turns({name: partial(each, engine, pictures) for name, engine in engines.items()}, options.rounds)
    for name, times in seconds.items():
        print(f"{name}: {min(times) / len(pictures) * 1e3:.1f} ms a picture of 512 x 512 (fastest round)")
    _, work = counted({name: partial(each, engines[name], pictures) for name in ("PyTorch", "PyTorch, slow twin")})
    report(seconds, {}, paired_with=f"{OWN}: the layers as they are trained, and the search over batches", work=work)
    for name in [name for name in engines if name != "PyTorch, slow twin"]:
        sizes = {"512 x 512": pictures[:2], f"12 megapixels ({len(large[0]) / 1e6:.1f} MB)": large}
        print(name)
        report(
            take_turns({size: partial(each, engines[name], files) for size, files in sizes.items()}, options.rounds),
            {list(sizes)[1]: LARGE_BAR},
            paired_with="the same engine on smaller pictures",
        )
    parts(pipeline, pictures[0], decoding, options.rounds)


if __name__ == "__main__":
    main()
