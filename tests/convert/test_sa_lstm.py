"""The published SA-LSTM, converted: equal numbers on its golden data and on a plain re-implementation of it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from limner.apps.cli import main
from limner.convert import SYSTEMS
from limner.convert.sa_lstm import read_words
from limner.core.types import BOS, EOS, PAD, UNK, Batch, Features, Layout
from limner.data.feature_files import FeatureRows
from limner.decode.rules import Rules
from limner.decode.search import Beam, beam, greedy
from limner.inference.pipeline import Pipeline
from limner.models.captioner import Captioner
from limner.objectives import CrossEntropy
from limner.runs.run import Run, load_run
from tests.convert.published import Near, goldens

convert = SYSTEMS["sa-lstm"]
Weights = dict[str, Tensor]


class Sizes(NamedTuple):
    """Of a random decoder, as in the golden data's README."""

    D: int = 24
    H: int = 16
    E: int = 12
    A: int = 10
    V: int = 37
    rnn: str = "LSTM"
    layers: int = 1
    directions: int = 1
    frames: int = 6


def word_map(size: int) -> dict[str, int]:
    return {"<PAD>": 0, "<SOS>": 1, "<EOS>": 2, "<UNK>": 3, **{f"w{i}": i for i in range(4, size)}}


def recurrent(sizes: Sizes) -> nn.LSTM | nn.GRU:
    net = nn.LSTM if sizes.rnn == "LSTM" else nn.GRU
    return net(sizes.E + sizes.D, sizes.H, sizes.layers, bidirectional=sizes.directions == 2)


def random_weights(sizes: Sizes, seed: int, end: float = 1.0) -> Weights:
    """Large enough that videos and words matter, and with an end that comes after some words."""
    draw = torch.Generator().manual_seed(seed)
    top = sizes.H * sizes.directions
    shapes = {
        "embedding.weight": (sizes.V, sizes.E),
        "attention.b": (sizes.A,),
        "attention.W.weight": (sizes.A, top),
        "attention.U.weight": (sizes.A, sizes.D),
        "attention.w.weight": (1, sizes.A),
        "out.weight": (sizes.V, top),
        "out.bias": (sizes.V,),
    }
    shapes |= {f"rnn.{name}": tuple(value.shape) for name, value in recurrent(sizes).state_dict().items()}
    scale = {"embedding.weight": sizes.E**0.5, "out.weight": 3.0, "attention.w.weight": 2.0}
    weights = {}
    for name, shape in shapes.items():
        size = 0.3 if len(shape) == 1 else 1.5 * shape[-1] ** -0.5 * scale.get(name, 1.0)
        weights[name] = torch.randn(shape, generator=draw) * size
    weights["out.bias"][EOS] += end
    return weights


class Original:
    """The published decoder, one word of one video at a time: README of the golden data, Conventions."""

    def __init__(self, weights: Weights, sizes: Sizes, features: Tensor):
        """`features` (F, D) of one video, padding included."""
        self.w, self.sizes, self.features = weights, sizes, features
        self.rnn = recurrent(sizes)
        self.rnn.load_state_dict({k.removeprefix("rnn."): v for k, v in weights.items() if k.startswith("rnn.")})

    def start(self) -> Any:
        zero = torch.zeros(self.sizes.layers * self.sizes.directions, 1, self.sizes.H)
        return (zero, zero) if self.sizes.rnn == "LSTM" else zero

    @torch.no_grad()
    def step(self, token: int, state: Any) -> tuple[Tensor, Any, Tensor]:
        """-> log-probabilities (V,), the new state, attention (F,)."""
        h = state[0] if self.sizes.rnn == "LSTM" else state
        top = h[-self.sizes.directions :].flatten()
        energy = torch.tanh(
            self.w["attention.W.weight"] @ top + self.features @ self.w["attention.U.weight"].T + self.w["attention.b"]
        )
        alpha = (energy @ self.w["attention.w.weight"][0]).softmax(0)
        read = torch.cat([self.w["embedding.weight"][token], alpha @ self.features])
        out, state = self.rnn(read[None, None], state)
        return (self.w["out.weight"] @ out[0, 0] + self.w["out.bias"]).log_softmax(0), state, alpha

    def search(self, width: int, longest: int) -> tuple[list[int], float, bool]:
        """Its beam: an ended hypothesis stays as it is until better ones push it out, and an unfinished one competes
        with it in the end -> tokens, score, has it ended?"""
        beams: list[tuple[list[int], float, Any]] = [([], 0.0, self.start())]
        for _ in range(longest):
            longer: list[tuple[list[int], float, Any]] = []
            for tokens, score, state in beams:
                if tokens and tokens[-1] == EOS:
                    longer.append((tokens, score, state))  # the original adds V copies, which only fill up the rest
                    continue
                logp, following, _ = self.step(tokens[-1] if tokens else BOS, state)
                longer += [([*tokens, word], score + p, following) for word, p in enumerate(logp.tolist())]
            beams = sorted(longer, key=lambda item: -item[1])[:width]
        tokens, score, _ = max(beams, key=lambda item: item[1])
        return tokens, score, tokens[-1] == EOS


def features_of(grid: Tensor) -> Features:
    return Features(grid, torch.ones(grid.shape[:2], dtype=torch.bool), Layout(grid.shape[1], 1, 1))


def converted(weights: Weights, folder: Path, longest: int = 8) -> Run:
    tree = {"epoch": 7, "decoder": weights, "config": {"loader": {"max_caption_len": longest, "was_class": True}}}
    torch.save(tree, folder / "best.ckpt")
    (folder / "words.json").write_text(json.dumps(word_map(len(weights["out.bias"]))))
    convert(folder / "best.ckpt", folder / "words.json", folder / "run", "", "RGB")
    return load_run(folder / "run")


@torch.no_grad()
def walked(model: Captioner, features: Features, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Every step of every row, padding included, as the published code runs it: log-probabilities, attention, h."""
    memory = model.encode(features)
    state, steps = model.init_state(memory), []
    for token in tokens.T:
        out = model.step(token, state, memory)
        state = out.state
        hidden = model.hidden(state)
        assert hidden is not None
        steps.append((out.logits.log_softmax(-1), out.attention, hidden))
    logp, attention, hidden = (torch.stack(column, 1) for column in zip(*steps, strict=True))
    return logp, attention, hidden


def ended(tokens: list[int]) -> list[int]:
    return tokens[: tokens.index(EOS) + 1] if EOS in tokens else tokens


@pytest.mark.data
@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("golden", goldens("sa_lstm"), ids=lambda folder: folder.name)
def test_golden_numbers_of_the_original_code(golden: Path, kind: str, tmp_path: Path) -> None:
    if not (golden / f"data_{kind}.npz").is_file():
        pytest.skip(f"no golden data in {golden}")
    data = {key: torch.from_numpy(value) for key, value in np.load(golden / f"data_{kind}.npz").items()}
    (tmp_path / "words.json").write_text(json.dumps(word_map(data["logprobs"].shape[-1])))
    convert(golden / f"model_{kind}.ckpt", tmp_path / "words.json", tmp_path / "run", "", "RGB")
    run, near = load_run(tmp_path / "run"), Near()
    features, tokens = features_of(data["features"]), data["captions"].T
    rules = run.recipe.decoding.rules
    assert rules.max_length == data["logprobs"].shape[1]
    logp, attention, _ = walked(run.model, features, tokens[:, :-1])
    near("log-probabilities", logp, data["logprobs"])
    near("attention", attention, data["attention"])
    with torch.no_grad():
        forced = run.model.forward_teacher_forced(run.model.encode(features), tokens[:, :-1])
        loss = CrossEntropy()(run.model, Batch(tuple(map(str, range(len(tokens)))), features, tokens))
    alive = tokens[:, 1:] != PAD
    near("taught log-probabilities", forced.logits.log_softmax(-1)[alive], data["logprobs"][alive])
    near("taught attention", forced.attention[alive], data["attention"][alive])
    near("cross entropy", loss.value, data["nll_loss"])
    said = greedy(run.model, features, rules)
    best = beam(run.model, features, run.recipe.decoding)
    for i in range(len(tokens)):
        for found, name in ((said, "greedy"), (best, "beam5")):
            length = int(data[f"{name}_lengths"][i])
            assert ended(found.tokens[i].tolist()) == data[f"{name}_tokens"][i, :length].tolist(), f"{name}, video {i}"
    near("beam scores", best.logprob, data["beam5_scores"], 2e-5)
    print({name: f"{value:.1e}" for name, value in near.worst.items()})


CASES = [  # sizes, seed, and what the logit of <EOS> is raised by
    (Sizes(), 0, 2),
    (Sizes(rnn="GRU"), 1, 2),
    (Sizes(7, 5, 9, 3, 11, frames=2), 2, 1),
    (Sizes(9, 21, 8, 17, 60, "GRU", 2, frames=9), 3, 3),
    (Sizes(16, 8, 6, 4, 30, "LSTM", 1, 2, 4), 4, 2),
    (Sizes(5, 6, 3, 2, 12, "GRU", 3, 2, 5), 5, 1),
]


@pytest.mark.parametrize(("sizes", "seed", "end"), CASES)
def test_every_step_equals_the_equations(sizes: Sizes, seed: int, end: float, tmp_path: Path) -> None:
    """Also layers and directions: those of one layer become one that is as wide."""
    weights = random_weights(sizes, seed, end)
    run = converted(weights, tmp_path)
    draw = torch.Generator().manual_seed(seed + 100)
    grid = torch.randn(4, sizes.frames, sizes.D, generator=draw)
    grid[1, sizes.frames // 2 :] = 0  # padding, which the original attends
    tokens = torch.randint(3, sizes.V, (4, 9), generator=draw)
    for row, length in zip(tokens, (3, 9, 2, 6), strict=True):
        row[0], row[length - 1], row[length:] = BOS, EOS, PAD
    logp, attention, _ = walked(run.model, features_of(grid), tokens)
    for row in range(4):
        original = Original(weights, sizes, grid[row])
        state = original.start()
        for t, token in enumerate(tokens[row].tolist()):
            theirs, state, alpha = original.step(token, state)
            torch.testing.assert_close(logp[row, t], theirs, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(attention[row, t], alpha, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("sizes", "seed", "end"), CASES)
def test_padding_is_attended_as_published(sizes: Sizes, seed: int, end: float, tmp_path: Path) -> None:
    """Cells that a reader has masked are zeros to the original."""
    run = converted(random_weights(sizes, seed, end), tmp_path)
    grid = torch.randn(2, sizes.frames, sizes.D, generator=torch.Generator().manual_seed(seed))
    mask = torch.ones(2, sizes.frames, dtype=torch.bool)
    mask[1, 1:] = False
    short = Features(grid, mask, Layout(sizes.frames, 1, 1))
    zeros = features_of(grid.masked_fill(~mask[..., None], 0.0))
    tokens = torch.tensor([[BOS, 4, 5], [BOS, 6, 4]])
    for ours, theirs in zip(walked(run.model, short, tokens), walked(run.model, zeros, tokens), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("width", [1, 3, 5])
@pytest.mark.parametrize(("sizes", "seed", "end"), CASES)
def test_captions_equal_the_published_search(sizes: Sizes, seed: int, end: float, width: int, tmp_path: Path) -> None:
    weights = random_weights(sizes, seed, end)
    run = converted(weights, tmp_path)
    grid = torch.randn(12, sizes.frames, sizes.D, generator=torch.Generator().manual_seed(seed))
    found = beam(run.model, features_of(grid), replace(run.recipe.decoding, size=width))
    for video, tokens, score in zip(grid, found.tokens.tolist(), found.logprob.tolist(), strict=True):
        theirs, total, _ = Original(weights, sizes, video).search(width, 9)
        assert ended(tokens) == theirs and score == pytest.approx(total, abs=2e-5)


def test_the_run_decodes_as_published(tmp_path: Path) -> None:
    run = converted(random_weights(Sizes(6, 5, 4, 3, 9), 0), tmp_path, longest=30)
    assert run.recipe.decoding == Beam(
        5, 0.0, Rules(min_length=0, max_length=31, no_repeat_word=False, allow_unknown=True), finished_compete=True
    )
    assert run.vocabulary.words == ("<pad>", "<bos>", "<eos>", "<unk>", "w4", "w5", "w6", "w7", "w8")
    assert run.recipe.model.masked is False and run.recipe.model.mask_special_tokens is False and UNK == 3
    assert run.recipe.stages[0].optimizer == "amsgrad" and run.recipe.vocabulary.max_words == 30
    assert run.recipe.frames == 28 and run.recipe.feature_rows == FeatureRows(masked=False, max_rows=60)
    assert run.info.encoder == {} and run.encoder is None
    with pytest.raises(ValueError, match="cannot read raw media"):
        Pipeline(run)
    with pytest.raises(FileExistsError, match="already holds a run"):
        convert(tmp_path / "best.ckpt", tmp_path / "words.json", tmp_path / "run", "", "RGB")


def test_a_bare_state_dict_in_half_precision(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = random_weights(Sizes(6, 5, 4, 3, 9), 0)
    torch.save({f"module.{key}": value.half() for key, value in weights.items()}, tmp_path / "c.pt")
    (tmp_path / "words.json").write_text(json.dumps(word_map(9)))
    command = ["convert", "--from", "sa-lstm", str(tmp_path / "c.pt"), "--word-map", str(tmp_path / "words.json")]
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert "decoder: LSTM, 1 layer(s) of 5, 9 words, frame vectors of 6 channels" in said
    run = load_run(tmp_path / "run")
    assert run.recipe.decoding.rules.max_length == 31  # the published limit, which a state dict does not tell
    torch.testing.assert_close(run.model.state_dict()["head.weight"], weights["out.weight"], rtol=0, atol=3e-3)


def test_every_misfit_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    good = random_weights(Sizes(6, 5, 4, 3, 9), 0)
    without = {key: value for key, value in good.items() if key != "attention.b"}
    wrong: dict[str, Any] = {
        r"missing \['attention.b'\]": without,
        r"unknown \['extra.weight'\]": good | {"extra.weight": torch.ones(1)},
        r"attention.W.weight \(5, 3\), expected \(3, 5\)": good | {"attention.W.weight": torch.ones(5, 3)},
        r"out.bias \(8,\), expected \(9,\)": good | {"out.bias": torch.ones(8)},
        r"rnn.weight_hh_l0 is \(10, 5\); an LSTM has 20 rows, a GRU 15": good | {"rnn.weight_hh_l0": torch.ones(10, 5)},
        "embedding.weight missing": {key: value for key, value in good.items() if key != "embedding.weight"},
        r"entries that are not tensors: out.bias \(int\)": good | {"out.bias": 3},
        "holds no state dict": [torch.ones(1)],
        "holds unknown weights: critic": {"decoder": good, "critic": {"w": torch.ones(1)}},
        "its decoder is not a state dict": {"decoder": 5, "reconstructor": good},
        "holds a reconstructor too: convert it with --from recnet": {"decoder": good, "reconstructor": good},
    }
    (tmp_path / "words.json").write_text(json.dumps(word_map(9)))
    for reason, tree in wrong.items():
        torch.save(tree, tmp_path / "c.pt")
        with pytest.raises(ValueError, match=reason):
            convert(tmp_path / "c.pt", tmp_path / "words.json", tmp_path / "run", "", "RGB")
    torch.save(good, tmp_path / "c.pt")
    for encoder, channels in (("weights/x", "RGB"), ("", "BGR")):
        with pytest.raises(ValueError, match="caption stored frame vectors and have no encoder"):
            convert(tmp_path / "c.pt", tmp_path / "words.json", tmp_path / "run", encoder, channels)
    maps: dict[str, Any] = {
        "the ids 0 .. 3 are <PAD>, <SOS>, <EOS>, <UNK>, got <SOS>, <PAD>": word_map(9) | {"<PAD>": 1, "<SOS>": 0},
        "must be 0 .. 8, each once": word_map(9) | {"w4": 5},
        "is not a word map": ["a"],
        "not a word map: expected": word_map(9) | {"w4": True},
        "<bos> cannot be words": word_map(8) | {"<bos>": 8},
        r"out.weight \(9, 5\), expected \(12, 5\)": word_map(12),
    }
    for reason, words in maps.items():
        (tmp_path / "words.json").write_text(json.dumps(words))
        with pytest.raises(ValueError, match=reason):
            convert(tmp_path / "c.pt", tmp_path / "words.json", tmp_path / "run", "", "RGB")
    assert not (tmp_path / "run").exists()


def test_words_are_in_the_order_of_their_ids(tmp_path: Path) -> None:
    path = tmp_path / "words.json"
    path.write_text(json.dumps({"b": 5, "<UNK>": 3, "<EOS>": 2, "a": 4, "<SOS>": 1, "<PAD>": 0}))
    assert read_words(path) == ("a", "b")
