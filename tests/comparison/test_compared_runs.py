import json
from pathlib import Path

import pytest

from limner.comparison.compared_runs import (
    locate_media,
    match_to_references,
    read_compared_runs,
    references_from_file,
    references_from_runs,
)
from limner.core.types import Medium
from tests.comparison.world import BAD, GOOD, REFERENCES, compared_run, data_set, media, run


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    data = data_set(tmp_path / "data")
    return run(tmp_path / "first", data, GOOD, beam=3), run(tmp_path / "first" / "greedy", data, BAD)


def test_a_run_is_its_captions_and_how_they_came_about(runs: tuple[Path, Path]):
    first, second = read_compared_runs(runs)
    assert (first.name, second.name) == ("first", "greedy")
    assert (first.captions, second.captions) == (GOOD, BAD)
    assert first.evaluation["decoding"]["size"] == 3 and first.evaluation["protocol"]["images"] == 4
    assert "segments" not in first.evaluation and set(first.scores) >= {"BLEU-4", "CIDEr"}
    assert first.recipe["data"]["name"] == "jsonl" and first.notes == ()
    found = references_from_runs((first, second))
    assert {id: medium.references for id, medium in found.items()} == REFERENCES
    assert Path(found["x"].path).is_file()


def test_names_are_as_long_as_it_takes(runs: tuple[Path, Path], tmp_path: Path):
    for name in ("a/out/one", "b/out/one", "two"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "captions.json").write_text((runs[0] / "captions.json").read_text())
    found = read_compared_runs([tmp_path / name for name in ("a/out/one", "b/out/one", "two")])
    assert [side.name for side in found[:2]] == ["a/out/one", "b/out/one"]
    alone = read_compared_runs([tmp_path / "two" / "captions.json", tmp_path / "two"])
    assert [side.name for side in alone] == ["captions", "two"] and alone[0].evaluation == {}


def test_captions_files_of_other_layouts(tmp_path: Path):
    (tmp_path / "a.csv").write_text("image_id,caption\nx,a dog\ny,cats\n")
    (tmp_path / "b.jsonl").write_text('{"id": "x", "caption": "a\\u2028dog"}\n')
    first, second = read_compared_runs([tmp_path / "a.csv", tmp_path / "b.jsonl"])
    assert first.captions == {"x": "a dog", "y": "cats"}
    assert second.captions == {"x": "a dog"} and "1 captions had line ends" in second.notes[0]


def test_what_is_no_run(runs: tuple[Path, Path], tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "two.json").write_text(json.dumps({"x": ["a dog", "a cat"]}))
    for path, error, message in (
        ("empty", FileNotFoundError, "has no captions.json; `limner evaluate"),
        ("nowhere", FileNotFoundError, "there is no run folder or caption file at"),
        ("two.json", ValueError, "has 2 captions for 'x'; a comparison takes one caption per id"),
    ):
        with pytest.raises(error, match=message):
            read_compared_runs([runs[0], tmp_path / path])
    with pytest.raises(ValueError, match="is given twice"):
        read_compared_runs([runs[0], runs[0].parent / "." / runs[0].name])
    (runs[0] / "scores.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"scores.json: expected a JSON object"):
        read_compared_runs(runs)


def test_references_are_asked_for(runs: tuple[Path, Path]):
    sides = read_compared_runs(runs)
    with pytest.raises(ValueError, match="give --references FILE"):
        references_from_runs([compared_run("a", GOOD)])
    (runs[0].parent / "data" / "captions.jsonl").unlink()
    with pytest.raises(ValueError, match=r"first/recipe.json: .*captions.jsonl.* or give --references FILE"):
        references_from_runs(sides)


def test_ids_that_are_written_otherwise():
    known = {id: Medium(id, "", "", ("a",)) for id in ("7", "12")}
    assert match_to_references(
        compared_run("s", {"COCO_val2014_000000000007.jpg": "p", "00012": "q"}), known
    ).captions == {
        "7": "p",
        "12": "q",
    }
    assert match_to_references(compared_run("s", {"12": "q"}), known).captions == {"12": "q"}


def test_captions_without_references_are_an_error():
    with pytest.raises(ValueError, match=r"s: of 5 captions, 1 id \('v'\) have no references"):
        match_to_references(compared_run("s", {**GOOD, "v": "a"}), media())
    with pytest.raises(ValueError, match=r"1 id \('x'\) have no references"):
        match_to_references(compared_run("s", GOOD), media({**REFERENCES, "x": ()}))
    with pytest.raises(ValueError, match="2 ids"):  # "007" and "7" would become one
        match_to_references(compared_run("s", {"007": "a", "7": "b"}), {"0007": Medium("0007", "", "", ("a",))})


def test_pictures_are_found_by_name_or_id(tmp_path: Path):
    for name in ("sub/COCO_val2014_000000000007.jpg", "x.png", "deep/er/clip.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    known = {
        "7": Medium("7", ""),
        "x": Medium("x", "elsewhere/x.png"),
        "v": Medium("v", "clip.mp4"),
        "w": Medium("w", ""),
    }
    found = locate_media(tmp_path, known)
    assert [Path(found[id].path).name for id in ("7", "x", "v")] == [
        "COCO_val2014_000000000007.jpg",
        "x.png",
        "clip.mp4",
    ]
    assert found["w"].path == ""
    with pytest.raises(ValueError, match="is not a folder"):
        locate_media(tmp_path / "x.png", known)


def test_references_of_a_file(tmp_path: Path):
    saved = {"images": [{"id": 7, "file_name": "7.jpg"}], "annotations": [{"image_id": 7, "caption": c} for c in "ab"]}
    (tmp_path / "refs.json").write_text(json.dumps(saved))
    assert references_from_file(tmp_path / "refs.json") == {"7": Medium("7", "7.jpg", "", ("a", "b"))}
