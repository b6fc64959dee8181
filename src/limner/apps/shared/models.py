"""The captioner that `--model` names, opened with the other options of a command."""

import argparse
from collections.abc import Mapping

from limner import shipped
from limner.apps.shared.arguments import WrongArguments
from limner.apps.shared.decoding import averaging_of
from limner.apps.shared.startup import collector_paused
from limner.inference.load import CaptionPipeline, is_exported, is_server, is_service, is_transformers, load
from limner.inference.prompting import MAX_SIDE, Prompting


def open_captioner(options: argparse.Namespace) -> CaptionPipeline:
    """Open --model with --encoder, --frames, --clip, --device, --engine and the ensemble of --with.

    Raises ValueError or FileNotFoundError when there is no model by that name, WrongArguments for options that it does
    not have.
    """
    if is_service(options.model):
        _refuse_run_options(options, f"is about runs of limner, and {options.model} is a service")
        return load(options.model, frames=options.frames, clip=options.clip)
    if options.engine == "onnx" or (options.engine is None and is_exported(options.model or shipped.DEFAULT)):
        return _open_exported(options)
    if options.model is not None and is_server(options.model):
        return _open_server(options)
    if options.threads:
        with collector_paused():
            import torch
        torch.set_num_threads(options.threads)
    if options.model is not None and is_transformers(options.model):
        from limner.inference.hf import load_transformers

        _refuse_server_options(options)
        _refuse_run_options(options, f"is about runs of limner, and {options.model} is a model of transformers")
        return load_transformers(
            options.model, options.device, options.frames, options.dtype, prompting_of(options), options.clip
        )
    _refuse_prompting(options)
    with collector_paused():
        from limner.inference.pipeline import Pipeline

    averaging = averaging_of(options)
    return Pipeline.load(
        options.model, options.encoder, options.device, options.frames, options.others, averaging, options.clip
    )


def _open_exported(options: argparse.Namespace) -> CaptionPipeline:
    """Open the exported folder that --model names, RUN.onnx beside the run that it names, or the shipped model's."""
    _refuse_prompting(options)
    _refuse_run_options(options, "is about runs: an exported model is complete in itself")
    name = options.model or shipped.DEFAULT
    inside = shipped.exported(name)
    if (options.model is None and inside is None) or options.device != "cpu":
        raise WrongArguments("an exported model runs on the CPU: give --model FOLDER, and no --device")
    with collector_paused():
        from limner.inference.onnx.pipeline import OnnxPipeline

    beside = f"{name.rstrip('/')}.onnx"
    folder = inside or (beside if not is_exported(name) and is_exported(beside) else name)
    return OnnxPipeline.load(folder, options.frames, options.threads, options.clip)


def _refuse_run_options(options: argparse.Namespace, reason: str) -> None:
    _refuse({"--encoder": options.encoder, "--with": options.others, "--weights": options.weights}, reason)


def _refuse(given: Mapping[str, object], reason: str) -> None:
    """Raise WrongArguments when one of the options has a value."""
    if unused := [name for name, value in given.items() if value]:
        raise WrongArguments(f"{unused[0]} {reason}")


def prompting_of(options: argparse.Namespace) -> Prompting:
    """What a vision-language model is told: --prompt, --system and --max-side."""
    return Prompting(options.prompt, options.system, options.max_side or MAX_SIDE, options.context or "")


def _open_server(options: argparse.Namespace) -> CaptionPipeline:
    """Open the model behind a server."""
    from limner.inference.server.pipeline import KEY_VARIABLE, REQUESTS, TIMEOUT, OpenAIPipeline

    _refuse_run_options(options, f"is about runs of limner, and {options.model} is a server")
    _refuse({"--dtype": options.dtype, "--device": options.device != "cpu"}, "is for models on this machine")
    return OpenAIPipeline.load(
        options.model,
        options.frames,
        prompting_of(options),
        options.requests or REQUESTS,
        options.timeout or TIMEOUT,
        options.key_variable or KEY_VARIABLE,
        options.clip,
    )


def _refuse_prompting(options: argparse.Namespace) -> None:
    """Raise WrongArguments for options of vision-language models and servers, given to another model."""
    given = {
        "--prompt": options.prompt,
        "--system": options.system,
        "--dtype": options.dtype,
        "--context": options.context,
    }
    model = options.model or "limner-small"
    reason = f"is for models of transformers (--model hf:...) and servers; {model} takes no request"
    _refuse({**given, "--max-side": options.max_side}, reason)
    _refuse_server_options(options)


def _refuse_server_options(options: argparse.Namespace) -> None:
    given = {"--requests": options.requests, "--timeout": options.timeout, "--key-variable": options.key_variable}
    _refuse(given, "is for servers (--model openai:...)")
