"""A packed model: a folder with all that captioning needs, a card, and a hash of every file.

    pack(load_run("runs/x"), "x.limner")     # safetensors and JSON; nothing in it is ever executed
    unpack("x.limner")                       # the folder, checked; also "owner/name" of the hub

It is a run folder, so that every command that takes a run takes it too.  A pretrained encoder or a detector
lies inside, with the weights that training gave it.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limner.core.files import read_json, sha256, write_json, write_text
from limner.core.tensors import save_tensors
from limner.core.version import __version__
from limner.data.datasets import DataConfig
from limner.data.pseudo_captions import PseudoCaptionsConfig
from limner.encoders import Detector, Pretrained, PretrainedConfig
from limner.models.captioner import FromPixels
from limner.runs.run import Run, create_run, run_state_dict

FORMAT = 1
MANIFEST = "manifest.json"
MODEL_CARD = "README.md"
ALLOWED_SUFFIXES = (".safetensors", ".json", ".md", ".txt")  # what a packed model consists of


def pack(run: Run, out: str | Path, card: str = "", half: bool = False) -> Path:
    """Write a run as a packed model; `card` is the text of its model card (empty: what the run knows of itself).

    With `half`, matrices and filters are kept as float16: half the size; in use they are float32 again.  A pretrained
    encoder stays as it is.  Raises ValueError when the run has no encoder (it could not caption a file) or a weight
    does not fit float16, FileExistsError when `out` is there and is no packed model.
    """
    out = Path(out)
    if run.encoder is None:
        raise ValueError(
            f"{run.folder} has no encoder and could not caption a file; give one with --encoder, or train one"
        )
    if out.exists() and not (out / MANIFEST).is_file():
        raise FileExistsError(f"{out} is there and is no packed model: choose another name")
    out.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        _write(run, new, card, half)
        files = sorted(path for path in new.rglob("*") if path.is_file())
        hashes = {str(path.relative_to(new)): {"sha256": sha256(path), "bytes": path.stat().st_size} for path in files}
        write_json(new / MANIFEST, {"format": FORMAT, "version": __version__, "files": hashes})
        new.chmod(0o755)
        if out.exists():
            shutil.rmtree(out)
        os.replace(new, out)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return out


def open_package(source: str | os.PathLike[str]) -> Path:
    """A packed model's folder, every file of it checked against its hash.  `source`: the folder, or a hub id.

    Raises ValueError that names the file which was changed, is missing, does not belong, or could execute code; or says
    that the format is newer, or the hub cannot be reached.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        folder = fetch_from_hub(os.fspath(source), ALLOWED_SUFFIXES, "a run folder or a packed model that is on this machine")
    path = folder / MANIFEST
    if not path.is_file():
        raise ValueError(
            f"{folder} is no packed model: it has no {MANIFEST}; make one with: limner pack RUN --out {folder}"
        )
    manifest = read_json(path)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("format"), int) or "files" not in manifest:
        raise ValueError(f"{path} does not describe a packed model: it has no format number, or no list of files")
    if manifest["format"] > FORMAT:
        raise ValueError(
            f"{folder} has pack format {manifest['format']}, of limner {manifest.get('version')}; this limner reads "
            f"up to {FORMAT}: update limner"
        )
    _check_files(folder, manifest["files"])
    return folder


def resolve_model(source: str | os.PathLike[str]) -> Path:
    """What a user names as a model -> its folder: a run folder as it is; a packed model, or its hub id, checked.

    Raises what `open_package` does; of what is neither a folder nor a hub id, reading the run tells.
    """
    folder = Path(source).expanduser()
    packed_here = (folder / MANIFEST).is_file()
    return open_package(source) if packed_here or (not folder.exists() and looks_like_hub_id(os.fspath(source))) else folder


def push_to_hub(folder: str | Path, repo: str, private: bool = False) -> str:
    """Upload a packed model to `owner/name` -> its address.  Who you are is huggingface_hub's (`hf auth login`)."""
    from huggingface_hub import HfApi

    folder = open_package(folder)
    api = HfApi()
    api.create_repo(repo, private=private, exist_ok=True)
    return str(api.upload_folder(folder_path=folder, repo_id=repo, commit_message=f"limner {__version__}"))


def _write(run: Run, out: Path, card: str, half: bool) -> None:
    """A run folder without what only training needs."""
    assert run.encoder is not None
    recipe, info = run.recipe, run.info
    if isinstance(run.encoder, Pretrained | Detector):
        run.encoder.save(out / "encoder")
        encoder = replace(run.encoder.config, source="encoder")
        if isinstance(encoder, PretrainedConfig):
            encoder = replace(encoder, trainable_from=None)  # what it learnt is in the folder
        recipe = replace(recipe, encoder=encoder)
        info = replace(info, encoder={**run.encoder.provenance(), "source": "encoder"}, encoder_trained=False)
        tensors = run.model.state_dict()
    else:
        recipe = replace(recipe, encoder=replace(recipe.encoder, source=""))
        tensors = run_state_dict(FromPixels(run.encoder, run.model))
    data = DataConfig(recipe.data.name, "")  # not where the data lay
    recipe = replace(recipe, data=data, features="", start="", pseudo_captions=PseudoCaptionsConfig())
    create_run(out, recipe, run.vocabulary, info)
    save_tensors(out / "model.safetensors", _as_float16(tensors) if half else tensors)
    scores = run.folder / "scores.json"
    if scores.is_file():
        told = read_json(scores)
        write_json(out / "scores.json", {key: told[key] for key in ("scores", "protocol") if key in told})
    write_text(out / MODEL_CARD, card or _default_card(run))


def _as_float16(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Biases and statistics are few, and stay."""
    halved = {name: x.half() if x.is_floating_point() and x.dim() > 1 else x for name, x in tensors.items()}
    for name, x in halved.items():
        if not torch.equal(x.isfinite(), tensors[name].isfinite()):
            most = tensors[name].abs().max().item()
            raise ValueError(f"{name} reaches {most:g}, more than float16 can hold (65,504): pack it without half")
    return halved


def _default_card(run: Run) -> str:
    """What the run knows of itself, with the head that the hub reads."""
    assert run.encoder is not None
    size = sum(p.numel() for p in run.model.parameters()), sum(p.numel() for p in run.encoder.parameters())
    made = run.encoder.provenance()
    encoder = made.get("architecture", made["name"])
    path = run.folder / "scores.json"
    told: Mapping[str, Any] = read_json(path) if path.is_file() else {}
    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in told.get("scores", {}).items())
    scores = f"\n## Scores\n{json.dumps(told.get('protocol', {}))}\n\n| | |\n|---|---|\n{rows}\n" if rows else ""
    return f"""---
library_name: limner
pipeline_tag: image-to-text
tags: [image-captioning, limner]
---
# {run.folder.resolve().name}

A captioner made with limner {__version__}: `{run.recipe.model.name}` on the encoder `{encoder}`.
{size[0]:,} parameters in the captioner, {size[1]:,} in the encoder, {len(run.vocabulary):,} words.
Trained on data of the kind `{run.recipe.data.name}`; whoever passes this model on says here which data that was, under
which licence, and where the model fails.

```python
from limner import Pipeline

print(Pipeline.from_pretrained("this folder or its hub id").caption("photo.jpg").text)
```
{scores}"""


def _check_files(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    found = {name for name in found if not name.startswith((".git", ".cache"))} - {MANIFEST}
    for name in sorted(found | set(files)):
        if Path(name).suffix not in ALLOWED_SUFFIXES or ".." in Path(name).parts:
            raise ValueError(
                f"{folder / name}: a packed model holds {', '.join(ALLOWED_SUFFIXES)} only; this file could execute code when it "
                "is read, and nothing of the folder was read: do not use it"
            )
    if unknown := sorted(found - set(files)):
        raise ValueError(
            f"{folder} holds {', '.join(unknown[:3])}, of which its {MANIFEST} does not know; take a fresh copy"
        )
    for name, told in files.items():
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{path} is missing; take a fresh copy")
        if path.stat().st_size != told["bytes"] or sha256(path) != told["sha256"]:
            raise ValueError(f"{path} is not the file that was packed: its hash differs; take a fresh copy")


def looks_like_hub_id(text: str) -> bool:
    """Whether it could be the name of a repository: owner/name."""
    return text.count("/") == 1 and not text.startswith((".", "/", "~")) and not text.endswith("/")


def fetch_from_hub(id: str, endings: Sequence[str], offline: str) -> Path:
    """The files of a repository of the hub, `owner/name`, that end so -> their folder in the hub's cache.

    Raises ValueError, at once where there is no network and nothing in the cache; `offline` says what to give instead.
    """
    from huggingface_hub import snapshot_download

    if not looks_like_hub_id(id):
        raise ValueError(f"{id} is no folder, and no hub id of the form owner/name")
    try:
        return Path(snapshot_download(id, allow_patterns=[f"*{ending}" for ending in endings]))
    except Exception as error:  # whatever the network, the hub and its client make of it
        raise ValueError(
            f"{id} is no folder here and could not be fetched from the hub ({type(error).__name__}: "
            f"{str(error).strip().partition(chr(10))[0]:.150}); offline, give {offline}"
        ) from error
