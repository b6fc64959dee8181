"""Loading models of `transformers` from a local folder or the hub: their type, parts and weights, never their code."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from limner.core.files import read_json
from limner.core.hub import fetch_transformers_model
from limner.encoders.pretrained import quiet_transformers
from limner.inference.load import HF_PREFIX
from limner.inference.memory import MemoryTooSmall, check_memory

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def model_folder(source: str) -> Path:
    """Return a local folder, or the folder of a hub id in the hub's cache."""
    local = Path(source).expanduser()
    if local.is_dir():
        return local
    instead = f"a local folder, such as {HF_PREFIX}models/{local.name}, as save_pretrained writes it"
    return fetch_transformers_model(source, instead)


def model_type_of(source: str, folder: Path) -> str:
    """The `model_type` in a folder's config.json.

    Raises ValueError when there is none, and when `transformers` knows it only by code in the folder.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    with named_errors(source):
        config = read_json(folder / "config.json")
        name = config.get("model_type", "") if isinstance(config, dict) else ""
        if not name:
            raise ValueError("config.json has no model_type")
    if name in CONFIG_MAPPING_NAMES:
        return name
    if config.get("auto_map"):
        raise ModelRefused(
            f"{source} is a {name!r} model, which needs the Python code in its repository; limner never runs such "
            "code: take a version of the model that transformers has itself"
        )
    raise ModelRefused(f"{source} is a {name!r} model, which this version of transformers does not have")


def dtype_of(name: str, device: str) -> str:
    """The float type that `name` asks for; "": float32 on the CPU, bfloat16 elsewhere.  Raises ValueError."""
    if name and name not in DTYPES:
        raise ValueError(f"unknown float type {name!r}; known are {', '.join(DTYPES)}")
    return name or ("float32" if device == "cpu" else "bfloat16")


def load_weights(source: str, folder: Path, kind: Any, dtype: str, device: str) -> torch.nn.Module:
    """Load a model, `kind` being its class or an Auto class, in evaluation mode on `device`.

    Raises ValueError when it would not fit into memory, and when weights are missing.
    """
    with named_errors(source):
        check_memory(source, folder, device, dtype, DTYPES[dtype].itemsize)
        with quiet_transformers():
            model, report = kind.from_pretrained(
                folder, dtype=DTYPES[dtype], output_loading_info=True, trust_remote_code=False
            )
    if report["missing_keys"] or report["mismatched_keys"]:
        missing = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
        raise ValueError(
            f"{source} lacks {len(missing)} weights of {type(model).__name__}, for example {missing[0]}: take a model "
            "with all its weights"
        )
    return model.to(device).eval()


class ModelRefused(ValueError):
    """Raised for a model that limner does not load, with the whole reason."""


@contextmanager
def named_errors(source: str) -> Iterator[None]:
    """Turn the errors of loading, which are of many classes when files are damaged, into a ValueError with a name."""
    try:
        yield
    except (ModelRefused, MemoryTooSmall):
        raise
    except Exception as error:
        why = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]:.150}"
        raise ValueError(
            f"{source} cannot be loaded ({why}); the folder needs config.json, preprocessor_config.json, a tokenizer "
            "and model.safetensors, undamaged"
        ) from error
