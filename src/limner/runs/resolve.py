"""The folder that a user means by the name of a run or a model; packed models are checked file by file.

    resolve_model("limner-small")     # a model inside limner
    resolve_model("runs/mine")       # a run folder
    resolve_model("mine.limner")     # a packed model, of which every file is checked
    resolve_model("owner/name")      # a packed model on the hub

Every command, every function and every recipe field that takes a run or a model resolves it here.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limner import shipped
from limner.core.addresses import refuse_address
from limner.core.files import read_json, sha256
from limner.core.hub import fetch_from_hub, is_hub_id

FORMAT = 1  # of packed models
MANIFEST = "manifest.json"
ALLOWED_SUFFIXES = (".safetensors", ".json", ".md", ".txt")  # formats that cannot execute code when they are read


def resolve_model(source: str | os.PathLike[str]) -> Path:
    """Return the folder of a model that a user names.

    It is a model inside limner (`limner-small`), a run folder, a packed model or the hub id of one.  The name of a
    model inside limner wins over a folder of that name in the working directory, which is written `./limner-small`.
    A packed model is checked first, and raises what `open_package` does; an address is a ValueError, a name that
    nothing has a FileNotFoundError that lists the known ones.  Another path that does not exist is returned as it is:
    `load_run` raises FileNotFoundError for it.
    """
    refuse_address(source)
    folder, text = shipped.folder_of(source), os.fspath(source)
    if (folder / MANIFEST).is_file():
        return open_package(folder)
    if folder.exists():
        return folder
    if is_hub_id(text):
        return open_package(source)
    if is_name(text):
        raise FileNotFoundError(
            f"{text} is not a run folder here, and no model inside limner has this name; {shipped.known_names()}"
        )
    return folder


def is_name(text: str) -> bool:
    """Whether it could be the name of a model inside limner, since it is no path to somewhere else.

    >>> [is_name(text) for text in ("limner-small", "./limner-small", "runs/mine", "..")]
    [True, False, False, False]
    """
    return text not in ("", ".", "..") and not text.startswith("~") and not {"/", os.sep} & set(text)


def open_package(source: str | os.PathLike[str]) -> Path:
    """Check every file of a packed model against its hash -> its folder.  `source` is the folder, the
    name of a model inside limner, or a hub id.

    Raises ValueError that names a file which was changed, is missing, does not belong, or could execute code; or when
    the format is newer, or the hub cannot be reached.
    """
    folder = shipped.folder_of(source)
    if not folder.is_dir():
        local = f"a run folder or a packed model that is on this machine; a model of transformers is hf:{source}"
        folder = fetch_from_hub(os.fspath(source), ALLOWED_SUFFIXES, local)
    path = folder / MANIFEST
    if not path.is_file():
        transformers = (folder / "config.json").is_file() and is_hub_id(os.fspath(source))
        hint = f" (or is it a model of transformers? then write hf:{os.fspath(source)})" if transformers else ""
        raise ValueError(
            f"{folder} is no packed model: it has no {MANIFEST}; make one with: limner pack RUN --out {folder}{hint}"
        )
    manifest = read_json(path)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int) or "files" not in manifest:
        raise ValueError(f"{path} does not describe a packed model: it has no format number, or no list of files")
    if not isinstance(manifest["files"], dict) or not all(
        isinstance(entry, dict) and {"sha256", "bytes"} <= entry.keys() for entry in manifest["files"].values()
    ):
        raise ValueError(
            f"{path} does not describe a packed model: a file in it has no size or hash; take a fresh copy"
        )
    if manifest["format"] > FORMAT:
        raise ValueError(
            f"{folder} has pack format {manifest['format']}, of limner {manifest.get('version')}; this limner reads "
            f"up to {FORMAT}: update limner"
        )
    _check_files(folder, manifest["files"])
    return folder


def _check_files(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Check the files of a folder against those in its manifest.  Raises ValueError for the first wrong one."""
    present = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    present = {name for name in present if not name.startswith((".git", ".cache"))} - {MANIFEST}
    for name in sorted(present | set(files)):
        if Path(name).suffix not in ALLOWED_SUFFIXES or ".." in Path(name).parts:
            raise ValueError(
                f"{folder / name}: a packed model holds only {', '.join(ALLOWED_SUFFIXES)}; this file could execute "
                "code when it is read, so no file of the folder was read: do not use it"
            )
    if unknown := sorted(present - set(files)):
        raise ValueError(f"{folder} holds {', '.join(unknown[:3])}, not listed in its {MANIFEST}; take a fresh copy")
    for name, entry in files.items():
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{path} is missing; take a fresh copy")
        if path.stat().st_size != entry["bytes"] or sha256(path) != entry["sha256"]:
            raise ValueError(f"{path} is not the file that was packed: its hash differs; take a fresh copy")
