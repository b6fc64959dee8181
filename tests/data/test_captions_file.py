"""Caption files: every layout gives the same captions, and what is wrong with one is said."""

import json
import os
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limner.data.captions_file import CaptionsFile, read_captions
from limner.data.datasets import DataConfig, read_dataset
from limner.data.shapes import generate_world, load_world

TRUTH = {"7": ("A cat, sat.", 'the "cat"'), "9": ("A dog",)}
SHARED = Path(os.environ.get("LIMNER_SHARED", Path(__file__).parents[3] / "shared"))

ROWS = [{"image_id": 7, "caption": "A cat, sat."}, {"image_id": 9, "caption": "A dog"}]
ROWS += [{"image_id": 7, "caption": 'the "cat"'}]
COCO = {
    "images": [{"id": 7, "file_name": "COCO_val2014_000000000007.jpg"}, {"id": 9, "file_name": "9.jpg"}],
    "annotations": [{"id": 70 + k, **row} for k, row in enumerate(ROWS)],
}
KARPATHY = {
    "images": [
        {"filename": "7.jpg", "filepath": "val", "split": "test", "sentences": [{"raw": t} for t in TRUTH["7"]]},
        {"filename": "n.jpg", "cocoid": 9, "split": "restval", "sentences": [{"raw": "A dog", "tokens": ["a"]}]},
    ]
}
MSRVTT = {
    "videos": [{"video_id": "7", "split": "validate", "id": 0}, {"video_id": "9", "split": "train", "id": 1}],
    "sentences": [{"video_id": str(row["image_id"]), "caption": row["caption"], "sen_id": 0} for row in ROWS],
}


def lines(*texts: str) -> str:
    return "".join(text + "\n" for text in texts)


LAYOUTS = {  # name -> (format, text)
    "results": ("COCO results", json.dumps(ROWS)),
    "coco": ("COCO annotations", json.dumps(COCO)),
    "karpathy": ("Karpathy", json.dumps(KARPATHY)),
    "msrvtt": ("MSR-VTT", json.dumps(MSRVTT)),
    "plain": ("JSON", json.dumps({"7": TRUTH["7"], "9": "A dog"})),
    "gts": ("JSON", json.dumps({id: [{"caption": text} for text in texts] for id, texts in TRUTH.items()})),
    "jsonl": ("JSONL", lines(*map(json.dumps, ROWS)) + "\n"),
    "jsonl lists": ("JSONL", lines(*(json.dumps({"id": id, "captions": texts}) for id, texts in TRUTH.items()))),
    "csv": ("CSV", lines("Caption,ID", '"A cat, sat.",7', "A dog,9", '"the ""cat""",7')),
    "csv of windows": ("CSV", "\ufeff" + 'video_id;text\r\n7;"A cat, sat."\r\n9;A dog\r\n7;"the ""cat"""\r\n'),
    "tsv": ("CSV", lines("caption\timage_id", "A cat, sat.\t7", "A dog\t9", '"the ""cat"""\t7')),
    "sentences": ("sentences", lines("7\tA cat, sat.", "9\tA dog", '7\tthe "cat"')),
    "sentences of windows": ("sentences", '7\tA cat, sat.\r\n\r\n9\tA dog\r\n7\tthe "cat"'),
}


def read(folder: Path, text: str | bytes) -> CaptionsFile:
    path = folder / "file"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    return read_captions(path)


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_file_layout_gives_the_same_captions(tmp_path: Path, name: str):
    format, text = LAYOUTS[name]
    found = read(tmp_path, text)
    assert found.captions == TRUTH and found.format == format and found.notes == ()
    packed = tmp_path / "packed.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("__MACOSX/._refs.json", b"\0")
        archive.writestr("readme.txt", "read me")
        archive.writestr("refs.json", text)
    assert read_captions(packed).captions == TRUTH


def test_splits_and_files_are_known_where_a_file_names_them(tmp_path: Path):
    karpathy = read(tmp_path, LAYOUTS["karpathy"][1])
    assert karpathy.splits == {"7": "test", "9": "train"}  # restval joins train, as in training
    assert karpathy.files == {"7": "val/7.jpg", "9": "n.jpg"}
    msrvtt = read(tmp_path, LAYOUTS["msrvtt"][1])
    assert msrvtt.splits == {"7": "val", "9": "train"}  # one word for validation
    assert read(tmp_path, LAYOUTS["coco"][1]).files["7"] == "COCO_val2014_000000000007.jpg"
    table = read(tmp_path, lines("file,split,caption", "a/b.png,test,x", "c.png,,y"))
    assert table.files == {"a/b.png": "a/b.png", "c.png": "c.png"} and table.splits == {"a/b.png": "test"}
    assert karpathy.split("train").captions == {"9": ("A dog",)}
    with pytest.raises(ValueError, match=r"no split 'val'; it has test, train"):
        karpathy.split("val")
    with pytest.raises(ValueError, match="does not name splits"):
        read(tmp_path, LAYOUTS["sentences"][1]).split("test")


def test_coco_annotations_keep_the_order_of_the_images(tmp_path: Path):
    turned = {"images": [{"id": 9}, {"id": 7}, {"id": 8}], "annotations": COCO["annotations"]}
    assert read(tmp_path, json.dumps(turned)).captions == {"9": TRUTH["9"], "7": TRUTH["7"], "8": ()}


def test_results_of_limner_caption_are_read(tmp_path: Path):
    row = {"file": "photos/a.jpg", "caption": "a cat", "logprob": -1.5, "finished": True}
    assert read(tmp_path, json.dumps(row)).captions == {"photos/a.jpg": ("a cat",)}  # a JSONL file of one line
    named = read(tmp_path, json.dumps([{"image_id": "a", **row}]))
    assert named.captions == {"a": ("a cat",)} and named.files == {"a": "photos/a.jpg"}


def test_caption_folders_are_read(tmp_path: Path):
    generate_world(tmp_path / "world", 3, size=32)
    expected = {medium.id: medium.references for medium in load_world(tmp_path / "world")}
    for path in (tmp_path / "world", tmp_path / "world" / "truth.json"):
        found = read_captions(path)
        assert found.captions == expected and found.format == "micro-world" and set(found.files) == set(expected)
    photos = tmp_path / "photos" / "test"
    photos.mkdir(parents=True)
    (photos / "a.png").write_bytes(b"")
    (photos / "a.txt").write_text("a cat\na dog\n")
    found = read_captions(tmp_path / "photos")
    assert found.captions == {"test/a.png": ("a cat", "a dog")} and found.splits == {"test/a.png": "test"}


ODD = "a\rcat\u2028sat\0down\x0bhere"


@pytest.mark.parametrize(
    ("text", "format"),
    [
        (json.dumps([{"image_id": 1, "caption": ODD}, {"image_id": 2, "caption": "b"}]), "COCO results"),
        (lines(json.dumps({"id": 1, "caption": ODD}, ensure_ascii=False), '{"id": 2, "caption": "b"}'), "JSONL"),
        (lines("id,caption", f'1,"{ODD}"', "2,b"), "CSV"),
        (lines(f"1\t{ODD}", "2\tb"), "sentences"),
    ],
)
def test_line_breaks_within_a_caption_do_not_shift_the_next_ones(tmp_path: Path, text: str, format: str):
    found = read(tmp_path, text)
    assert found.captions == {"1": ("a cat sat down here",), "2": ("b",)} and found.format == format
    assert len(found.notes) == 1 and "1 captions had line ends or NUL" in found.notes[0]


def test_a_newline_inside_a_caption_becomes_a_space_as_in_coco_caption(tmp_path: Path):
    found = read(tmp_path, json.dumps([{"image_id": 1, "caption": "a cat\n"}]))
    assert found.captions == {"1": ("a cat ",)} and found.notes == ()


def test_a_lone_surrogate_is_replaced_and_a_pair_is_kept(tmp_path: Path):
    text = r'[{"image_id": 1, "caption": "a \ud83d cat"}, {"image_id": 2, "caption": "a \ud83d\udc08"}]'
    found = read(tmp_path, text)
    assert found.captions == {"1": ("a \ufffd cat",), "2": ("a 🐈",)}
    assert len(found.notes) == 1 and "1 captions had half a character" in found.notes[0]


def test_long_and_empty_captions_are_accepted(tmp_path: Path):
    long = " ".join(["word"] * 10_000)
    assert read(tmp_path, json.dumps({"1": long, "2": "", "3": []})).captions == {"1": (long,), "2": ("",), "3": ()}
    assert read(tmp_path, lines("id,caption", f"1,{long}", "2,")).captions == {"1": (long,), "2": ("",)}


WORDS = st.text(st.characters(codec="utf-8"), max_size=20)


@given(st.dictionaries(st.text("ab0,;\"'é", min_size=1), st.lists(WORDS, min_size=1, max_size=3), min_size=1))
def test_json_and_jsonl_hold_any_text(tmp_path_factory: pytest.TempPathFactory, captions: dict[str, list[str]]):
    folder = tmp_path_factory.mktemp("any")
    rows = [{"id": id, "caption": text} for id, texts in captions.items() for text in texts]
    odd = dict.fromkeys(map(ord, "\0\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"), " ")
    expected = {id: tuple(text.translate(odd) for text in texts) for id, texts in captions.items()}
    for text in (
        json.dumps(rows),
        json.dumps(rows, ensure_ascii=False),
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows),
        json.dumps({"x" + id: texts for id, texts in captions.items()}),
    ):
        found = read(folder, text).captions
        assert found in (expected, {"x" + id: texts for id, texts in expected.items()})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("[]", "there are no captions in it"),
        ("{}", "there are no captions in it"),
        ("a cat\na dog\n", "begins with 'a cat', which is not a known layout"),
        ("name,words\n1,a cat\n", "begins with 'name,words'"),
        (json.dumps(ROWS)[:-20], "is the file truncated"),
        (lines(*map(json.dumps, ROWS))[:-20], "line 3: not JSON .*truncated"),
        ("[" * 100_000, "nested too deeply|not JSON"),
        ('["a cat", "a dog"]', "item 0: expected an object"),
        (
            '[{"image_id": 1, "text_": "a"}]',
            r"item 0 has the columns \['image_id', 'text_'\]; none .* is a caption",
        ),
        ('[{"image_id": 1, "caption": NaN}]', "the caption of '1' is nan; a caption must be text"),
        ('[{"image_id": 1, "caption": null}]', "the caption of '1' is None"),
        ('[{"image_id": 1, "caption": 5}]', "the caption of '1' is 5"),
        ('[{"image_id": NaN, "caption": "a"}]', "item 0: an id must be an integer or text, got nan"),
        ('[{"image_id": 1.5, "caption": "a"}]', "got 1.5"),
        ('[{"image_id": true, "caption": "a"}]', "got True"),
        ('[{"image_id": " ", "caption": "a"}]', "got ' '"),
        (r'[{"image_id": "\ud800", "caption": "a"}]', "an id must be an integer or text"),
        ('{"1": "a", "2": "b", "1": "c"}', "the key '1' occurs twice"),
        ('{"1": {"a": 2}}', "the value of '1' is"),
        ('{"split": "test", "scores": {"CIDEr": 1.2}}', "the value of 'scores' is {'CIDEr': 1.2}, not a caption"),
        ('{"annotations": [{"image_id": 1, "bbox": [1]}], "images": []}', r"annotations\[0\] has .* but no 'caption'"),
        ('{"images": [{"filename": "a.jpg"}]}', r"images\[0\] has \['filename'\], but no 'sentences'"),
        ('{"images": [{"filename": "a", "sentences": []}, {"filename": "a", "sentences": []}]}', "'a' occurs twice"),
        ('{"videos": [{"id": 1}], "sentences": []}', r"videos\[0\] has \['id'\], but no 'video_id'"),
        ("id,caption\n1,a cat, a dog\n", "line 2: 3 fields where the header has 2; put captions that have ','"),
        ("id,caption\n1\n", "line 2: 1 fields where the header has 2"),
        ('id,caption\n1,"a cat\n2,a dog\n', "line 2: .* is a quote not closed"),
        ("1\ta cat\n2 a dog\n", "line 2: expected 'id<TAB>caption'"),
        ("id,split,caption\n1,test,a\n1,val,b\n", "line 3: '1' is in two splits, 'test' and 'val'"),
        (b"a caf\xe9\n", r"not UTF-8 text \(.* at byte 5, line 1\); save it as UTF-8"),
        (b"PK\x03\x04 cut", "the ZIP file is damaged"),
    ],
)
def test_errors_name_what_is_wrong(tmp_path: Path, text: str | bytes, message: str):
    with pytest.raises(ValueError, match=message) as raised:
        read(tmp_path, text)
    assert str(raised.value).startswith(str(tmp_path / "file"))


def test_a_zip_of_several_files_is_refused(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "file", "w") as archive:
        for name in ("captions_train2014.json", "captions_val2014.json"):
            archive.writestr(name, json.dumps(COCO))
    with pytest.raises(ValueError, match=r"2 caption files \['captions_train2014.json'.*unpack the one you mean"):
        read_captions(tmp_path / "file")


@pytest.mark.data
def test_the_real_files_are_read():
    data = SHARED / "data"
    if not data.is_dir():
        pytest.skip(f"no data at {data}")

    def counts(name: str) -> tuple[int, int]:
        captions = read_captions(data / name).captions
        return len(captions), sum(map(len, captions.values()))

    assert counts("flickr8k/dataset_flickr8k.json") == (8000, 40000)
    assert counts("msrvtt/train_val_annotation.zip") == (7010, 140200)  # as distributed: beside a readme
    assert counts("msrvtt/test_videodatainfo.json.zip") == (2990, 59800)
    assert counts("msvd/sents_test_lc_nopunc.txt") == (670, 27763)
    found = read_captions(data / "flickr8k" / "dataset_flickr8k.json").split("test")
    config = DataConfig("flickr8k", annotations=str(data / "flickr8k" / "dataset_flickr8k.json"))
    media = read_dataset(config).split("test")
    assert found.captions == {medium.id: medium.references for medium in media}
