"""limner evaluate --report: the viewer for runs on stored features, with the files beside them or without, and on raw
media."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from limner.apps.cli import main
from limner.apps.shared import html_report
from limner.apps.shared.journal import finished_rows
from limner.data.datasets import read_dataset
from limner.inference.pipeline import Pipeline
from limner.runs.run import load_run
from tests.comparison.test_page import Reader
from tests.convert.test_self_critical import D, saved, vocabulary
from tests.data.test_regions import draw, row
from tests.training.world import CAPTIONS, clip, pictures

RECIPE = """
data: {{name: {name}, annotations: {annotations}}}
features: {root}/f.hdf5
frames: 4
vocabulary: {{min_count: 1}}
model: {{name: show_attend_tell, hidden: 8, embed: 8, attention: 8, dropout: 0.0}}
stages: [{{epochs: 1, batch_size: 4, captions_per_medium: 1}}]
decoding: {{size: 3, rules: {{max_length: 6}}}}
"""


def trained(root: Path, ids: list[str], name: str, annotations: Path) -> str:
    """A run on an HDF5 file of frame vectors, whose encoder is not known."""
    with h5py.File(root / "f.hdf5", "w") as file:
        for k, id in enumerate(ids):
            file.create_dataset(id, data=np.random.default_rng(k).normal(size=(3, 6)).astype(np.float16))
    (root / "r.yaml").write_text(RECIPE.format(root=root, name=name, annotations=annotations))
    assert main(["train", str(root / "r.yaml"), "--out", str(root / "run")]) == 0
    return str(root / "run")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> str:
    """MSR-VTT in small: features of twelve clips for training and of four that are evaluated; none of the clips."""
    root = tmp_path_factory.mktemp("clips")
    ids = {f"{split[0]}{k}": split for split, count in (("train", 12), ("validate", 4)) for k in range(count)}
    saved = {
        "videos": [{"video_id": id, "split": split} for id, split in ids.items()],
        "sentences": [{"video_id": id, "caption": text} for id in ids for text in CAPTIONS[:2]],
    }
    (root / "videodatainfo.json").write_text(json.dumps(saved))
    return trained(root, list(ids), "msrvtt", root)


def test_a_run_on_features_without_its_clips(clips: str, tmp_path: Path, capsys):
    """The captions, further captions and scores of the files that evaluate writes, the references, and no picture."""
    out = tmp_path / "r.html"
    command = ["evaluate", clips, "--split", "val", "--n-best", "2", "--out", str(tmp_path)]
    assert main([*command, "--report", str(out)]) == 0
    said = capsys.readouterr()
    assert f"wrote {out}" in said.out and "note: 4 of 4 items are shown without their image" in said.err
    assert "--data.media FOLDER says where they are" in said.err
    text = out.read_text(encoding="utf-8")
    rows, several = finished_rows(out), json.loads((tmp_path / "several.json").read_text())
    assert [[row["caption"], *(other for other, _ in row["others"])] for row in rows] == list(several.values())
    assert all(row["logprob"] < 0 for row in rows) and [row["file"] for row in rows] == [f"v{k}.mp4" for k in range(4)]
    scores = json.loads((tmp_path / "scores.json").read_text())
    found = Reader(text)
    attributes = [m for m in found.named("li") if "data-order" in m]
    assert [m["data-score0"] for m in attributes] == [str(line["CIDEr"]) for line in scores["segments"]]
    assert not found.named("img") and found.texts.count("image not available") == 4
    assert [name for name in found.texts if name in several] == ["v0", "v1", "v2", "v3"]
    assert all(found.texts.count(line) >= 4 for line in CAPTIONS[:2])  # the references of every card
    assert found.texts.count("references") == 4 and f"{100 * scores['scores']['METEOR']:.1f}" in found.texts
    assert "Captions of run, val" in found.texts and "decoding.n_best" in found.texts
    assert any(line.startswith("4 captions of 4 media, ") for line in found.texts)


def test_frames_of_the_clips_that_are_there(clips: str, tmp_path: Path, capsys):
    for name in ("v0", "v2"):
        clip(tmp_path / f"{name}.mp4")
    out = tmp_path / "r.html"
    given = ["--split", "val", "--metrics", "BLEU-1", "--data.media", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(["evaluate", clips, *given, "--report", str(out)]) == 0
    assert "note: 2 of 4 items are shown without their image" in capsys.readouterr().err
    found = Reader(out.read_text(encoding="utf-8"))
    captions = [row["caption"] for row in finished_rows(out)]
    assert [m["alt"] for m in found.named("img")] == [captions[0], captions[2]]
    assert (
        found.texts[found.texts.index("recipe.data.media") + 1] == tmp_path.name
    )  # what was changed, without its folder
    assert found.texts.count("image not available") == 2
    assert "data-score0" not in str(found.tags) and found.texts.count("references") == 4  # BLEU-1 is of the whole


def test_pictures_beside_stored_features(tmp_path: Path, monkeypatch, capsys):
    """By the ids and references of the data set, whatever the files are called; small ones where they are many."""
    folder = pictures(tmp_path / "d", 8, 3, side=300)
    ids = [f"p{k}" for k in range(8)] + [f"v{k}" for k in range(3)]
    run = trained(tmp_path, ids, "jsonl", folder / "captions.jsonl")
    command = ["evaluate", run, "--split", "val", "--metrics", "CIDEr", "--data.media", str(folder)]
    assert main([*command, "--report", str(tmp_path / "r.html")]) == 0
    assert "shown without" not in capsys.readouterr().err
    found = Reader((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert [(m["alt"], m["width"]) for m in found.named("img")] == [
        (row["caption"], "300") for row in finished_rows(tmp_path / "r.html")
    ]
    assert [m["title"] for m in found.named("h3")] == [str(folder / f"v{k}.png") for k in range(3)]
    monkeypatch.setattr(html_report, "MANY", 2)
    assert main([*command, "--report", str(tmp_path / "r.html"), "--overwrite"]) == 0
    found = Reader((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert [m["width"] for m in found.named("img")] == [str(html_report.SMALL)] * 3
    monkeypatch.setattr(html_report, "IMAGE_BYTES", 1)
    assert main([*command, "--report", str(tmp_path / "r.html"), "--overwrite"]) == 0
    assert "3 images were left out to keep the page small; --limit N evaluates fewer" in capsys.readouterr().err


def test_raw_media_have_the_log_probabilities_of_the_pipeline(tiny: Path, tmp_path: Path):
    out = tmp_path / "r.html"
    command = ["evaluate", str(tiny / "run"), "--split", "val", "--limit", "3", "--out", str(tmp_path), "--metrics"]
    assert main([*command, "CIDEr", "--report", str(out)]) == 0
    pipeline, rows = Pipeline.load(tiny / "run"), finished_rows(out)
    media = read_dataset(load_run(tiny / "run").recipe.data).split("val")[:3]
    for medium, found in zip(media, rows, strict=True):
        expected = pipeline.caption(medium.path)
        assert (found["file"], found["caption"], found["finished"]) == (medium.path, expected.text, expected.finished)
        assert found["logprob"] == pytest.approx(expected.logprob, abs=1e-3)
    text = out.read_text(encoding="utf-8")
    assert len(Reader(text).named("img")) == 3 and "Shares of captions that are right about: " in text
    with Image.open(media[0].path) as picture:
        assert Reader(text).named("img")[0]["width"] == str(picture.width)


def test_a_converted_checkpoint_shows_what_it_says_of_regions(tmp_path: Path, capsys):
    """As the page of the old repository was made: weights and words of others, and the TSV of a detector."""
    saved("ort", tmp_path / "model.pth")
    (tmp_path / "words.json").write_text(json.dumps({"ix_to_word": vocabulary(9)}))
    (tmp_path / "regions.tsv").write_bytes(b"".join(row(f"p{k}", *draw(3 + k, k, dim=D)) for k in range(3)))
    (tmp_path / "captions.jsonl").write_text(
        "".join(
            json.dumps({"file": f"p{k}.png", "id": f"p{k}", "split": "test", "caption": "w1 w2"}) + "\n"
            for k in range(3)
        )
    )
    Image.new("RGB", (40, 30), "red").save(tmp_path / "p1.png")
    run, store, page = (str(tmp_path / name) for name in ("run", "store", "r.html"))
    words = ["--word-map", str(tmp_path / "words.json")]
    assert main(["convert", "--from", "ort", str(tmp_path / "model.pth"), *words, "--out", run]) == 0
    data = ["--data.name", "jsonl", "--data.annotations", str(tmp_path / "captions.jsonl")]
    command = ["evaluate", run, *data, "--data.media", str(tmp_path), "--metrics", "CIDEr", "--report", page]
    assert main(command) == 1
    assert "limner convert --from bottom-up FILE.tsv --out STORE" in " ".join(capsys.readouterr().err.split())
    assert main(["convert", "--from", "bottom-up", str(tmp_path / "regions.tsv"), "--out", store]) == 0
    assert main([*command, "--features", store]) == 0
    found = Reader(Path(page).read_text(encoding="utf-8"))
    assert [m["alt"] for m in found.named("img")] == [finished_rows(Path(page))[1]["caption"]]
    assert len(finished_rows(Path(page))) == 3 and found.texts.count("image not available") == 2


def test_a_report_that_cannot_be_is_said_first(tmp_path: Path, capsys):
    (tmp_path / "a.html").mkdir()
    for name in ("a.html", "a.pdf"):
        assert main(["evaluate", "nowhere", "--report", str(tmp_path / name)]) == 2
        assert f"--report {tmp_path / name}: name a file that ends in .html" in " ".join(
            capsys.readouterr().err.split()
        )
