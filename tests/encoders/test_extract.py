"""Extraction: bad media are skipped and named, augmentations go to the right split, a rerun changes nothing."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from limner.core.types import Features, Layout, Medium, Pixels
from limner.data.frames import FrameSampling
from limner.data.store import FeatureStore, StoreWriter
from limner.encoders.encoder import Encoder
from limner.encoders.extract import extract
from tests.data.videos import greys, noise, tone, write


class Means(Encoder):
    """One cell per frame: the mean colour.  Keeps the picture's size, so shapes differ from medium to medium."""

    dim = 3

    def __init__(self, limit: int | None = None) -> None:
        super().__init__()
        self.batches: list[tuple[int, ...]] = []
        self.limit = limit

    def preprocess(self, frames: UInt8[np.ndarray, "T H W 3"]) -> Float[Tensor, "T 3 h w"]:
        return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()

    def forward(self, pixels: Pixels) -> Features:
        if self.limit is not None and len(self.batches) >= self.limit:
            raise KeyboardInterrupt
        self.batches.append(tuple(pixels.frames.shape))
        grid = pixels.frames.mean((-1, -2))
        return Features(grid, torch.ones(grid.shape[:2], dtype=torch.bool), Layout(grid.shape[1], 1, 1))

    def provenance(self) -> dict[str, Any]:
        return {"name": "means"}


def pictures(folder: Path, count: int = 20) -> list[Medium]:
    """Picture k is grey k with a left half of 100 + k; two sizes take turns; the last five are for validation."""
    media = []
    for k in range(count):
        pixels = np.full((10, 20 if k % 2 else 40, 3), k, np.uint8)
        pixels[:, : pixels.shape[1] // 2] += 100
        path = folder / f"p{k}.png"
        Image.fromarray(pixels).save(path)
        media.append(Medium(f"p{k}", str(path), "val" if k >= count - 5 else "train"))
    return media


def test_three_bad_files_among_twenty(tmp_path: Path) -> None:
    media = pictures(tmp_path)
    (tmp_path / "p3.png").write_bytes(b"")
    (tmp_path / "p7.png").write_bytes(b"no picture at all")
    (tmp_path / "p19.png").unlink()
    seen: list[tuple[int, int]] = []
    encoder = Means()
    report = extract(media, encoder, tmp_path / "out", batch_size=4, progress=lambda done, of: seen.append((done, of)))

    assert (report.written, report.already_stored) == (17, 0)
    reasons = dict(report.failures)
    assert list(reasons) == ["p3", "p7", "p19"]
    assert "empty" in reasons["p3"] and "not an image" in reasons["p7"] and "no such file" in reasons["p19"]
    assert str(report) == "17 entries written, 0 already there, 3 media failed"
    assert seen[0] == (0, 20) and seen[-1] == (20, 20)

    store = FeatureStore(tmp_path / "out")
    assert len(store) == 17 and store.failures == reasons
    assert store.ids == [medium.id for medium in media if medium.id not in reasons]
    for k in (0, 1, 18):
        grid, layout, _ = store.get(f"p{k}")
        assert layout == Layout(1, 1, 1) and grid.tolist() == [[50.0 + k] * 3]
    assert {shape[-1] for shape in encoder.batches} == {20, 40}  # never mixed, and still batched
    assert max(shape[0] for shape in encoder.batches) == 2


def test_views_are_for_the_training_split(tmp_path: Path) -> None:
    report = extract(pictures(tmp_path), Means(), tmp_path / "out", ("full", "flip", "crop-tl"), batch_size=4)
    store = FeatureStore(tmp_path / "out")
    assert report.written == len(store) == 20 + 15 + 15 and store.augmentations == ["full", "flip", "crop-tl"]
    assert "p14#flip" in store and "p15#flip" not in store
    assert store.get("p1", "flip")[0].tolist() == [[51.0] * 3]
    # 17 of 20 columns are left, 10 of them bright: 1 + 100 * 10 / 17
    torch.testing.assert_close(store.get("p1", "crop-tl")[0], torch.full((1, 3), 1 + 1000 / 17).half())


def test_a_rerun_continues_a_killed_run_and_then_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    media = pictures(tmp_path)
    monkeypatch.setattr("limner.encoders.extract.StoreWriter", partial(StoreWriter, shard_items=8))
    extract(media, Means(), tmp_path / "straight", batch_size=4)
    with pytest.raises(KeyboardInterrupt):
        extract(media, Means(limit=7), tmp_path / "killed", batch_size=4)  # three batches of two sizes are through
    assert [path.name for path in (tmp_path / "killed").iterdir()] == ["shard-00000.safetensors"]
    report = extract(media, Means(), tmp_path / "killed", batch_size=4)
    assert (report.written, report.already_stored) == (12, 8)
    for path in (tmp_path / "straight").iterdir():
        assert path.read_bytes() == (tmp_path / "killed" / path.name).read_bytes()

    encoder = Means(limit=0)
    report = extract(media, encoder, tmp_path / "killed")
    assert (report.written, report.already_stored) == (0, 20)


def test_features_beyond_float16_are_a_failure_of_that_medium(tmp_path: Path) -> None:
    class Huge(Means):
        def preprocess(self, frames: UInt8[np.ndarray, "T H W 3"]) -> Float[Tensor, "T 3 h w"]:
            return super().preprocess(frames) * (1e6 if frames.min() == 2 else 1)

    report = extract(pictures(tmp_path), Huge(), tmp_path / "out")
    assert report.written == 19 and report.failures[0][0] == "p2" and "65504" in report.failures[0][1]


def test_wrong_calls(tmp_path: Path) -> None:
    media = pictures(tmp_path, 6)
    with pytest.raises(ValueError, match=r"unknown augmentations \['flop'\]; known are full, flip"):
        extract(media, Means(), tmp_path / "out", ("full", "flop"))
    with pytest.raises(ValueError, match="'p0' occurs twice"):
        extract([media[0], media[0]], Means(), tmp_path / "out")
    with pytest.raises(ValueError, match=r"no features to store, .*no such file"):
        extract([Medium("x", str(tmp_path / "x.png"))], Means(), tmp_path / "out", workers=0)
    with pytest.raises(ValueError, match="batch_size is 0"):
        extract(media, Means(), tmp_path / "out", batch_size=0)


def test_clips_by_a_policy_and_damage_is_told(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.mp4", greys(20))
    cut = write(tmp_path / "cut.mkv", noise(40))
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    paths = (whole, cut, tone(tmp_path / "sound.mp4"))
    media = [Medium(path.stem, str(path), "train") for path in paths]
    report = extract(media, Means(), tmp_path / "s", sampling=FrameSampling(3, "tail"))
    assert [id for id, _ in report.failures] == ["sound"]
    (line,) = report.damaged
    assert line.startswith(f"{cut}: truncated: ") and line.endswith(" of 4.0 s can be read")
    assert str(report) == "2 entries written, 0 already there, 1 media failed, 1 damaged but read"
    grid, layout, _ = FeatureStore(tmp_path / "s").get("whole")
    assert layout == Layout(3, 1, 1) and (grid.float().mean(1) / 10).round().tolist() == [17, 18, 19]
