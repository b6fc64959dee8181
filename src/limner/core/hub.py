"""Repositories of the Hugging Face hub: their files in the local cache, fetched when they are not there yet."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten

TRANSFORMERS = (".json", ".txt", ".model")  # what a model of transformers consists of, besides weights


def is_hub_id(text: str) -> bool:
    """Whether it could be the name of a repository: owner/name."""
    return text.count("/") == 1 and not text.startswith((".", "/", "~")) and not text.endswith("/")


def fetch_from_hub(id: str, endings: Sequence[str], offline: str) -> Path:
    """Fetch the files of a repository with these endings -> their folder in the hub's cache.

    Raises ValueError, at once where there is no network and nothing in the cache; `offline` says what to give instead.
    """
    from huggingface_hub import snapshot_download

    if not is_hub_id(id):
        raise ValueError(f"{id} is no folder, and no hub id of the form owner/name")
    try:
        return Path(snapshot_download(id, allow_patterns=[f"*{ending}" for ending in endings]))
    except Exception as error:  # whatever the network, the hub and its client make of it
        raise ValueError(
            f"{id} is no folder here and could not be fetched from the hub ({type(error).__name__}: "
            f"{shorten(str(error).strip().partition(chr(10))[0], 150, placeholder=' ...')}); offline, give {offline}"
        ) from error


def fetch_transformers_model(id: str, offline: str) -> Path:
    """Fetch a model of transformers -> its folder; raises what `fetch_from_hub` does.

    `from_pretrained` with a hub id would ask the network for each file, and without one retry for half a minute.
    """
    folder = fetch_from_hub(id, (*TRANSFORMERS, ".safetensors"), offline)
    if not any(folder.glob("*.safetensors")):  # older repositories; tensors are all that is read of the file
        folder = fetch_from_hub(id, (*TRANSFORMERS, "pytorch_model.bin"), offline)
    return folder
