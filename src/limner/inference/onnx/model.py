"""Exported captioners: a folder with `encoder.onnx`, `step.onnx`, `vocabulary.json` and the manifest `model.json`.

Before anything is run, every file is checked against its hash in `model.json`, which has a hash of itself too.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from pydantic import TypeAdapter, ValidationError

from limner import shipped
from limner.core.addresses import refuse_address
from limner.core.files import read_json, sha256, write_json
from limner.core.migration import migrate
from limner.core.version import __version__
from limner.data.frames import SamplingConfig
from limner.decode.confidence import FILE as CALIBRATION
from limner.decode.options import Beam
from limner.inference.onnx.pixels import Preprocess
from limner.text.load import load_vocabulary
from limner.text.vocabulary import Vocabulary

State = list[np.ndarray]  # the decoder's state: arrays (B, K, ...) for K hypotheses of each of B media

FORMAT = 3  # since 3, a step may read several media (`ExportManifest.batched`)
EXPORT_MANIFEST = "model.json"
POOLED = "pooled"  # an output of the encoder, for calibrated confidences
EXPORTED_FILES = ("encoder.onnx", "step.onnx", "vocabulary.json")


@dataclass(frozen=True)
class ExportManifest:
    """Content of `model.json`."""

    files: dict[str, dict[str, Any]]  # file name -> {"sha256": hex digest, "bytes": size}
    preprocess: Preprocess
    frames: int  # frames that are sampled from a clip
    sampling: SamplingConfig
    decoding: Beam  # with words as token ids
    layout: tuple[int, int]  # rows and columns of a frame's cells
    images: bool  # True: it reads images
    clips: bool  # True: it reads clips
    memory: list[str]  # outputs of the encoder that every step reads
    state: list[str]  # outputs of the encoder that every step reads and replaces (by its outputs `new_...`)
    source: dict[str, Any]  # the exported run, and the differences from PyTorch that were measured
    int8: bool = False
    media: str = ""  # what it was trained on: images or clips; "" is not known
    attends: bool = True  # False: its attention is the same for all cells
    batched: bool = False  # True: the tokens and states of a step are (B, K, ...) for B media, else (R, ...) for one
    format: int = FORMAT
    version: str = __version__

    @property
    def fingerprint(self) -> str:
        """Hex digest of both graphs and the vocabulary."""
        return _digest({name: self.files[name]["sha256"] for name in EXPORTED_FILES if name in self.files})

    def save(self, folder: Path) -> None:
        """Write `model.json` into a folder, with a hash of its content."""
        content = asdict(self)
        write_json(folder / EXPORT_MANIFEST, {**content, "sha256": _digest(content)})


class OnnxModel:
    """Both graphs of an exported captioner, loaded into onnxruntime."""

    def __init__(self, folder: Path, manifest: ExportManifest, vocabulary: Vocabulary, threads: int | None = None):
        """`threads`: None is `default_threads()`, 0 is one per core."""
        threads = default_threads() if threads is None else threads
        self.folder, self.manifest, self.vocabulary = folder, manifest, vocabulary
        self.encoder = _session(folder / "encoder.onnx", threads)
        self.decoder = _session(folder / "step.onnx", threads)
        self._decoder_inputs = {entry.name for entry in self.decoder.get_inputs()}

    @classmethod
    def load(cls, folder: str | PathLike[str], threads: int | None = None) -> "OnnxModel":
        """Check and load an exported folder.

        Raises ValueError that names a file which is missing or changed, or a newer format; ImportError without
        onnxruntime.
        """
        folder = shipped.folder_of(folder)
        manifest = read_export_manifest(folder)
        return cls(folder, manifest, load_vocabulary(folder / "vocabulary.json"), threads)

    def encode(self, pixels: UInt8[np.ndarray, "T h w 3"]) -> tuple[list[np.ndarray], State]:
        """Encode a medium once -> the memory (one row) and the initial state (1, 1, ...)."""
        outputs = self.encoder.run([*self.manifest.memory, *self.manifest.state], {"pixels": pixels[None]})
        count = len(self.manifest.memory)
        return outputs[:count], [x[None] for x in outputs[count:]]

    def pooled(self, pixels: UInt8[np.ndarray, "T h w 3"]) -> Float[np.ndarray, " D"]:
        """The mean over the cells of a medium.  Only exports with a calibration are asked for it."""
        (mean,) = self.encoder.run([POOLED], {"pixels": pixels[None]})
        return mean[0]

    def step(
        self, memory: Sequence[np.ndarray], token: Int[np.ndarray, "B K"], state: State
    ) -> tuple[np.ndarray, np.ndarray, State]:
        """Decode one token for each of K hypotheses of B media -> logits (B, K, V), attention (B, K, N), new state.

        B is 1 unless `manifest.batched`.
        """
        assert self.manifest.batched or len(token) == 1
        rows = [token, *state] if self.manifest.batched else [x[0] for x in (token, *state)]
        names = ["token", *self.manifest.state, *self.manifest.memory]
        inputs = {k: v for k, v in zip(names, [*rows, *memory], strict=True) if k in self._decoder_inputs}
        outputs = self.decoder.run(["logits", "attention", *(f"new_{name}" for name in self.manifest.state)], inputs)
        logits, attention, *state = outputs if self.manifest.batched else [x[None] for x in outputs]
        return logits, attention, state


def default_threads() -> int:
    """Threads of the engine where none are asked for: the first number of OMP_NUM_THREADS, or one."""
    number = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # "4,2": 4, and 2 inside each of them
    return int(number) if number.isdecimal() and int(number) else 1


def is_exported(folder: str | PathLike[str]) -> bool:
    """Whether a folder has the manifest of an exported captioner."""
    return (shipped.folder_of(folder) / EXPORT_MANIFEST).is_file()


def file_hashes(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the hash and size of an export's files, as in `ExportManifest.files`."""
    names = [*EXPORTED_FILES, *([CALIBRATION] if (folder / CALIBRATION).is_file() else [])]
    return {name: {"sha256": sha256(folder / name), "bytes": (folder / name).stat().st_size} for name in names}


def read_export_manifest(folder: Path) -> ExportManifest:
    """Read `model.json` and check it, and every file, by their hashes.

    Raises ValueError when a file is missing or changed, or the format is newer.
    """
    refuse_address(folder)
    path = folder / EXPORT_MANIFEST
    if not path.is_file():
        raise ValueError(
            f"{folder} is no exported model: it has no {EXPORT_MANIFEST}; make one with: limner export RUN --out FOLDER"
        )
    saved = read_json(path)
    if not isinstance(saved, dict) or not isinstance(saved.get("format"), int):
        raise ValueError(f"{path} does not describe an exported model: it has no format number")
    if saved["format"] > FORMAT:
        raise ValueError(
            f"{folder} has export format {saved['format']}, of limner {saved.get('version')}; this limner reads up to "
            f"{FORMAT}: update limner, or export again"
        )
    if saved.pop("sha256", None) != _digest(saved):
        raise ValueError(f"{path} was changed after the export: its hash differs; take a fresh copy, or export again")
    try:
        manifest = TypeAdapter(ExportManifest).validate_python(migrate(saved))
    except ValidationError as error:
        raise ValueError(f"{path} does not describe an exported model ({error})") from error
    for name in dict.fromkeys([*EXPORTED_FILES, *([CALIBRATION] if CALIBRATION in manifest.files else [])]):
        entry, file = manifest.files.get(name), folder / name
        if entry is None or not file.is_file():
            raise ValueError(f"{file} is missing; take a fresh copy, or export again")
        if file.stat().st_size != entry["bytes"] or sha256(file) != entry["sha256"]:
            raise ValueError(f"{file} is not the file that was exported: its hash differs; take a fresh copy")
    return manifest


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _session(path: Path, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError("the ONNX engine needs onnxruntime: pip install limner[onnx]") from error

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # weights that are stored as int8 only to make the file smaller are converted to float once, not in every call
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own error classes have no other common base class
        raise ValueError(f"{path} cannot be run ({str(error).splitlines()[0]:.200})") from error
