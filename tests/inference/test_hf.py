"""Captioners of transformers, small and random, through the same outputs; against `generate` and arithmetic by hand."""

import json
import os
import re
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported

import numpy as np
import pytest
import torch
import transformers

from limner.apps.cli import main
from limner.core.torch_free import Failure
from limner.data.datasets import read_dataset
from limner.decode.options import Beam, Sample
from limner.decode.rules import Rules
from limner.inference import generation
from limner.inference.generation import generate_arguments
from limner.inference.hf import HuggingFacePipeline
from limner.runs.recipe_file import load_recipe
from limner.text.alt_text import alt_text
from tests.apps.test_caption import picture
from tests.data.videos import greys, write

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS += ["a", "dog", "cat", "runs", "on", "grass", "the", "##s", "red", "blue", "man"]
PAD, BOS, EOS = 0, 2, 3
SIDE = {"height": 16, "width": 16}
VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION |= {"image_size": 16, "patch_size": 8, "initializer_range": 0.5}
TEXT = {"vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT |= {"intermediate_size": 16, "max_position_embeddings": 32, "initializer_range": 0.5}
SPECIAL = {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD}


def blip() -> torch.nn.Module:
    text = {**TEXT, **SPECIAL, "sep_token_id": EOS, "encoder_hidden_size": 16, "projection_dim": 16}
    config = transformers.BlipConfig(text_config=text, vision_config=VISION, projection_dim=16)
    return transformers.BlipForConditionalGeneration(config)


def git(frames: int | None = None) -> torch.nn.Module:
    config = transformers.GitConfig(vision_config=VISION, num_image_with_embedding=frames, **TEXT, **SPECIAL)
    model = transformers.GitForCausalLM(config)
    for k, embedding in enumerate(getattr(model.git, "img_temporal_embedding", ())):
        torch.nn.init.constant_(embedding, float(k))  # zeros as made: no order could be seen
    return model


def encoder_decoder() -> torch.nn.Module:
    parts = transformers.ViTConfig(**VISION), transformers.BertConfig(**TEXT)
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(*parts)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = BOS, PAD, EOS
    return transformers.VisionEncoderDecoderModel(config=config)


MODELS = {
    "blip": (blip, transformers.BlipImageProcessorPil),
    "git": (git, transformers.CLIPImageProcessorPil),
    "clip": (lambda: git(3), transformers.CLIPImageProcessorPil),
    "encoder_decoder": (encoder_decoder, transformers.ViTImageProcessorPil),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for name, (make, processor) in MODELS.items():
        folder = root / name
        folder.mkdir()
        (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
        transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
        torch.manual_seed(1)
        model = make()
        with torch.no_grad():  # as sure of its words as a trained one, and apt to end
            for key, value in model.named_parameters():
                if key.endswith(("predictions.bias", "output.bias")) and value.shape == (len(WORDS),):
                    value[EOS] += 0.0
        model.save_pretrained(folder)
        options = (
            {"size": {"shortest_edge": 16}, "crop_size": SIDE}
            if "clip" in processor.__name__.lower()
            else {"size": SIDE}
        )
        processor(**options).save_pretrained(folder)
    return root


def pictures(count: int = 4) -> list[np.ndarray]:
    """Dark to light, so that a model without training tells them apart."""
    draw = np.random.default_rng(0)
    return [draw.integers(60 * k, 60 * k + 60, (16, 16, 3), dtype=np.uint8) for k in range(count)]


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The ids of every caption from here on, in the order made."""
    ids: list[list[int]] = []
    real = generation.to_caption
    monkeypatch.setattr(generation, "to_caption", lambda row, *rest: ids.append(row.tolist()) or real(row, *rest))
    return ids


def steps(captioner: HuggingFacePipeline, pixels: torch.Tensor, ids: list[int]) -> float:
    """Natural log-probability of `ids` after BOS, a whole forward pass each, without `generate`."""
    total = 0.0
    for length in range(len(ids)):
        said = torch.tensor([[BOS, *ids[:length]]])
        model = captioner.model
        if isinstance(model, transformers.BlipForConditionalGeneration):
            seen = model.vision_model(pixel_values=pixels)[0]
            scores = model.text_decoder(input_ids=said, encoder_hidden_states=seen).logits
        elif isinstance(model, transformers.GitForCausalLM):
            scores = model(input_ids=said, pixel_values=pixels).logits
        else:
            scores = model(pixel_values=pixels, decoder_input_ids=said).logits
        total += float(scores[0, -1].log_softmax(0)[ids[length]])
    return total


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("decoding", [None, Beam(3, 0.0, Rules(max_length=6, no_repeat_word=False), n_best=2)])
@torch.no_grad()
def test_captions_and_log_probabilities_are_the_models_own(
    models: Path, name: str, decoding: Beam | None, monkeypatch: pytest.MonkeyPatch
):
    """Those of the model itself, word by word; the end is counted, what follows it is not."""
    captioner = HuggingFacePipeline.load(models / name)
    spoken, kept = [], recorded(monkeypatch)
    found = [captioner.caption(source, decoding) for source in pictures()]
    flat = [one for caption in found for one in (caption, *caption.others)]
    assert len(flat) == len(kept) == 4 * (decoding.n_best if decoding else 1)
    for k, (ids, caption) in enumerate(zip(kept, flat, strict=True)):
        said = ids[: ids.index(EOS) + 1] if EOS in ids else ids
        frames = captioner.read(pictures()[k // (len(flat) // 4)], [])[0]
        expected = steps(captioner, frames[None] if captioner.clip_frames else frames, said)
        assert caption.logprob == pytest.approx(expected, abs=1e-3)
        assert caption.finished == (EOS in ids) and caption.attention.shape == (0, 1, 1, 1) and caption.words == ()
        words = " ".join(WORDS[i] for i in said if i > 4).replace(" ##", "")
        assert caption.text == words
        spoken.append((caption.text, round(caption.logprob, 2)))
    assert len(set(spoken)) > 1
    if decoding:
        assert all(c.logprob >= c.others[0].logprob for c in found)


@pytest.mark.parametrize("name", list(MODELS))
def test_batches_give_the_captions_of_single_media(models: Path, name: str):
    captioner, decoding = (
        HuggingFacePipeline.load(models / name),
        Beam(2, 1.0, Rules(max_length=5, no_repeat_word=False)),
    )
    sources = [*pictures(3), b"no picture", pictures(4)[3]]
    found = [result for _, result in captioner.captions(sources, decoding, batch_size=3 * captioner.frames)]
    assert isinstance(found[3], Failure) and found[3].source == "<bytes>"
    alone = [captioner.caption(source, decoding) for source in pictures(4)]
    rest = [found[k] for k in (0, 1, 2, 4)]
    assert [c.text for c in rest] == [c.text for c in alone]
    assert [c.logprob for c in rest] == pytest.approx([c.logprob for c in alone], abs=1e-4)


def test_models_of_clips_see_frames_in_order(models: Path, tmp_path: Path):
    """A model of clips sees them in order, a model of pictures the one in the middle."""
    video, still = HuggingFacePipeline.load(models / "clip"), HuggingFacePipeline.load(models / "git")
    assert (video.frames, still.frames) == (3, 1)
    there = np.stack(pictures(3))
    (forth,), (back,) = video.read(there, []), video.read(there[::-1].copy(), [])
    assert forth.shape == (3, 3, 16, 16) and torch.equal(forth, back.flip(0))
    assert video.caption(there).logprob != video.caption(there[::-1].copy()).logprob
    (repeated,) = video.read(pictures(1)[0], [])
    assert repeated.shape[0] == 3 and torch.equal(repeated[0], repeated[2])
    assert torch.equal(still.read(there, [])[0], still.read(pictures(3)[1], [])[0])
    path = write(tmp_path / "v.mp4", greys(9))
    assert video.read(path, [])[0].mean((1, 2, 3)).diff().min() > 0
    with pytest.raises(ValueError, match="reads 3 frames of a clip, not 8: leave out the number of frames"):
        HuggingFacePipeline.load(models / "clip", frames=8)
    with pytest.raises(ValueError, match="reads images, and one frame of a clip, not 8"):
        HuggingFacePipeline.load(models / "git", frames=8)


def test_the_default_decoding_comes_from_the_generation_config(models: Path, tmp_path: Path):
    assert HuggingFacePipeline.load(models / "blip").decoding == Beam(
        1, 1.0, Rules(min_length=0, max_length=20, no_repeat_word=False, allow_unknown=True)
    )
    captioner = HuggingFacePipeline.load(models / "blip")
    captioner.model.generation_config.update(num_beams=4, max_length=16, length_penalty=0.5, no_repeat_ngram_size=3)
    assert captioner.decoding == Beam(
        4, 0.5, Rules(min_length=0, max_length=15, no_repeat_word=False, allow_unknown=True, no_repeat_trigram=True)
    )


def test_decodings_become_arguments_of_generate():
    plain = Rules(min_length=2, max_length=7, no_repeat_word=False, no_repeat_trigram=True)
    both = {"max_new_tokens": 7, "min_new_tokens": 2, "no_repeat_ngram_size": 3}
    beam = {"do_sample": False, "num_beams": 4, "num_return_sequences": 2, "length_penalty": 0.5}
    assert generate_arguments(Beam(4, 0.5, plain, n_best=2)) == both | beam
    assert generate_arguments(Beam(4, 0.5, plain, n_best=2, normalise="avg")) == both | beam | {"length_penalty": 1.0}
    drawn = {"do_sample": True, "num_beams": 1, "num_return_sequences": 3, "temperature": 0.5, "top_k": 0, "top_p": 0.9}
    assert generate_arguments(Sample(3, 0.5, plain, top_p=0.9)) == both | drawn


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"must": ("dog",)}, r"words that must appear \(--must\): a model of transformers generates subword"),
        ({"size": 4, "groups": 2}, r"diverse beams \(--decoding\.groups\)"),
        ({"normalise": "wu"}, r"--decoding\.normalise wu"),
        ({"rules": Rules(no_repeat_word=False, never=("dog",))}, r"words that must not appear \(--never\)"),
        (
            {"rules": Rules(no_repeat_word=False, bad_endings=("a",))},
            r"rules about the last word \(--decoding\.rules\.bad_endings\)",
        ),
        ({"rules": Rules()}, r"a word that may not follow itself \(--decoding\.rules\.no_repeat_word\)"),
    ],
)
def test_unsupported_decodings_are_refused(models: Path, options: dict, reason: str):
    decoding = Beam(**{"rules": Rules(no_repeat_word=False), **options})
    with pytest.raises(ValueError, match=reason):
        list(HuggingFacePipeline.load(models / "git").captions([], decoding))


@torch.no_grad()
def test_drawn_captions_differ_and_have_the_model_s_log_probabilities(models: Path, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    captioner, ids = HuggingFacePipeline.load(models / "git"), recorded(monkeypatch)
    found = captioner.caption(pictures()[0], Sample(8, rules=Rules(0, 6, no_repeat_word=False)))
    drawn = (found, *found.others)
    assert len(drawn) == 8 and len({one.text for one in drawn}) > 3
    (pixels,) = captioner.read(pictures()[0], [])
    expected = [steps(captioner, pixels, row[: row.index(EOS) + 1] if EOS in row else row) for row in ids]
    assert [one.logprob for one in drawn] == pytest.approx(expected, abs=1e-3)


def test_missing_or_unknown_models_are_refused_at_once(models: Path, tmp_path: Path):
    with pytest.raises(
        ValueError, match=r"owner/name is no folder here .*; offline, give a local folder, such as hf:models/name"
    ):
        HuggingFacePipeline.load("hf:owner/name")
    with pytest.raises(ValueError, match="nowhere is no folder, and no hub id of the form owner/name"):
        HuggingFacePipeline.load("hf:nowhere")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="is a 'bert' model; supported here are blip, git, vision-encoder"):
        HuggingFacePipeline.load(tmp_path / "x")
    for lost in ("model.safetensors", "preprocessor_config.json"):
        folder = tmp_path / lost
        folder.mkdir()
        for path in (models / "git").iterdir():
            if path.name != lost:
                (folder / path.name).write_bytes(path.read_bytes())
        with pytest.raises(ValueError, match=r"the folder needs config.+, a tokenizer and"):
            HuggingFacePipeline.load(folder)


def test_code_beside_the_weights_is_not_run(models: Path, tmp_path: Path):
    folder = tmp_path / "evil"
    folder.mkdir()
    for path in (models / "git").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass C: pass\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {"auto_map": {"AutoConfig": "evil.C", "AutoModel": "evil.C"}, "model_type": "other"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError):
        HuggingFacePipeline.load(folder)
    assert not (tmp_path / "ran").exists()


def test_captions_go_through_the_same_output_formats(models: Path, tmp_path: Path, capsys):
    """A folder as save_pretrained leaves it, with hf: before it or not; bad files, clips, styles, subtitles."""
    one, two = picture(tmp_path / "in" / "1.png", 10), picture(tmp_path / "in" / "2.png", 200)
    (tmp_path / "in" / "bad.png").write_text("x")
    write(tmp_path / "in" / "v.mp4", greys(20))
    command = ["caption", str(tmp_path / "in"), "--model", str(models / "blip"), "--max-length", "6"]
    out = tmp_path / "c.jsonl"
    assert main([*command, "--beam", "3", "--n-best", "2", "--out", str(out), "--srt", "--style", "alt-text"]) == 3
    assert "bad.png: not an image" in capsys.readouterr().err
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    captioner = HuggingFacePipeline.load(models / "blip")
    own = captioner.decoding
    beam = Beam(3, own.length_penalty, Rules(0, 6, False, True), n_best=2)
    expected = [captioner.caption(path, beam) for path in (one, two, str(tmp_path / "in" / "v.mp4"))]
    assert [row["caption"] for row in rows] == [alt_text(caption.text) for caption in expected]
    assert rows[2]["start"] == 0.0 and rows[2]["end"] > 1 and (tmp_path / "in" / "v.srt").is_file()
    assert main([*command, "--beam", "1", "--out", str(out), "--resume"]) == 3  # what is done stays
    command[3] = f"hf:{models / 'blip'}"
    assert main([*command, "--out", str(tmp_path / "r.html")]) == 3
    assert "Captions of blip" in (tmp_path / "r.html").read_text()
    capsys.readouterr()
    for more, reason, status in (
        (["--never", "dog"], "--never", 1),
        (["--with", "x"], "--with is about runs of limner", 2),
    ):
        assert main([*command, *more]) == status
        assert reason in capsys.readouterr().err


@pytest.mark.parametrize("name", ["blip", "git"])
def test_a_student_is_trained_on_its_captions(models: Path, tmp_path: Path, name: str, capsys):
    """Sequence-level distillation: its n-best captions of the training pictures, through two commands."""
    for k in range(12):
        picture(tmp_path / "in" / f"{k}.png", 20 * k)
        (tmp_path / "in" / f"{k}.txt").write_text("a dog and the red cat runs on blue grass\n")
    told = tmp_path / "told.jsonl"
    asked = ["--model", f"hf:{models / name}", "--beam", "3", "--n-best", "3", "--max-length", "6", "--out", str(told)]
    assert main(["caption", str(tmp_path / "in"), *asked]) == 0
    recipe = {
        "data": {"name": "folder", "media": str(tmp_path / "in")},
        "encoder": {"name": "small_cnn", "size": 16},
        "vocabulary": {"min_count": 1},
        "pseudo_captions": {"file": str(told), "probability": 1.0},
        "model": {"name": "show_attend_tell", "hidden": 8, "embed": 8, "attention": 8, "project": 8},
        "stages": [{"objective": {"name": "xe"}, "epochs": 1, "batch_size": 4}],
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    capsys.readouterr()
    assert main(["train", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run")]) in (0, 3)  # some say no word
    facts = re.search(r"training media (\d+) .* pseudo-captions (\d+) ", capsys.readouterr().out)
    train = {medium.path for medium in read_dataset(load_recipe(tmp_path / "recipe.yaml").data).split("train")}
    rows = [row for row in map(json.loads, told.read_text().splitlines()) if row["file"] in train]
    texts = [text for row in rows for text in (row["caption"], *(other for other, _ in row["others"]))]
    vocabulary = {"a", "dog", "and", "the", "red", "cat", "runs", "on", "blue", "grass"}
    spoken = [text for text in texts if vocabulary & set(text.split())]
    assert facts and facts.groups() == ("10", str(len(spoken))) and len(texts) == 3 * 10


def test_the_prompt_captions_with_such_a_model(models: Path, tmp_path: Path, monkeypatch, capsys):
    import io

    path = picture(tmp_path / "1.png", 10)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{path}\n:explain\n"))
    assert main(["caption", "--model", str(models / "git")]) == 0
    text = HuggingFacePipeline.load(models / "git").caption(path).text or "(the caption is empty)"
    assert capsys.readouterr().out.splitlines() == [
        text,
        "! only models of limner can be explained; this one gives no attention and no gradients",
    ]


def test_models_are_fetched_from_the_hub(models: Path, monkeypatch):
    """Asked once; older repositories are asked a second time, for tensors that are no safetensors."""
    import huggingface_hub

    asked: list[list[str]] = []

    def download(id: str, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        return str(models / "git")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert HuggingFacePipeline.load("hf:owner/name").name == "owner/name"
    assert len(asked) == 1 and "*.safetensors" in asked[0] and not any("bin" in pattern for pattern in asked[0])
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda id, **more: download(id, **more) and "/nowhere")
    with pytest.raises(ValueError, match="owner/name cannot be loaded"):
        HuggingFacePipeline.load("owner/name")
    assert len(asked) == 3 and "*pytorch_model.bin" in asked[2]
