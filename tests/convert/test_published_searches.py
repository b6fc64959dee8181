"""Every converted run captions as its system did: word for word, on batches whose captions differ in length.

The twins are the published searches in plain Python, one image or clip at a time.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from limner.convert import SYSTEMS
from limner.core.types import BOS, EOS, Captions, Features, Layout
from limner.decode.ensemble import Ensemble
from limner.decode.search import beam, search
from limner.models.captioner import map_tensors
from limner.runs.run import Run, load_run
from tests.convert import test_recnet as recnet
from tests.convert import test_sa_lstm as sa_lstm
from tests.convert import test_self_critical as self_critical
from tests.convert import test_sftcap as sftcap
from tests.convert import test_show_attend_tell as show_attend_tell
from tests.convert import test_video_captioning_3d as video

INPUTS = 64


def grids(cells: int, channels: int, seed: int = 0, inputs: int = INPUTS) -> Tensor:
    return torch.randn(inputs, cells, channels, generator=torch.Generator().manual_seed(seed))


def texts(run: Run, captions: Captions) -> list[str]:
    return [run.vocabulary.decode(row) for row in captions.tokens.tolist()]


def spoken(run: Run, rows: Sequence[Sequence[int]]) -> list[str]:
    """Published captions, as limner's ids, in words."""
    return [run.vocabulary.decode(row) for row in rows]


def check(found: list[str], expected: list[str], lengths: int = 3) -> None:
    """Captions are equal, and there are at least so many different lengths and not all captions are the same."""
    differing = [pair for pair in zip(found, expected, strict=True) if pair[0] != pair[1]]
    assert not differing, f"{len(differing)} of {len(found)} differ: {differing[0]}"
    assert len({len(text.split()) for text in expected}) >= lengths and len(expected) >= 64


# --- Show, Attend and Tell


def show_attend_tell_run(
    seed: int, scale: float, end: float, folder: Path
) -> tuple[Run, list[str], Features, list[int]]:
    """-> the run, the published captions, the inputs, and the inputs for which the published search finds a caption."""
    sizes = show_attend_tell.Sizes(24, 16, 12, 10, 37)
    weights = show_attend_tell.random_weights(sizes, seed)
    weights["fc.weight"] *= scale
    weights["fc.bias"][-1] += end
    run, order, words = show_attend_tell.converted(weights, folder)
    cells = grids(sizes.cells**2, sizes.D, seed, 96)
    found = [show_attend_tell.published_beam(weights, image, 5, words) for image in cells]
    rows = [i for i, best in enumerate(found) if best is not None]  # the script crashes when nothing has ended
    tokens = [show_attend_tell.renumbered(torch.tensor(best.tokens), order).tolist() for best in found if best]
    return run, spoken(run, tokens), show_attend_tell.features_of(cells, sizes.cells), rows


@pytest.mark.parametrize(("seed", "scale", "end"), [(3, 1.0, 2), (2, 0.5, 1)])
def test_show_attend_tell(seed: int, scale: float, end: float, tmp_path: Path) -> None:
    run, expected, features, rows = show_attend_tell_run(seed, scale, end, tmp_path)
    found = texts(run, search(run.model, features, run.recipe.decoding))
    check([found[i] for i in rows], expected)


# --- SA-LSTM and RecNet


def flooded_search(original: sa_lstm.Original, width: int, steps: int) -> list[int]:
    """The published beam: an ended hypothesis is extended by every word, at no cost, and so keeps its places."""
    beams: list[tuple[list[int], float, Any]] = [([], 0.0, original.start())]
    for _ in range(steps):
        longer: list[tuple[list[int], float, Any]] = []
        for tokens, score, state in beams:
            if EOS in tokens:
                longer += [([*tokens, word], score, state) for word in range(original.sizes.V)]
                continue
            logp, following, _ = original.step(tokens[-1] if tokens else BOS, state)
            longer += [([*tokens, word], score + p, following) for word, p in enumerate(logp.tolist())]
        beams = sorted(longer, key=lambda item: -item[1])[:width]
    return beams[0][0]


@pytest.mark.parametrize("rnn", ["LSTM", "GRU"])
def test_sa_lstm(rnn: str, tmp_path: Path) -> None:
    sizes = sa_lstm.Sizes(rnn=rnn)
    weights = sa_lstm.random_weights(sizes, 7, 2)
    run, grid = sa_lstm.converted(weights, tmp_path, longest=8), grids(sizes.frames, sizes.D)
    found = search(run.model, sa_lstm.features_of(grid), run.recipe.decoding)
    expected = [flooded_search(sa_lstm.Original(weights, sizes, clip), 5, 9) for clip in grid]
    check(texts(run, found), spoken(run, expected))


def test_recnet(tmp_path: Path) -> None:
    sizes = sa_lstm.Sizes(end := 11, 9, 8, 7, 30)
    weights = sa_lstm.random_weights(sizes, 3, 1.5)
    settings = {"loader": {"max_caption_len": 9}}
    run, _ = recnet.converted(tmp_path, sizes, True, decoder=weights, config=settings)
    grid = grids(sizes.frames, end)
    found = search(run.model, sa_lstm.features_of(grid), run.recipe.decoding)
    expected = [flooded_search(sa_lstm.Original(weights, sizes, clip), 5, 10) for clip in grid]
    check(texts(run, found), spoken(run, expected))


# --- self-critical.pytorch and its descendants


def regions() -> Features:
    """Images with 2 to 5 regions, whose features differ much."""
    draw = torch.Generator().manual_seed(5)
    boxes = torch.rand(INPUTS, 5, 2, 2, generator=draw).sort(2).values.flatten(2)
    mask = torch.arange(5) < torch.randint(2, 6, (INPUTS, 1), generator=draw)
    return Features(3 * grids(5, self_critical.D), mask, Layout(1, 1, 5), boxes)


def drawn(tensors: dict[str, Tensor], seed: int, head: float, end: float) -> dict[str, Tensor]:
    """New random weights, large enough that images matter: `head` scales the word layer, `end` is added to the end."""
    draw = torch.Generator().manual_seed(seed)
    weights = {}
    for key, tensor in tensors.items():
        noise = torch.randn(tensor.shape, generator=draw)
        if tensor.ndim == 1:
            weights[key] = 0.3 * noise + (1 if key.endswith(("weight", "a_2", "scale")) else 0)
        else:
            scale = 4 if "embed.0.weight" in key or "tgt_embed.0" in key else 2 if "_attn.linears" in key else 1
            weights[key] = noise * 1.5 * scale * tensor.shape[-1] ** -0.5
    bias = next(key for key in ("logit.bias", "model.generator.proj.bias") if key in weights)
    weights[bias.replace("bias", "weight")] *= head
    weights[bias][0] += end
    weights[bias][-1] += 0.5  # of the unknown word
    return weights


def family_run(case: str, folder: Path, seed: int, head: float, end: float, **options: Any) -> Run:
    """A random captioner of 9 published classes."""
    _, tensors = self_critical.saved(case, folder / "model.pth")
    torch.save(drawn(tensors, seed, head, end), folder / "model.pth")
    return self_critical.converted(self_critical.CASES[case][0], folder / "model.pth", folder, 9, **options)


@pytest.mark.parametrize(
    ("case", "seed", "head", "end"),
    [
        ("spatial", 5, 3.0, 0.5),
        ("spatial xlinear g2", 7, 2.0, 0.3),
        ("ort", 5, 3.0, 0.0),
        ("self-critical", 5, 3.0, 0.0),
        ("up_down", 5, 3.0, 0.3),
    ],
)
def test_self_critical_and_its_descendants(case: str, seed: int, head: float, end: float, tmp_path: Path) -> None:
    """A beam of 2 that stays full, never the unknown word, at most 6 tokens."""
    run, features = family_run(case, tmp_path, seed, head, end, seq_length=6), regions()
    found = texts(run, search(run.model, features, run.recipe.decoding))
    published = self_critical.published_beam(run.model, features, 2, 6, 9)
    expected = [self_critical.ours(torch.tensor(tokens), 9).tolist() for tokens, _ in published]
    check(found, spoken(run, expected))
    assert not any("unk" in text.split() for text in found)


def test_newer_versions_say_the_steps_of_the_search_apart(tmp_path: Path) -> None:
    run = family_run("up_down", tmp_path, 5, 1.0, 0.0, seq_length=16, max_length=20)
    assert run.recipe.decoding.rules.max_length == 20 and run.recipe.vocabulary.max_words == 16


@torch.no_grad()
def xlan_beam(run: Run, features: Features, width: int, steps: int, classes: int) -> list[list[int]]:
    """X-LAN's own beam: an ended hypothesis stays at its score with one more 0, and its other words score -999."""
    found = []
    for row in range(len(features)):
        memory = run.model.encode(features.map(lambda x, row=row: x[row : row + 1]))
        beams: list[tuple[list[int], float]] = [([], 0.0)]
        state = run.model.init_state(memory)
        for _ in range(steps):
            last = [int(self_critical.ours(torch.tensor(words[-1]), classes)) if words else BOS for words, _ in beams]
            out = run.model.step(torch.tensor(last), state, memory)  # ended ones too; what they say is not used
            logp = self_critical.classes_of(out.logits.log_softmax(-1)).tolist()
            longer = []
            for k, (words, score) in enumerate(beams):
                ended = words[-1:] == [0]
                scores = [score, *[-999.0] * (classes - 1)] if ended else [score + p for p in logp[k]]
                longer += [(k, [*words, word], total) for word, total in enumerate(scores)]
            longer = sorted(longer, key=lambda item: -item[2])[:width]
            beams = [item[1:] for item in longer]
            state = map_tensors(lambda x, longer=longer: x[[item[0] for item in longer]], out.state)
        found.append(self_critical.ours(torch.tensor(beams[0][0]), classes).tolist())
    return found


def test_xlan(tmp_path: Path) -> None:
    """A beam of 3 over 17 tokens, in which the unknown word is a word."""
    run, features = family_run("xlan", tmp_path, 2, 2.0, 2.0), regions()
    decoding = run.recipe.decoding
    assert (decoding.size, decoding.rules.max_length, decoding.rules.allow_unknown) == (3, 17, True)
    found = texts(run, search(run.model, features, decoding))
    check(found, spoken(run, xlan_beam(run, features, 3, 17, 9)))
    assert any("unk" in text.split() for text in found)


# --- SFTCap


def test_sftcap(tmp_path: Path) -> None:
    """Greedy, with everything computed anew for every word, at most 21 tokens."""
    sizes = sftcap.Sizes(16, 16, 10, 23)
    weights = sftcap.random_weights(sizes, 6)
    weights[f"{sftcap.HEAD}.decoder.weight"] *= 2
    torch.save(weights, tmp_path / "model.bin")
    run, grid = sftcap.converted(tmp_path / "model.bin", tmp_path, sizes.V), grids(3, sizes.D)
    found = search(run.model, sftcap.features_of(grid), run.recipe.decoding)
    original, expected = sftcap.Original(weights, sizes), []
    for clip in grid:
        ids = torch.tensor([sizes.V - 2])
        while len(ids) < 22 and ids[-1] != sizes.V - 1:
            ids = torch.cat([ids, original.logprobs(clip, ids, False)[-1].argmax()[None]])
        expected.append(sftcap.theirs_to_ours(ids[1:], sizes.V).tolist())
    check(texts(run, found), spoken(run, expected))


# --- VideoCaptioning


def video_run(folder: Path, says_start: bool) -> tuple[Run, Tensor, list[list[int]]]:
    """-> the run, clips (B, C, T, H, W), and the 20 tokens that the published generator prints for each."""
    encoder, decoder = video.random_weights(6, 5, 7, 11, seed=3)
    encoder["linear.weight"] *= 3
    decoder |= {key: 3 * weight for key, weight in decoder.items() if ".weight_" in key}
    maps = grids(6 * 8, 1).view(INPUTS, 6, 2, 2, 2)
    if says_start:  # a row of the word layer that only clips make large: every clip says <start> first
        decoder["embed.weight"][BOS] *= 3
        firsts = torch.stack([video.published(encoder, decoder, clip, [])[1][0] for clip in maps])
        decoder["linear.bias"][BOS] += (firsts.amax(1) - firsts[:, BOS]).max() + 0.1
    folder.mkdir()
    run_folder = folder / "run"
    SYSTEMS["video-captioning-3d"](*video.save(folder / "old", encoder, decoder), run_folder, "", "RGB")
    expected = []
    for clip in maps:
        tokens: list[int] = []
        while len(tokens) < 20 and EOS not in tokens:
            tokens.append(int(video.published(encoder, decoder, clip, tokens)[1][-1].argmax()))
        expected.append(tokens)
    return load_run(run_folder), maps, expected


def test_video_captioning_3d_with_its_own_start(tmp_path: Path) -> None:
    """Whatever the clip predicts first, `predict_start` follows it; limner's own search begins with <start>."""
    run, maps, expected = video_run(tmp_path / "a", says_start=False)
    published = replace(run.recipe.decoding, predict_start=True)
    check(texts(run, search(run.model, video.features(maps), published)), spoken(run, expected))
    ours = texts(run, search(run.model, video.features(maps), run.recipe.decoding))
    assert ours != spoken(run, expected)
    together = Ensemble([run.model, run.model])
    check(texts(run, search(together, video.features(maps), published)), spoken(run, expected))


def test_video_captioning_3d_that_says_start(tmp_path: Path) -> None:
    """Where every clip predicts <start>, as in a trained model, limner's own search is the published one."""
    run, maps, expected = video_run(tmp_path / "a", says_start=True)
    assert all(tokens[0] == BOS for tokens in expected)
    for predict_start in (False, True):
        decoding = replace(run.recipe.decoding, predict_start=predict_start)
        check(texts(run, search(run.model, video.features(maps), decoding)), spoken(run, expected), 1)


def test_a_model_that_predicts_no_start_says_so(tmp_path: Path) -> None:
    run = sa_lstm.converted(sa_lstm.random_weights(sa_lstm.Sizes(), 0), tmp_path)
    with pytest.raises(ValueError, match="does not predict its first token"):
        beam(run.model, sa_lstm.features_of(grids(6, 24)), replace(run.recipe.decoding, predict_start=True))
