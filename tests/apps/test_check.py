"""`limner check`: every kind of planted fault is found among 500 pictures, and nothing in a clean data set."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from limner.apps.cli import main
from limner.core.types import Layout
from limner.data.inspection import inspect_data
from limner.data.own_data import find_data
from limner.data.picture_hash import hash_picture, near_pairs
from limner.data.store import StoreWriter

COUNT = 500
SUBJECTS = ("dog", "horse", "woman", "man", "child", "bird", "boat", "cyclist", "tram", "cook")
PLACES = ("beach", "street", "garden", "kitchen", "bridge", "field", "station", "forest", "harbour", "market")
DEEDS = ("waits at", "moves along", "looks over", "stands in", "crosses")


def picture(seed: int, size: int = 48) -> Image.Image:
    """Smooth noise, different for each seed."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC)


def captions(place: int) -> list[str]:
    """Two sentences, which no other place below 500 has."""
    subject, where, deed = SUBJECTS[place % 10], PLACES[place // 10 % 10], DEEDS[place // 100 % 5]
    return [f"a {subject} {deed} the {where}", f"the {subject} near a {where} {deed} the trees"]


def split_of(place: int) -> str:
    return {8: "val", 9: "test"}.get(place // 10 % 10, "train") if place >= 100 else "train"


def rows_of(place: int) -> list[list[str]]:
    return [[f"{place:03}", f"{place:03}.png", text, split_of(place)] for text in captions(place)]


def write(folder: Path, rows: list[list[str]]) -> Path:
    with open(folder / "data.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["id", "file", "caption", "split"], *rows])
    return folder / "data.csv"


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """500 pictures, with two captions each, without a fault."""
    folder = tmp_path_factory.mktemp("clean")
    (folder / "images").mkdir()
    for place in range(COUNT):
        picture(place).save(folder / "images" / f"{place:03}.png")
    write(folder, [row for place in range(COUNT) for row in rows_of(place)])
    return folder


PLANTED = {
    "missing": {"001"},
    "corrupt": {"002"},
    "damaged": {"003"},
    "duplicate": {"004", "005"},
    "near-duplicate": {"006", "007", "008"},
    "no-caption": {"009"},
    "empty": {"010"},
    "short": {"011"},
    "long": {"012"},
    "repeated": {"013"},
    "language": {"014", "015"},
    "encoding": {"016", "017"},
    "template": {"018", "019", "020", "021"},
    "widespread": {f"{place:03}" for place in range(30, 42)},
}
LEAKS = [{"050", "180"}, {"051", "190"}, {"052", "181"}]


def plant_files(images: Path) -> None:
    def name(place: int) -> Path:
        return images / f"{place:03}.png"

    name(1).unlink()
    name(2).write_bytes(b"<html>no picture</html>")
    picture(3, 200).save(name(3), "JPEG")
    name(3).write_bytes(name(3).read_bytes()[:-300])
    name(5).write_bytes(name(4).read_bytes())
    picture(6).save(name(7), "JPEG", quality=40)
    picture(6).resize((100, 100)).save(name(8))
    name(180).write_bytes(name(50).read_bytes())
    picture(51).point(lambda value: min(255, value * 1.1)).save(name(190), "JPEG", quality=70)


def planted_rows() -> Iterator[list[str]]:
    second = {
        9: "", 10: "...", 11: "dog", 12: "word " * 31, 13: captions(13)[0].upper() + ".",
        14: "ein Hund steht auf dem Sofa und schläft", 15: "собака бежит по полю", 16: "a cafÃ© in the old town",
        17: "a caf\ufffd in the old town", 18: "a photo &amp; a frame", 19: "Lorem ipsum dolor sit amet",
        20: "IMG_2041.JPG on the left side", 21: "I'm sorry, but I can't see the image.",
    }  # fmt: skip
    for place in range(COUNT):
        first, other = rows_of(place)
        if place == 9:
            first[2] = ""
        other[2] = second.get(place, f"Photo {place} of the album" if 30 <= place < 42 else other[2])
        if place == 52:
            first[2], other[2] = (text.upper() for text in captions(181))
        yield from (first, other)
    yield ["022", "099.png", "a tram of another file", "train"]
    yield ["023", "023.png", "a bird of another split", "test"]
    yield ["", "", "a caption of nobody here", "train"]


@pytest.fixture(scope="module")
def planted(clean: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same 500 pictures with a few faults of every kind."""
    folder = tmp_path_factory.mktemp("planted")
    (folder / "images").mkdir()
    for path in (clean / "images").iterdir():
        (folder / "images" / path.name).write_bytes(path.read_bytes())
    plant_files(folder / "images")
    write(folder, list(planted_rows()))
    return folder


def check(folder: Path, *more: str) -> tuple[int, dict[str, Any]]:
    """Run the command -> (status, the JSON file)."""
    out = folder / "check.json"
    status = main(["check", str(folder / "data.csv"), "--json", str(out), "--overwrite", *more])
    return status, json.loads(out.read_text(encoding="utf-8"))


def ids(found: dict[str, Any], kind: str) -> set[str]:
    return {id for item in found["findings"].get(kind, {"items": []})["items"] for id in item["ids"]}


def test_a_clean_data_set_has_no_findings(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = check(clean)
    assert (status, found["findings"], found["files"], found["usable"]) == (0, {}, COUNT, COUNT)
    assert "nothing was found" in capsys.readouterr().out
    assert {split: table["unknown_rate"] for split, table in found["words"].items()} == {
        "train": 0, "val": 0, "test": 0,
    }  # fmt: skip


def test_every_planted_fault_is_found_and_nothing_else(planted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in planted.rglob("*") if path.is_file()}
    status, found = check(planted, "--html", str(planted / "page.html"))
    assert status == 3
    assert {kind: ids(found, kind) for kind in PLANTED} == PLANTED
    assert [set(item["ids"]) for item in found["findings"]["leak"]["items"]] == LEAKS
    assert [item["ids"][0] for item in found["findings"]["leak"]["items"]] == ["180", "190", "181"]  # not in train
    assert ids(found, "ids") == {"022", "023"} and len(found["findings"]["ids"]["items"]) == 3
    assert set(found["findings"]) == {*PLANTED, "leak", "ids"}
    assert all(path.read_bytes() == content for path, content in before.items())
    shown = capsys.readouterr().out
    assert "files with equal bytes: 1 group of 2;" in shown and "004 = 005" in shown
    page = (planted / "page.html").read_text(encoding="utf-8")
    assert "Lorem ipsum dolor" in page and "data:image/jpeg" in page and "http" not in page.replace("http-equiv", "")


@pytest.mark.parametrize("name", ["fixed.jsonl", "fixed.csv", "fixed.json"])
def test_what_is_fixed_is_clean(planted: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    out, media = planted / name, str(planted / "images")
    assert check(planted, "--fix", str(out))[0] == 3
    assert "captions were repaired" in capsys.readouterr().out
    left = inspect_data(find_data(out, media))
    by_id = {medium.id: medium for medium in left.media}
    gone = {"001", "002", "003", "005", "007", "008", "009", "050", "051", "052"}
    assert gone & by_id.keys() == set() and len(by_id) == COUNT - len(gone)
    assert "a café in the old town" in by_id["016"].references and len(by_id["017"].references) == 1
    assert by_id["180"].split == "val" and by_id["022"].references == tuple(captions(22))
    assert main(["check", str(out), "--media", media]) == 0


def test_a_store_that_does_not_fit(clean: Path, tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "store", {"name": "small_cnn"})
    for name in [*(f"{place:03}" for place in range(2, COUNT)), "stranger"]:
        writer.add(name, "full", torch.zeros(1, 4), Layout(1, 1, 1))
    writer.fail("000", "broken")
    writer.finish()
    status, found = check(clean, "--store", str(tmp_path / "store"))
    assert status == 3 and set(found["findings"]) == {"no-features", "extra-features"}
    assert ids(found, "no-features") == {"000", "001"} and ids(found, "extra-features") == {"stranger"}
    status, found = check(clean, "--store", str(tmp_path))
    assert status == 3 and "is not a feature store" in found["findings"]["feature-store"]["items"][0]["detail"]


def test_a_recipe_names_data_and_another_encoder(clean: Path, tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "store", {"name": "resnet"})
    for place in range(COUNT):
        writer.add(f"{place:03}", "full", torch.zeros(1, 4), Layout(1, 1, 1))
    writer.finish()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"data: {{name: captions, annotations: {clean / 'data.csv'}, media: {clean / 'images'}}}\n"
        f"encoder: {{name: small_cnn, size: 32}}\nfeatures: {tmp_path / 'store'}\n"
    )
    out = tmp_path / "check.json"
    assert main(["check", str(recipe), "--json", str(out)]) == 3
    (finding,) = json.loads(out.read_text())["findings"]["feature-store"]["items"]
    assert "resnet" in finding["detail"]


@pytest.mark.parametrize(("words", "status", "message"), [
    (["--fix", "out.yaml"], 2, "name a file that ends in .jsonl, .csv, .json"),
    (["--max-words", "2"], 2, "--max-words 2 is less than --min-words 3"),
    (["--fix", "data.csv", "--overwrite"], 1, "data.csv is an input, which the output would replace"),
    (["--media", "nowhere"], 3, ""),
])  # fmt: skip
def test_wrong_arguments(
    clean: Path,
    words: list[str],
    status: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(clean)
    assert main(["check", "data.csv", *words]) == status
    assert message in capsys.readouterr().err


def test_near_pairs_are_those_of_the_slow_search() -> None:
    """Against all pairs, with copies at many distances."""
    hashes = [hash_picture(np.asarray(picture(seed))) for seed in range(40)]
    for seed in range(20):
        noise = np.random.default_rng(seed).integers(-4 * seed, 4 * seed + 1, (48, 48, 3))
        hashes.append(hash_picture((np.asarray(picture(seed), int) + noise).clip(0, 255).astype(np.uint8)))
    expected = set()
    for i, one in enumerate(hashes):
        for j in range(i + 1, len(hashes)):
            bits = int(np.bitwise_count(one.bits ^ hashes[j].bits).sum())
            correlation = np.corrcoef(one.grey.astype(float), hashes[j].grey.astype(float))[0, 1]
            expected |= {(i, j)} if bits <= 15 and correlation >= 0.95 else set()
    found = list(near_pairs(hashes))
    assert len(found) == len(set(found)) >= 10 and set(found) == expected
