"""Training learns, keeps the best, stops in time, and says what went wrong."""

import json
import math
import platform
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from limner.core.tensors import load_tensors
from limner.core.types import Features, Layout, Pixels
from limner.data.datasets import read_dataset
from limner.data.store import StoreWriter
from limner.encoders import SmallCNN
from limner.inference.pipeline import Pipeline
from limner.metrics.references import References
from limner.metrics.report import evaluate
from limner.runs.evaluation import evaluate_run
from limner.runs.recipe import Stage
from limner.runs.run import load_run, run_state_dict
from limner.training import session
from limner.training.loop import ExponentialMovingAverage
from limner.training.session import build_vocabulary, collapse_warning
from limner.training.train import train
from tests.data.videos import animate, greys
from tests.encoders.test_pretrained import save as save_backbone
from tests.training.world import CAPTIONS, Watched, clip, log_of, pictures, recipe

SAME_LENGTH = ("a red dog", "the blue bird", "one green fish", "two cows stand")


def tensors_of(run: Path, name: str, prefix: str = "") -> dict[str, torch.Tensor]:
    return {
        key.removeprefix(prefix): value
        for key, value in load_tensors(run / f"{name}.safetensors")[0].items()
        if key.startswith(prefix)
    }


def test_four_captions_are_memorised(tmp_path: Path):
    """From pixels; decoded freely, the captions of the four pictures come back word by word."""
    folder = pictures(tmp_path / "data", 4)
    sizes = ("model.hidden", 32), ("model.embed", 16)
    whole = recipe(folder, *sizes, ("validation.every", 100), epochs=100, lr=0.02, encoder_lr=0.002)
    watch = Watched()
    pipeline = Pipeline.load(train(whole, tmp_path / "run", callback=watch))
    for k in range(4):
        caption = pipeline.caption(folder / f"p{k}.png")
        assert caption.text == CAPTIONS[k] and caption.finished and caption.words == tuple(CAPTIONS[k].split())
        assert caption.logprob > math.log(0.8)
    losses = [facts["loss"] for facts in watch.of("step")]
    assert losses[0] == pytest.approx(math.log(14), rel=0.05)  # 12 words, UNK and EOS, and no idea yet
    assert losses[-1] < 0.05
    # exact captions of 3, 4 and 2 words score 10 in each of the n-gram orders 1 to 4 that they have
    assert watch.of("validation")[-1]["CIDEr"] == pytest.approx((7.5 + 10 + 5) / 3)


@pytest.mark.parametrize("objective", [{}, {"label_smoothing": 0.1, "doubly_stochastic": 1.0}])
def test_two_accumulated_batches_equal_one_of_twice_the_size(tmp_path: Path, monkeypatch, objective: dict[str, float]):
    """The same pairs in the same order; after one step Adam's first moment is a tenth of the gradient.

    Statistics of a batch, which do depend on its size, are left out.
    """
    monkeypatch.setattr(nn.BatchNorm2d, "train", lambda module, mode=True: nn.Module.train(module, False))
    folder = pictures(tmp_path / "data", 4, captions=SAME_LENGTH)
    both = []
    for size, accumulate in ((4, 1), (2, 2)):
        stage = {"batch_size": size, "accumulate": accumulate, "objective": {"name": "xe", **objective}}
        run = train(recipe(folder, clip_norm=None, **stage), tmp_path / f"run{size}")
        both.append(tensors_of(run, "last"))
        assert log_of(run)[0]["step"] == 1
    gradients = [key for key in both[0] if key.endswith("exp_avg")]
    assert len(gradients) > 15 and any(both[0][key].abs().max() > 1e-3 for key in gradients)
    for key in gradients:
        torch.testing.assert_close(both[0][key], both[1][key], atol=1e-7, rtol=1e-5)


def test_the_learning_rate_of_every_step_is_the_schedules(tmp_path: Path):
    """5 batches, accumulated in twos, are 3 steps an epoch: 6 steps, of which 2 warm up."""
    folder = pictures(tmp_path / "data", 10)
    stage = {"batch_size": 2, "accumulate": 2, "epochs": 2, "lr": 0.01}
    watch = Watched()
    train(recipe(folder, schedule={"name": "one_cycle", "warmup": 1 / 3}, **stage), tmp_path / "run", callback=watch)
    rates = [facts["lr"] for facts in watch.of("step")]
    assert rates == pytest.approx([0.005, 0.01, 0.01, 0.0075, 0.005, 0.0025])
    assert [facts["batch"] for facts in watch.of("step")] == [2, 4, 5, 2, 4, 5]


def scripted(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> list[dict[str, torch.Tensor]]:
    """Validation gives these scores in turn -> the weights it saw each time."""
    seen: list[dict[str, torch.Tensor]] = []

    def validate(this: session.Session, stage: int) -> float:
        seen.append({name: value.clone() for name, value in run_state_dict(this.model).items()})
        return scores[len(seen) - 1]

    monkeypatch.setattr(session.Session, "validate", validate)
    return seen


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_the_kept_weights_are_those_of_the_best_validation(tmp_path: Path, monkeypatch, average: float):
    seen = scripted(monkeypatch, [0.1, 0.5, 0.3, 0.5])
    run = train(recipe(pictures(tmp_path / "data", 8), epochs=4, ema_decay=average), tmp_path / "run")
    kept, last = tensors_of(run, "model"), tensors_of(run, "last", "model.captioner.")
    assert all(torch.equal(kept[name], value) for name, value in seen[1].items())
    assert not torch.equal(seen[1]["head.weight"], seen[3]["head.weight"])
    at_the_end = torch.equal(last["head.weight"], seen[3]["head.weight"])
    assert at_the_end == (average == 0)  # with an average, validation sees other weights than the ones that learn on
    loaded = load_run(run)
    assert all(torch.equal(value, seen[1][name]) for name, value in loaded.model.state_dict().items())


def test_a_plateau_lowers_the_rate_and_patience_stops(tmp_path: Path, monkeypatch):
    scripted(monkeypatch, [0.5, 0.4, 0.6, 0.5, 0.5, 0.5, 0.9])
    stage = {"epochs": 9, "patience": 3, "lr": 0.01, "schedule": {"name": "plateau", "factor": 0.5, "patience": 1}}
    watch = Watched()
    train(recipe(pictures(tmp_path / "data", 4), **stage), tmp_path / "run", callback=watch)
    rates = [facts["lr"] for facts in watch.of("step")]
    assert rates == pytest.approx([0.01, 0.01, 0.005, 0.005, 0.0025, 0.00125])  # and epochs 7, 8, 9 never come


def test_validation_every_other_epoch_and_at_the_end(tmp_path: Path):
    whole = recipe(pictures(tmp_path / "data", 4), ("validation.every", 2), ("validation.limit", 2), epochs=5)
    watch = Watched()
    train(whole, tmp_path / "run", callback=watch)
    assert [facts["epoch"] for facts in watch.of("validation")] == [2, 4, 5]
    assert watch.of("start")[-1]["validation media"] == 2


def test_a_run_that_starts_from_another_must_beat_its_score(tmp_path: Path, monkeypatch):
    data = pictures(tmp_path / "data", 8)
    first = train(recipe(data), tmp_path / "first")
    begun = tensors_of(first, "model")
    seen = scripted(monkeypatch, [0.5, 0.4, 0.3])
    worse = train(recipe(data, ("start", str(first)), epochs=2, lr=0.1), tmp_path / "worse")
    kept = tensors_of(worse, "model")
    assert all(torch.equal(kept[name], value) and torch.equal(seen[0][name], value) for name, value in begun.items())
    assert not torch.equal(seen[1]["head.weight"], begun["head.weight"])
    scripted(monkeypatch, [0.5, 0.4, 0.6])
    better = tensors_of(train(recipe(data, ("start", str(first)), epochs=2, lr=0.1), tmp_path / "better"), "model")
    assert not torch.equal(better["head.weight"], begun["head.weight"])


def test_the_second_stage_starts_from_the_best_weights(tmp_path: Path, monkeypatch):
    seen = scripted(monkeypatch, [0.5, 0.4, 0.3])
    stages = [
        {"epochs": 2, "batch_size": 4, "lr": 0.01},
        {"epochs": 1, "batch_size": 4, "lr": 1e-30, "encoder_lr": 0.0},
    ]
    train(recipe(pictures(tmp_path / "data", 4), ("stages", stages)), tmp_path / "run")
    for name in ("head.weight", "encoder.out.weight"):
        assert torch.equal(seen[2][name], seen[0][name]) and not torch.equal(seen[1][name], seen[0][name])


def test_the_moving_average_by_hand():
    """Decay min(d, (1 + n) / (10 + n)): 2/11 and then 3/12 while the memory is short."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    average = ExponentialMovingAverage(model, 0.2)
    expected = 1.0
    for value, decay in ((2.0, 2 / 11), (5.0, 0.2), (-1.0, 0.2)):
        nn.init.constant_(model.weight, value)
        average.update()
        expected = decay * expected + (1 - decay) * value
        assert average.shadow["weight"].item() == pytest.approx(expected)
    average.swap()
    assert model.weight.item() == pytest.approx(expected) and average.shadow["weight"].item() == -1.0
    average.swap()
    assert model.weight.item() == -1.0


def test_the_warning_about_collapsed_captions_by_hand():
    def report(different: int, media: int) -> str:
        captions = {str(k): f"word{k % different}" for k in range(media)}
        return collapse_warning(evaluate(captions, References({id: ["x"] for id in captions})), media)

    assert "collapsed: 2 different sentences for 20 media" in report(2, 20)
    assert report(3, 20) == "" == report(1, 19)  # three sentences, or too few media to tell
    assert report(4, 200) and not report(5, 200)  # two per cent


def test_collapsed_captions_are_warned_about(tmp_path: Path):
    """Nothing is learnt, and all pictures are the same."""
    folder = pictures(tmp_path / "data", 20, 20)
    for k in range(1, 20):
        (folder / f"p{k}.png").write_bytes((folder / "p0.png").read_bytes())
    watch = Watched()
    train(recipe(folder, lr=1e-30, encoder_lr=0.0, batch_size=20), tmp_path / "run", callback=watch)
    assert ["collapsed: 1 different" in facts["text"] for facts in watch.of("warning")] == [True]


def test_captions_that_are_cut_are_counted_once_and_notes_of_the_data_are_told(tmp_path: Path):
    folder = pictures(
        tmp_path / "data", 4, 2, captions=("a red square", "a blue circle on green", "one two three four five")
    )
    with open(folder / "captions.jsonl", "a") as file:
        file.write(json.dumps({"file": "x.png", "id": "x", "split": "fold 3", "caption": "a b c d e f"}) + "\n")
    watch = Watched()
    two = recipe(folder, ("vocabulary.max_words", 4), ("stages", [{"epochs": 1, "batch_size": 4}] * 2))
    train(two, tmp_path / "run", callback=watch)
    assert [facts["text"] for facts in watch.of("warning")] == [
        "the split 'fold 3' of 1 media is not one of train, val, test; it is only read where it is named",
        "2 of 4 training captions have more than 4 words and are cut there (vocabulary.max_words)",
    ]


def test_an_infinite_loss_names_step_and_media(tmp_path: Path):
    whole = recipe(pictures(tmp_path / "data", 4), lr=1e30, encoder_lr=1e30, clip_norm=None, batch_size=2)
    message = r"the loss is (nan|inf) at step 1; media \('p\d', 'p\d'\): lower the learning rate"
    with pytest.raises(FloatingPointError, match=message):
        train(whole, tmp_path / "run")


def test_unreadable_pictures_are_reported_and_the_others_learnt(tmp_path: Path):
    folder = pictures(tmp_path / "data", 6, 2)
    (folder / "p5.png").write_bytes(b"no picture")
    (folder / "p1.png").unlink()
    (folder / "v1.png").unlink()
    watch = Watched()
    train(recipe(folder, batch_size=2, epochs=2), tmp_path / "run", callback=watch)
    told = [facts["text"] for facts in watch.of("warning")]
    assert len(told) == 2 and all("skipped: " in text for text in told)  # once, not every epoch
    assert any("p5.png" in text for text in told) and any("p1.png" in text for text in told)
    assert watch.of("start")[-1]["validation media"] == 1
    assert [line for line in watch.of("start")[-1]["problems"] if "v1.png" in line]
    assert len(watch.of("step")) == 6


def test_media_that_are_damaged_and_still_read_are_listed_once_at_the_end(tmp_path: Path):
    """p5 is trained on in two epochs and lacks its last bytes; so do p1, and v1 of the validation split."""
    folder = pictures(tmp_path / "data", 6, 2)
    for name in ("p5.png", "p1.png", "v1.png"):
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(folder / name)
        (folder / name).write_bytes((folder / name).read_bytes()[:-200])
    watch = Watched()
    run = train(recipe(folder, batch_size=2, epochs=2), tmp_path / "run", callback=watch)
    notes = watch.of("end")[-1]["notes"]
    assert not watch.of("warning") and watch.of("end")[-1]["skipped"] == 0
    named = [name for name in ("p1", "p5", "v1") for note in notes if f"{name}.png: truncated: " in note]
    assert named[:2] == ["p1", "p5"] and len(set(named)) == len(named) == len(notes)
    assert [note for note in evaluate_run(load_run(run), "val").report.notes if "v1.png: truncated" in note]


def test_the_vocabulary_is_of_the_training_split_only(tmp_path: Path):
    folder = pictures(tmp_path / "data", 4)
    with open(folder / "captions.jsonl", "a") as file:
        file.write(json.dumps({"file": "p0.png", "id": "t", "split": "test", "caption": "unheard words"}) + "\n")
    whole = recipe(folder)
    words = build_vocabulary(whole, read_dataset(whole.data)).words[4:]
    assert set(words) == set(" ".join(CAPTIONS[:4]).split())


def test_features_of_another_encoder_are_refused(tmp_path: Path):
    folder = pictures(tmp_path / "data", 4)
    writer = StoreWriter(tmp_path / "store", {"name": "other", "dim": 8})
    for id in ("p0", "p1", "p2", "p3", "v0", "v1", "v2"):
        writer.add(id, "full", torch.zeros(4, 8), Layout(1, 2, 2))
    writer.finish()
    with pytest.raises(
        ValueError, match=r"another encoder[\s\S]*name: the store has 'other', this encoder 'small_cnn'"
    ):
        train(recipe(folder, ("features", str(tmp_path / "store"))), tmp_path / "run")
    assert not (tmp_path / "run" / "run.json").exists()


def test_pictures_and_clips_cannot_be_trained_from_pixels_together(tmp_path: Path):
    folder = pictures(tmp_path / "data", 4, 2)
    films = folder / "captions.jsonl"
    rows = [json.loads(line) for line in films.read_text().splitlines()]
    clip(folder / "c.mp4")
    rows.append({"file": "c.mp4", "id": "film", "split": "val", "caption": "a film"})
    films.write_text("".join(json.dumps(row) + "\n" for row in rows))
    watch = Watched()
    whole = recipe(folder, ("frames", 3))
    run = train(whole, tmp_path / "run", callback=watch)  # to validate on both is fine
    assert watch.of("start")[-1]["validation media"] == 3 and len(watch.of("validation")) == 1
    evaluation = evaluate_run(load_run(run), "val")
    pipeline = Pipeline.load(run)
    assert list(evaluation.captions) == ["v0", "v1", "film"]
    for id, file in (("v0", "p0.png"), ("v1", "p1.png"), ("film", "c.mp4")):
        assert evaluation.captions[id] == pipeline.caption(folder / file, load_run(run).recipe.decoding).text
    films.write_text(
        "".join(json.dumps({**row, "split": "train"} if row["id"] == "film" else row) + "\n" for row in rows)
    )
    with pytest.raises(ValueError, match="images and clips cannot share a batch of raw frames; train on one kind"):
        train(recipe(folder, ("frames", 3), batch_size=8), tmp_path / "other")


def test_animations_are_trained_on_as_clips(tmp_path: Path):
    """Four GIF files; every batch has 3 frames of each, and a still image in between is refused."""
    folder = tmp_path / "data"
    folder.mkdir()
    rows = []
    for k in range(4):
        animate(folder / f"p{k}.gif", greys(6, 20 + k, (16, 16)))
        rows.append({"file": f"p{k}.gif", "id": f"p{k}", "split": "train", "caption": f"a grey {k}"})
    rows += [{**row, "id": f"v{k}", "split": "val"} for k, row in enumerate(rows)]
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = train(recipe(folder, ("frames", 3)), tmp_path / "run")
    assert evaluate_run(load_run(run), "val").captions.keys() == {"v0", "v1", "v2", "v3"}
    attention = Pipeline.load(run).caption(folder / "p1.gif", max_length=2).attention
    assert attention.shape[1] == 3
    Image.fromarray(greys(1, size=(16, 16))[0]).save(folder / "p0.gif")
    with pytest.raises(ValueError, match="cannot share a batch of raw frames; train on one kind, give frames: 1"):
        train(recipe(folder, ("frames", 3)), tmp_path / "other")
    train(recipe(folder, ("frames", 1)), tmp_path / "one_frame_each")


def test_one_process_may_train_in_one_precision_after_another(tmp_path: Path):
    folder = pictures(tmp_path / "data", 4)
    for precision in ("fp32", "bf16", "fp32"):
        train(recipe(folder, precision=precision), tmp_path / f"run-{len(list(tmp_path.iterdir()))}")
    heads = [load_tensors(tmp_path / f"run-{k}" / "model.safetensors")[0]["head.weight"] for k in (1, 2, 3)]
    assert torch.equal(heads[0], heads[2]) and not torch.equal(heads[0], heads[1])


@pytest.mark.parametrize(
    ("precision", "supported", "warned"), [("bf16", False, 1), ("bf16", True, 0), ("fp32", False, 0)]
)
def test_bfloat16_without_instructions_for_it_is_warned_of(
    precision: str, supported: bool, warned: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: supported)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    seen: list[str] = []
    folder = pictures(tmp_path / "data", 4)
    train(
        recipe(folder, precision=precision),
        tmp_path / "run",
        callback=lambda event, facts: seen.append(f"{event} {facts}"),
    )
    assert sum("no instructions for bfloat16" in line for line in seen) == warned


def test_the_average_follows_what_is_trained(tmp_path: Path):
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    average = ExponentialMovingAverage(model, 0.5)
    assert average.shadow.keys() == {"1.weight", "1.bias", "1.running_mean", "1.running_var", "2.weight", "2.bias"}


def test_settings_that_cannot_work_are_refused(tmp_path: Path):
    folder = pictures(tmp_path / "data", 4)
    two = [{"epochs": 1}, {"epochs": 1, "precision": "bf16"}]
    for overrides, message in [
        (("validation.metric", "METEOR9"), "unknown metric 'METEOR9'; known are BLEU-1"),
        (("validation.split", "fold"), r"no media in split 'fold'; the dataset has \{'train': 4, 'val': 3\}"),
        (("stages.0.epochs", 0), r"recipe: stages\.0\.epochs: .*greater than 0, got 0"),
        (("stages.0.precision", "fp16"), "fp16 needs CUDA; use bf16 or fp32"),
        (("stages", two), "all stages need the same precision, got bf16, fp32"),
    ]:
        with pytest.raises(ValueError, match=message):
            train(recipe(folder, overrides), tmp_path / "run")
    assert Stage().precision == "fp32"


def test_a_run_starts_from_another_ones_words_and_best_weights(tmp_path: Path):
    """With a learning rate of nothing the second run ends where the first one's best weights were."""
    folder = pictures(tmp_path / "data", 4)
    first = train(recipe(folder, epochs=3), tmp_path / "first")
    second = train(recipe(folder, ("start", str(first)), epochs=1, lr=1e-30, encoder_lr=1e-30), tmp_path / "second")
    before, after = tensors_of(first, "model"), tensors_of(second, "model")
    learnt = {name for name in before if "running" not in name and "tracked" not in name}
    assert all(torch.equal(before[name], after[name]) for name in learnt)
    assert (second / "vocabulary.json").read_bytes() == (first / "vocabulary.json").read_bytes()


def test_the_picture_size_may_grow_from_stage_to_stage(tmp_path: Path, monkeypatch):
    """Small squares first; the model that comes out sees its encoder's own."""
    seen: list[tuple[int, int]] = []
    forward = SmallCNN.forward

    def watched(self: SmallCNN, pixels: Pixels) -> Features:
        seen.append((pixels.frames.shape[-1], self.config.size))
        return forward(self, pixels)

    monkeypatch.setattr(SmallCNN, "forward", watched)
    folder = pictures(tmp_path / "data", 4)
    stages = [{"epochs": 1, "batch_size": 4, "lr": 0.003, "image_size": 8}, {"epochs": 1, "batch_size": 4, "lr": 10.0}]
    watch = Watched()
    run = train(recipe(folder, ("stages", stages)), tmp_path / "run", callback=watch)
    assert list(dict.fromkeys(seen)) == [(8, 8), (16, 16)]
    assert load_run(run).encoder.config.size == 16
    told = [row["CIDEr"] for row in watch.of("validation")]
    assert len(told) == 3 and told[2] < told[1]  # what the second stage begins with is scored at its own size, and kept
    assert watch.of("end")[-1]["best"] == pytest.approx(told[1], abs=1e-6)
    first, kept = tensors_of(run, "last", "model."), tensors_of(run, "model")
    assert not torch.equal(first["captioner.head.weight"], kept["head.weight"])
    save_backbone("resnet", tmp_path / "backbone")
    pretrained = {"name": "pretrained", "source": str(tmp_path / "backbone")}
    with pytest.raises(ValueError, match="size is 8, but encoder pretrained has no size: leave it out"):
        train(recipe(folder, ("stages", stages), ("encoder", pretrained)), tmp_path / "other")


def test_sentences_with_times_are_learnt_from_their_parts_of_the_clip(tmp_path: Path):
    """Half a second of black and half a second of white: two media of one file."""
    folder = tmp_path / "data"
    folder.mkdir()
    clip(folder / "v.mp4")
    timed = {"v": {"timestamps": [[0, 0.5], [0.5, 1]], "sentences": ["dark", "light"]}}
    (folder / "train.json").write_text(json.dumps(timed))
    options = {"data.name": "captions", "data.annotations": str(folder / "train.json"), "data.default_split": "train"}
    parts = recipe(
        folder, *options.items(), ("validation.split", "train"), ("sampling.policy", "uniform"), batch_size=2
    )
    watch = Watched()
    train(parts, tmp_path / "run", callback=watch)
    (start,) = watch.of("start")
    assert start["training media"] == 2 and start["problems"] == [] and start["words"] >= 2
