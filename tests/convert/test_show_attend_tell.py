"""The published captioner, converted: equal numbers on its golden data and on a plain re-implementation of it."""

import json
import sys
import types
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import ResNetConfig as HFResNetConfig
from transformers import ResNetModel, ViTImageProcessor

from limner.apps.cli import main
from limner.convert import SYSTEMS
from limner.convert.show_attend_tell import published_ids, read_word_map
from limner.core.types import BOS, EOS, PAD, UNK, Batch, Features, Layout
from limner.decode.rules import Rules
from limner.decode.search import Beam, beam
from limner.encoders import PretrainedConfig, ResNet, ResNetConfig
from limner.inference.pipeline import Pipeline
from limner.objectives.cross_entropy import CrossEntropy, doubly_stochastic
from limner.runs.run import Run, load_run
from tests.convert.published import goldens

convert = SYSTEMS["show-attend-tell"]
Weights = dict[str, Tensor]


class Sizes(NamedTuple):
    """Of a random decoder, as in the golden data's README; `cells` on a side."""

    D: int
    H: int
    E: int
    A: int
    V: int
    cells: int = 3


class Best(NamedTuple):
    """A finished hypothesis of the published search."""

    tokens: list[int]  # published ids, <start> and <end> included
    score: float
    alphas: Tensor  # one row of cells per token, ones for <start>


def word_map(size: int) -> dict[str, int]:
    """As create_input_files.py makes it: words from 1, then <unk>, <start>, <end>, and <pad> 0."""
    words = {f"w{i}": i for i in range(1, size - 3)}
    return {**words, "<unk>": size - 3, "<start>": size - 2, "<end>": size - 1, "<pad>": 0}


def random_weights(sizes: Sizes, seed: int) -> Weights:
    """Large enough that pictures and words matter, and with an end that comes after some words."""
    draw = torch.Generator().manual_seed(seed)
    D, H, E, A, V, _ = sizes
    shapes = {
        "attention.encoder_att": (A, D),
        "attention.decoder_att": (A, H),
        "attention.full_att": (1, A),
        "init_h": (H, D),
        "init_c": (H, D),
        "f_beta": (D, H),
        "fc": (V, H),
    }
    weights = {"embedding.weight": torch.randn(V, E, generator=draw)}
    for name, (rows, columns) in shapes.items():
        weights[f"{name}.weight"] = torch.randn(rows, columns, generator=draw) * (2 if name == "fc" else columns**-0.5)
        weights[f"{name}.bias"] = torch.randn(rows, generator=draw) * 0.3
    for part, width in (("ih", E + D), ("hh", H)):
        weights[f"decode_step.weight_{part}"] = torch.randn(4 * H, width, generator=draw) * 2 * width**-0.5
        weights[f"decode_step.bias_{part}"] = torch.randn(4 * H, generator=draw) * 0.3
    return weights


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def published_step(
    w: Weights, cells: Tensor, token: int, h: Tensor, c: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One word of one hypothesis: cells (P, D), h and c (H,) -> logits (V,), h, c, alpha (P,).  README, Conventions."""
    hidden = torch.relu(linear(w, "attention.encoder_att", cells) + linear(w, "attention.decoder_att", h))
    alpha = linear(w, "attention.full_att", hidden).squeeze(1).softmax(0)
    context = torch.sigmoid(linear(w, "f_beta", h)) * (alpha[:, None] * cells).sum(0)
    x = torch.cat([w["embedding.weight"][token], context])
    gates = w["decode_step.weight_ih"] @ x + w["decode_step.bias_ih"]
    gates = gates + w["decode_step.weight_hh"] @ h + w["decode_step.bias_hh"]
    i, f, g, o = gates.chunk(4)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    h = torch.sigmoid(o) * torch.tanh(c)
    return linear(w, "fc", h), h, c, alpha


def published_start(w: Weights, cells: Tensor) -> tuple[Tensor, Tensor]:
    return linear(w, "init_h", cells.mean(0)), linear(w, "init_c", cells.mean(0))


def published_teach(w: Weights, cells: Tensor, captions: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """-> logits (B, Tmax, V) and alphas (B, Tmax, P), zero after a caption's own steps."""
    B, steps = len(captions), max(lengths) - 1
    logits, alphas = torch.zeros(B, steps, len(w["fc.bias"])), torch.zeros(B, steps, cells.shape[1])
    for b in range(B):
        h, c = published_start(w, cells[b])
        for t in range(lengths[b] - 1):
            logits[b, t], h, c, alphas[b, t] = published_step(w, cells[b], int(captions[b, t]), h, c)
    return logits, alphas


def published_beam(w: Weights, cells: Tensor, k: int, words: dict[str, int]) -> Best | None:
    """The shrinking beam of one picture, hypothesis by hypothesis; None when nothing finished in 51 steps."""
    h, c = published_start(w, cells)
    V, end = len(words), words["<end>"]
    alive = [([words["<start>"]], torch.zeros(()), h, c, [torch.ones(len(cells))])]
    finished: list[Best] = []
    for _ in range(51):
        stepped = [published_step(w, cells, tokens[-1], h, c) for tokens, _, h, c, _ in alive]
        totals = torch.stack([row[1] + out[0].log_softmax(0) for row, out in zip(alive, stepped, strict=True)])
        scores, places = totals.flatten().topk(k)
        following = []
        for score, place in zip(scores, places.tolist(), strict=True):
            (tokens, _, _, _, maps), (_, h, c, alpha) = alive[place // V], stepped[place // V]
            if place % V == end:
                finished.append(Best([*tokens, end], score.item(), torch.stack([*maps, alpha])))
            else:
                following.append(([*tokens, place % V], score, h, c, [*maps, alpha]))
        alive, k = following, len(following)
        if k == 0:
            break
    return max(finished, key=lambda best: best.score) if finished else None


def features_of(cells: Tensor, side: int) -> Features:
    return Features(cells, torch.ones(cells.shape[:2], dtype=torch.bool), Layout(1, side, side))


def converted(weights: Weights, folder: Path) -> tuple[Run, Tensor, dict[str, int]]:
    """-> the run, `order[new id]` = published id, and the word map."""
    words = word_map(len(weights["fc.bias"]))
    torch.save(weights, folder / "decoder.pt")
    (folder / "words.json").write_text(json.dumps(words))
    convert(folder / "decoder.pt", folder / "words.json", folder / "run", "", "RGB")
    return load_run(folder / "run"), torch.tensor(published_ids(read_word_map(folder / "words.json"))), words


def renumbered(published: Tensor, order: Tensor) -> Tensor:
    """Published ids -> ours."""
    return order.argsort()[published]


def search(run: Run, order: Tensor, features: Features, k: int) -> list[Best]:
    """limner's search with the run's own rules, in published ids and with the published <start> in front."""
    found = beam(run.model, features, replace(run.recipe.decoding, size=k))
    best = []
    for tokens, score, maps in zip(found.tokens.tolist(), found.logprob.tolist(), found.attention, strict=True):
        spoken = tokens[: tokens.index(EOS) + 1] if EOS in tokens else tokens
        published = [int(order[BOS]), *(int(order[i]) for i in spoken)]
        best.append(Best(published, score, torch.cat([torch.ones_like(maps[:1]), maps[: len(spoken)]])))
    return best


@pytest.mark.data
@pytest.mark.parametrize("golden", goldens("show_attend_tell"), ids=lambda folder: folder.name)
def test_golden_numbers_of_the_original_code(golden: Path, tmp_path: Path) -> None:
    if not (golden / "data.npz").is_file():
        pytest.skip(f"no golden data in {golden}")
    data: dict[str, Any] = {key: torch.from_numpy(value) for key, value in np.load(golden / "data.npz").items()}
    run, order, _ = converted(torch.load(golden / "decoder.pt", weights_only=True), tmp_path)
    cells, side = data["encoder_out"].flatten(1, 2), data["encoder_out"].shape[1]
    features = features_of(cells, side)
    lengths = data["caption_lengths"].flatten().tolist()
    rows = [row[:n].tolist() + [0] * (max(lengths) - n) for row, n in zip(data["captions"], lengths, strict=True)]
    tokens = renumbered(torch.tensor(rows), order)
    worst: dict[str, float] = {}

    def near(name: str, ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
        assert ours.shape == theirs.shape, name
        worst[name] = (ours - theirs).abs().max().item()
        assert worst[name] <= tolerance, name

    with torch.no_grad():
        memory = run.model.encode(features)
        h, c, *_ = run.model.init_state(memory)
        forced = run.model.forward_teacher_forced(memory, tokens[:, :-1])
        batch = Batch(tuple(map(str, range(len(cells)))), features, tokens)
        loss = CrossEntropy(doubly_stochastic=1.0)(run.model, batch)
    published = torch.empty_like(forced.logits)
    published[..., order] = forced.logits
    near("init_h", h, data["init_h"])
    near("init_c", c, data["init_c"])
    near("logits", published, data["logits"])
    near("log-probabilities", published.log_softmax(-1), data["logits"].log_softmax(-1))
    near("alphas", forced.attention, data["alphas"])
    near("doubly stochastic", doubly_stochastic(forced.attention, features.mask), data["doubly_stochastic"])
    near("cross entropy", torch.tensor(loss.logs["xe"]), data["ce_loss"])
    near("total loss", loss.value, data["total_loss"])
    widths = sorted(int(key[4:-7]) for key in data if key.startswith("beam") and key.endswith("_tokens"))
    assert widths
    for k in widths:
        for i, best in enumerate(search(run, order, features, k)):
            length = int(data[f"beam{k}_lengths"][i])
            assert best.tokens == data[f"beam{k}_tokens"][i, :length].tolist(), f"beam {k}, picture {i}"
            near(f"beam {k} score {i}", torch.tensor(best.score), data[f"beam{k}_scores"][i], 2e-5)
            if f"beam{k}_alphas" in data:  # index 0, <start>, is filled with ones by the reference
                near(f"beam {k} alphas {i}", best.alphas, data[f"beam{k}_alphas"][i, :length].flatten(1))
    print({name: f"{value:.1e}" for name, value in worst.items()})


CASES = [  # sizes, seed, and what the logit of <end> is raised by, for captions of 2 to 50 words
    (Sizes(24, 16, 12, 10, 37), 0, 2),
    (Sizes(7, 5, 9, 3, 11, cells=2), 1, 1),
    (Sizes(33, 21, 8, 17, 60, cells=4), 2, 4),
    (Sizes(16, 32, 16, 8, 200, cells=1), 3, 4),
    (Sizes(5, 4, 3, 2, 6, cells=5), 4, 1),
]


@pytest.mark.parametrize(("sizes", "seed", "end"), CASES)
def test_every_step_equals_the_equations(sizes: Sizes, seed: int, end: int, tmp_path: Path) -> None:
    weights = random_weights(sizes, seed)
    weights["fc.bias"][-1] += end
    run, order, words = converted(weights, tmp_path)
    draw = torch.Generator().manual_seed(seed + 100)
    cells = torch.randn(4, sizes.cells**2, sizes.D, generator=draw)
    lengths = [3, 9, 2, 6]
    captions = torch.randint(1, sizes.V - 2, (4, 9), generator=draw)  # words and <unk>
    captions[:, 0] = words["<start>"]
    for row, n in zip(captions, lengths, strict=True):
        row[n - 1], row[n:] = words["<end>"], 0
    with torch.no_grad():
        forced = run.model.forward_teacher_forced(
            run.model.encode(features_of(cells, sizes.cells)), renumbered(captions, order)[:, :-1]
        )
    logits, alphas = published_teach(weights, cells, captions, lengths)
    torch.testing.assert_close(forced.logits, logits[..., order], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(forced.attention, alphas, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize(("sizes", "seed", "end"), CASES)
def test_beams_equal_the_shrinking_beam(sizes: Sizes, seed: int, end: int, k: int, tmp_path: Path) -> None:
    weights = random_weights(sizes, seed)
    weights["fc.bias"][-1] += end
    run, order, words = converted(weights, tmp_path)
    cells = torch.randn(12, sizes.cells**2, sizes.D, generator=torch.Generator().manual_seed(seed))
    finished = 0
    for ours, picture in zip(search(run, order, features_of(cells, sizes.cells), k), cells, strict=True):
        theirs = published_beam(weights, picture, k, words)
        if theirs is None:  # the published script crashes; limner gives the likeliest unfinished caption
            assert len(ours.tokens) == 52
            continue
        finished += 1
        assert ours.tokens == theirs.tokens
        assert ours.score == pytest.approx(theirs.score, abs=2e-5)
        torch.testing.assert_close(ours.alphas, theirs.alphas, rtol=1e-5, atol=1e-5)
    assert finished >= 3


@pytest.mark.parametrize("mark", ["<pad>", "<start>", "<unk>"])
def test_captions_that_speak_the_marks(mark: str, tmp_path: Path) -> None:
    """Nothing is suppressed in the published search, and its softmax runs over every id."""
    sizes = Sizes(12, 16, 12, 10, 20)
    weights = random_weights(sizes, 5)
    words = word_map(sizes.V)
    weights["fc.bias"][words[mark]] += 9
    weights["fc.bias"][words["<end>"]] += 6
    run, order, words = converted(weights, tmp_path)
    cells = torch.randn(10, 9, sizes.D, generator=torch.Generator().manual_seed(6))
    spoken = 0
    for k in (1, 3, 5):
        for ours, picture in zip(search(run, order, features_of(cells, 3), k), cells, strict=True):
            theirs = published_beam(weights, picture, k, words)
            if theirs is not None:
                assert ours.tokens == theirs.tokens and ours.score == pytest.approx(theirs.score, abs=2e-5)
                spoken += words[mark] in ours.tokens[1:-1]
    assert spoken >= 5


def test_ids_move_and_the_marks_have_limner_s_places(tmp_path: Path) -> None:
    scattered = {"b": 3, "<end>": 0, "a": 5, "<pad>": 4, "<start>": 1, "<unk>": 2}
    path = tmp_path / "words.json"
    path.write_text(json.dumps(scattered))
    words = read_word_map(path)
    assert words == ("<end>", "<start>", "<unk>", "b", "<pad>", "a")
    order = published_ids(words)
    assert [words[i] for i in order] == ["<pad>", "<start>", "<end>", "<unk>", "b", "a"]
    assert [order[i] for i in (PAD, BOS, EOS, UNK)] == [4, 1, 0, 2]


def test_the_run_decodes_as_published(tmp_path: Path) -> None:
    run, _, _ = converted(random_weights(Sizes(6, 5, 4, 3, 9), 0), tmp_path)
    assert run.recipe.decoding == Beam(
        5, 0.0, Rules(min_length=0, max_length=51, no_repeat_word=False, allow_unknown=True), drop_hopeless=False
    )
    assert run.vocabulary.words == ("<pad>", "<bos>", "<eos>", "<unk>", "w1", "w2", "w3", "w4", "w5")
    assert run.vocabulary.tokenizer == "simple" and run.info.encoder == {} and run.encoder is None
    with pytest.raises(ValueError, match="cannot read raw media"):
        Pipeline(run)
    with pytest.raises(FileExistsError, match="already holds a run"):
        convert(tmp_path / "decoder.pt", tmp_path / "words.json", tmp_path / "run", "", "RGB")


def test_prefixes_and_half_precision(tmp_path: Path) -> None:
    weights = random_weights(Sizes(6, 5, 4, 3, 9), 0)
    for name, tree in {
        "parallel": {f"module.{key}": value for key, value in weights.items()},
        "dict": {"epoch": 3, "decoder": weights, "encoder": None, "bleu-4": 0.2},
        "half": {key: value.half() for key, value in weights.items()},
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        torch.save(tree, folder / "c.pt")
        (folder / "words.json").write_text(json.dumps(word_map(9)))
        summary = convert(folder / "c.pt", folder / "words.json", folder / "run", "", "RGB")
        assert "captions features, not images" in summary and ("left out: epoch, bleu-4" in summary) == (name == "dict")
        torch.testing.assert_close(
            load_run(folder / "run").model.state_dict()["init_h.weight"],
            weights["init_h.weight"],
            rtol=0,
            atol=2e-3 if name == "half" else 0,
        )


def test_every_misfit_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    good = random_weights(Sizes(6, 5, 4, 3, 9), 0)
    wrong = {
        r"missing \['f_beta.bias'\]": {key: value for key, value in good.items() if key != "f_beta.bias"},
        r"unknown \['extra.weight'\]": good | {"extra.weight": torch.ones(1)},
        r"init_c.weight \(6, 5\), expected \(5, 6\)": good | {"init_c.weight": good["init_c.weight"].T},
        r"embedding.weight \(8, 4\), expected \(9, 4\)": good | {"embedding.weight": torch.ones(8, 4)},
        "embedding.weight missing": {key: value for key, value in good.items() if key != "embedding.weight"},
        r"entries that are not tensors: fc.bias \(int\)": good | {"fc.bias": 3},
        "holds no state dict": [torch.ones(1)],
        "holds unknown weights: critic": {"decoder": good, "critic": {"w": torch.ones(1)}},
        "its decoder is neither a state dict nor a module": {"decoder": 5, "encoder": good},
        r"its encoder has unknown keys \['vgg.0.weight'\]": {
            "decoder": good,
            "encoder": {"vgg.0.weight": torch.ones(1)},
        },
        "its encoder is not a ResNet": {"decoder": good, "encoder": {"resnet.0.weight": torch.ones(1)}},
    }
    (tmp_path / "words.json").write_text(json.dumps(word_map(9)))
    for reason, tree in wrong.items():
        torch.save(tree, tmp_path / "c.pt")
        with pytest.raises(ValueError, match=reason):
            convert(tmp_path / "c.pt", tmp_path / "words.json", tmp_path / "run", "", "RGB")
    torch.save(good, tmp_path / "c.pt")
    maps: dict[str, Any] = {
        "lacks <pad>": {word: i for i, word in enumerate(list(word_map(9))[:8])},
        "must be 0 .. 8, each once": word_map(9) | {"w1": 2},
        "is not a word map": ["a"],
        "not a word map: expected": word_map(9) | {"w1": True},
        "'?<bos>'? cannot be words": word_map(8) | {"<bos>": 8},
        "is not a JSON file": None,
        r"fc.weight \(9, 5\), expected \(12, 5\)": word_map(12),
    }
    for reason, words in maps.items():
        (tmp_path / "words.json").write_text("{" if words is None else json.dumps(words))
        with pytest.raises(ValueError, match=reason):
            convert(tmp_path / "c.pt", tmp_path / "words.json", tmp_path / "run", "", "RGB")
    assert not (tmp_path / "run").exists()


CLASSES = """
from torch import nn

class Attention(nn.Module):
    def __init__(self, D, H, A):
        super().__init__()
        self.encoder_att, self.decoder_att, self.full_att = nn.Linear(D, A), nn.Linear(H, A), nn.Linear(A, 1)
        self.relu, self.softmax = nn.ReLU(), nn.Softmax(dim=1)

class DecoderWithAttention(nn.Module):
    def __init__(self, A, E, H, V, D):
        super().__init__()
        self.attention, self.embedding, self.dropout = Attention(D, H, A), nn.Embedding(V, E), nn.Dropout(0.5)
        self.decode_step = nn.LSTMCell(E + D, H)
        self.init_h, self.init_c = nn.Linear(D, H), nn.Linear(D, H)
        self.f_beta, self.sigmoid, self.fc = nn.Linear(H, D), nn.Sigmoid(), nn.Linear(H, V)

class Encoder(nn.Module):
    def __init__(self, name, net):
        super().__init__()
        self.enc_image_size = 14
        layers = [net.conv1, net.bn1, nn.ReLU(), nn.MaxPool2d(3, 2, 1), net.layer1, net.layer2, net.layer3, net.layer4]
        setattr(self, name, nn.Sequential(*layers))
        self.adaptive_pool = nn.AdaptiveAvgPool2d((14, 14))
"""


def tiny_resnext() -> ResNet:
    """Two blocks in the third stage; statistics away from 0 and 1."""
    net = ResNet(ResNetConfig(blocks=(1, 1, 2, 1), groups=4, width_per_group=2))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.eval()


@pytest.mark.parametrize(("zipped", "whole"), [(True, False), (True, True), (False, True)])
def test_command_line_to_caption(zipped: bool, whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The published dict, of state dicts or of pickled modules whose classes are gone, to a captioned picture."""
    module = types.ModuleType("models")
    exec(CLASSES, module.__dict__)
    monkeypatch.setitem(sys.modules, "models", module)
    torch.manual_seed(0)
    net = tiny_resnext()
    sizes = Sizes(net.dim, 48, 6, 5, 15)
    old: Any = module
    encoder, decoder = old.Encoder("resnext", net), old.DecoderWithAttention(5, 6, 48, 15, net.dim)
    weights = random_weights(sizes, 2)  # says four words
    decoder.load_state_dict(weights)
    tree = {"epoch": 9, "epochs_since_improvement": 0, "bleu-4": 0.24, "encoder_optimizer": None}
    if whole:
        tree |= {"decoder": nn.DataParallel(decoder), "encoder": encoder}
        tree["decoder_optimizer"] = torch.optim.Adam(decoder.parameters())
    else:
        tree |= {"decoder": decoder.state_dict(), "encoder": encoder.state_dict()}
    torch.save(tree, tmp_path / "BEST_checkpoint.pth.tar", _use_new_zipfile_serialization=zipped)
    monkeypatch.delitem(sys.modules, "models")
    words = word_map(sizes.V)
    (tmp_path / "WORDMAP.json").write_text(json.dumps(words))
    arguments = [
        "convert",
        "--from",
        "show-attend-tell",
        str(tmp_path / "BEST_checkpoint.pth.tar"),
        "--channels",
        "BGR",
    ]
    assert main([*arguments, "--word-map", str(tmp_path / "WORDMAP.json"), "--out", str(tmp_path / "run")]) == 0

    picture = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    pipeline = Pipeline.load(tmp_path / "run")
    caption = pipeline.caption(picture)
    assert pipeline.run.info.channels == "BGR" and pipeline.run.info.encoder["source"] == "BEST_checkpoint.pth.tar"
    assert pipeline.encoder.config == ResNetConfig(
        blocks=(1, 1, 2, 1), groups=4, width_per_group=2, channels="BGR", trainable_from=None
    )
    resized = np.asarray(Image.fromarray(picture).resize((256, 256), Image.Resampling.BILINEAR))[..., ::-1] / 255
    pixels = torch.from_numpy((resized - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)).float().permute(2, 0, 1)
    with torch.no_grad():
        cells = encoder.adaptive_pool(encoder.resnext(pixels[None])).flatten(2).transpose(1, 2)[0]
    theirs = published_beam(weights, cells, 5, words)
    names = {id: "unk" if word == "<unk>" else word for word, id in words.items()}
    assert theirs is not None and caption.finished and len(caption.words) > 0
    silent = (words["<pad>"], words["<start>"])
    assert caption.text == " ".join(names[i] for i in theirs.tokens[1:-1] if i not in silent)
    assert caption.logprob == pytest.approx(theirs.score, abs=1e-4)
    np.testing.assert_allclose(caption.attention.reshape(-1, 196), theirs.alphas[1:-1].numpy(), atol=1e-5)


def test_another_encoder_for_a_decoder_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    folder = tmp_path / "backbone"
    ResNetModel(
        HFResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic")
    ).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    words = tmp_path / "words.json"
    words.write_text(json.dumps(word_map(9)))
    torch.save(random_weights(Sizes(12, 5, 4, 3, 9), 0), tmp_path / "fits.pt")
    torch.save(random_weights(Sizes(6, 5, 4, 3, 9), 0), tmp_path / "other.pt")
    with pytest.raises(ValueError, match="the decoder reads cells of 6 channels, but its encoder gives 12"):
        convert(tmp_path / "other.pt", words, tmp_path / "no", str(folder), "RGB")
    with pytest.raises(ValueError, match="reads RGB"):
        convert(tmp_path / "fits.pt", words, tmp_path / "no", str(folder), "BGR")
    assert not (tmp_path / "no").exists()
    convert(tmp_path / "fits.pt", words, tmp_path / "run", str(folder), "RGB")
    pipeline = Pipeline.load(tmp_path / "run")
    assert pipeline.run.recipe.encoder == PretrainedConfig(source=str(folder))
    assert pipeline.caption(np.zeros((40, 40, 3), np.uint8)).logprob < 0
