"""`limner score` from end to end: files of any tool in, the same numbers out, mistakes named in one line."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from limner.apps.cli import main
from limner.apps.score import find_media
from limner.data import shapes
from limner.metrics.microworld import accuracy
from limner.metrics.references import References
from limner.metrics.report import METRICS, evaluate, evaluate_samples
from tests.metrics.test_clipscore import make_clip

CAPTIONS = {"7": "a cat on a mat", "8": "two dogs run", "9": "the bird"}
REFERENCES = {
    "7": ["A cat sits on a mat.", "the cat"],
    "8": ["Two dogs are running.", "dogs"],
    "9": ["a bird", "birds"],
}


@pytest.fixture(autouse=True)
def quick_meteor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another metric in METEOR's place, whose tables are large and may be missing."""
    monkeypatch.setitem(METRICS, "METEOR", METRICS["ROUGE-L"])


@pytest.fixture
def files(tmp_path: Path) -> Path:
    results = [{"image_id": int(id), "caption": text} for id, text in CAPTIONS.items()]
    (tmp_path / "preds.json").write_text(json.dumps(results))
    images = [{"id": int(id), "file_name": f"COCO_val2014_{int(id):012}.jpg"} for id in REFERENCES]
    rows = [{"image_id": int(id), "id": 0, "caption": text} for id, texts in REFERENCES.items() for text in texts]
    (tmp_path / "refs.json").write_text(json.dumps({"images": images, "annotations": rows}))
    return tmp_path


def run(folder: Path, *more: str, candidates: str = "preds.json", references: str = "refs.json") -> int:
    given = ["--candidates", str(folder / candidates), "--references", str(folder / references)]
    tokens = [] if "--tokenizer" in more else ["--tokenizer", "simple"]
    return main(["score", *given, *tokens, *map(str, more)])


def scored(folder: Path, *more: str, **names: str) -> dict:
    assert run(folder, "--out", str(folder / "scores.json"), "--overwrite", *more, **names) == 0
    return json.loads((folder / "scores.json").read_text())


def test_scores_are_those_of_the_library(files: Path, capsys):
    found = scored(files)
    report = evaluate(CAPTIONS, References(REFERENCES))
    assert found["scores"] == pytest.approx(report.scores) and found["notes"] == list(report.notes)
    assert [row["id"] for row in found["segments"]] == list(CAPTIONS)
    assert found["candidates"] == str(files / "preds.json") and found["protocol"]["scale"] == "fractions"
    shown = capsys.readouterr().out
    assert "scores x100" in shown and f"{100 * report.scores['CIDEr']:.1f}" in shown
    assert "scores.json (fractions, not x100)" in shown


def test_tokens_are_ptb_unless_others_are_asked_for(files: Path):
    """Words that PTB cuts in two: the candidate's "isn't" is "is" and "n't"."""
    (files / "ptb.json").write_text(json.dumps({**CAPTIONS, "9": "it isn't."}))
    (files / "refs.jsonl").write_text("".join(json.dumps({"id": id, "caption": "is n't"}) + "\n" for id in CAPTIONS))
    given = ["--candidates", str(files / "ptb.json"), "--references", str(files / "refs.jsonl")]
    assert main(["score", *given, "--metrics", "bleu-1", "--out", str(files / "scores.json")]) == 0
    found = json.loads((files / "scores.json").read_text())
    assert found["protocol"]["tokenizer"] == "ptb"
    assert found["scores"]["BLEU-1"] == pytest.approx(2 / (5 + 3 + 3))  # two of the eleven words


def test_every_layout_scores_the_same(files: Path):
    expected = scored(files)["segments"]
    (files / "refs.csv").write_text("file,caption\n" + "".join(
        f'COCO_val2014_{int(id):012}.jpg,"{text}"\n' for id, texts in REFERENCES.items() for text in texts
    ))  # fmt: skip
    (files / "refs.txt").write_text("".join(f"{id}\t{text}\n" for id, texts in REFERENCES.items() for text in texts))
    (files / "refs.jsonl").write_text(
        "".join(json.dumps({"id": id, "captions": texts}) + "\n" for id, texts in REFERENCES.items())
    )
    (files / "preds.jsonl").write_text(
        "".join(json.dumps({"file": f"val/{int(id):012}.jpg", "caption": text}) + "\n" for id, text in CAPTIONS.items())
    )
    for references in ("refs.csv", "refs.txt", "refs.jsonl"):
        for candidates in ("preds.json", "preds.jsonl"):
            rows = scored(files, candidates=candidates, references=references)["segments"]
            assert [{**row, "id": ""} for row in rows] == [{**row, "id": ""} for row in expected]


def test_line_ends_nul_and_half_characters_leave_the_others_alone(files: Path, capsys):
    whole = scored(files)["segments"]
    odd = {"7": "a cat\ron a\u2028mat", "8": "two dogs\0run", "9": "the bird\ud800"}
    (files / "odd.json").write_text(json.dumps([{"image_id": int(id), "caption": text} for id, text in odd.items()]))
    capsys.readouterr()
    rows = scored(files, candidates="odd.json")["segments"]
    scores = [{key: value for key, value in row.items() if key != "caption"} for row in rows]
    assert scores == [{key: value for key, value in row.items() if key != "caption"} for row in whole]
    notes = capsys.readouterr().err.splitlines()
    assert len(notes) == 2 and all(line.startswith("note: ") for line in notes)
    assert "2 captions had line ends or NUL" in notes[0] and "1 captions had half a character" in notes[1]


def test_an_empty_candidate_is_scored_and_said(files: Path, capsys):
    whole = {row["id"]: row for row in scored(files)["segments"]}
    (files / "empty.json").write_text(json.dumps({**CAPTIONS, "8": ""}))
    rows = {row["id"]: row for row in scored(files, candidates="empty.json")["segments"]}
    assert "1 caption has no words" in capsys.readouterr().err
    assert rows["8"]["CIDEr"] == rows["8"]["ROUGE-L"] == 0 and rows["7"] == whole["7"] and rows["9"] == whole["9"]


def test_chosen_metrics(files: Path, capsys):
    assert list(scored(files, "--metrics", "bleu-4,CIDEr")["scores"]) == ["BLEU-4", "CIDEr"]
    assert run(files, "--metrics", "spider") == 2
    assert "unknown metric 'spider'; known are BLEU-1" in capsys.readouterr().err


def test_a_split_and_missing_candidates(files: Path, capsys):
    karpathy = [
        {
            "filename": f"{id}.jpg",
            "split": "test" if id in ("7", "9") else "val",
            "sentences": [{"raw": t} for t in texts],
        }
        for id, texts in REFERENCES.items()
    ]
    (files / "karpathy.json").write_text(json.dumps({"images": karpathy}))
    (files / "two.json").write_text(json.dumps({id: CAPTIONS[id] for id in ("7", "9")}))
    rows = scored(files, "--split", "test", candidates="two.json", references="karpathy.json")["segments"]
    assert [row["id"] for row in rows] == ["7", "9"]
    partial = scored(files, "--allow-missing", candidates="two.json")
    assert partial["segments"] == rows and partial["protocol"]["images"] == 2
    assert "1 of 3 references have no candidate" in partial["notes"][0]
    capsys.readouterr()
    assert run(files, candidates="two.json", references="karpathy.json") == 1
    assert "All candidates are in the split 'test': give it with --split" in capsys.readouterr().err


def test_several_captions_for_each_id(files: Path, capsys):
    samples = {id: [text, text.upper(), "a dog"] for id, text in CAPTIONS.items()}
    (files / "samples.json").write_text(json.dumps(samples))
    assert run(files, candidates="samples.json") == 1
    assert "several captions for 3 ids" in capsys.readouterr().err
    (files / "training.csv").write_text("file,split,caption\n1,train,The bird!\n2,test,a dog\n")
    training = ["--training", str(files / "training.csv")]
    found = scored(files, "--diversity", *training, candidates="samples.json")
    report = evaluate_samples(samples, References(REFERENCES), training=["The bird!"])
    assert found["oracle"] == pytest.approx(report.oracle) and found["mean"] == pytest.approx(report.mean)
    assert found["diversity"]["novelty"] == report.diversity.novelty == 7 / 9
    assert found["diversity"]["distinct"] == 4 and "Div-1" in capsys.readouterr().out
    assert scored(files, *training)["novelty"] == 2 / 3  # of one caption each, too


def test_ids_without_a_partner_are_left_out_when_asked(files: Path, capsys):
    """Each mistake names the option that allows it."""
    (files / "more.json").write_text(json.dumps({**CAPTIONS, "10": "a car"}))
    (files / "fewer.json").write_text(json.dumps({"7": CAPTIONS["7"], "10": "a car"}))
    assert run(files, candidates="more.json") == 1
    assert "or leave the others out with --allow-extra\n" in capsys.readouterr().err
    whole = scored(files)["scores"]
    capsys.readouterr()
    assert scored(files, "--allow-extra", candidates="more.json")["scores"] == whole
    assert "note: 1 of 4 candidates have no references and were left out" in capsys.readouterr().err
    assert run(files, candidates="fewer.json") == 1
    assert "--allow-extra and --allow-missing\n" in capsys.readouterr().err
    both = scored(files, "--allow-extra", "--allow-missing", candidates="fewer.json")
    assert [row["id"] for row in both["segments"]] == ["7"]


def test_the_micro_world_is_judged(tmp_path: Path, capsys):
    shapes.generate_world(tmp_path / "world", 30, size=32)
    media = [medium for medium in shapes.load_world(tmp_path / "world") if medium.split == "test"]
    captions = {medium.id: medium.references[0].replace("red", "blue") for medium in media}
    (tmp_path / "preds.json").write_text(json.dumps(captions))
    exact = accuracy(captions, shapes.read_truth(tmp_path / "world"))
    assert {"object", "colour", "relation", "hallucination"} <= set(exact)
    for references in ("world", "world/truth.json"):
        assert scored(tmp_path, "--split", "test", references=references)["exact"] == exact
        assert "exact truth" in capsys.readouterr().out


def test_clipscore_finds_the_pictures(files: Path, capsys):
    make_clip(files / "clip")
    (files / "images" / "val").mkdir(parents=True)
    for k, id in enumerate(CAPTIONS):
        pixels = np.random.default_rng(k).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(files / "images" / "val" / f"COCO_val2014_{int(id):012}.jpg")
    clip = ["--clip", files / "clip"]
    found = scored(files, *clip, "--images", files / "images")
    assert {"CLIPScore", "RefCLIPScore"} <= set(found["scores"]) and len(found["protocol"]["CLIP sha256"]) == 64
    rows = [row["CLIPScore"] for row in found["segments"]]
    assert found["scores"]["CLIPScore"] == pytest.approx(np.mean(rows)) and len(set(rows)) > 1
    assert found["protocol"]["CLIP frames"] == 8 and found["protocol"]["CLIP"] == "clip"
    named = scored(files, *clip, "--images", files / "images" / "val")  # by the file names in the annotations
    assert [row["CLIPScore"] for row in named["segments"]] == rows
    capsys.readouterr()
    for more, message, status in (
        (clip, "no image or video of 3 ids ('7', '8', '9') where the caption files say; give their folder", 1),
        ([*clip, "--images", files / "clip"], "no image or video of 3 ids", 1),
        ([*clip, "--diversity"], "--clip scores one caption per id", 2),
        (["--images", files], "--images is for CLIPScore", 2),
    ):
        assert run(files, *more) == status and message in capsys.readouterr().err


def test_pictures_of_the_same_name_are_not_guessed(tmp_path: Path):
    for name in ("a/1.png", "b/1.jpg", "a/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert find_media(["2"], {}, tmp_path) == {"2": str(tmp_path / "a/2.png")}
    assert find_media(["1"], {"1": "b/1.jpg"}, tmp_path) == {"1": str(tmp_path / "b/1.jpg")}
    with pytest.raises(ValueError, match="more than one image or video of 1 id"):
        find_media(["1", "2"], {}, tmp_path)


def test_spice_is_computed_by_the_jar_that_is_given(files: Path, capsys, monkeypatch):
    monkeypatch.setattr("limner.metrics.spice.java_version", lambda java="java": 8)
    monkeypatch.setattr("limner.metrics.spice._run_jar", lambda java, version, jar, asked, folder: [
        {"image_id": row["image_id"], "scores": {"All": {"f": len(row["refs"]) / 4}}} for row in asked
    ])  # fmt: skip
    assert run(files, "--spice-jar", files / "nowhere.jar") == 1
    assert "no jar at" in capsys.readouterr().err
    (files / "spice-1.0.jar").write_bytes(b"")
    found = scored(files, "--spice-jar", files / "spice-1.0.jar")
    assert found["scores"]["SPICE"] == 0.5 and found["protocol"]["SPICE"] == "spice-1.0.jar, Java 8"
    assert found["segments"][0]["SPICE"] == 0.5
    assert "SPICE" not in scored(files)["scores"]


def test_mistakes_are_one_line(files: Path, capsys):
    (files / "words.txt").write_text("just words\n")
    (files / "other.json").write_text(json.dumps({"1": "a", "2": "b"}))
    (files / "nan.json").write_text('[{"image_id": 7, "caption": NaN}]')
    (files / "none.json").write_text(json.dumps({**REFERENCES, "8": []}))
    (files / "twice.json").write_text(json.dumps([{"image_id": id, "caption": "a"} for id in (7, "7", 8, 9)]))
    for names, message in (
        ({"candidates": "nowhere.json"}, "nowhere.json"),
        ({"candidates": "words.txt"}, "which is not a known layout; expected a list of objects"),
        ({"candidates": "refs.json", "references": "preds.json"}, "candidates and references look swapped"),
        ({"candidates": "other.json"}, "have no id in common"),
        ({"candidates": "nan.json"}, "the caption of '7' is nan"),
        ({"candidates": "twice.json"}, "has several captions for 1 id ('7')"),
        ({"references": "none.json"}, "has no reference caption for 1 id ('8')"),
    ):
        assert run(files, **names) == 1, names
        error = capsys.readouterr().err
        assert message in error and error.startswith("limner: ") and error.count("\n") == 1, error
    assert run(files, "--bean", "3") == 2 and "unknown arguments: --bean 3" in capsys.readouterr().err


def test_references_of_vizwiz_are_those_that_its_own_evaluation_takes(files: Path, capsys):
    """Rejected captions are no references, an image with no others is not scored, and ids meet by file names."""
    images = [{"id": 50 + int(id), "file_name": f"VizWiz_val_{int(id):08}.jpg"} for id in (*REFERENCES, 10)]
    kept = [
        {"image_id": 50 + int(id), "caption": text, "is_rejected": False, "is_precanned": False}
        for id, texts in REFERENCES.items()
        for text in texts
    ]
    severe = "Quality issues are too severe to recognize visual content."
    marked = [
        {"image_id": image["id"], "caption": severe, "is_rejected": True, "is_precanned": True} for image in images
    ]
    (files / "vizwiz.json").write_text(json.dumps({"images": images, "annotations": kept + marked}))
    named = {f"VizWiz_val_{int(id):08}.jpg": text for id, text in {**CAPTIONS, "10": "a blur"}.items()}
    (files / "named.json").write_text(json.dumps(named))
    expected = scored(files)["scores"]
    capsys.readouterr()
    found = scored(files, candidates="named.json", references="vizwiz.json")
    assert found["scores"] == pytest.approx(expected) and [row["id"] for row in found["segments"]] == ["57", "58", "59"]
    notes = capsys.readouterr().err
    assert "4 captions are marked as rejected and precanned and were left out" in notes
    assert "1 candidates were left out, because all references of their images are unusable" in notes
    assert "matched by the names of the files: candidate 'VizWiz_val_00000007.jpg' is reference '57'" in notes


def test_the_column_of_the_references_is_chosen_by_option(files: Path):
    rows = [{"videoID": id, "enCap": ["nothing alike"], "chCap": texts} for id, texts in REFERENCES.items()]
    (files / "vatex.json").write_text(json.dumps(rows))
    whole = scored(files)["scores"]
    assert scored(files, "--caption-column", "chCap", references="vatex.json")["scores"] == pytest.approx(whole)
    assert scored(files, references="vatex.json")["scores"]["BLEU-1"] < 1e-9
