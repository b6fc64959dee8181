"""The feature store: exact, resumable, and clear about what is wrong with it."""

import json
import pickle
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from limner.core.types import Layout
from limner.data.store import (
    ChannelCountError,
    FeatureStore,
    Float16RangeError,
    StoreWriter,
    provenance_differences,
    provenance_hash,
)

MADE_BY = {"name": "test", "sha256": "abc", "preprocessing": {"size": 8, "mean": [0.5]}, "dim": 4}
LAYOUT = Layout(1, 2, 3)


def grid(seed: int, layout: Layout = LAYOUT) -> Tensor:
    return torch.randn(layout.cells, 4, generator=torch.Generator().manual_seed(seed))


def fill(folder: Path, seeds: Sequence[int], shard_items: int = 4, finish: bool = True) -> StoreWriter:
    writer = StoreWriter(folder, MADE_BY, shard_items)
    for seed in seeds:
        writer.add(f"m{seed}", "full", grid(seed), LAYOUT)
    if finish:
        writer.finish()
    return writer


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_round_trip_is_exact_in_float16(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path, MADE_BY, shard_items=2)
    layouts = [Layout(1, 2, 3), Layout(4, 1, 1), Layout(2, 2, 2)]
    for k, layout in enumerate(layouts):
        writer.add(f"m{k}", "full", grid(k, layout), layout)
        writer.add(f"m{k}", "flip", grid(10 + k, layout), layout)
    writer.fail("bad", "no such file")
    writer.finish()

    store = FeatureStore(tmp_path)
    assert store.ids == ["m0", "m1", "m2"] and len(store) == 6
    assert store.augmentations == ["full", "flip"] and store.dim == 4 and store.provenance == MADE_BY
    assert store.failures == {"bad": "no such file"}
    assert "m1" in store and "m1#flip" in store and "bad" not in store and "m1#crop-tl" not in store
    for k, layout in enumerate(layouts):
        for augmentation, seed in (("full", k), ("flip", 10 + k)):
            cells, stored_layout, boxes = store.get(f"m{k}", augmentation)
            assert cells.dtype == torch.float16 and boxes is None
            assert isinstance(stored_layout, Layout) and stored_layout == layout
            assert torch.equal(cells, grid(seed, layout).half())
    store.verify()


def test_what_is_read_is_a_copy(tmp_path: Path) -> None:
    fill(tmp_path, range(2))
    store = FeatureStore(tmp_path)
    store.get("m0")[0].zero_()
    assert torch.equal(store.get("m0")[0], grid(0).half())
    store.verify()


def test_boxes_are_stored_and_read_back(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path, MADE_BY)
    boxes = [torch.rand(n, 4, generator=torch.Generator().manual_seed(n)) for n in (3, 5)]
    for n, box in zip((3, 5), boxes, strict=True):
        writer.add(f"m{n}", "full", grid(n, Layout(1, 1, n)), Layout(1, 1, n), box)
    with pytest.raises(ValueError, match="m6 has no boxes and the entries before it have boxes"):
        writer.add("m6", "full", grid(6), LAYOUT)
    writer.finish()
    store = FeatureStore(tmp_path)
    for n, box in zip((3, 5), boxes, strict=True):
        assert torch.equal(store.get(f"m{n}")[2], box)  # type: ignore[arg-type]


def test_shards_and_index_are_in_the_documented_format(tmp_path: Path) -> None:
    fill(tmp_path, range(5))
    shard = load_file(tmp_path / "shard-00001.safetensors")
    assert torch.equal(shard["grid"], grid(4).half()) and shard["offsets"].tolist() == [0, 6]
    index = json.loads((tmp_path / "index.json").read_text())
    assert index["format"] == "limner-features" and index["version"] == 3 and index["dtype"] == "float16"
    assert [line["keys"] for line in index["shards"]] == [["m0", "m1", "m2", "m3"], ["m4"]]
    assert index["shards"][1]["layouts"] == [[1, 2, 3]]
    assert set(index["shards"][1]) == {"file", "sha256", "bytes", "keys", "layouts", "crc32"}


def test_a_killed_extraction_loses_at_most_one_shard_and_ends_equal(tmp_path: Path) -> None:
    fill(tmp_path / "straight", range(14))
    fill(tmp_path / "killed", range(11), finish=False)  # dies with 3 entries in memory ...
    (tmp_path / "killed" / ".shard-00002.safetensors.x1").write_bytes(b"half a shard")  # ... and one file half written
    with pytest.raises(ValueError, match=r"unfinished extraction .* run `limner extract` again"):
        FeatureStore(tmp_path / "killed")

    writer = StoreWriter(tmp_path / "killed", MADE_BY, 4)
    assert len(writer) == 8 and "m7" in writer and "m8" not in writer
    fill(tmp_path / "killed", range(14))
    assert contents(tmp_path / "killed") == contents(tmp_path / "straight")


def test_a_broken_shard_is_redone_by_the_next_run(tmp_path: Path) -> None:
    fill(tmp_path / "straight", range(12))
    fill(tmp_path / "broken", range(12))
    path = tmp_path / "broken" / "shard-00001.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"shard-00001.safetensors has \d+ bytes instead of \d+; run `limner extract`"):
        FeatureStore(tmp_path / "broken")
    fill(tmp_path / "broken", range(12))
    assert contents(tmp_path / "broken") == contents(tmp_path / "straight")
    path.unlink()
    with pytest.raises(ValueError, match=r"shard-00001.safetensors is missing; run"):
        FeatureStore(tmp_path / "broken")


def test_verify_names_the_shard_whose_bytes_changed(tmp_path: Path) -> None:
    fill(tmp_path, range(8))
    path = tmp_path / "shard-00001.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"changed since extraction: \S*shard-00001.safetensors; delete them"):
        FeatureStore(tmp_path).verify()


def test_a_changed_shard_is_found_when_its_entry_is_first_read(tmp_path: Path) -> None:
    """A flipped bit in the cells of m5, and one in the boxes of a detector; all other entries are read."""
    fill(tmp_path, range(8))
    path = tmp_path / "shard-00001.safetensors"
    cells = grid(5).half().numpy().tobytes()
    content = path.read_bytes()
    path.write_bytes(content.replace(cells, bytes([cells[0] ^ 1]) + cells[1:]))
    store = FeatureStore(tmp_path)
    for id in store.ids:
        if id != "m5":
            store.get(id)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"shard-00001.safetensors is damaged: m5 is not what was written; delete"):
            store.get("m5")
    path.write_bytes(content)
    assert torch.equal(FeatureStore(tmp_path).get("m5")[0], grid(5).half())


def test_a_changed_index_is_found_when_it_is_opened(tmp_path: Path) -> None:
    """Two ids exchanged, a checksum, the checksum of the index itself; and every byte, one after the other."""
    fill(tmp_path, range(2))
    index = tmp_path / "index.json"
    content = index.read_bytes()
    for old, new in ((b'"m0", "m1"', b'"m1", "m0"'), (b'"bytes": ', b'"bytes":  '), (b"}\n", b"}")):
        index.write_bytes(content.replace(old, new))
        if new == b"}":  # the end of the last line
            FeatureStore(tmp_path)
            continue
        with pytest.raises(ValueError, match=r"index.json is damaged: its checksum is another one; delete it and run"):
            FeatureStore(tmp_path)
    for place in range(len(content) - 2):
        index.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(ValueError, match=r"index\.json"):
            FeatureStore(tmp_path)


def test_a_store_of_version_2_is_read_and_gets_checksums_when_it_is_extended(tmp_path: Path) -> None:
    fill(tmp_path, range(6))
    new = contents(tmp_path)
    index = json.loads(new["index.json"])
    index = {**{key: value for key, value in index.items() if key != "sha256"}, "version": 2}
    for shard in index["shards"]:
        del shard["crc32"]
    (tmp_path / "index.json").write_text(json.dumps(index))
    store = FeatureStore(tmp_path)
    assert store.version == 2 and torch.equal(store.get("m5")[0], grid(5).half())
    fill(tmp_path, range(6))
    assert contents(tmp_path) == new
    del index["shards"][0]["keys"]
    (tmp_path / "index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"index.json is damaged \(KeyError\('keys'\)\); delete it"):
        FeatureStore(tmp_path)


def test_another_encoder_is_refused_field_by_field(tmp_path: Path) -> None:
    fill(tmp_path / "finished", range(2))
    fill(tmp_path / "unfinished", range(4), finish=False)
    other = {**MADE_BY, "sha256": "xyz", "preprocessing": {"size": 9, "mean": [0.5]}}
    expected = r"(?s)another encoder.*preprocessing.size: the store has 8, this encoder 9.*sha256: the store has 'abc'"
    for folder in ("finished", "unfinished"):
        before = contents(tmp_path / folder)
        with pytest.raises(ValueError, match=expected):
            StoreWriter(tmp_path / folder, other)
        assert contents(tmp_path / folder) == before
    store = FeatureStore(tmp_path / "finished")
    store.require_encoder(dict(reversed(MADE_BY.items())))
    with pytest.raises(ValueError, match=expected):
        store.require_encoder(other)


def test_provenance_hash_and_differences_by_hand() -> None:
    assert provenance_hash({"a": 1, "b": 2}) == provenance_hash({"b": 2, "a": 1}) != provenance_hash({"a": 1, "b": 3})
    assert provenance_differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 4}) == [
        "a.c: the store has 2, this encoder 3",
        "d: the store has None, this encoder 4",
    ]


def test_the_folder_of_the_weights_does_not_matter(tmp_path: Path) -> None:
    here, there = {**MADE_BY, "source": "weights"}, {**MADE_BY, "source": "elsewhere"}
    assert provenance_hash(here) == provenance_hash(there) != provenance_hash({**here, "dim": 5})
    fill(tmp_path, range(3), finish=False)  # made without a source
    writer = StoreWriter(tmp_path, here, 1)
    writer.add("m7", "full", grid(7), LAYOUT)
    writer.finish()
    assert len(StoreWriter(tmp_path, there)) == 1
    FeatureStore(tmp_path).require_encoder(there)


def test_a_shard_with_a_provenance_hash_of_an_earlier_version_is_kept(tmp_path: Path) -> None:
    """Its hash went over the source as well."""
    fill(tmp_path, range(4), finish=False)
    path = tmp_path / "shard-00000.safetensors"
    with safe_open(path, "pt") as shard:
        facts = json.loads(shard.metadata()["limner"])
    save_file(load_file(path), path, {"limner": json.dumps({**facts, "provenance_hash": "0" * 64})})
    StoreWriter(tmp_path, {**MADE_BY, "source": "elsewhere"}).finish()
    store = FeatureStore(tmp_path)
    assert store.ids == ["m0", "m1", "m2", "m3"]
    for seed, id in enumerate(store.ids):
        assert torch.equal(store.get(id, "full")[0], grid(seed).half())


@pytest.mark.data
def test_the_store_of_flickr8k_can_be_used() -> None:
    from limner.encoders import PretrainedConfig, build_encoder

    root = Path(__file__).parents[2]
    if not (folder := root / "features" / "flickr8k_mobilenet_v2").is_dir():
        pytest.skip("make the store first: limner extract recipes/flickr8k_show_attend_tell_frozen.yaml")
    store = FeatureStore(folder)
    assert store.get(store.ids[0])[0].shape == (49, 1280)
    source = str(root.parent / "shared" / "weights" / "mobilenet_v2_1.0_224")
    provenance = build_encoder(PretrainedConfig(source=source)).provenance()
    store.require_encoder({**provenance, "source": "a copy"})
    with pytest.raises(ValueError, match="sha256"):
        store.require_encoder({**provenance, "sha256": "x"})


def test_a_full_disk_does_not_damage_the_existing_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, range(4))
    before = contents(tmp_path)

    def full(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"part of a shard")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(safetensors.torch, "save_file", full)
        with pytest.raises(OSError, match="No space left"):
            fill(tmp_path, range(9))
    assert contents(tmp_path) == before
    FeatureStore(tmp_path).verify()
    fill(tmp_path, range(9))
    assert len(FeatureStore(tmp_path)) == 9


def test_a_finished_store_can_be_added_to(tmp_path: Path) -> None:
    fill(tmp_path, range(3))
    writer = StoreWriter(tmp_path, MADE_BY, 4)
    for seed in range(3):
        writer.add(f"m{seed}", "flip", -grid(seed), LAYOUT)
    assert FeatureStore(tmp_path).augmentations == ["full"]  # readers see the old index until the new one is complete
    writer.finish()
    store = FeatureStore(tmp_path)
    assert store.augmentations == ["full", "flip"] and torch.equal(store.get("m2", "flip")[0], -grid(2).half())


def test_features_that_cannot_be_stored_are_refused(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path, MADE_BY)
    with pytest.raises(Float16RangeError, match=r"m0: .* 65504"):
        writer.add("m0", "full", grid(0) * 1e6, LAYOUT)
    with pytest.raises(ValueError, match="6 cells do not fit layout"):
        writer.add("m0", "full", grid(0), Layout(1, 1, 5))
    with pytest.raises(ValueError, match="ends like a stored augmentation"):
        writer.add("m0#flip", "full", grid(0), LAYOUT)
    with pytest.raises(ValueError, match="no features to store"):
        writer.finish()
    writer.add("shot #3", "full", grid(0), LAYOUT)
    writer.finish()
    assert FeatureStore(tmp_path).ids == ["shot #3"]


def test_cells_of_another_width_are_refused_and_the_store_goes_on(tmp_path: Path) -> None:
    """Before anything is stored, within a shard, after one, and in a store that was opened again."""
    writer = StoreWriter(tmp_path, MADE_BY, shard_items=2)
    wide = torch.randn(6, 5)
    for seed in range(3):
        writer.add(f"m{seed}", "full", grid(seed), LAYOUT)
        with pytest.raises(ChannelCountError, match=rf"x: 5 channels; the cells in {tmp_path} have 4"):
            writer.add("x", "full", wide, LAYOUT)
    writer.finish()
    before = contents(tmp_path)
    with pytest.raises(ChannelCountError, match="5 channels"):
        StoreWriter(tmp_path, MADE_BY, 1).add("x", "full", wide, LAYOUT)
    assert contents(tmp_path) == before
    assert len(fill(tmp_path, range(6))) == 6 and len(FeatureStore(tmp_path)) == 6


def test_the_error_about_a_store_of_two_widths_says_what_to_do(tmp_path: Path) -> None:
    """Earlier versions could leave one: a shard that no index knows."""
    fill(tmp_path / "store", range(4))
    other = StoreWriter(tmp_path / "other", MADE_BY)
    other.add("x", "full", torch.randn(6, 5), LAYOUT)
    other.flush()
    strange = (tmp_path / "other" / "shard-00000.safetensors").rename(tmp_path / "store" / "shard-00001.safetensors")
    with pytest.raises(ValueError, match=r"shard-00001\S+ holds cells of 5 channels, .* of 4; .*move the shards of"):
        StoreWriter(tmp_path / "store", MADE_BY)
    assert strange.exists() and len(FeatureStore(tmp_path / "store")) == 4
    strange.rename(tmp_path / "away")
    fill(tmp_path / "store", range(6))
    assert len(FeatureStore(tmp_path / "store")) == 6


def test_errors_explain_what_is_missing(tmp_path: Path) -> None:
    writer = fill(tmp_path, range(2), finish=False)
    writer.fail("bad", "bad.jpg: the file is empty")
    writer.finish()
    store = FeatureStore(tmp_path)
    for id, augmentation, message in (
        ("bad", "full", "the file is empty"),
        ("m0", "flip", "no augmentation 'flip' .* may have full"),
        ("m9", "full", "m9 is not in .* extract it first"),
    ):
        with pytest.raises(KeyError, match=message):
            store.get(id, augmentation)
    with pytest.raises(
        ValueError, match=r"is not a feature store \(no index.json\); make one of images or clips with `limner extract`"
    ):
        FeatureStore(tmp_path / "elsewhere")


def test_an_index_of_another_format_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, range(2))
    index = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps({**index, "version": 4}))
    with pytest.raises(ValueError, match="version 4; this limner reads limner-features up to version 3"):
        FeatureStore(tmp_path)


def _sum(store: FeatureStore) -> float:
    return sum(float(store.get(id)[0].float().sum()) for id in store.ids)


def test_forked_and_pickled_stores_read_the_same(tmp_path: Path) -> None:
    fill(tmp_path, range(9))
    store = FeatureStore(tmp_path)
    expected = _sum(store)
    assert _sum(pickle.loads(pickle.dumps(store))) == expected
    assert len(pickle.dumps(store)) < 1000
    with get_context("fork").Pool(2) as pool:
        assert pool.map(_sum, [store, store]) == [expected] * 2
