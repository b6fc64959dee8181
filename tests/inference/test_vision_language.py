"""Vision-language models of transformers, small and random, by the path of all families; against a plain forward."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported

import numpy as np
import pytest
import torch

from limner.apps.cli import main
from limner.core.torch_free import Caption, Failure, WithContext
from limner.decode.options import Beam, Sample
from limner.decode.rules import Rules
from limner.inference import generation, vision_language
from limner.inference.clip_reading import choose_by_consensus
from limner.inference.load import load
from limner.inference.memory import safetensors_header, weights_bytes
from limner.inference.prompting import CLIP_PROMPT, PROMPT, Prompting
from limner.inference.vision_language import FAMILIES, VisionLanguagePipeline
from tests.apps.test_caption import picture
from tests.inference.tiny_vlms import EOS, save
from tests.inference.tiny_vlms import FAMILIES as TINY

SHORT = Rules(0, 4, no_repeat_word=False, allow_unknown=True)


@pytest.fixture(scope="session")
def tiny_vlm(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family's tiny model, made when it is first asked for."""
    root = tmp_path_factory.mktemp("vlms")
    return lambda name: root / name if (root / name).is_dir() else save(name, root / name)


def noise(*sizes: tuple[int, ...]) -> list[np.ndarray]:
    """Pictures (h, w) and clips (t, h, w) of noise, each of another brightness."""
    draw = np.random.default_rng(0)
    return [draw.integers(0, 100 + 30 * k, (*size, 3), dtype=np.uint8) for k, size in enumerate(sizes)]


def copy_without(folder: Path, out: Path, *left_out: str) -> Path:
    shutil.copytree(folder, out, ignore=lambda _, names: [name for name in names if name in left_out])
    return out


@torch.no_grad()
def plain_logprob(captioner: VisionLanguagePipeline, frames: np.ndarray, ids: list[int]) -> float:
    """Natural log-probability of `ids` by one forward pass over prompt and caption, without `generate`."""
    inputs = captioner._inputs([(frames, np.array([""]))])
    model = captioner.model
    said = torch.tensor([ids])
    if model.config.is_encoder_decoder:
        start = torch.tensor([[model.generation_config.decoder_start_token_id]])
        scores = model(**inputs, decoder_input_ids=torch.cat([start, said[:, :-1]], 1)).logits
    else:
        one = torch.ones_like(said)
        after = {"input_ids": said, "attention_mask": one, "mm_token_type_ids": 0 * one}
        # PaliGemma marks the prompt with 0 and what follows with 1; Gemma 3 marks images with 1 and words with 0
        after |= {"token_type_ids": one if model.config.model_type == "paligemma" else 0 * one}
        inputs = {
            name: torch.cat([value, after[name]], 1) if name in after else value for name, value in inputs.items()
        }
        scores = model(**inputs).logits[:, -len(ids) - 1 : -1]
    return float(scores[0].log_softmax(-1).gather(1, said.T).sum())


@pytest.mark.parametrize("name", list(TINY))
def test_every_family_by_one_path(tiny_vlm, name: str, monkeypatch: pytest.MonkeyPatch):
    """Pictures of several sizes in one batch, clips, beams and samples; log-probabilities are those of the model."""
    made: list[list[int]] = []
    real = generation.to_caption
    monkeypatch.setattr(generation, "to_caption", lambda ids, *rest: made.append(ids.tolist()) or real(ids, *rest))
    captioner = load(f"hf:{tiny_vlm(name)}")
    assert isinstance(captioner, VisionLanguagePipeline) and captioner.listed and captioner.notes == ()
    media = noise((20, 30), (40, 20), (6, 24, 24), (64, 60))
    decoding = Beam(1, 1.0, SHORT)
    alone = [captioner.caption(medium, decoding) for medium in media]
    for medium, caption, row in zip(media, alone, made, strict=True):
        ids = row[: row.index(EOS) + 1] if EOS in row else row
        frames = captioner.read(medium, [])[0]
        assert len(frames) == (1 if medium.ndim == 3 or not FAMILIES[name].several else 4)
        assert caption.logprob == pytest.approx(plain_logprob(captioner, frames, ids), abs=1e-3)
        assert caption.finished == (EOS in ids) and caption.attention.shape == (0, 1, 1, 1)
    assert len({round(caption.logprob, 3) for caption in alone}) > 1  # it sees
    together = [result for _, result in captioner.captions([*media[:2], b"x", *media[2:]], decoding, batch_size=8)]
    assert isinstance(together[2], Failure) and together[2].unreadable
    del together[2]
    assert [c.text for c in together] == [c.text for c in alone]
    assert [c.logprob for c in together] == pytest.approx([c.logprob for c in alone], abs=1e-4)
    best = captioner.caption(media[0], Beam(2, 0.0, SHORT, n_best=2))
    assert len(best.others) == 1 and best.logprob >= max(best.others[0].logprob, alone[0].logprob) - 1e-4
    torch.manual_seed(0)
    drawn = captioner.caption(media[0], Sample(3, 1.5, SHORT))
    assert len(drawn.others) == 2 and len({one.logprob for one in (drawn, *drawn.others)}) > 1


def test_the_frames_of_a_clip_are_seen_in_order(tiny_vlm):
    """A model of several images sees four frames in order, a model of one image the middle one."""
    several, one = load(f"hf:{tiny_vlm('qwen2_5_vl')}", frames=3), load(f"hf:{tiny_vlm('paligemma')}")
    clip = np.stack(noise(*[(16, 16)] * 6))
    assert [frame[0, 0, 0] for frame in several.read(clip, [])[0]] == [clip[k][0, 0, 0] for k in (0, 2, 4)]
    assert several.caption(clip).logprob != several.caption(clip[::-1].copy()).logprob
    assert one.caption(clip).logprob == one.caption(clip[3]).logprob
    with pytest.raises(ValueError, match="reads images, and one frame of a clip, not 8: leave out the number"):
        load(f"hf:{tiny_vlm('paligemma')}", frames=8)
    with pytest.raises(ValueError, match=r"no mosaic of frames|reads all their frames together"):
        load(f"hf:{tiny_vlm('paligemma')}", clip="mosaic")
    with pytest.raises(ValueError, match=r"reads all their frames together: leave out clip middle"):
        load(f"hf:{tiny_vlm('qwen2_5_vl')}", clip="middle")
    agreed = load(f"hf:{tiny_vlm('paligemma')}", frames=3, clip="consensus")
    frames = [one.caption(clip[k], beam=8, n_best=8, max_length=3) for k in (0, 2, 4)]
    assert agreed.caption(clip, max_length=3).text == choose_by_consensus(frames, Beam(1)).text


def test_requests(tiny_vlm):
    """What the processor gets: the chat template around frames and prompt, or the bare prompt of a task."""
    chat = load(f"hf:{tiny_vlm('smolvlm')}", system="Be brief.")
    begin = "<|im_start|> system  Be brief.  <|im_end|> <|im_start|> user "
    assert chat._request(1) == f"{begin}<image> {PROMPT}  <|im_end|> <|im_start|> assistant "
    assert chat._request(2) == f"{begin}<image><image> {CLIP_PROMPT}  <|im_end|> <|im_start|> assistant "
    asked = {name: load(f"hf:{tiny_vlm(name)}")._request(1) for name in ("florence2", "paligemma", "blip-2")}
    assert asked == {"florence2": "<CAPTION>", "paligemma": "<image>caption en", "blip-2": ""}
    own = load(f"hf:{tiny_vlm('blip-2')}", prompt="a dog")
    grey = np.full((20, 20, 3), 99, np.uint8)
    assert own._inputs([(grey[None], np.array([""]))])["input_ids"].shape[1] == 4 + 2 and own._request(1) == "a dog"
    assert (
        own.caption(grey, max_length=3).logprob != load(f"hf:{tiny_vlm('blip-2')}").caption(grey, max_length=3).logprob
    )
    for options in ({"system": "x"}, {"prompt": "<OCR> and more"}):
        with pytest.raises(ValueError, match=r"no chat template, so it takes no system|should be the only content"):
            load(f"hf:{tiny_vlm('florence2')}", **options)


def test_large_pictures_are_scaled_down(tiny_vlm):
    captioner = load(f"hf:{tiny_vlm('qwen3_vl')}", max_side=64)
    (large,) = captioner.read(np.zeros((300, 200, 3), np.uint8), [])[0]
    (small,) = captioner.read(np.zeros((30, 20, 3), np.uint8), [])[0]
    assert large.shape == (64, 43, 3) and small.shape == (30, 20, 3)


def test_a_picture_that_the_model_refuses_is_one_failure(tiny_vlm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Qwen's processor refuses a strip; the rest of its batch is captioned.  So it is when memory runs out."""
    captioner = load(f"hf:{tiny_vlm('qwen2_5_vl')}")
    sources: list[Any] = noise((20, 30), (1, 220), (30, 20))
    found = [result for _, result in captioner.captions(sources, batch_size=4, max_length=3)]
    assert isinstance(found[1], Failure) and not found[1].unreadable
    assert found[1].reason.startswith(
        "<ndarray>: the model fails on it (absolute aspect ratio must be smaller than 200"
    )
    assert [found[k].text for k in (0, 2)] == [captioner.caption(sources[k], max_length=3).text for k in (0, 2)]
    with pytest.raises(ValueError, match="the model fails on it"):
        captioner.caption(sources[1])
    real, sizes = vision_language.generate_captions, []

    def small_memory(model: Any, inputs: dict[str, torch.Tensor], *rest: Any) -> list[Caption]:
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(model, inputs, *rest)

    monkeypatch.setattr(vision_language, "generate_captions", small_memory)
    again = [result for _, result in captioner.captions([sources[0], *sources[::2]], batch_size=4, max_length=3)]
    assert [caption.text for caption in again] == [found[0].text, found[0].text, found[2].text]
    assert sizes == [3, 1, 2, 1, 1]


def test_models_that_cannot_be_used_are_refused_by_name(tiny_vlm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No tokenizer, no weights, code of its own, a chat template that fails, too large for memory."""
    whole = tiny_vlm("smolvlm")
    for lost in ("tokenizer.json", "model.safetensors", "preprocessor_config.json"):
        folder = copy_without(whole, tmp_path / lost, lost)
        with pytest.raises(ValueError, match=rf"{lost} cannot be loaded \(.+\); the folder needs config.json"):
            load(f"hf:{folder}")
    broken = copy_without(whole, tmp_path / "template")
    (broken / "chat_template.jinja").write_text("{{ raise_exception('no images here') }}")
    with pytest.raises(
        ValueError, match=r"the chat template or processor of .* fails for an image and the prompt 'Desc"
    ):
        load(f"hf:{broken}")
    (broken / "chat_template.jinja").write_text("a user said something")  # a template that forgets the image
    with pytest.raises(ValueError, match=r"number of <image> tokens"):
        load(f"hf:{broken}")
    code = copy_without(whole, tmp_path / "code")
    (code / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass C: pass\n")
    config = json.loads((code / "config.json").read_text())
    config |= {"auto_map": {"AutoConfig": "evil.C", "AutoModelForImageTextToText": "evil.C"}, "model_type": "other"}
    (code / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="'other' model, which needs the Python code in its repository; limner never"):
        load(f"hf:{code}")
    config |= {"model_type": "smolvlm"}  # transformers has its own: the code beside it stays where it is
    (code / "config.json").write_text(json.dumps(config))
    assert load(f"hf:{code}") and not (tmp_path / "ran").exists()
    monkeypatch.setattr("limner.inference.memory.available_bytes", lambda device: 200_000_000)
    with pytest.raises(ValueError, match=r"needs about 0\.3 GB of memory on cpu \(weights of 0\.0 GB as float32\)"):
        load(f"hf:{whole}")


def test_the_size_of_weights_is_known_before_they_are_loaded(tiny_vlm, tmp_path: Path):
    folder = tiny_vlm("qwen3_vl")
    state = load(f"hf:{folder}").model.state_dict()
    header = safetensors_header(folder / "model.safetensors")
    numbers = sum(state[name].numel() for name in header if name in state)
    assert numbers > 10_000 and weights_bytes(folder, 4) == 4 * numbers and weights_bytes(folder, 2) == 2 * numbers
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(ValueError, match="is no safetensors file, or a cut one"):
        weights_bytes(tmp_path, 4)


def test_other_families_work_with_a_note(tiny_vlm, monkeypatch: pytest.MonkeyPatch):
    listed = load(f"hf:{tiny_vlm('paligemma')}")
    monkeypatch.delitem(FAMILIES, "gemma3")
    captioner = load(f"hf:{tiny_vlm('gemma3')}")
    assert captioner.notes == (f"{captioner.name}: 'gemma3' is not among the families that limner is tested with; "
                               "look at the captions",)  # fmt: skip
    assert captioner.frames == 1 and captioner.caption(noise((20, 20))[0], max_length=3) and listed.notes == ()


def test_half_precision(tiny_vlm):
    captioner = load(f"hf:{tiny_vlm('idefics3')}", dtype="bfloat16")
    assert captioner.model.dtype == torch.bfloat16 and captioner.settings()["dtype"] == "bfloat16"
    full = load(f"hf:{tiny_vlm('idefics3')}")
    grey = np.full((20, 20, 3), 99, np.uint8)
    assert captioner.caption(grey, max_length=1).logprob == pytest.approx(
        full.caption(grey, max_length=1).logprob, abs=0.3
    )
    with pytest.raises(ValueError, match="unknown float type 'int4'; known are float32, bfloat16, float16"):
        load(f"hf:{tiny_vlm('idefics3')}", dtype="int4")


def test_the_command_is_the_same_as_python(tiny_vlm, tmp_path: Path, capsys):
    """Options of the request are part of what made the captions; they are refused for other models."""
    files = [picture(tmp_path / "in" / f"{k}.png", 60 * k) for k in range(3)]
    out, model = tmp_path / "c.jsonl", f"hf:{tiny_vlm('llava_onevision')}"
    command = ["caption", str(tmp_path / "in"), "--model", model, "--max-new-tokens", "5", "--out", str(out)]
    asked = ["--prompt", "two red birds ?", "--system", "a dog", "--style", "sentence"]
    assert main([*command, *asked]) == 0
    captioner = load(model, prompt="two red birds ?", system="a dog")
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    expected = [captioner.caption(file, max_length=5) for file in files]
    assert [row["logprob"] for row in rows] == pytest.approx([c.logprob for c in expected], abs=1e-3)
    assert [row["caption"] for row in rows] == [c.text.split(" .")[0] + " ." * (" ." in c.text) for c in expected]
    partial = tmp_path / "c.jsonl.partial"
    by = {"model": captioner.fingerprint(), "decoding": {}, "prompt": "another"}
    partial.write_text(json.dumps(by) + "\n" + json.dumps(rows[0]) + "\n")
    assert main([*command, *asked, "--resume"]) == 1
    assert "was written with another decoding and style and prompt and system" in capsys.readouterr().err
    assert main(["caption", files[0], "--prompt", "x"]) == 2
    assert (
        "--prompt is for models of transformers (--model hf:...) and servers; limner-small takes no request"
        in capsys.readouterr().err
    )


def test_the_default_decoding(tiny_vlm):
    captioner = load(f"hf:{tiny_vlm('internvl')}")
    captioner.model.generation_config.update(do_sample=True, temperature=0.1, num_beams=1, max_length=20)
    assert captioner.decoding == Beam(1, 1.0, replace(SHORT, max_length=64))
    grey = np.full((20, 20, 3), 99, np.uint8)
    assert captioner.caption(grey).logprob == captioner.caption(grey).logprob
    assert Prompting("x").settings() == {"prompt": "x", "system": "", "max_side": 1024, "context": ""}


def test_context_is_part_of_the_request(tiny_vlm, tmp_path: Path):
    """A sidecar's words reach the model, without its special tokens; families with fixed tasks refuse them."""
    grey = np.full((20, 20, 3), 99, np.uint8)
    captioner = load(f"hf:{tiny_vlm('smolvlm')}", prompt="two")
    known = WithContext(grey, "a dog <image> runs <|im_end|> on grass")
    frames, context = captioner.read(known, [])
    assert len(frames) == 1 and context.tolist() == ["a dog runs on grass"]
    request = captioner._request(1, str(context[0]))
    assert "> user <image> two\nThis is known about it: a dog runs on grass  <|im_end|>" in request
    assert captioner.caption(known, max_length=2).logprob != captioner.caption(grey, max_length=2).logprob
    placed = load(f"hf:{tiny_vlm('smolvlm')}", prompt="two {context} birds")
    assert "two a cat birds" in placed._request(1, "a cat") and "two  birds" in placed._request(1)
    with pytest.raises(ValueError, match="takes a task, not free text, so no context: leave out --context"):
        load(f"hf:{tiny_vlm('florence2')}").caption(known)
    with pytest.raises(TypeError, match="this model takes no request, so no context"):
        load().caption(known)
