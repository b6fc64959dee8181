"""The captioner that `--model` names, opened with the other options of a command."""

import argparse

from limner.apps.shared.arguments import WrongArguments
from limner.apps.shared.decoding import averaging_of
from limner.apps.shared.startup import collector_paused
from limner.inference.load import CaptionPipeline, is_exported, is_service, is_transformers, load


def open_captioner(options: argparse.Namespace) -> CaptionPipeline:
    """Open --model with --encoder, --frames, --clip, --device, --engine and the ensemble of --with.

    Raises ValueError or FileNotFoundError when there is no model by that name, WrongArguments for options that it does
    not have.
    """
    if is_service(options.model):
        _refuse_run_options(options, f"is about runs of limner, and {options.model} is a service")
        return load(options.model, frames=options.frames, clip=options.clip)
    if options.engine == "onnx" or (options.engine is None and options.model and is_exported(options.model)):
        return _open_exported(options)
    if options.threads:
        with collector_paused():
            import torch
        torch.set_num_threads(options.threads)
    if is_transformers(options.model):
        _refuse_run_options(options, f"is about runs of limner, and {options.model} is a model of transformers")
        return load(options.model, device=options.device, frames=options.frames, clip=options.clip)
    with collector_paused():
        from limner.inference.pipeline import Pipeline

    averaging = averaging_of(options)
    return Pipeline.load(
        options.model, options.encoder, options.device, options.frames, options.others, averaging, options.clip
    )


def _open_exported(options: argparse.Namespace) -> CaptionPipeline:
    """Open the exported folder that --model names, or RUN.onnx beside the run that it names."""
    _refuse_run_options(options, "is about runs: an exported model is complete in itself")
    if options.model is None or options.device != "cpu":
        raise WrongArguments("an exported model runs on the CPU: give --model FOLDER, and no --device")
    with collector_paused():
        from limner.inference.onnx.pipeline import OnnxPipeline

    beside = f"{options.model.rstrip('/')}.onnx"
    folder = beside if not is_exported(options.model) and is_exported(beside) else options.model
    return OnnxPipeline.load(folder, options.frames, options.threads, options.clip)


def _refuse_run_options(options: argparse.Namespace, reason: str) -> None:
    given = {"--encoder": options.encoder, "--with": options.others, "--weights": options.weights}
    if unused := [name for name, value in given.items() if value]:
        raise WrongArguments(f"{unused[0]} {reason}")
