"""Show where a model looked at each word: limner explain RUN photo.jpg --out figure.png"""

import argparse
from pathlib import Path

from limner.apps.arguments import add_decoding, add_run, decoding_of, no_more
from limner.data.media import VIDEO_SUFFIXES
from limner.pipeline import Pipeline, frames_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="run folder")
    parser.add_argument("source", help="picture")
    parser.add_argument("--out", type=Path, required=True, help="figure ending in .png, .pdf, .svg or .jpg")
    add_decoding(parser)
    add_run(parser)


def run(options: argparse.Namespace, rest: list[str]) -> int:
    no_more(rest)
    if Path(options.source).suffix.lower() in VIDEO_SUFFIXES:
        raise ValueError(f"{options.source}: clips: explain a frame picture; the clip overlay is not there yet")
    from limner.explain.figure import attention_figure

    pipeline = Pipeline.load(options.run, options.encoder, options.device)
    frames = frames_of(options.source, 1)
    caption = pipeline.caption(frames, decoding_of(options, pipeline.run.recipe.decoding))
    view = pipeline.encoder.view_of(*frames.shape[1:3])
    attention_figure(frames[0], caption, options.out, view=view)
    print(f"{caption.text}\nwrote {options.out}")
    return 0
