"""From a JPEG in memory to the sentence: ONNX and PyTorch, float32 and int8, a picture at a time, one thread each.

    OMP_NUM_THREADS=1 python benchmarks/onnx_engine.py RUN --rounds 5 --quality 500
    OMP_NUM_THREADS=1 python benchmarks/onnx_engine.py limner-small --quality 500 --data flickr8k CAPTIONS.json IMAGES

A run with an encoder is exported as float32 and as int8 (in a temporary folder, after the exporter's own check).
PyTorch's int8 has dynamically quantised layers in the captioner and the float encoder.  The pictures are the first of
the test split that the run's recipe names, or --data.  Captions of the float graphs are those of PyTorch on every
picture that is timed, or nothing is timed.  With --quality N it also says, on N pictures, how many captions are those
of PyTorch in float32, and what each engine's CIDEr is.

Then the pictures are captioned as a folder is, by `captions`, where both engines read and decode several together.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from limits import counted
from limner.core.torch_free import Caption, Failure, Medium, Source
from limner.data.datasets import DataConfig, read_dataset
from limner.decode.options import Beam, with_beam
from limner.export.exporter import ExportResult, export_onnx
from limner.export.torch_int8 import quantize_to_int8, serialized_size
from limner.inference.onnx.pipeline import OnnxPipeline
from limner.inference.pipeline import Pipeline
from limner.metrics.cider import cider
from limner.metrics.references import References
from limner.runs.resolve import resolve_model
from limner.runs.run import load_run
from paired import report, take_turns

Engine = Pipeline | OnnxPipeline
BAR, IDENTICAL, INT8_FILE, INT8_LOSS = 2.0, 0.99, 0.35, 0.02
FOLDER_BAR = 1.0  # as fast as PyTorch, where both decode several pictures together


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", help="run folder, or a packed model")
    parser.add_argument("--pictures", type=int, default=36, help="that are timed (default 36)")
    parser.add_argument("--beam", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5, help="turns per variant (default 5)")
    parser.add_argument("--quality", type=int, default=0, metavar="N", help="pictures whose captions are scored")
    parser.add_argument("--data", nargs=3, metavar=("KIND", "CAPTIONS", "IMAGES"), help="in place of the recipe's data")
    parser.add_argument("--folder", type=Path, help="where exported models lie, or are put (default: a temporary one)")
    torch.set_num_threads(1)
    return parser.parse_args()


def exported(run: str, folder: Path, int8: bool) -> ExportResult | None:
    """Written, unless it is there already."""
    return None if folder.exists() else export_onnx(load_run(resolve_model(run)), folder, int8)


def each(caption: Callable[[Source], Caption], pictures: Iterable[bytes]) -> list[str]:
    return [caption(picture).text for picture in pictures]


def together(engine: Engine, pictures: Iterable[bytes], decoding: Beam) -> list[str]:
    results = [caption for _, caption in engine.captions(pictures, decoding)]
    return [caption.text for caption in results if isinstance(caption, Caption)]


def scored(name: str, captions: dict[str, str], theirs: dict[str, str], references: References) -> float:
    same = sum(captions[id] == theirs[id] for id in captions)
    value = cider(references.candidates(captions), references).corpus
    print(
        f"{name:<16} {same} of {len(captions)} captions are PyTorch's ({same / len(captions):.1%}), CIDEr {value:.4f}"
    )
    return value


def quality(pipeline: Pipeline, engines: Mapping[str, Engine], media: list[Medium], decoding: Beam) -> None:
    references = References({medium.id: list(medium.references) for medium in media})
    paths = [medium.path for medium in media]

    def captions(some: Engine) -> dict[str, str]:
        results = [it for _, it in some.captions(paths, decoding)]
        assert not any(isinstance(it, Failure) for it in results), "every picture of the data can be read"
        return {medium.id: it.text for medium, it in zip(media, results, strict=True) if isinstance(it, Caption)}

    theirs = captions(pipeline)
    best = scored("PyTorch", theirs, theirs, references)
    for name, engine in engines.items():
        value = scored(name, captions(engine), theirs, references)
        print(f"{'':<16} loss {1 - value / best:+.2%} (bar for int8: {INT8_LOSS:.0%})")


def int8_twin(pipeline: Pipeline) -> dict[str, Engine]:
    """The same pipeline with an int8 captioner in PyTorch, by its name; empty where the captioner has no int8 form."""
    try:
        twin = quantize_to_int8(pipeline.model)
    except ValueError as error:
        print(error)
        return {}
    floats, small = serialized_size(pipeline.model), serialized_size(twin)
    print(f"captioner in PyTorch: {floats:,} bytes, int8 {small:,} ({small / floats:.1%})")
    return {"PyTorch, int8": Pipeline(replace(pipeline.run, model=twin))}


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory() as temporary:
        root = options.folder or Path(temporary)
        pipeline = Pipeline(load_run(resolve_model(options.run)))
        decoding = with_beam(pipeline.decoding, options.beam)
        engines = {}
        for name, int8 in (("ONNX float32", False), ("ONNX int8", True)):
            exported(options.run, root / name.replace(" ", "_"), int8)
            engines[name] = OnnxPipeline.load(root / name.replace(" ", "_"), threads=1)
        floats, small = (engine.model.manifest.files for engine in engines.values())
        for file in ("encoder.onnx", "step.onnx"):
            share = small[file]["bytes"] / floats[file]["bytes"]
            print(f"{file}: {floats[file]['bytes']:,} bytes, int8 {small[file]['bytes']:,} ({share:.1%})")
        print(f"int8 decoder: bar {INT8_FILE:.0%} of the float size")
        small_twin = int8_twin(pipeline)

        kind, annotations, folder = options.data or (None, "", "")
        given = DataConfig(kind, folder, annotations) if kind else pipeline.run.recipe.data
        test = [medium for medium in read_dataset(given).media if medium.split == "test"]
        pictures = [Path(medium.path).read_bytes() for medium in test[: options.pictures]]
        timed: dict[str, Engine] = {**engines, **small_twin, "PyTorch, eager": pipeline}
        said = {name: each(partial(it.caption, decoding=decoding), pictures) for name, it in timed.items()}
        if said["ONNX float32"] != said["PyTorch, eager"]:
            sys.exit("the float32 engine says other captions than PyTorch: nothing is timed")
        print(f"{len(pictures)} pictures, beam {options.beam}: float32 captions are PyTorch's")
        for name in ("ONNX int8", *small_twin):
            alike = sum(a == b for a, b in zip(said[name], said["PyTorch, eager"], strict=True))
            print(f"{name}: {alike} of {len(pictures)} captions are PyTorch's in float32")
        variants = {name: partial(each, partial(it.caption, decoding=decoding), pictures) for name, it in timed.items()}
        seconds = take_turns(variants, options.rounds)
        for name, times in seconds.items():
            print(f"{name}: {1000 * min(times) / len(pictures):.1f} ms a picture (fastest round)")
        bars = {"PyTorch, eager": BAR}
        _, work = counted(
            {"PyTorch, eager": variants["PyTorch, eager"]}
        )  # the exported graphs compute the same products
        for name in seconds:
            if name != "PyTorch, eager":
                pair = {each: seconds[each] for each in (name, "PyTorch, eager")}
                operations = dict.fromkeys(pair, work["PyTorch, eager"])
                bar = bars if name == "ONNX float32" else {}
                report(pair, bar, paired_with="limner's PyTorch engine in its fast form", work=operations)
        folders = {
            name: partial(together, it, pictures, decoding) for name, it in (*engines.items(), ("PyTorch", pipeline))
        }
        assert folders["ONNX float32"]() == said["ONNX float32"], "captions of a folder are those of its pictures"
        seconds = take_turns(folders, options.rounds)
        for name, times in seconds.items():
            print(f"{name}, as a folder: {1000 * min(times) / len(pictures):.1f} ms a picture (fastest round)")
        pair = {name: seconds[name] for name in ("ONNX float32", "PyTorch")}
        operations = dict.fromkeys(pair, work["PyTorch, eager"])
        report(pair, {"PyTorch": FOLDER_BAR}, paired_with="limner's PyTorch engine, in batches", work=operations)
        if options.quality:
            quality(pipeline, {**engines, **small_twin}, test[: options.quality], decoding)


if __name__ == "__main__":
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    main()
