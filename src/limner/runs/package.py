"""Packed models: run folders for sharing, with a model card and a hash of every file.

    pack(load_run("runs/x"), "x.limner")     # safetensors and JSON only; nothing in it is ever executed

Every command that takes a run folder takes a packed model too (`limner.runs.resolve`).  A pretrained encoder or a
detector is inside, with the weights it has after training.
"""

import html
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limner.core.files import atomic_folder, read_json, sha256, write_json, write_text
from limner.core.tensors import save_tensors
from limner.core.version import __version__
from limner.data.datasets import DataConfig, data_parts
from limner.data.pseudo_captions import PseudoCaptionsConfig
from limner.decode.confidence import load_calibration
from limner.encoders import Detector, Pretrained, PretrainedConfig
from limner.models.captioner import FromPixels
from limner.runs.resolve import FORMAT, MANIFEST, open_package
from limner.runs.run import Run, create_run, run_state_dict

MODEL_CARD = "README.md"


def pack(run: Run, out: str | Path, card: str = "", half: bool = False) -> Path:
    """Write a run as a packed model -> its folder.

    `card` is the text of its model card (empty: one is written from the run's recipe and scores).  With `half`,
    matrices and filters are stored as float16, which halves the file; they are loaded as float32.  A pretrained encoder
    stays in float32.  An existing packed model at `out` is replaced in one
    step when the new one is complete.
    Raises ValueError when the run has no encoder (it could not caption a file) or a weight exceeds float16's range,
    FileExistsError when `out` exists and is no packed model, LockedError when another process is writing it.
    """
    out = Path(out)
    if run.encoder is None:
        raise ValueError(
            f"{run.folder} has no encoder and could not caption a file; give one with --encoder, or train one"
        )
    if out.exists() and not (out / MANIFEST).is_file():
        raise FileExistsError(f"{out} exists and is no packed model: choose another name")
    with atomic_folder(out) as new:
        _write(run, new, card, half)
        files = sorted(path for path in new.rglob("*") if path.is_file())
        hashes = {str(path.relative_to(new)): {"sha256": sha256(path), "bytes": path.stat().st_size} for path in files}
        write_json(new / MANIFEST, {"format": FORMAT, "version": __version__, "files": hashes})
    return out


def push_to_hub(folder: str | Path, repo: str, private: bool = False) -> str:
    """Upload a packed model to the hub repository `owner/name` -> its address.

    Authentication is left to huggingface_hub (`hf auth login`).
    """
    from huggingface_hub import HfApi

    folder = open_package(folder)
    api = HfApi()
    api.create_repo(repo, private=private, exist_ok=True)
    return str(api.upload_folder(folder_path=folder, repo_id=repo, commit_message=f"limner {__version__}"))


def _write(run: Run, out: Path, card: str, half: bool) -> None:
    """Write a run folder without the paths of data and features that only training needs."""
    assert run.encoder is not None
    recipe, info = run.recipe, run.info
    if isinstance(run.encoder, Pretrained | Detector):
        run.encoder.save(out / "encoder")
        encoder = replace(run.encoder.config, source="encoder")
        if isinstance(encoder, PretrainedConfig):
            encoder = replace(encoder, trainable_from=None)  # its trained weights are in the folder
        recipe = replace(recipe, encoder=encoder)
        info = replace(info, encoder={**run.encoder.provenance(), "source": "encoder"}, encoder_trained=False)
        tensors = run.model.state_dict()
    else:
        recipe = replace(recipe, encoder=replace(recipe.encoder, source=""))
        tensors = run_state_dict(FromPixels(run.encoder, run.model))
    parts = tuple(DataConfig(part.name, "", label=label) for label, part in data_parts(recipe.data).items())
    data = parts[0] if isinstance(recipe.data, DataConfig) else parts  # without the paths of the data
    recipe = replace(recipe, data=data, features="", start="", pseudo_captions=PseudoCaptionsConfig())
    create_run(out, recipe, run.vocabulary, info)
    save_tensors(out / "model.safetensors", _as_float16(tensors) if half else tensors)
    scores = run.folder / "scores.json"
    if scores.is_file():
        saved = read_json(scores)
        write_json(out / "scores.json", {key: saved[key] for key in ("scores", "protocol") if key in saved})
    if calibration := load_calibration(run.folder):
        calibration.save(out)
    write_text(out / MODEL_CARD, card or _default_card(run))


def _as_float16(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert matrices and filters to float16; biases and statistics (one dimension) are small and stay.

    Raises ValueError for a tensor with values outside float16's range.
    """
    converted = {name: x.half() if x.is_floating_point() and x.dim() > 1 else x for name, x in tensors.items()}
    for name, x in converted.items():
        if not torch.equal(x.isfinite(), tensors[name].isfinite()):
            largest = tensors[name].abs().max().item()
            raise ValueError(f"{name} reaches {largest:g}, more than float16 can hold (65,504): pack it without half")
    return converted


def _default_card(run: Run) -> str:
    """Return a model card with the sizes and scores of a run, and the YAML header that the hub reads."""
    assert run.encoder is not None
    size = sum(p.numel() for p in run.model.parameters()), sum(p.numel() for p in run.encoder.parameters())
    provenance = run.encoder.provenance()
    encoder = provenance.get("architecture", provenance["name"])
    path = run.folder / "scores.json"
    saved: Mapping[str, Any] = read_json(path) if path.is_file() else {}
    values = saved.get("scores", {}) if isinstance(saved, dict) else {}
    numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
    rows = "\n".join(f"| {escape_markdown(name)} | {value:.3f} |" for name, value in numbers.items())
    protocol = escape_markdown(json.dumps(saved.get("protocol", {}))) if rows else ""
    scores = f"\n## Scores\n{protocol}\n\n| | |\n|---|---|\n{rows}\n" if rows else ""
    return f"""---
library_name: limner
pipeline_tag: image-to-text
tags: [image-captioning, limner]
---
# {escape_markdown(run.folder.resolve().name)}

A captioner made with limner {__version__}: {_code(run.recipe.model.name)} on the encoder {_code(str(encoder))}.
{size[0]:,} parameters in the captioner, {size[1]:,} in the encoder, {len(run.vocabulary):,} words.
Trained on {_data_sets(run)}.
If you share this model, write here which data it was trained on, under which licence, and where it fails.

```python
import limner

print(limner.load("this folder or its hub id").caption("photo.jpg").text)
```
{scores}"""


def _data_sets(run: Run) -> str:
    """Name the formats of a run's data sets."""
    names = [_code(part.name) for part in data_parts(run.recipe.data).values()]
    return f"a data set of the format {names[0]}" if len(names) == 1 else f"data sets of the formats {', '.join(names)}"


def escape_markdown(text: str) -> str:
    r"""Text of others for a model card, which is shown as it is: no markup, no HTML, no new lines.

    >>> escape_markdown("# a_b <script>")
    '\\# a\\_b &lt;script&gt;'
    """
    return re.sub(r"([\\`*_{}\[\]()#+!|~])", r"\\\1", html.escape(_one_line(text), quote=False))


def _code(text: str) -> str:
    """Text of others as code in Markdown, in which nothing else is markup."""
    return f"`{_one_line(text).replace('`', chr(39))}`"


def _one_line(text: str) -> str:
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
