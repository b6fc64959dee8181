"""What COCO's server would refuse is named, with what to do; a right file passes."""

import json
import zipfile
from pathlib import Path

import pytest

from limner.apps.cli import main
from limner.data.results_check import check_results, check_text, expected_ids

GOOD = [{"image_id": 1, "caption": "a cat on a mat"}, {"image_id": 2, "caption": "ein Hund läuft"}]
NAME = "captions_val2017_mine_results.json"


def problems(text: str | bytes, expected: set[int | str] | None = None) -> list[str]:
    content = text if isinstance(text, bytes) else text.encode()
    return list(check_text(NAME, content, expected).problems)


def row(image_id: object, caption: object = "a cat") -> str:
    return json.dumps([{"image_id": image_id, "caption": caption}])


def test_a_right_file_has_no_problems_and_no_notes() -> None:
    check = check_text(NAME, json.dumps(GOOD).encode(), {1, 2})
    assert (check.entries, check.problems, check.notes) == (2, (), ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (row("1"), "1 of 1 image_ids are text in quotes (entry 0: '1'): write numbers, 42 instead of \"42\""),
        (row(1.0), "1 of 1 image_ids are no integers (entry 0: 1.0): write 42"),
        (row(True), "1 of 1 image_ids are no integers (entry 0: True)"),
        (row(-1), "1 of 1 image_ids are negative (entry 0: -1)"),
        (row(1, None), "1 of 1 captions are no text (entry 0: None): write a sentence in quotes"),
        (row(1, ["a"]), "1 of 1 captions are no text (entry 0: ['a'])"),
        (row(1, "  "), "1 of 1 captions are empty (entry 0: '  '): they score 0"),
        (row(1, "a\u2028b"), "1 of 1 captions have line ends in them"),
        ('[{"image_id": 1, "caption": "\\ud800"}]', "1 of 1 captions have half a character"),
        ('[{"image_id": NaN, "caption": "a"}]', "NaN is among the values, which is not JSON (count: 1)"),
        (json.dumps([{"id": 1}]), "1 of 1 entries have no image_id (entry 0): the first entry has 'id'"),
        (json.dumps([1]), "1 of 1 entries are no objects (entry 0: 1)"),
        (json.dumps(GOOD + GOOD[:1]), "1 image_id (1) occur more than once: keep one caption for each"),
        (json.dumps({"1": "a cat"}), "it holds an object, not a list: take the list [{"),
        ("null", "it holds null, not a list"),
        ("[]", "the list is empty"),
        ("\n".join(map(json.dumps, GOOD)), "it looks like JSONL: put commas between the objects"),
        (json.dumps(GOOD)[:-5], "it is not JSON ("),
        (b"\xef\xbb\xbf" + json.dumps(GOOD).encode(), "it begins with a byte order mark"),
        (json.dumps(GOOD, ensure_ascii=False).encode("latin-1"), "it is not UTF-8 (byte "),
        (b"\x89PNG\r\n\x1a\n", "it is a PNG image (byte 0: invalid start byte): name the file with its captions"),
        ("[" * 100_000, "it is not JSON ("),
    ],
)  # fmt: skip
def test_each_mistake_is_named(text: str | bytes, message: str) -> None:
    assert any(message in line for line in problems(text)), problems(text)


def test_ids_are_compared_with_those_that_are_wanted() -> None:
    text = json.dumps(GOOD)
    assert problems(text, {1, 2, 3, 4}) == ["no caption for 2 image_ids (3, 4) of 4: caption these images, too"]
    assert problems(text, {1}) == ["1 image_id (2) are not among the references: leave them out"]
    assert problems(text, {7})[1].endswith("are they of another data set or split?")
    lines = problems(row("COCO_val2014_000000000042.jpg"), {42})
    assert lines[-1].endswith("the ids are file names: write the numbers of the images")


def test_what_is_probably_a_mistake_is_a_note() -> None:
    rows = [{"image_id": k, "caption": "a cat <eos>", "score": 1} for k in range(100)]
    check = check_text("mine.json", json.dumps(rows).encode())
    assert check.problems == () and len(check.notes) == 4
    assert [
        part in line for part, line in zip(("captions_SPLIT", "score", "special", "only 1"), check.notes, strict=True)
    ]
    assert "more than 60 words" in check_text(NAME, row(1, "a " * 61).encode()).notes[0]


def test_a_zip_needs_both_files_of_coco_and_all_of_their_images(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "results.zip", "w") as archive:
        archive.writestr("captions_val2014_mine_results.json", json.dumps(GOOD))
        archive.writestr("__MACOSX/._captions_val2014_mine_results.json", b"\0")
    whole, file = check_results(tmp_path / "results.zip")
    assert whole.problems == ("no captions_test2014_NAME_results.json in it: COCO's server wants both files",)
    assert file.problems == ("2 images, but val2014 has 40504: caption all of them",)


def test_ids_come_from_captions_and_from_image_information_without_captions(tmp_path: Path) -> None:
    (tmp_path / "info.json").write_text(json.dumps({"images": [{"id": 7, "file_name": "a.jpg"}], "annotations": []}))
    (tmp_path / "refs.json").write_text(json.dumps({"7": ["a"], "b": ["c"]}))
    assert expected_ids(tmp_path / "info.json") == {7}
    assert expected_ids(tmp_path / "refs.json") == {7, "b"}


def test_the_command_prints_problems_and_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, references = tmp_path / NAME, tmp_path / "refs.json"
    file.write_text(json.dumps(GOOD))
    references.write_text(json.dumps({"1": ["a"], "3": ["b"]}))
    given = ["score", "--check-only", "--candidates", str(file)]
    assert main(given) == 0
    assert "2 captions in COCO's results format; --references FILE compares the ids, too" in capsys.readouterr().out
    assert main([*given, "--references", str(references)]) == 1
    shown = capsys.readouterr().out
    assert "no caption for 1 image_id (3) of 2" in shown and "2 problems: the file would be refused" in shown
    assert main([*given, "--out", str(tmp_path / "x.json")]) == 2
    assert "--check-only scores nothing" in capsys.readouterr().err
    assert main(["score", "--candidates", str(file)]) == 2
    assert "which references? give --references FILE" in capsys.readouterr().err
    assert main(["score", "--check-only", "--candidates", str(tmp_path / "none.json")]) == 1
