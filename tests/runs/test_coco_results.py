"""Results as COCO's tools want them: pycocotools itself accepts them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from limner.apps.shared.journal import to_json
from limner.runs.evaluation import coco_results

NAMES = {"000000397133.jpg": 397133, "000000037777.jpg": 37777, "COCO_val2014_000000000042.jpg": 42, "7.png": 7}


def load_results(folder: Path, results: Sequence[dict[str, Any]]) -> dict[int, str]:
    """The captions by image id that `COCO.loadRes` takes; it fails when an id is not in the annotations."""
    coco = pytest.importorskip("pycocotools.coco")
    images = [{"id": id, "file_name": name} for name, id in NAMES.items()]
    truth = [{"id": k, "image_id": id, "caption": "x"} for k, id in enumerate(NAMES.values())]
    annotations = {"info": {}, "images": images, "annotations": truth, "type": "captions", "licenses": []}
    (folder / "captions_val2017.json").write_text(json.dumps(annotations))
    (folder / "results.json").write_text(json.dumps(results))
    loaded = coco.COCO(str(folder / "captions_val2017.json")).loadRes(str(folder / "results.json"))
    return {row["image_id"]: row["caption"] for row in loaded.loadAnns(loaded.getAnnIds())}


def test_captions_of_files_load_into_pycocotools(tmp_path: Path):
    rows = [{"file": f"val2017/{name}", "caption": name, "logprob": -1.0, "finished": True} for name in NAMES]
    assert load_results(tmp_path, json.loads(to_json(rows))) == {id: name for name, id in NAMES.items()}


@pytest.mark.parametrize("folder", ["", "val2017/"])
def test_captions_of_a_split_load_into_pycocotools(tmp_path: Path, folder: str):
    """Ids of a data set are file names, where its caption file has no others."""
    found = load_results(tmp_path, coco_results({f"{folder}{name}": name for name in NAMES}))
    assert found == {id: name for name, id in NAMES.items()}


def test_ids_with_one_number_stay_different():
    assert [row["image_id"] for row in coco_results({"a/7.png": "x", "b/7.png": "y", "8": "z"})] == [
        "a/7.png",
        "b/7.png",
        8,
    ]
