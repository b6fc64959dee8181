"""The published 3-D captioner, converted: equal numbers on its golden data and on a plain re-implementation of it."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor
from torch.nn import functional as F

from limner.convert import SYSTEMS
from limner.convert.video_captioning_3d import PUBLISHED_SPECIALS, read_published, read_vocabulary
from limner.core.types import BOS, EOS, Features, Layout
from limner.decode.search import greedy
from limner.encoders import ResNet3D, ResNet3DConfig
from limner.inference.pipeline import Pipeline
from limner.models.spatiotemporal import FirstToken
from limner.runs.recipe import Schedule
from limner.runs.run import load_run
from tests.convert.published import goldens, start_logits
from tests.training.world import clip

convert = SYSTEMS["video-captioning-3d"]
Weights = dict[str, Tensor]


def random_weights(C: int, E: int, H: int, V: int, layers: int = 1, seed: int = 0) -> tuple[Weights, Weights]:
    """The published keys; nothing is at its usual 0 or 1."""
    draw = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw) * 0.5

    encoder = {"conv.weight": randn(C, C, 1, 1, 1), "conv.bias": randn(C), "linear.weight": randn(E, C),
               "linear.bias": randn(E)}  # fmt: skip
    for norm, size in (("bn1", C), ("bn2", E)):
        encoder |= {f"{norm}.weight": 1 + randn(size), f"{norm}.bias": randn(size), f"{norm}.running_mean": randn(size)}
        encoder |= {f"{norm}.running_var": 0.5 + randn(size).abs(), f"{norm}.num_batches_tracked": torch.tensor(7)}
    decoder = {"embed.weight": randn(V, E) * 2, "linear.weight": randn(V, H) * 4, "linear.bias": randn(V)}
    for n in range(layers):
        decoder |= {f"lstm.weight_ih_l{n}": randn(4 * H, H if n else E), f"lstm.weight_hh_l{n}": randn(4 * H, H)}
        decoder |= {f"lstm.bias_ih_l{n}": randn(4 * H), f"lstm.bias_hh_l{n}": randn(4 * H)}
    return encoder, decoder


def published(encoder: Weights, decoder: Weights, maps: Tensor, words: list[int]) -> tuple[Tensor, Tensor]:
    """One video (C, T, H, W) and its input words -> the conv output and scores of every step, the clip's first."""

    def norm(name: str, x: Tensor) -> Tensor:
        mean, var = encoder[f"{name}.running_mean"], encoder[f"{name}.running_var"]
        return (x - mean) / (var + 1e-5).sqrt() * encoder[f"{name}.weight"] + encoder[f"{name}.bias"]

    convolved = F.conv3d(maps[None], encoder["conv.weight"], encoder["conv.bias"])[0]
    cells = norm("bn1", convolved.flatten(1).T).relu()
    x = norm("bn2", cells.mean(0) @ encoder["linear.weight"].T + encoder["linear.bias"])
    layers = sum(key.startswith("lstm.weight_hh") for key in decoder)
    h = c = [torch.zeros(decoder["linear.weight"].shape[1])] * layers
    scores = []
    for step in range(len(words) + 1):
        x = decoder["embed.weight"][words[step - 1]] if step else x
        h, c = list(h), list(c)
        for n in range(layers):
            gates = decoder[f"lstm.weight_ih_l{n}"] @ x + decoder[f"lstm.bias_ih_l{n}"]
            i, f, g, o = (gates + decoder[f"lstm.weight_hh_l{n}"] @ h[n] + decoder[f"lstm.bias_hh_l{n}"]).chunk(4)
            c[n] = f.sigmoid() * c[n] + i.sigmoid() * g.tanh()
            x = h[n] = o.sigmoid() * c[n].tanh()
        scores.append(decoder["linear.weight"] @ x + decoder["linear.bias"])
    return convolved, torch.stack(scores)


@torch.no_grad()
def published_greedy(model: FirstToken, features: Features, steps: int = 20) -> Tensor:
    """(B, steps): what the published generator prints.  The clip itself predicts the first token (<start>, if it is
    trained well), and nothing stops at <end>.  limner's own search begins with BOS."""
    memory = model.encode(features)
    state, logits, tokens = model.init_state(memory), start_logits(model, memory), []
    for _ in range(steps):
        tokens.append(logits.argmax(-1))
        logits, state, _ = model.step(tokens[-1], state, memory)
    return torch.stack(tokens, 1)


def word_list(size: int) -> dict[str, int]:
    return {word: i for i, word in enumerate([*PUBLISHED_SPECIALS, *(f"w{i}" for i in range(4, size))])}


def save(folder: Path, encoder: Weights, decoder: Weights, **more: Any) -> tuple[Path, Path]:
    """-> the checkpoint's folder and the word list."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(encoder, folder / "best_loss_encoder.prm")
    torch.save(decoder, folder / "best_loss_decoder.prm")
    (folder / "words.json").write_text(json.dumps(word_list(len(decoder["linear.bias"]))))
    if more:
        (folder / "config.yaml").write_text(yaml.safe_dump(more))
    return folder, folder / "words.json"


def load(folder: Path) -> FirstToken:
    model = load_run(folder).model
    assert isinstance(model, FirstToken)
    return model


def features(maps: Tensor) -> Features:
    """(B, C, T, H, W)."""
    layout = Layout(*maps.shape[2:])
    return Features(maps.flatten(2).transpose(1, 2), torch.ones(len(maps), layout.cells, dtype=torch.bool), layout)


@pytest.mark.data
@pytest.mark.parametrize("golden", goldens("video_captioning_3d"), ids=str)
def test_golden_numbers(golden: Path, tmp_path: Path) -> None:
    """The README's tolerance is 1e-5 for embeddings, scores and loss; greedy words are equal."""
    if not (golden / "data.npz").is_file():
        pytest.skip(f"no golden data at {golden}")
    data = {name: torch.from_numpy(array) for name, array in np.load(golden / "data.npz", allow_pickle=False).items()}
    size = torch.load(golden / "decoder.prm", weights_only=True)["linear.bias"].numel()
    (tmp_path / "words.json").write_text(json.dumps(word_list(size)))
    convert(golden, tmp_path / "words.json", tmp_path / "run", "", "RGB")
    model, given = load(tmp_path / "run"), features(data["features"])
    memory = model.encode(given)
    close = {"rtol": 0, "atol": 1e-5}
    torch.testing.assert_close(memory.cells.transpose(1, 2).reshape(data["conv_out"].shape), data["conv_out"], **close)
    torch.testing.assert_close(memory.video, data["video_embedding"], **close)
    tokens, keep = data["captions"], torch.arange(data["captions"].shape[1])[None] < data["lengths"][:, None]
    scores = torch.cat(
        [start_logits(model, memory)[:, None], model.forward_teacher_forced(memory, tokens[:, :-1]).logits], 1
    )
    torch.testing.assert_close(scores[keep], data["logits"][keep], **close)
    torch.testing.assert_close(F.cross_entropy(scores[keep], tokens[keep]), data["ce_loss"], **close)
    assert torch.equal(published_greedy(model, given), data["greedy_tokens"])
    for row in range(len(tokens)):  # what Grad-CAM is made of: the score and its gradient, a clip at a time
        one, caption = features(data["features"][row : row + 1]), tokens[row : row + 1, : data["lengths"][row]]
        memory = model.encode(one)
        score = (
            start_logits(model, memory).amax()
            + model.forward_teacher_forced(memory, caption[:, :-1]).logits.amax(-1).sum()
        )
        torch.testing.assert_close(score, data["cam_score"][row], **close)
        (gradient,) = torch.autograd.grad(score, memory.cells)
        expected = data["cam_gradient"][row]
        torch.testing.assert_close(gradient[0].T.reshape(expected.shape), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("sizes", "layers"), [((6, 5, 7, 11), 1), ((9, 4, 3, 23), 3)])
def test_scores_of_a_plain_computation(sizes: tuple[int, int, int, int], layers: int, tmp_path: Path) -> None:
    encoder, decoder = random_weights(*sizes, layers)
    summary = convert(*save(tmp_path / "old", encoder, decoder), tmp_path / "run", "", "RGB")
    assert f"{sizes[3]} words, cells of {sizes[0]} channels" in summary and f"{layers} LSTM layer" in summary
    model, maps = load(tmp_path / "run"), torch.randn(2, sizes[0], 3, 2, 2)
    words = [[BOS, 4, 5, 6], [BOS, 7, 8, 4]]
    memory = model.encode(features(maps))
    scores = torch.cat(
        [start_logits(model, memory)[:, None], model.forward_teacher_forced(memory, torch.tensor(words)).logits], 1
    )
    for row in range(2):
        cells, expected = published(encoder, decoder, maps[row], words[row])
        torch.testing.assert_close(scores[row], expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(memory.cells[row].T.reshape(cells.shape), cells, rtol=1e-4, atol=1e-5)


def test_its_own_generator_and_ours(tmp_path: Path) -> None:
    """Word by word as published; where the clip itself says <start>, limner's greedy search says the rest."""
    encoder, decoder = random_weights(6, 5, 7, 11)
    decoder["linear.bias"][EOS] = -100.0
    convert(*save(tmp_path / "old", encoder, decoder), tmp_path / "run", "", "RGB")
    run, maps = load_run(tmp_path / "run"), torch.randn(3, 6, 2, 2, 2)
    assert isinstance(run.model, FirstToken)
    found = published_greedy(run.model, features(maps), 6)
    for row in range(3):
        words: list[int] = []
        for _ in range(6):
            words.append(int(published(encoder, decoder, maps[row], words)[1][-1].argmax()))
        assert found[row].tolist() == words
    with torch.no_grad():  # now every clip says <start>, and nothing else does
        run.model.embed.weight[BOS] *= 3
        first = start_logits(run.model, run.model.encode(features(maps)))
        run.model.head.bias[BOS] += (first.amax(1) - first[:, BOS]).max() + 1
    found = published_greedy(run.model, features(maps), 20)
    assert (found[:, 0] == BOS).all()
    ours = greedy(run.model, features(maps), run.recipe.decoding.rules)
    assert torch.equal(ours.tokens, found[:, 1:]) and run.recipe.decoding.size == 1


def test_every_form_of_checkpoint(tmp_path: Path) -> None:
    encoder, decoder = random_weights(6, 5, 7, 11)
    folder, _ = save(tmp_path / "a", encoder, decoder)
    expected = read_published(folder).tensors
    whole = {"epoch": 3, "encoder": {f"module.{k}": v for k, v in encoder.items()}, "decoder": decoder,
             "optimizer": {"state": {}}, "best_loss": 3.3}  # fmt: skip
    (tmp_path / "b").mkdir()
    torch.save(whole, tmp_path / "b" / "checkpoint.pth")
    for path in (folder / "best_loss_encoder.prm", folder / "best_loss_decoder.prm", tmp_path / "b",
                 tmp_path / "b" / "checkpoint.pth"):  # fmt: skip
        found = read_published(path).tensors
        assert found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in found)
    with pytest.raises(FileNotFoundError, match=r"holds no checkpoint\.pth and none of best_loss_encoder\.prm"):
        read_published(tmp_path)
    torch.save(decoder, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="no entries 'encoder' and 'decoder'"):
        read_published(tmp_path / "weights.pt")
    (folder / "best_loss_decoder.prm").unlink()
    with pytest.raises(FileNotFoundError, match="best_loss_decoder"):
        read_published(folder / "best_loss_encoder.prm")


def test_weights_that_do_not_fit_are_all_named(tmp_path: Path) -> None:
    encoder, decoder = random_weights(6, 5, 7, 11)
    del encoder["bn1.running_var"]
    encoder["linear.bias"] = torch.ones(4)
    decoder["lstm.weight_ih_l0_reverse"] = torch.ones(28, 5)
    with pytest.raises(ValueError, match=r"missing \['encoder\.bn1\.running_var'\]; unknown \['decoder\.lstm\.weight_ih"
                       r"_l0_reverse'\]; shapes \['encoder\.linear\.bias \(4,\), expected \(5,\)'\]"):  # fmt: skip
        convert(*save(tmp_path / "old", encoder, decoder), tmp_path / "run", "", "RGB")
    assert not (tmp_path / "run").exists()
    encoder, decoder = random_weights(6, 5, 7, 11)
    folder, words = save(tmp_path / "old", encoder, decoder)
    words.write_text(json.dumps(word_list(12)))
    with pytest.raises(ValueError, match=r"for 12 words.*embed\.weight \(11, 5\), expected \(12, 5\)"):
        convert(folder, words, tmp_path / "run", "", "RGB")


BUILD_VOCABULARY = """
import pickle, sys
class Vocabulary(object):
    def __init__(self):
        self.word2idx, self.idx2word, self.idx = {}, {}, 0
    def add(self, word):
        self.word2idx[word], self.idx2word[self.idx] = self.idx, word
        self.idx += 1
vocabulary = Vocabulary()
for word in ("<pad>", "<start>", "<end>", "<unk>", "a", ",", "man"):
    vocabulary.add(word)
pickle.dump(vocabulary, open(sys.argv[1], "wb"), protocol=int(sys.argv[2]))
"""


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_the_vocabulary_of_a_script_is_read(tmp_path: Path, protocol: int) -> None:
    """As its build_vocab.py writes it: the class is `__main__.Vocabulary` of another program."""
    command = [sys.executable, "-c", BUILD_VOCABULARY, str(tmp_path / "vocab.pkl"), str(protocol)]
    subprocess.run(command, check=True)
    assert read_vocabulary(tmp_path / "vocab.pkl") == (*PUBLISHED_SPECIALS, "a", ",", "man")


class Bomb:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.path}",)


def test_a_hostile_vocabulary_does_nothing(tmp_path: Path) -> None:
    (tmp_path / "vocab.pkl").write_bytes(pickle.dumps(Bomb(tmp_path / "harm")))
    with pytest.raises(ValueError, match=r"expected a `Vocabulary` with word2idx, got <pickled (posix|nt)\.system>"):
        read_vocabulary(tmp_path / "vocab.pkl")
    # a class called Vocabulary is never imported, whatever its module does
    (tmp_path / "vocab.pkl").write_bytes(b"cantigravity\nVocabulary\n(S'x'\ntR.")
    with pytest.raises(ValueError, match=r"got <pickled antigravity\.Vocabulary>"):
        read_vocabulary(tmp_path / "vocab.pkl")
    (tmp_path / "vocab.pkl").write_bytes(b"not a pickle")
    with pytest.raises(ValueError, match="without executing code"):
        read_vocabulary(tmp_path / "vocab.pkl")
    assert not (tmp_path / "harm").exists() and "antigravity" not in sys.modules


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"<start>": 0, "<pad>": 1, "<end>": 2, "<unk>": 3}, r"begins with <start>, <pad>"),
        ({**word_list(5), "x": 7}, r"expected the ids 0 \.\. 5, each once"),
        ({**word_list(5), "x": "5"}, "expected words with integer ids"),
        ({**word_list(4), "<bos>": 4}, "<bos> cannot be words"),
        (["a"], "expected words with integer ids"),
    ],
)
def test_word_lists_that_are_none(tmp_path: Path, words: Any, message: str) -> None:
    (tmp_path / "words.json").write_text(json.dumps(words))
    with pytest.raises(ValueError, match=message):
        read_vocabulary(tmp_path / "words.json")


SETTINGS = {"align_size": [2, 3, 3], "add_noise": True, "stddev": 0.02, "max_epoch": 9, "batch_size": 64,
            "optimizer": "SGD", "scheduler": "onplateau", "learning_rate": 0.003, "lr_patience": 4, "momentum": 0.8,
            "dampening": 0.0, "weight_decay": 1e-4, "nesterov": True, "final_lr": 0.2, "poly_power": 0.7}  # fmt: skip


def test_its_settings_become_the_recipe(tmp_path: Path) -> None:
    encoder, decoder = random_weights(6, 5, 7, 11)
    convert(*save(tmp_path / "old", encoder, decoder, **SETTINGS), tmp_path / "run", "", "RGB")
    run, maps = load_run(tmp_path / "run"), torch.randn(1, 6, 4, 5, 2)
    stage = run.recipe.stages[0]
    assert (run.recipe.model.align, run.recipe.model.noise) == ((2, 3, 3), 0.02)
    assert (stage.optimizer, stage.lr, stage.momentum, stage.nesterov) == ("sgd", 0.003, 0.8, True)
    assert stage.schedule == Schedule("plateau", factor=0.1, patience=4)
    assert (stage.epochs, stage.batch_size, stage.captions_per_medium, stage.weight_decay) == (9, 64, 1, 1e-4)
    aligned = F.interpolate(maps, (2, 3, 3), mode="trilinear", align_corners=False)
    expected = published(encoder, decoder, aligned[0], [])[1][0]
    assert isinstance(run.model, FirstToken)
    found = start_logits(run.model, run.model.encode(features(maps)))[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("optimizer", "scheduler", "found"),
    [
        ("Adam", "None", ("adam", 0.0, Schedule())),  # its Adam is given no weight decay
        ("AdaBound", "poly", ("adabound", 1e-4, Schedule("poly", power=0.7))),
    ],
)
def test_optimisers_and_schedules(tmp_path: Path, optimizer: str, scheduler: str, found: tuple[Any, ...]) -> None:
    settings = {**SETTINGS, "optimizer": optimizer, "scheduler": scheduler}
    convert(*save(tmp_path / "old", *random_weights(6, 5, 7, 11), **settings), tmp_path / "run", "", "RGB")
    stage = load_run(tmp_path / "run").recipe.stages[0]
    assert (stage.optimizer, stage.weight_decay, stage.schedule) == found and stage.final_lr == 0.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "Lion"}, "optimizer 'Lion'"),
        ({"scheduler": "cosine"}, "scheduler 'cosine'"),
        ({"dampening": 0.1}, "dampening 0.1 is not supported"),
        ({"align_size": 3}, "is not a config.yaml of VideoCaptioning"),
    ],
)
def test_settings_without_a_counterpart(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert(*save(tmp_path / "old", *random_weights(6, 5, 7, 11), **SETTINGS | change), tmp_path / "run", "", "RGB")


def test_from_clip_to_caption_with_the_3d_resnet(tmp_path: Path) -> None:
    """The network that made the features travels with the run; a clip's frames are captioned."""
    torch.manual_seed(0)
    net = ResNet3D(ResNet3DConfig(depth=10, width=2))
    torch.save({f"module.{key}": value for key, value in net.state_dict().items()}, tmp_path / "r3d10.pth")
    folder, words = save(tmp_path / "old", *random_weights(16, 5, 7, 11))
    summary = convert(folder, words, tmp_path / "run", str(tmp_path / "r3d10.pth"), "RGB")
    (tmp_path / "r3d10.pth").unlink()
    assert "r3d10.pth (ResNet3D)" in summary
    pipeline = Pipeline.load(tmp_path / "run")
    assert isinstance(pipeline.encoder, ResNet3D) and pipeline.run.recipe.frames == 160
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in pipeline.encoder.state_dict().items())
    clip(tmp_path / "c.mp4")
    caption = pipeline.caption(tmp_path / "c.mp4")
    assert caption.attention.shape[1:] == (10, 7, 7)  # 160 frames of 224 x 224
    torch.save(net.state_dict(), tmp_path / "r3d10.pth")
    other = save(tmp_path / "other", *random_weights(6, 5, 7, 11))
    with pytest.raises(ValueError, match="gives cells of 16 channels, the captioner reads 6"):
        convert(*other, tmp_path / "b", str(tmp_path / "r3d10.pth"), "RGB")


def test_what_is_refused(tmp_path: Path) -> None:
    folder, words = save(tmp_path / "old", *random_weights(6, 5, 7, 11))
    with pytest.raises(ValueError, match="those of RGB frames"):
        convert(folder, words, tmp_path / "run", "", "BGR")
    convert(folder, words, tmp_path / "run", "", "RGB")
    with pytest.raises(FileExistsError, match="already holds a run"):
        convert(folder, words, tmp_path / "run", "", "RGB")
