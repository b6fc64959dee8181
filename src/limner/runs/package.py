"""Packed models: run folders for sharing, with a model card and a hash of every file.

    pack(load_run("runs/x"), "x.limner")     # safetensors and JSON only; nothing in it is ever executed

Every command that takes a run folder takes a packed model too (`limner.runs.resolve`).  A pretrained encoder or a
detector is inside, with the weights it has after training.
"""

import html
import json
import math
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

    Every file is compared with its hash before.  The hub is that of the environment variable HF_ENDPOINT;
    authentication is left to huggingface_hub (`hf auth login`, HF_TOKEN).
    Raises ValueError, with the hub's reason and what to do, when the hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled

    folder = open_package(folder)
    api = HfApi()
    unreachable = HfHubHTTPError.__bases__[0]  # HTTPError of the library that huggingface_hub uses: httpx or httpx2
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        return str(api.upload_folder(folder_path=folder, repo_id=repo, commit_message=f"limner {__version__}"))
    except HFValidationError as error:
        raise ValueError(f"'{repo}' cannot be a repository: expected OWNER/NAME ({error})") from error
    except LocalTokenNotFoundError as error:
        raise ValueError("the hub needs a login: call hf auth login, or set HF_TOKEN") from error
    except OfflineModeIsEnabled as error:
        raise ValueError("HF_HUB_OFFLINE is set, so nothing is uploaded: unset it") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        hint = "; is the login right, and may it write there? (hf auth whoami)" if status in (401, 403, 404) else ""
        raise ValueError(f"the hub refused {repo}: {_one_line(str(error))}{hint}") from error
    except unreachable as error:
        raise ValueError(
            f"the hub {api.endpoint} cannot be reached ({error}); {folder} is whole: push it later"
        ) from error


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
{_card_metadata(run, numbers, str(saved.get("split", "")) if rows else "")}
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


def _card_metadata(run: Run, scores: Mapping[str, float], split: str) -> str:
    """Return the YAML header of a model card, which the hub reads: with the scores as its `model-index`.

    The hub shows them beside those of other models.  They are fractions, as in scores.json.
    """
    from huggingface_hub import EvalResult, ModelCardData

    names = [part.name for part in data_parts(run.recipe.data).values()]
    results = [
        EvalResult(
            task_type="image-to-text",
            task_name="Image captioning",
            dataset_type=_plain("-".join(names)),
            dataset_name=_plain(" and ".join(names)),
            dataset_split=_plain(split) if split else None,
            metric_type=_plain(name).lower(),
            metric_name=_plain(name),
            metric_value=round(value, 4),
        )
        for name, value in scores.items()
        if math.isfinite(value)
    ]
    data = ModelCardData(
        library_name="limner",
        pipeline_tag="image-to-text",
        tags=["image-captioning", "limner"],
        model_name=_plain(run.folder.resolve().name) if results else None,
        eval_results=results or None,
    )
    return str(data.to_yaml())


def _plain(text: str) -> str:
    """Text of others without anything that could be markup: letters, digits and a few signs.

    >>> _plain("BLEU-4"), _plain("a<b>|c")
    ('BLEU-4', 'a b c')
    """
    return " ".join(re.sub(r"[^\w .+-]", " ", text).split()) or "unnamed"


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
