"""An exported captioner on disk: `encoder.onnx`, `step.onnx`, `vocabulary.json`, and `model.json` about all of it.

Every file is held against the hash in `model.json`, and that against its own, before anything is run.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8
from pydantic import TypeAdapter, ValidationError

from limner.core.files import read_json, sha256, write_json
from limner.core.migration import migrate
from limner.core.version import __version__
from limner.data.frames import SamplingConfig
from limner.decode.options import Beam
from limner.inference.onnx.beam import OnnxStepOutput, State
from limner.inference.onnx.pixels import Preprocess
from limner.text.load import load_vocabulary
from limner.text.vocabulary import Vocabulary

FORMAT = 2
EXPORT_MANIFEST = "model.json"
EXPORTED_FILES = ("encoder.onnx", "step.onnx", "vocabulary.json")


@dataclass(frozen=True)
class ExportManifest:
    """What `model.json` says."""

    files: dict[str, dict[str, Any]]  # name -> sha256, bytes
    preprocess: Preprocess
    frames: int  # sampled from a clip
    sampling: SamplingConfig
    decoding: Beam  # words as ids
    layout: tuple[int, int]  # rows and columns of a frame's cells
    pictures: bool  # False: it reads clips only
    clips: bool  # False: it reads pictures only
    memory: list[str]  # outputs of the encoder that every step reads ...
    state: list[str]  # ... and those that a step reads and renews (`new_...`)
    source: dict[str, Any]  # what was exported, and what was measured before it was written
    int8: bool = False
    format: int = FORMAT
    version: str = __version__

    @property
    def fingerprint(self) -> str:
        """Hex digest of both graphs and the words."""
        return _digest({name: told["sha256"] for name, told in self.files.items()})

    def save(self, folder: Path) -> None:
        content = asdict(self)
        write_json(folder / EXPORT_MANIFEST, {**content, "sha256": _digest(content)})


class OnnxModel:
    """Both graphs, loaded."""

    def __init__(self, folder: Path, card: ExportManifest, vocabulary: Vocabulary, threads: int):
        self.folder, self.card, self.vocabulary = folder, card, vocabulary
        self.encoder = _session(folder / "encoder.onnx", threads)
        self.decoder = _session(folder / "step.onnx", threads)
        self._reads = {entry.name for entry in self.decoder.get_inputs()}

    @classmethod
    def load(cls, folder: str | PathLike[str], threads: int = 0) -> "OnnxModel":
        """`threads` 0: as many as there are cores.  Raises ValueError that names what is missing, changed or newer."""
        folder = Path(folder).expanduser()
        card = read_export_manifest(folder)
        return cls(folder, card, load_vocabulary(folder / "vocabulary.json"), threads)

    def encode(self, pixels: UInt8[np.ndarray, "T h w 3"]) -> tuple[dict[str, np.ndarray], State]:
        """What is computed once per medium: the memory by name, and the state of one hypothesis."""
        found = self.encoder.run([*self.card.memory, *self.card.state], {"pixels": pixels[None]})
        count = len(self.card.memory)
        return dict(zip(self.card.memory, found[:count], strict=True)), found[count:]

    def step(self, memory: Mapping[str, np.ndarray], token: Int[np.ndarray, " R"], state: State) -> OnnxStepOutput:
        """One word more for R hypotheses."""
        given = {"token": token, **memory, **dict(zip(self.card.state, state, strict=True))}
        names = ["logits", "attention", *(f"new_{name}" for name in self.card.state)]
        logits, attention, *state = self.decoder.run(
            names, {name: value for name, value in given.items() if name in self._reads}
        )
        return logits, attention, state


def is_exported(folder: str | PathLike[str]) -> bool:
    return (Path(folder).expanduser() / EXPORT_MANIFEST).is_file()


def file_hashes(folder: Path, names: Sequence[str] = EXPORTED_FILES) -> dict[str, dict[str, Any]]:
    """What `ExportManifest.files` says of them."""
    return {name: {"sha256": sha256(folder / name), "bytes": (folder / name).stat().st_size} for name in names}


def read_export_manifest(folder: Path) -> ExportManifest:
    """Checked, with every file it names."""
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
        raise ValueError(f"{path} is not as it was written: its hash differs; take a fresh copy, or export again")
    try:
        card = TypeAdapter(ExportManifest).validate_python(migrate(saved))
    except ValidationError as error:
        raise ValueError(f"{path} does not describe an exported model ({error})") from error
    for name in EXPORTED_FILES:
        told, file = card.files.get(name), folder / name
        if told is None or not file.is_file():
            raise ValueError(f"{file} is missing; take a fresh copy, or export again")
        if file.stat().st_size != told["bytes"] or sha256(file) != told["sha256"]:
            raise ValueError(f"{file} is not the file that was exported: its hash differs; take a fresh copy")
    return card


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
    # weights that are stored as int8 for the file's sake only become floats once, not at every call
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of onnxruntime's own kinds, which share no base but this one
        raise ValueError(f"{path} cannot be run ({str(error).splitlines()[0]:.200})") from error
