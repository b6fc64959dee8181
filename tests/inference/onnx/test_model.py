"""Nothing that was changed, cut, or made by a newer limner is run."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from limner.inference.onnx.model import (
    EXPORT_MANIFEST,
    EXPORTED_FILES,
    ExportManifest,
    OnnxModel,
    file_hashes,
    is_exported,
    read_export_manifest,
)
from limner.inference.onnx.pipeline import OnnxPipeline


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "copy"))


@pytest.mark.parametrize("name", EXPORTED_FILES)
def test_a_flipped_byte_is_named(copy: Path, name: str):
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"copy/{name} is not the file that was exported: its hash differs"):
        OnnxPipeline.load(copy)
    (copy / name).unlink()
    with pytest.raises(ValueError, match=rf"copy/{name} is missing"):
        OnnxPipeline.load(copy)


def test_the_card_is_held_against_itself(copy: Path):
    told = json.loads((copy / EXPORT_MANIFEST).read_text())
    (copy / EXPORT_MANIFEST).write_text(json.dumps({**told, "frames": 9}))
    with pytest.raises(ValueError, match=r"model\.json was changed after the export"):
        read_export_manifest(copy)
    (copy / EXPORT_MANIFEST).write_text((copy / EXPORT_MANIFEST).read_text()[:-40])
    with pytest.raises(ValueError, match=r"model\.json is not a JSON file"):
        read_export_manifest(copy)


def test_other_export_formats_are_refused(copy: Path, tmp_path: Path):
    card = read_export_manifest(copy)
    replace(card, format=4, version="9.9").save(copy)
    with pytest.raises(ValueError, match=r"export format 4, of limner 9\.9; this limner reads up to 3: update limner"):
        OnnxPipeline.load(copy)
    (copy / EXPORT_MANIFEST).write_text("[]")
    with pytest.raises(ValueError, match="does not describe an exported model: it has no format number"):
        OnnxPipeline.load(copy)
    assert is_exported(copy) and not is_exported(tmp_path)
    with pytest.raises(ValueError, match=r"no exported model: it has no model\.json; make one with: limner export RUN"):
        OnnxPipeline.load(tmp_path)


def test_an_invalid_graph_is_refused(copy: Path):
    """With the right hash: it was no graph when it was exported."""
    (copy / "step.onnx").write_bytes(b"import os; os.remove('x')")
    replace(read_or_guess(copy), files=file_hashes(copy)).save(copy)
    with pytest.raises(ValueError, match=r"step\.onnx cannot be run"):
        OnnxModel.load(copy)


def read_or_guess(folder: Path) -> ExportManifest:
    """The card, whatever the files are by now."""
    from pydantic import TypeAdapter

    told = json.loads((folder / EXPORT_MANIFEST).read_text())
    del told["sha256"]
    return TypeAdapter(ExportManifest).validate_python(told)


def test_a_card_is_read_as_it_was_saved(exported: Path, tmp_path: Path):
    card = read_export_manifest(exported)
    shutil.copytree(exported, tmp_path / "x")
    card.save(tmp_path / "x")
    assert read_export_manifest(tmp_path / "x") == card
    assert card.fingerprint != replace(card, files={}).fingerprint
