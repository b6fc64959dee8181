"""nocaps, TextCaps, VizWiz, VATEX and Flickr30k in the layouts in which their authors publish them."""

import json
from pathlib import Path
from typing import Any

import pytest

from limner.apps.cli import main
from limner.data.datasets import DataConfig, read_dataset
from limner.metrics.references import References
from limner.metrics.report import evaluate, select_metrics

DOMAINS = ("in-domain", "near-domain", "out-domain")


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))


def media(name: str, folder: Path, **more: Any) -> dict[str, tuple[str, str, tuple[str, ...]]]:
    """Id -> split, name of the file, captions."""
    dataset = read_dataset(DataConfig(name, str(folder / "media"), str(folder), **more))
    return {it.id: (it.split, Path(it.path).name, it.references) for it in dataset.media}


def nocaps(count: int = 6) -> dict[str, Any]:
    names = [f"{k:016x}" for k in range(count)]
    return {
        "licenses": [],
        "info": {"url": "http://nocaps.org", "version": "0.1", "description": "nocaps validation dataset"},
        "images": [
            {"id": k, "open_images_id": name, "height": 4, "width": 4, "coco_url": "", "file_name": f"{name}.jpg",
             "license": 0, "date_captured": "2018-11-06 11:04:33", "domain": DOMAINS[k % 3]}
            for k, name in enumerate(names)
        ],
        "annotations": [
            {"image_id": k, "id": 10 * k + n, "caption": text}
            for k in range(count)
            for n, text in enumerate((f"a thing of kind {k} on a table", f"a table with thing {k}"))
        ],
    }  # fmt: skip


def test_nocaps_is_read(tmp_path: Path) -> None:
    write(tmp_path / "nocaps_val_4500_captions.json", nocaps())
    write(tmp_path / "nocaps_val_image_info.json", {**nocaps(), "annotations": []})
    write(tmp_path / "nocaps_test_image_info.json", {"images": [{"id": 0, "file_name": "x.jpg"}], "licenses": []})
    found = media("nocaps", tmp_path)
    assert found["1"] == ("val", f"{1:016x}.jpg", ("a thing of kind 1 on a table", "a table with thing 1"))
    assert len(found) == 6 and {split for split, _, _ in found.values()} == {"val"}
    dataset = read_dataset(DataConfig("nocaps", "", str(tmp_path)))
    assert dataset.notes[0].startswith(
        "nocaps_test_image_info.json has no captions, because those of its split are not"
    )
    with pytest.raises(ValueError, match=r"has no captions.*: caption its images with limner caption, and send"):
        read_dataset(DataConfig("nocaps", "", str(tmp_path / "nocaps_test_image_info.json")))


def test_nocaps_is_scored_by_domain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each domain as if its images were evaluated alone, and all of them."""
    write(tmp_path / "refs.json", saved := nocaps())
    captions = {str(k): f"a thing {k % 2} on a table" for k in range(6)}
    write(tmp_path / "preds.json", [{"image_id": int(id), "caption": text} for id, text in captions.items()])
    given = ["--candidates", str(tmp_path / "preds.json"), "--references", str(tmp_path / "refs.json")]
    assert main(["score", *given, "--metrics", "cider,bleu-4", "--out", str(tmp_path / "scores.json")]) == 0
    shown = capsys.readouterr().out
    assert [shown.index(f"{name}: scores") for name in (*DOMAINS, "entire")] == sorted(
        shown.index(f"{name}: scores") for name in (*DOMAINS, "entire")
    )
    written = json.loads((tmp_path / "scores.json").read_text())
    for domain in DOMAINS:
        ids = [str(image["id"]) for image in saved["images"] if image["domain"] == domain]
        texts = {id: [row["caption"] for row in saved["annotations"] if str(row["image_id"]) == id] for id in ids}
        alone = evaluate({id: captions[id] for id in ids}, References(texts), select_metrics(["cider", "bleu-4"]))
        assert written["groups"][domain]["scores"] == alone.scores and alone.protocol["images"] == 2
    assert written["protocol"]["images"] == 6


def test_textcaps_is_read(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        row = {"question": "", "image_id": f"{split}0", "image_classes": ["Sign"], "image_width": 4, "image_height": 4,
               "set_name": split, "image_name": f"{split}0", "image_path": f"{split}/{split}0.jpg", "caption_id": 1,
               "flickr_original_url": "", "flickr_300k_url": ""}  # fmt: skip
        texts = ["a sign that says stop", "a red sign"]
        rows = [{**row, "caption_str": text, "caption_tokens": text.split(), "reference_strs": texts,
                 "reference_tokens": [t.split() for t in texts]} for text in texts]  # fmt: skip
        write(tmp_path / f"TextCaps_0.1_{split}.json", {"dataset_type": split, "dataset_name": "textcaps",
              "dataset_version": "0.1", "data": rows if split != "test" else [row]})  # fmt: skip
    write(tmp_path / "TextVQA_0.5.1_val.json", {"data": []})  # of another data set, in the same folder
    found = media("textcaps", tmp_path)
    assert {id: (split, texts) for id, (split, _, texts) in found.items()} == {
        "train0": ("train", ("a sign that says stop", "a red sign")),
        "val0": ("val", ("a sign that says stop", "a red sign")),
    }


def test_vizwiz_is_read_without_the_captions_that_are_no_references(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "val", "test")):
        image = {"id": number, "file_name": f"VizWiz_{split}_00000000.jpg", "vizwiz_url": "", "text_detected": True}
        marks = {"is_precanned": False, "is_rejected": False, "text_detected": True}
        rows = [
            {"caption": "a can of soup", "image_id": number, "id": 1, **marks},
            {"caption": "Quality issues are too severe.", "image_id": number, "id": 2, **marks, "is_rejected": True},
        ]
        write(
            tmp_path / f"{split}.json", {"info": {}, "images": [image]} | ({"annotations": rows} if number < 2 else {})
        )
    assert media("vizwiz", tmp_path) == {
        "0": ("train", "VizWiz_train_00000000.jpg", ("a can of soup",)),
        "1": ("val", "VizWiz_val_00000000.jpg", ("a can of soup",)),
    }


def test_vatex_is_read_in_both_languages(tmp_path: Path) -> None:
    names = {
        "train": "vatex_training_v1.0.json",
        "val": "vatex_validation_v1.0.json",
        "test": "vatex_public_test_english_v1.1.json",
    }
    for split, name in names.items():
        chinese = {} if split == "test" else {"chCap": ["一个人"]}
        write(
            tmp_path / name, [{"videoID": f"-{split}_000010_000020", "enCap": ["A man runs.", "He runs."], **chinese}]
        )
    write(tmp_path / "vatex_private_test_without_annotations.json", [{"videoID": "x_000000_000010"}])
    found = media("vatex", tmp_path)
    assert {id: (split, texts) for id, (split, _, texts) in found.items()} == {
        f"-{split}_000010_000020": (split, ("A man runs.", "He runs.")) for split in names
    }
    (tmp_path / names["test"]).unlink()
    assert [texts for _, _, texts in media("vatex", tmp_path, caption_column="chCap").values()] == [("一个人",)] * 2


def test_flickr30k_has_karpathys_split_or_that_of_the_lists(tmp_path: Path) -> None:
    write(
        tmp_path / "results_20130124.token", "".join(f"{k}.jpg#{n}\ta dog {k} {n}\n" for k in range(3) for n in (0, 1))
    )
    note = read_dataset(DataConfig("flickr30k", "", str(tmp_path))).notes[-1]
    assert "names no splits, so a hash of the id decides: scores are not comparable with published ones" in note
    for k, split in enumerate(("train", "val", "test")):
        write(tmp_path / f"{split}.txt", f"{k}\n")
    found = media("flickr30k", tmp_path)
    assert found["1.jpg"] == ("val", "1.jpg", ("a dog 1 0", "a dog 1 1"))
    assert [split for split, _, _ in found.values()] == ["train", "val", "test"]
    image = {"filename": "9.jpg", "imgid": 0, "split": "test", "sentids": [0], "sentences": [{"raw": "A cat."}]}
    write(tmp_path / "dataset_flickr30k.json", {"dataset": "flickr30k", "images": [image]})
    assert media("flickr30k", tmp_path) == {"9": ("test", "9.jpg", ("A cat.",))}


def test_a_folder_without_the_files_names_them(tmp_path: Path) -> None:
    for name, file in (("nocaps", "nocaps_val_4500"), ("vatex", "vatex_training_v1.0"), ("flickr30k", "results.csv")):
        with pytest.raises(ValueError, match=f"expected.*{file}"):
            read_dataset(DataConfig(name, "", str(tmp_path)))
    with pytest.raises(FileNotFoundError, match=r"data.annotations: nothing at .*, expected train.json, val.json"):
        read_dataset(DataConfig("vizwiz", "", str(tmp_path / "none")))
    for name in ("vatex_validation_v1.0.json", "vatex_validation_v1.1.json"):
        write(tmp_path / name, [{"videoID": "a_000000_000010", "enCap": ["a"]}])
    with pytest.raises(ValueError, match=r"several files for the split val: vatex_validation_v1.0.json, vatex_valid"):
        read_dataset(DataConfig("vatex", "", str(tmp_path)))
