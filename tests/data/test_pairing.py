"""Candidates meet references: the mistakes people make are named, and ids that mean the same are found."""

import pytest

from limner.data.captions_file import CaptionsFile
from limner.data.pairing import normalise_id, pair_captions


def file(captions: dict[str, list[str]], splits: dict[str, str] | None = None, **more) -> CaptionsFile:
    return CaptionsFile(
        more.pop("path", "f.json"), "JSON", {k: tuple(v) for k, v in captions.items()}, splits or {}, **more
    )


def one(*ids: str) -> dict[str, list[str]]:
    return {id: [f"caption of {id}"] for id in ids}


REFERENCES = {id: [f"{id} is seen", f"this is {id}"] for id in ("1", "2", "3", "4")}


def test_candidates_are_in_the_order_of_the_references():
    pairs = pair_captions(file(one("4", "2", "1", "3")), file(REFERENCES))
    assert list(pairs.candidates) == list(pairs.references) == ["1", "2", "3", "4"]
    assert pairs.candidates["4"] == ("caption of 4",) and pairs.references["2"] == ("2 is seen", "this is 2")
    assert pairs.notes == () and pairs.files == {}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("397133", "000000397133"),
        ("COCO_val2014_000000397133.jpg", "397133"),
        ("val2014/COCO_val2014_000000397133.jpg", "000000397133.JPG"),
        ("photos\\dog.png", "dog"),
        ("0", "COCO_val2014_000000000000"),
        ("1000268201_693b08cb0e.jpg", "flickr8k/1000268201_693b08cb0e"),
        ("clip.a.avi", "clip.a"),
        ("caf\u00e9.jpg", "cafe\u0301.jpg"),  # two Unicode forms
    ],
)
def test_different_spellings_of_an_id_are_paired(given: str, wanted: str):
    assert normalise_id(given) == normalise_id(wanted)
    pairs = pair_captions(file(one("7", given)), file({wanted: ["a"], "7": ["b"]}, files={wanted: "w.jpg"}))
    assert pairs.candidates == {wanted: (f"caption of {given}",), "7": ("caption of 7",)}
    assert pairs.files == {wanted: "w.jpg"}
    assert len(pairs.notes) == 1 and f"{given!r} is reference {wanted!r}" in pairs.notes[0]


@pytest.mark.parametrize("id", ["1", "10", "video7", "7", "dog.v2", "dog", "a_7", "COCO_val2014_x", "x"])
def test_other_parts_of_an_id_are_kept(id: str):
    """No name's digits, no ending that is not a medium's, no prefix but COCO's before a number."""
    assert normalise_id(id) == id


def test_exact_ids_take_precedence():
    """007 and 7 are two pictures here, and so are a.jpg and a.png."""
    for ids in (("007", "7"), ("a.jpg", "a.png")):
        pairs = pair_captions(file(one(*ids)), file({id: [f"this is {id}"] for id in ids}))
        assert pairs.candidates == {id: (f"caption of {id}",) for id in ids} and pairs.notes == ()
    with pytest.raises(ValueError, match=r"of 2 candidates, 2 ids \('a.jpg', 'a.png'\) have no references"):
        pair_captions(file(one("a.jpg", "a.png")), file({"a": ["x"]}))


def test_only_the_chosen_split_of_the_references_is_paired():
    splits = {"1": "train", "2": "test", "3": "test", "4": "val"}
    references = file(REFERENCES, splits)
    assert list(pair_captions(file(one("3", "2")), references, "test").references) == ["2", "3"]
    both = file(one("1", "2", "3"), splits)
    assert list(pair_captions(both, references, "test").candidates) == ["2", "3"]
    with pytest.raises(ValueError, match="All candidates are in the split 'test': give it with --split"):
        pair_captions(file(one("3", "2")), references)
    with pytest.raises(ValueError, match="All candidates are in the split 'test': give it with --split"):
        pair_captions(file(one("3", "2")), references, "val")
    with pytest.raises(ValueError, match="no split 'fold'; it has train, test, val"):
        pair_captions(file(one("3", "2")), references, "fold")


def test_swapped_files_are_refused():
    with pytest.raises(ValueError, match=r"look swapped: refs.json holds several .* for 4 ids \('1', '2', '3', ...\)"):
        pair_captions(file(REFERENCES, path="refs.json"), file(one("1", "2", "3", "4")))
    many = {**REFERENCES, "5": ["only one"]}  # a single reference here and there does not hide it
    with pytest.raises(ValueError, match="look swapped"):
        pair_captions(file(many), file(one("1", "2")))


def test_several_candidates_for_one_id_are_refused():
    twice = {**one("1", "2", "3"), "4": ["a", "a"]}
    with pytest.raises(ValueError, match=r"several captions for 1 id \('4'\); candidates are one caption per id"):
        pair_captions(file(twice), file(REFERENCES))
    with pytest.raises(ValueError, match=r"several captions for 1 id"):
        pair_captions(file(twice), file(one("1", "2", "3", "4")))  # one of four: not swapped
    assert pair_captions(file(twice), file(REFERENCES), multiple_candidates=True).candidates["4"] == ("a", "a")
    with pytest.raises(ValueError, match=r"has no caption for 1 id \('2'\)"):
        pair_captions(file({**one("1"), "2": []}), file({"1": ["a"], "2": ["b"]}))


def test_references_without_a_candidate_are_refused_or_left_out():
    with pytest.raises(ValueError, match=r"of 4 references, 2 ids \('2', '4'\) have no candidate.*--allow-missing"):
        pair_captions(file(one("3", "1")), file(REFERENCES))
    pairs = pair_captions(file(one("3", "1")), file(REFERENCES), allow_missing=True)
    assert list(pairs.candidates) == ["1", "3"]
    assert pairs.notes == ("2 of 4 references have no candidate and were left out",)


def test_candidates_without_references_are_refused_or_left_out():
    with pytest.raises(ValueError, match=r"of 5 candidates, 1 id \('x'\) have no references\. .*--allow-extra$"):
        pair_captions(file(one("1", "2", "3", "4", "x")), file(REFERENCES), allow_missing=True)
    pairs = pair_captions(file(one("1", "2", "3", "4", "x")), file(REFERENCES), allow_extra=True)
    assert list(pairs.candidates) == list(pairs.references) == ["1", "2", "3", "4"]
    assert pairs.notes == ("1 of 5 candidates have no references and were left out",)
    with pytest.raises(ValueError, match=r"leave the others out with --allow-extra and --allow-missing$"):
        pair_captions(file(one("1", "x")), file(REFERENCES))
    assert list(
        pair_captions(file(one("1", "x")), file(REFERENCES), allow_missing=True, allow_extra=True).references
    ) == ["1"]
    with pytest.raises(ValueError, match="have no id in common"):
        pair_captions(file(one("x", "y")), file(REFERENCES), allow_extra=True)
    with pytest.raises(ValueError, match="have no id in common"):
        pair_captions(file(one("x", "y")), file(REFERENCES))
    with pytest.raises(ValueError, match=r"no reference caption for 1 id \('2'\)"):
        pair_captions(file(one("1", "2")), file({"1": ["a"], "2": []}))
    # a picture that COCO lists without a caption, and nobody has captioned
    assert list(pair_captions(file(one("1")), file({"1": ["a"], "2": []})).references) == ["1"]


def test_notes_of_both_files_are_kept():
    pairs = pair_captions(file(one("1"), notes=("c",)), file({"1": ["a"]}, notes=("r",)))
    assert pairs.notes == ("c", "r")


def test_ids_that_do_not_meet_are_paired_by_file_names():
    """Annotations number the images; the candidates are called like the files."""
    files = {"17": "val/dog.jpg", "18": "val/cat.jpg"}
    references = file({"17": ["a"], "18": ["b"]}, files=files)
    pairs = pair_captions(file(one("cat", "dog")), references)
    assert pairs.candidates == {"17": ("caption of dog",), "18": ("caption of cat",)} and pairs.files == files
    assert pairs.notes == (
        "ids were matched by the names of the files: candidate 'dog' is reference '17' (val/dog.jpg)",
    )
    other = file(one("x", "y"), files={"x": "/data/dog.png", "y": "/data/cat.png"})
    assert list(pair_captions(other, references).candidates.values()) == [("caption of x",), ("caption of y",)]
    # the other way round: candidates are numbered and name their files, references are called like the files
    numbered = file(one("17", "18"), files=files)
    assert pair_captions(numbered, file({"dog": ["a"], "cat": ["b"]})).candidates["dog"] == ("caption of 17",)
    with pytest.raises(ValueError, match="have no id in common"):  # two images are called dog
        pair_captions(file(one("dog")), file({"17": ["a"], "18": ["b"]}, files={"17": "a/dog.jpg", "18": "b/dog.jpg"}))


def test_parts_of_a_clip_are_not_paired_by_the_name_of_the_clip():
    references = file({"v_0_1": ["a"]}, files={"v_0_1": "v"}, times={"v_0_1": (0.0, 1.0)})
    with pytest.raises(ValueError, match="have no id in common"):
        pair_captions(file(one("v")), references)


def test_candidates_whose_references_are_all_unusable_are_left_out():
    references = file({"1": ["a"], "2": []}, unusable=frozenset({"2"}))
    pairs = pair_captions(file(one("1", "2")), references)
    assert pairs.candidates == {"1": ("caption of 1",)}
    assert pairs.notes == ("1 candidates were left out, because all references of their images are unusable",)
