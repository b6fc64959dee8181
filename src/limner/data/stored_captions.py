"""Captions of data sets that store them beside or inside other files, for scoring: tars, Parquet, prepared files."""

import json
from pathlib import Path

from limner.core.torch_free import Medium

PREPARED_KEY = "ix_to_word"  # in the JSON files of prepro_labels.py


def read_stored_captions(path: Path, caption_column: str = "") -> tuple[str, tuple[Medium, ...]] | None:
    """The layout's name and the media with their captions; None for a path of another kind.

    WebDataset's tars (one, or a folder of them), Parquet and Arrow files (or a folder of `save_to_disk`), the prepared
    files of self-critical.pytorch (`cocotalk.json`) and of Show, Attend and Tell (a folder with WORDMAP_*.json).  The
    ids are those of training.  Raises what the readers of these data sets raise.
    """
    from limner.data import huggingface, show_attend_tell, webdataset
    from limner.data.arrow_tables import ARROW_SUFFIXES
    from limner.data.media_folder import is_companion
    from limner.data.tar_files import TAR_SUFFIXES

    files = [path]
    if path.is_dir():
        files = [file for pattern in ("*", "*/*") for file in path.glob(pattern) if not is_companion(file.name)]
    names = [file.name.lower() for file in files]
    if path.is_dir() and any(name.startswith("wordmap_") and name.endswith(".json") for name in names):
        return "Show, Attend and Tell's prepared files", show_attend_tell.read(path).media
    if any(name.endswith(TAR_SUFFIXES) for name in names):
        return "WebDataset", webdataset.read(path, caption_column=caption_column).media
    if any(name.endswith(ARROW_SUFFIXES) for name in names):
        return "Hugging Face data set", huggingface.read(path, caption_column=caption_column).media
    return None


def read_prepared_captions(path: Path, text: str) -> tuple[Medium, ...] | None:
    """The media of a JSON file of prepro_labels.py with its captions; None when `text` is another JSON file."""
    if f'"{PREPARED_KEY}"' not in text:
        return None
    try:
        saved = json.loads(text)
    except (ValueError, RecursionError):
        return None  # the reader of JSON layouts says what is wrong
    if not isinstance(saved, dict) or PREPARED_KEY not in saved:
        return None
    from limner.data import cocotalk

    return cocotalk.read(path, "").media
