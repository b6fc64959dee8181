"""Layouts of public data sets and of other tools: scoring and training read the same captions from each of them."""

import gzip
import io
import json
import zipfile
from pathlib import Path

import pytest

from limner.data.captions_file import CaptionsFile, read_captions
from limner.data.dataset import Dataset, split_by_hash
from limner.data.datasets import DataConfig, read_dataset
from limner.data.layouts.content import kind_of
from limner.data.layouts.text_files import parse_cell

# two images with captions, one of them with a comma
A, B = ("a dog runs, jumps and barks", "the dog"), ("a café",)
TRUTH = {"a.jpg": A, "b.jpg": B}


def lines(*texts: str, end: str = "\n") -> str:
    return "".join(text + end for text in texts)


def cells(*captions: str) -> str:
    return '"' + json.dumps(captions, ensure_ascii=False).replace('"', '""') + '"'


IMAGES = [{"id": 5, "file_name": "a.jpg"}, {"id": 3, "file_name": "b.jpg"}]
ROWS = [{"image_id": 5, "caption": A[0]}, {"image_id": 3, "caption": B[0]}, {"image_id": 5, "caption": A[1]}]
MARKED = {"caption": "Quality issues are too severe to recognize visual content.", "is_rejected": True}
TEXTCAPS = [
    {
        "image_id": name,
        "image_path": f"{name}.jpg",
        "caption_str": text,
        "reference_strs": list(texts),
        "set_name": "val",
    }
    for name, texts in (("a", A), ("b", B))
    for text in texts
]
NUMBERED = {"image": "a.jpg", "caption1": A[0], "caption2": A[1]}, {"image": "b.jpg", "caption1": B[0]}
LAYOUTS: dict[str, tuple[str, str]] = {  # name -> (name of the layout, text)
    "official coco": ("COCO annotations", json.dumps({"images": IMAGES, "annotations": ROWS})),
    "vizwiz": (
        "COCO annotations",
        json.dumps({
            "images": IMAGES,
            "annotations": [{"is_rejected": False, "is_precanned": False, **row} for row in ROWS]
            + [{"image_id": 3, "is_precanned": True, **MARKED}, {"image_id": 5, "is_precanned": False, **MARKED}],
        }),
    ),
    "lavis": (
        "COCO results",
        json.dumps([
            {"image": "a.jpg", "image_id": "coco_5", "caption": list(A)},
            {"image": "b.jpg", "image_id": "coco_3", "caption": B[0]},
        ]),
    ),
    "textcaps": ("TextCaps", json.dumps({"dataset_type": "val", "data": TEXTCAPS})),
    "rows in an object": (
        "rows in an object",
        json.dumps({"version": 1, "rows": [{"image": "a.jpg", "captions": A}, {"image": "b.jpg", "captions": B}]}),
    ),
    "rows by split": (
        "rows by split",
        json.dumps({"train": [{"image": "a.jpg", "caption": A}], "dev": [{"image": "b.jpg", "caption": B[0]}]}),
    ),
    "objects by id": ("JSON", json.dumps({"a.jpg": {"captions": A}, "b.jpg": {"caption": B[0]}})),
    "blanks behind commas": ("CSV", lines("file, caption", f'a.jpg, "{A[0]}"', f"a.jpg, {A[1]}", f"b.jpg, {B[0]}")),
    "flickr tokens": ("Flickr tokens", lines(f"a.jpg#0\t{A[0]}", f"a.jpg#1\t{A[1]}", f"b.jpg#0\t{B[0]}", end="\r\n")),
    "flickr results": (
        "CSV",
        lines(
            "image_name| comment_number| comment", f"a.jpg| 0| {A[0]}", f"a.jpg| 1| {A[1]}", f"b.jpg| 0| {B[0]}"
        ),
    ),
    "list in a cell": ("CSV", lines("raw,sentids,filename", f'{cells(*A)},"[0, 1]",a.jpg', f"{cells(*B)},[2],b.jpg")),
    "numbered columns": ("CSV", lines("file_name,caption_0,caption_1", f'a.jpg,"{A[0]}",{A[1]}', f"b.jpg,{B[0]},")),
    "numbered from one": ("JSONL", lines(*map(json.dumps, NUMBERED))),
    "pandas": ("CSV", lines(",image,caption", f'0,a.jpg,"{A[0]}"', f"1,b.jpg,{B[0]}", f"2,a.jpg,{A[1]}")),
    "excel": (
        "CSV",
        lines("\ufeffsep=;", "file;caption", f"a.jpg;{A[0]}", f"b.jpg;{B[0]}", f"a.jpg;{A[1]}", end="\r\n"),
    ),
    "conceptual captions": ("Conceptual Captions", lines(f"{A[0]}\ta.jpg", f"{A[1]}\ta.jpg", f"{B[0]}\tb.jpg")),
    "old mac": ("CSV", f'file,caption\ra.jpg,"{A[0]}"\ra.jpg,{A[1]}\rb.jpg,{B[0]}\r'),
}  # fmt: skip


def save(folder: Path, text: str | bytes, name: str = "captions.dat") -> Path:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / name


def data_set(path: Path, media: Path | str = "", **options: str) -> Dataset:
    return read_dataset(DataConfig("captions", str(media), str(path), **options))


def by_file(file: CaptionsFile) -> dict[str, tuple[str, ...]]:
    return {file.files.get(id, id): texts for id, texts in file.captions.items()}


@pytest.mark.parametrize("name", LAYOUTS)
def test_scoring_and_training_read_the_same_captions(tmp_path: Path, name: str):
    format, text = LAYOUTS[name]
    (tmp_path / "images").mkdir()
    for file in TRUTH:
        (tmp_path / "images" / file).touch()
    packed = gzip.compress(text.encode())
    for content in (text, packed):
        path = save(tmp_path, content)
        scored = read_captions(path)
        assert by_file(scored) == TRUTH and scored.format == format
        trained = data_set(path, tmp_path / "images")
        assert {Path(m.path).name: m.references for m in trained.media} == TRUTH
        assert all(Path(medium.path).is_file() for medium in trained.media) and trained.problems == ()


def test_official_coco_captions_are_split_by_hash_or_by_option(tmp_path: Path):
    path = save(tmp_path, LAYOUTS["official coco"][1])
    assert {m.id: m.split for m in data_set(path).media} == {"5": split_by_hash("5"), "3": split_by_hash("3")}
    assert {m.id: m.split for m in data_set(path, default_split="val").media} == {"5": "val", "3": "val"}
    (tmp_path / "lists").mkdir()
    save(tmp_path / "lists", "5\n", "train.txt")
    assert {m.id: m.split for m in data_set(path, splits=str(tmp_path / "lists")).media} == {"5": "train"}


def test_the_folder_of_cocos_annotations_is_read(tmp_path: Path):
    (tmp_path / "annotations").mkdir()
    for split, image, row in zip(("train", "val"), IMAGES, ROWS, strict=False):
        text = json.dumps({"images": [image], "annotations": [row]})
        save(tmp_path / "annotations", text, f"captions_{split}2017.json")
    save(tmp_path / "annotations", "{}", "instances_val2017.json")
    for folder, file in (("train2017", "a.jpg"), ("val2017", "b.jpg")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).touch()
    found = data_set(tmp_path / "annotations", tmp_path)
    assert [(m.id, m.split, m.references) for m in found.media] == [("5", "train", A[:1]), ("3", "val", B)]
    assert [m.path for m in found.media] == [str(tmp_path / "train2017/a.jpg"), str(tmp_path / "val2017/b.jpg")]
    assert read_captions(tmp_path / "annotations").split("val").captions == {"3": B}
    save(tmp_path / "annotations", "{}", "captions_val2014.json")
    with pytest.raises(ValueError, match=r"two files for the split val: .*captions_val2014\.json and .*name the one"):
        read_captions(tmp_path / "annotations")


def test_rejected_captions_of_vizwiz_are_left_out_with_a_note(tmp_path: Path):
    path = save(tmp_path, LAYOUTS["vizwiz"][1])
    notes = (
        f"{path}: 1 captions are marked as rejected and precanned and were left out",
        f"{path}: 1 captions are marked as rejected and were left out",
    )
    assert read_captions(path).notes == notes and data_set(path).notes == notes
    only = {"images": IMAGES, "annotations": [ROWS[0], {"image_id": 3, **MARKED}]}
    found = read_captions(save(tmp_path, json.dumps(only)))
    assert found.captions == {"5": A[:1], "3": ()} and found.unusable == {"3"}


VATEX = [{"videoID": "AbC_000010_000020", "enCap": ["a dog", "the dog"], "chCap": ["一只狗在跑"]}]


def test_vatex_has_english_and_chinese_captions(tmp_path: Path):
    path = save(tmp_path, json.dumps(VATEX))
    assert read_captions(path).captions == {"AbC_000010_000020": ("a dog", "the dog")}
    assert read_captions(path).notes == data_set(path).notes != ()
    assert "English captions were read; the column of the Chinese ones is chCap" in read_captions(path).notes[0]
    chinese = read_captions(path, "chCap")
    assert chinese.captions == {"AbC_000010_000020": ("一只狗在跑",)} and chinese.notes == ()
    assert data_set(path, caption_column="chCap").media[0].references == ("一只狗在跑",)
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "AbC_000010_000020.mp4").touch()
    assert data_set(path, tmp_path / "clips").media[0].path == str(tmp_path / "clips" / "AbC_000010_000020.mp4")


TIMED = {
    "activitynet": {"v_1": {"duration": 9.0, "timestamps": [[0.5, 4], [3, 8.25]], "sentences": ["a dog", " it runs"]}},
    "dense results": {
        "version": "1",
        "results": {
            "v_1": [{"sentence": "a dog", "timestamp": [0.5, 4]}, {"sentence": " it runs", "timestamp": [3, 8.25]}]
        },
    },
    "youcook2": {
        "database": {
            "v_1": {
                "subset": "validation",
                "annotations": [
                    {"segment": [0.5, 4], "sentence": "a dog"},
                    {"segment": [3, 8.25], "sentence": " it runs"},
                ],
            }
        }
    },
}


@pytest.mark.parametrize("name", TIMED)
def test_sentences_with_times_are_captions_of_parts_of_clips(tmp_path: Path, name: str):
    (tmp_path / "v_1.mkv").touch()
    path = save(tmp_path, json.dumps(TIMED[name]))
    found = read_captions(path)
    assert (
        found.captions == {"v_1_0.5_4": ("a dog",), "v_1_3_8.25": (" it runs",)} and found.format == "timed sentences"
    )
    media = data_set(path, tmp_path).media
    assert [(m.start, m.end, m.path) for m in media] == [
        (0.5, 4.0, str(tmp_path / "v_1.mkv")),
        (3.0, 8.25, str(tmp_path / "v_1.mkv")),
    ]
    assert {m.split for m in media} == (
        {"val"} if name == "youcook2" else {split_by_hash("v_1")}
    )  # parts stay together


def test_times_that_are_none_are_left_out_with_a_note_or_refused(tmp_path: Path):
    timed = {"v": {"timestamps": [[5, 5], [1, 2]], "sentences": ["x", "y"]}}
    found = read_captions(save(tmp_path, json.dumps(timed)))
    assert found.captions == {"v_1_2": ("y",)} and "1 sentences end at or before their start time" in found.notes[0]
    empty = {"database": {"t": {"subset": "testing"}, "e": {"annotations": []}, **TIMED["youcook2"]["database"]}}
    assert list(read_captions(save(tmp_path, json.dumps(empty))).captions) == ["v_1_0.5_4", "v_1_3_8.25"]
    for times, message in (([[1]], "a time must be [start, end]"), ([], "has 0 timestamps and 1 sentences")):
        path = save(tmp_path, json.dumps({"v": {"timestamps": times, "sentences": ["x"]}}))
        with pytest.raises(ValueError, match="key 'v'") as raised:
            read_captions(path)
        assert message in str(raised.value)


def test_the_published_row_of_flickr30k_without_a_pipe_is_read_with_a_note(tmp_path: Path):
    with pytest.raises(ValueError, match="line 2: 2 fields where the header has 3"):
        read_captions(save(tmp_path, lines("image_name| comment_number| comment", "a.jpg| no number")))
    path = save(tmp_path, lines("image_name| comment_number| comment", "a.jpg| 4   A dog runs ."))
    found = read_captions(path)
    assert (
        found.captions == {"a.jpg": ("A dog runs .",)}
        and "'|' between number and caption was missing" in found.notes[0]
    )


def test_msvds_table_is_read_as_in_training(tmp_path: Path):
    head = "VideoID,Start,End,WorkerID,Source,AnnotationTime,Language,Description"
    rows = "aa-_x,5,15,1,clean,30,English,A dog.", "aa-_x,5,15,1,clean,30,German,Ein Hund."
    found = read_captions(save(tmp_path, lines(head, *rows)))
    assert found.captions == {"aa-_x_5_15": ("A dog.",)}
    assert "1 captions are written in another language than English and were left out" in found.notes[0]


@pytest.mark.parametrize(
    ("cell", "captions"),
    [
        ("a dog", ["a dog"]),
        ('["a dog", "a \\"cat\\""]', ["a dog", 'a "cat"']),
        ("['a dog', \"the man's cat\"]", ["a dog", "the man's cat"]),
        ("['a dog'\n 'a cat']", ["a dog", "a cat"]),  # NumPy's notation; Python would join the two
        ("[man] speaks [loudly]", ["[man] speaks [loudly]"]),
        ("[0, 1]", ["[0, 1]"]),
        ("[]", ["[]"]),
        ("[__import__('os').getcwd()]", ["[__import__('os').getcwd()]"]),
    ],
)
def test_lists_in_cells(cell: str, captions: list[str]):
    assert parse_cell(cell) == captions


@pytest.mark.parametrize("row", ["a.jpg,a dog runs, jumps and barks", "a.jpg"])
def test_a_row_with_more_or_fewer_fields_than_the_header_is_refused_everywhere(tmp_path: Path, row: str):
    path = save(tmp_path, lines("file,caption", "b.jpg,fine", row))
    for read in (read_captions, data_set):
        with pytest.raises(
            ValueError, match=r"line 3: \d fields where the header has 2; put captions that have ',' in"
        ):
            read(path)


def test_a_table_without_a_header_is_told_to_have_one(tmp_path: Path):
    with pytest.raises(ValueError, match="a table needs a header: write the line 'file,caption' above"):
        read_captions(save(tmp_path, lines("a.jpg,a dog", "b.jpg,a cat")))


def test_rows_by_split_have_that_split(tmp_path: Path):
    path = save(tmp_path, LAYOUTS["rows by split"][1])
    assert read_captions(path).splits == {"a.jpg": "train", "b.jpg": "val"}


def test_image_folders_of_hugging_face_are_read(tmp_path: Path):
    for split, name, text in (("train", "a.jpg", A[0]), ("validation", "sub/b.jpg", B[0])):
        (tmp_path / split / name).parent.mkdir(parents=True)
        (tmp_path / split / name).touch()
        save(tmp_path / split, json.dumps({"file_name": name, "text": text}), "metadata.jsonl")
    (tmp_path / "train" / "c.jpg").touch()
    found = read_dataset(DataConfig("folder", str(tmp_path)))
    expected = {"train/a.jpg": ("train", A[:1]), "validation/sub/b.jpg": ("val", B)}
    assert {m.id: (m.split, m.references) for m in found.media} == expected
    assert all(Path(m.path).is_file() for m in found.media)
    assert found.notes == (f"{tmp_path}: 1 images or clips are not in its metadata file and were left out",)
    assert read_captions(tmp_path).captions == {id: texts for id, (_, texts) in expected.items()}
    save(tmp_path, lines("file_name,caption_0,caption_1", "train/a.jpg,x,y"), "metadata.csv")
    assert read_captions(tmp_path).captions == {"train/a.jpg": ("x", "y")}  # the folder's own file comes first


def test_split_names_are_understood_in_any_usual_spelling(tmp_path: Path):
    names = {"a": "Train", "b": "train ", "c": "valid", "d": "dev", "e": "TEST", "f": "Validation", "g": "restval"}
    path = save(tmp_path, lines("file,caption,split", *(f"{id}.jpg,x,{name}" for id, name in names.items())))
    expected = dict(
        zip((f"{id}.jpg" for id in names), ["train", "train", "val", "val", "test", "val", "train"], strict=True)
    )
    assert {m.id: m.split for m in data_set(path).media} == expected == read_captions(path).splits
    assert [m.id for m in data_set(path).split("dev")] == ["c.jpg", "d.jpg", "f.jpg"]
    assert list(read_captions(path).split("Valid").captions) == ["c.jpg", "d.jpg", "f.jpg"]
    odd = data_set(save(tmp_path, lines("file,caption,split", "a.jpg,x,train", "b.jpg,x,fold 3")))
    assert odd.notes == (
        "the split 'fold 3' of 1 media is not one of train, val, test; it is only read where it is named",
    )


def test_files_are_found_without_folder_without_ending_and_by_paths_of_windows(tmp_path: Path):
    for name in (
        "x/a.JPG",
        "cafe\u0301.jpg",
        "Upper.JPG",
        "b.mp4",
        "c.v2.png",
        "y/000000000042.jpg",
        "y/twice.jpg",
        "z/twice.jpg",
    ):
        (tmp_path / "m" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "m" / name).touch()
    names = {
        "a.JPG": "x/a.JPG",
        "b": "b.mp4",
        "c.v2": "c.v2.png",
        "C:\\data\\x\\a.JPG": "x/a.JPG",
        "42": "y/000000000042.jpg",
    }
    names |= {"caf\u00e9.jpg": "cafe\u0301.jpg", "upper.jpg": "Upper.JPG"}  # macOS and Windows write names so
    names |= {"https://host.org/7/c.v2.png?w=640": "c.v2.png", "y\\twice.jpg": "y/twice.jpg", "gone.jpg": "gone.jpg"}
    path = save(tmp_path, lines("file,caption", *(f"{name},x" for name in names)))
    found = data_set(path, tmp_path / "m")
    assert [m.path for m in found.media] == [str(tmp_path / "m" / file) for file in names.values()]
    assert [m.id for m in found.media if "data" in m.id] == ["C:/data/x/a.JPG"] and found.problems == ()
    twice = data_set(save(tmp_path, lines("file,caption", "twice.jpg,x")), tmp_path / "m")
    assert len(twice.problems) == 1 and twice.problems[0].startswith("twice.jpg: two files below ")


def test_paths_are_relative_to_the_caption_file_where_no_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "a.jpg").touch()
    path = save(tmp_path, lines("file,caption", "a.jpg,x"))
    assert data_set(path).media[0].path == str(tmp_path / "a.jpg")
    monkeypatch.chdir(tmp_path)
    assert data_set(path).media[0].path == "a.jpg"  # as before: first from the working directory


def test_an_id_beside_an_image_id_numbers_the_captions(tmp_path: Path):
    path = save(tmp_path, lines("id,image_id,file,caption", "0,7,a.jpg,x", "1,7,a.jpg,y", "2,8,b.jpg,z"))
    assert {m.id: m.references for m in data_set(path).media} == {"a.jpg": ("x", "y"), "b.jpg": ("z",)}
    assert read_captions(path).captions == {"7": ("x", "y"), "8": ("z",)}


def zipped(*names: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return data.getvalue()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"PAR1\x15\x04PAR1", "a Parquet file"),
        (zipped("[Content_Types].xml", "xl/workbook.xml"), "an Excel sheet"),
        (zipped("mimetype", "content.xml"), "an OpenDocument file"),
        (zipped("feat.npy", "bbox.npy"), "a NumPy archive"),
        (zipped("archive/data.pkl"), "a PyTorch checkpoint"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1rest", "an old Excel or Word file"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"\x80\x04\x95", "a Python pickle"),
        (b"\0" * 257 + b"ustar\0", "a tar archive"),
        (b"%PDF-1.7", "a PDF file"),
        (b"\0\0\0\x20ftypisom", "a video or image file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS"),
        (b"<!DOCTYPE html><html>", "a web page"),
    ],
)
def test_other_files_are_named_for_what_they_are(tmp_path: Path, content: bytes, kind: str):
    path = save(tmp_path, content, "captions.json")
    for read in (read_captions, data_set):
        with pytest.raises(ValueError, match=r"captions\.json: this is") as raised:
            read(path)
        assert f"this is {kind}" in str(raised.value) and "UTF-8 text" not in str(raised.value)


def test_archives_without_captions_and_damaged_ones_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"the ZIP holds no caption file .* but \['a\.exe'\]"):
        read_captions(save(tmp_path, zipped("a.exe")))
    with pytest.raises(ValueError, match=r"the gzip file is damaged .*; download it again"):
        read_captions(save(tmp_path, gzip.compress(b"x" * 999)[:-9]))
    with pytest.raises(ValueError, match="neither text nor a known kind of file"):
        read_captions(save(tmp_path, bytes(range(256)) + b"\0" * 99))
    assert kind_of(b"file,caption\n") is None


def test_utf16_of_spreadsheets_is_read(tmp_path: Path):
    path = save(tmp_path, lines("file;caption", f"a.jpg;{A[0]}", f"a.jpg;{A[1]}", f"b.jpg;{B[0]}").encode("utf-16"))
    assert read_captions(path).captions == TRUTH
