"""SFTCap's folders: lists are read as data, never executed."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from limner.core.types import Layout
from limner.data.datasets import DataConfig, read_dataset
from limner.data.feature_files import FeatureFiles
from limner.data.frames import FrameSampling
from limner.data.sftcap import read, read_ids, write_frame_features
from limner.data.store import FeatureStore, StoreWriter

CAPTIONS = [("v1", "a man rides"), ("v3", "two dogs"), ("v1", "a rider"), ("v2", "a cat"), ("v9", "nobody's")]


def folder(root: Path, kind: str = "sentences", **lists: Any) -> Path:
    for name in ("splits", "language"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name, ids in (lists or {"train": ["v1", "v4"], "valid": ["v2"], "test": ["v3"]}).items():
        (root / "splits" / f"MSRVTT_{name}_list.pkl").write_bytes(pickle.dumps(ids))
    field = "caption" if kind == "sentences" else "sentence"
    rows = [{"video_id": id, field: text, "sen_id": k} for k, (id, text) in enumerate(CAPTIONS)]
    (root / "language" / "MSRVTT_caption.json").write_text(json.dumps({kind: rows}))
    return root


@pytest.mark.parametrize("kind", ["sentences", "metadata"])
def test_splits_and_captions_are_read(tmp_path: Path, kind: str) -> None:
    dataset = read_dataset(DataConfig("sftcap", annotations=str(folder(tmp_path, kind))))
    assert {m.id: (m.split, m.references) for m in dataset.media} == {
        "v1": ("train", ("a man rides", "a rider")),
        "v4": ("train", ()),
        "v2": ("val", ("a cat",)),
        "v3": ("test", ("two dogs",)),
    }
    assert any(line.startswith("v9: in no list") for line in dataset.problems)
    assert any(line.startswith("v4: no caption") for line in dataset.problems)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_split_lists_of_every_protocol_are_read(tmp_path: Path, protocol: int) -> None:
    for ids in (["v1", "v2"], ("v1", "v2"), [1, 2]):
        (tmp_path / "x.pkl").write_bytes(pickle.dumps(ids, protocol))
        assert read_ids(tmp_path / "x.pkl") == [str(id) for id in ids]


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch /tmp/limner-was-here",)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pickle.dumps(["v1", Evil()]), "asks for posix.system|asks for nt.system"),
        (pickle.dumps(np.array(["v1"])), "asks for numpy"),
        (pickle.dumps({"v1": 1}), "expected a pickled list of ids, got dict"),
        (pickle.dumps([["v1"]]), "expected a pickled list of ids, got list"),
        (pickle.dumps([True]), "expected a pickled list of ids"),
        (pickle.dumps(["v1"])[:-3], "not a pickled list of ids"),
        (b"", "not a pickled list of ids"),
        (b"cos\nsystem\n(S'touch /tmp/limner-was-here'\ntR.", "asks for os.system"),
        (b"Pelsewhere\n.", "outside"),
    ],
)
def test_nothing_in_a_pickle_is_executed(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=reason) as caught:
        read_ids(tmp_path / "x.pkl")
    assert "x.pkl" in str(caught.value) and not Path("/tmp/limner-was-here").exists()


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no split list"):
        read(tmp_path)
    with pytest.raises(ValueError, match="'v1' is in two split lists"):
        read(folder(tmp_path / "two", train=["v1"], test=["v1"]))
    with pytest.raises(ValueError, match="two lists for the split val"):
        read(folder(tmp_path / "twice", val=["v1"], valid=["v1"]))
    where = folder(tmp_path / "none")
    (where / "language" / "MSRVTT_caption.json").write_text('{"sentences": [{"video": 1}]}')
    with pytest.raises(ValueError, match="not in SFTCap's format"):
        read(where)
    (where / "language" / "MSRVTT_caption.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds 0 files NAME_caption\.json"):
        read(where)


def test_frame_features_are_written_and_read_as_feature_files(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "store", {"name": "x", "sha256": "y"})
    grids = {id: torch.randn(5, 4) for id in ("v1", "v2")}
    for id, grid in grids.items():
        writer.add(id, "full", grid, Layout(5, 1, 1))
    writer.finish()
    store, target = FeatureStore(tmp_path / "store"), tmp_path / "visual" / "ViT-B-32"
    assert write_frame_features(store, target, ["v1", "v3", "v2"]) == ["v1", "v2"]
    saved = np.load(target / "frame_feature" / "v2.npy", allow_pickle=False)
    assert saved.dtype == np.float32 and np.array_equal(saved, grids["v2"].half().float().numpy())
    media = {m.id: m for m in read(folder(tmp_path / "data")).media}
    features = FeatureFiles([target / "frame_feature"], FrameSampling(3)).read([(media["v1"], "full")])
    assert torch.equal(features.grid[0], grids["v1"].half().float()[[0, 2, 4]])  # linspace(0, 4, 3)


@pytest.mark.parametrize(
    ("id", "layout", "reason"), [("a/b", (5, 1, 1), "cannot be a file name"), ("v", (1, 5, 1), "one vector per")]
)
def test_features_that_cannot_be_written_are_refused(
    tmp_path: Path, id: str, layout: tuple[int, int, int], reason: str
) -> None:
    writer = StoreWriter(tmp_path / "store", {"name": "x", "sha256": "y"})
    writer.add(id, "full", torch.randn(5, 4), Layout(*layout))
    writer.finish()
    with pytest.raises(ValueError, match=reason):
        write_frame_features(FeatureStore(tmp_path / "store"), tmp_path / "out", [id])
    assert not list((tmp_path / "out").rglob("*.npy"))
