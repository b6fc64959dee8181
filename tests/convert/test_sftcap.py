"""The published SFTCap, converted: equal numbers on its golden data and on a plain re-implementation of it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limner.apps.cli import main
from limner.convert import SYSTEMS
from limner.core.types import BOS, EOS, PAD, Batch, Features, Layout, Pixels
from limner.data.frames import FrameSampling
from limner.data.media import read_medium
from limner.decode.rules import Rules
from limner.decode.search import greedy
from limner.inference.pipeline import Pipeline
from limner.models.sft import Sft
from limner.objectives.hierarchical import SftLoss, SftTraining, WordLabels
from limner.runs.run import Run, load_run
from limner.text.vocabulary import SPECIALS, Vocabulary
from tests.convert.published import goldens
from tests.convert.test_sa_lstm import walked

convert = SYSTEMS["sftcap"]
Weights = dict[str, Tensor]
LOSS = SftLoss(teacher_weight=0.5, objects=0.3, actions=0.2, label_smoothing=0.3, published=True)


class Near:
    """Compares, and remembers the largest difference under each name."""

    def __init__(self) -> None:
        self.worst: dict[str, float] = {}

    def __call__(self, name: str, ours: Tensor, theirs: Tensor, atol: float = 2e-5, rtol: float = 0.0) -> None:
        self.worst[name] = max(self.worst.get(name, 0.0), float((ours - theirs).abs().max()))
        torch.testing.assert_close(ours, theirs, atol=atol, rtol=rtol)


def theirs_to_ours(ids: Tensor, size: int) -> Tensor:
    """0 -> PAD, V - 2 -> BOS, V - 1 -> EOS, the others behind UNK."""
    return torch.where(ids == 0, PAD, torch.where(ids == size - 2, BOS, torch.where(ids == size - 1, EOS, ids + 3)))


def columns(size: int) -> list[int]:
    """Our column of each of their ids."""
    return theirs_to_ours(torch.arange(size), size).tolist()


def features_of(grid: Tensor) -> Features:
    return Features(grid, torch.ones(grid.shape[:2], dtype=torch.bool), Layout(grid.shape[1], 1, 1))


def converted(checkpoint: Path, folder: Path, size: int) -> Run:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "words.json").write_text(json.dumps({f"w{i}": i for i in range(size)}))
    convert(checkpoint, folder / "words.json", folder / "run", "", "RGB")
    return load_run(folder / "run")


def on(run: Run, side: str) -> Sft:
    model = run.model
    assert isinstance(model, Sft)
    model.config = replace(model.config, side=side)  # type: ignore[arg-type]
    return model


@pytest.mark.data
@pytest.mark.parametrize("system", ["sftcap", "sftcap_lstm"])
@torch.no_grad()
def test_golden_numbers_of_the_original_code(system: str, tmp_path: Path) -> None:
    found = [path for folder in goldens(system) for path in sorted(folder.glob("*.pt"))]
    if not found:
        pytest.skip(f"no golden data for {system}")
    for number, checkpoint in enumerate(found):
        data = {k: torch.from_numpy(v) for k, v in np.load(checkpoint.with_suffix(".npz")).items()}
        size = data["student_logprobs"].shape[-1]
        run, near = converted(checkpoint, tmp_path / str(number), size), Near()
        for side in ("teacher", "student"):
            compare_side(on(run, side), side, data, near)
        compare_losses(on(run, "student"), data, near)
        found_greedy = greedy(
            on(run, "student"), features_of(data["features"]), endless(data["greedy_tokens"].shape[1])
        )
        tokens, logp = said(on(run, "student"), data["features"], data["greedy_tokens"].shape[1])
        assert torch.equal(tokens, theirs_to_ours(data["greedy_tokens"], size))
        near("greedy", logp, data["greedy_logprobs"])
        for row, whole in zip(found_greedy.tokens.tolist(), tokens.tolist(), strict=True):
            end = whole.index(EOS) + 1 if EOS in whole else len(whole)
            assert row[:end] == whole[:end]
        print({name: f"{value:.1e}" for name, value in near.worst.items()})


def compare_side(model: Sft, side: str, data: dict[str, Tensor], near: Near) -> None:
    features, size = features_of(data["features"]), data["student_logprobs"].shape[-1]
    tolerance = 5e-5 if side == "teacher" else 2e-5
    seen = model.encode_side(features, side).semantics
    near(f"{side} actions", seen.actions, data[f"{side}_action_features"], tolerance)
    near(f"{side} semantics", seen.action_semantics, data[f"{side}_action_semantics"], tolerance)
    near("object semantics", seen.object_semantics, data["object_semantics"])
    near(f"{side} global", seen.vector, data[f"{side}_global"], tolerance)
    frames = model.network.frames(data["features"])
    near("embedded frames", frames, data["video_embedded"])
    ham = model.network.ham
    assert ham is not None
    real = [torch.ones(data[name].shape[:2], dtype=torch.bool) for name in ("ham_action_in", "ham_video_in")]
    near("HAM", ham(data["ham_action_in"], data["ham_video_in"], *real), data["ham_out"])
    tokens = theirs_to_ours(data["caption_ids"], size)
    logp, _, _ = walked(model, features, tokens)  # step by step, with keys and values kept
    near(f"{side} log-probabilities", logp[..., columns(size)], data[f"{side}_logprobs"], tolerance)
    both = model.forward_teacher_forced(model.encode(features), tokens).logits.log_softmax(-1)[..., columns(size)]
    alive = (tokens != PAD) & (tokens != EOS)
    near(f"{side} taught", both[alive], data[f"{side}_logprobs"][alive], tolerance)
    for level in ("object", "action"):
        semantics = getattr(model.encode_side(features, "student").semantics, f"{level}_semantics")
        told = model.head.words(model.head.transform(semantics)).log_softmax(-1)[..., columns(size)]
        near(f"{level} log-probabilities", told, data[f"{level}_logprobs"])


def compare_losses(model: Sft, data: dict[str, Tensor], near: Near) -> None:
    size = data["student_logprobs"].shape[-1]
    tokens, labels = (theirs_to_ours(data[name], size) for name in ("caption_ids", "object_labels"))
    objective = SftTraining(LOSS, WordLabels(Vocabulary(SPECIALS)))
    loss = objective.published_loss(model, features_of(data["features"]), tokens, labels)
    theirs = {"xe_teacher": "loss_T", "xe_student": "loss_S", "objects": "loss_O", "actions": "loss_A"}
    for ours, name in theirs.items():
        near(name, torch.tensor(loss.logs[ours]), data[name], 0.0, 1e-5)
    near("total loss", loss.value, data["loss_total"], 0.0, 1e-5)


def endless(length: int) -> Rules:
    return Rules(min_length=0, max_length=length, no_repeat_word=False, allow_unknown=True)


@torch.no_grad()
def said(model: Sft, grid: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Greedy words and their log-probabilities, also after EOS."""
    memory = model.encode(features_of(grid))
    state, token, found = model.init_state(memory), torch.full((len(grid),), BOS), []
    for _ in range(steps):
        out = model.step(token, state, memory)
        best = out.logits.log_softmax(-1).max(-1)
        state, token = out.state, best.indices
        found.append((best.indices, best.values))
    tokens, logp = (torch.stack(column, 1) for column in zip(*found, strict=True))
    return tokens, logp


class Sizes(NamedTuple):
    """Of random weights; D is also the caption head's width, as published."""

    D: int = 24
    H: int = 16
    W: int = 24
    V: int = 37
    layers: int = 2
    module: str = "transformer"
    prefix: str = "SFTNet"


DECODER, HEAD = "caption_head.cap_sa_decoder", "caption_head.prediction_head"


def shapes_of(s: Sizes) -> dict[str, tuple[int, ...]]:
    """Every key of a real state dict, those that are never read included."""
    D, H, W, V, p = s.D, s.H, s.W, s.V, s.prefix
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, outputs: int, inputs: int) -> None:
        shapes.update({f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)})

    def norm(name: str, size: int) -> None:
        shapes.update({f"{name}.weight": (size,), f"{name}.bias": (size,)})

    def input_projection(name: str, inputs: int, outputs: int) -> None:
        norm(f"{name}.0", inputs)
        linear(f"{name}.2", outputs, inputs)
        norm(f"{name}.4", outputs)

    def lstm(name: str, inputs: int) -> None:
        for way in ("", "_reverse"):
            shapes.update({f"{name}.weight_ih_l0{way}": (2 * H, inputs), f"{name}.weight_hh_l0{way}": (2 * H, H // 2)})
            shapes.update({f"{name}.bias_ih_l0{way}": (2 * H,), f"{name}.bias_hh_l0{way}": (2 * H,)})

    input_projection(f"{p}.video_embeddings", D, H)
    linear(f"{p}.object_embeddings", H, H)
    linear(f"{p}.fc_layer", D, H)
    norm(f"{p}.LayerNorm", H)
    if s.module == "lstm":
        lstm(f"{p}.lstm", H)
    else:
        linear(f"{p}.dense", H, H)
        for name in ("self_attn", "multihead_attn"):
            shapes |= {f"{p}.{name}.in_proj_weight": (3 * H, H), f"{p}.{name}.in_proj_bias": (3 * H,)}
            linear(f"{p}.{name}.out_proj", H, H)
    shapes |= {f"{p}.Ua.weight": (H, H), f"{p}.Uv.weight": (H, H), f"{p}.wa.weight": (1, H), f"{p}.wv.weight": (1, H)}
    shapes |= {f"{p}.ba": (H,), f"{p}.bv": (H,)}
    linear(f"{p}.linear_visual_layer", D, H)
    lstm(f"{p}.bilstm", 3 * H)
    shapes |= {f"{p}.word_embeddings.weight": (V, H), f"{p}.position_embeddings.pe": (1000, H)}
    shapes |= {f"{DECODER}.word_embeddings.weight": (V, W), f"{DECODER}.token_type_embeddings.weight": (3, D)}
    shapes |= {f"{DECODER}.position_embeddings.pe": (1000, D)}
    input_projection(f"{DECODER}.word_fc", W, D)
    input_projection(f"{DECODER}.video_embeddings", D, D)
    norm(f"{DECODER}.LayerNorm", D)
    for k in range(s.layers):
        layer = f"{DECODER}.layer_sa.{k}"
        for name in ("query", "key", "value"):
            linear(f"{layer}.attention.self.{name}", D, D)
        for name in ("attention.output", "output"):
            linear(f"{layer}.{name}.dense", D, D)
            norm(f"{layer}.{name}.LayerNorm", D)
        for name in ("hidden_intermediate", "memory_intermediate"):
            linear(f"{layer}.{name}.dense", D, D)
    linear(f"{HEAD}.transform.dense", D, D)
    norm(f"{HEAD}.transform.LayerNorm", D)
    shapes |= {f"{HEAD}.decoder.weight": (V, D), f"{HEAD}.bias": (V,)}
    return shapes


def random_weights(sizes: Sizes, seed: int = 0) -> Weights:
    draw = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes_of(sizes).items():
        scale = 0.3 if len(shape) == 1 else 1.5 * shape[-1] ** -0.5
        weights[name] = torch.randn(shape, generator=draw) * scale
        if ("LayerNorm" in name or ".0." in name or ".4." in name) and name.endswith("weight") and len(shape) == 1:
            weights[name] += 1
    return weights


class Original:
    """The published system, one clip and everything anew for every word: README of the golden data, Conventions."""

    def __init__(self, weights: Weights, sizes: Sizes):
        self.w, self.sizes = weights, sizes

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def norm(self, name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        root = (centred.square().mean(-1, keepdim=True) + 1e-12).sqrt()
        return centred / root * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def input_projection(self, name: str, x: Tensor) -> Tensor:
        return self.norm(f"{name}.4", self.linear(f"{name}.2", self.norm(f"{name}.0", x)).relu())

    def attention(self, name: str, query: Tensor, memory: Tensor) -> Tensor:
        net = nn.MultiheadAttention(self.sizes.H, 8, batch_first=True)
        net.load_state_dict({k.removeprefix(f"{name}."): v for k, v in self.w.items() if k.startswith(f"{name}.")})
        return net(query[None], memory[None], memory[None])[0][0]

    def bilstm(self, name: str, x: Tensor) -> Tensor:
        net = nn.LSTM(x.shape[-1], self.sizes.H // 2, bidirectional=True, batch_first=True)
        net.load_state_dict({k.removeprefix(f"{name}."): v for k, v in self.w.items() if k.startswith(f"{name}.")})
        return net(x[None])[0][0]

    def actions(self, objects: Tensor, frames: Tensor) -> Tensor:
        p = self.sizes.prefix
        if self.sizes.module == "lstm":
            return self.bilstm(f"{p}.lstm", objects)

        def residual(x: Tensor, y: Tensor) -> Tensor:
            return self.norm(f"{p}.LayerNorm", self.linear(f"{p}.dense", x) + y)

        query, memory = frames.max(0).values.expand_as(frames), objects
        for _ in range(6):
            found = self.attention(f"{p}.self_attn", memory, memory)
            inner = residual(found, found)
            memory = residual(F.gelu(self.linear(f"{p}.dense", inner)), inner)
            own = residual(self.attention(f"{p}.self_attn", query, query), query)
            read = residual(self.attention(f"{p}.multihead_attn", own, memory), own)
            out = residual(F.gelu(self.linear(f"{p}.dense", read)), read)
        return out

    def vector(self, actions: Tensor, frames: Tensor) -> Tensor:
        p, read = self.sizes.prefix, []
        Uv, Ua, ba, bv = (self.w[f"{p}.{name}"] for name in ("Uv.weight", "Ua.weight", "ba", "bv"))
        first = []
        for v in frames:
            e = torch.stack([Uv @ v + Ua @ a + ba for a in actions])
            first.append((torch.tanh(e) @ self.w[f"{p}.wa.weight"][0]).softmax(0) @ e)
        for v, a1 in zip(frames, first, strict=True):
            e = torch.stack([Uv @ v + other + bv for other in first])
            a2 = (torch.tanh(e) @ self.w[f"{p}.wv.weight"][0]).softmax(0) @ e
            read.append(torch.cat([v, a2, a1]))
        return self.linear(f"{p}.linear_visual_layer", self.bilstm(f"{p}.bilstm", torch.stack(read)).max(0).values)

    @torch.no_grad()
    def logprobs(self, grid: Tensor, ids: Tensor, teacher: bool) -> Tensor:
        """`grid` (F, D) and published ids (T,) -> (T, V)."""
        frames = self.input_projection(f"{self.sizes.prefix}.video_embeddings", grid)
        objects = self.linear(f"{self.sizes.prefix}.object_embeddings", frames)
        g = self.vector(self.actions(objects, frames) if teacher else objects, frames)
        visual = self.input_projection(f"{DECODER}.video_embeddings", torch.cat([grid, g[None]]))
        text = self.input_projection(f"{DECODER}.word_fc", self.w[f"{DECODER}.word_embeddings.weight"][ids])
        n, total = len(visual), len(visual) + len(text)
        kinds = self.w[f"{DECODER}.token_type_embeddings.weight"][[1] * (n - 1) + [0] + [2] * len(text)]
        angle = torch.arange(total)[:, None] * 10000 ** (-torch.arange(0, self.sizes.D, 2) / self.sizes.D)
        waves = torch.stack([angle.sin(), angle.cos()], -1).flatten(1)
        x = self.norm(f"{DECODER}.LayerNorm", torch.cat([visual, text]) + kinds + waves)
        seen = torch.ones(total, total).tril()
        seen[:n, :n], seen[n:, :n] = 1, 1
        seen[:, n:] *= (ids != 0).float()
        for k in range(self.sizes.layers):
            x = self.layer(f"{DECODER}.layer_sa.{k}", x, (1 - seen) * -10000.0)
        x = self.norm(f"{HEAD}.transform.LayerNorm", F.gelu(self.linear(f"{HEAD}.transform.dense", x[n:])))
        return (x @ self.w[f"{HEAD}.decoder.weight"].T + self.w[f"{HEAD}.bias"]).log_softmax(-1)

    def layer(self, name: str, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (
            self.linear(f"{name}.attention.self.{part}", x).unflatten(1, (8, -1)).transpose(0, 1)
            for part in ("query", "key", "value")
        )
        weights = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5 + mask).softmax(-1)
        read = (weights @ v).transpose(0, 1).flatten(1)
        x = self.norm(f"{name}.attention.output.LayerNorm", self.linear(f"{name}.attention.output.dense", read) + x)
        inner = F.gelu(self.linear(f"{name}.hidden_intermediate.dense", x))
        return self.norm(f"{name}.output.LayerNorm", self.linear(f"{name}.output.dense", inner) + x)


@pytest.mark.parametrize(
    "sizes",
    [
        Sizes(),
        Sizes(16, 24, 10, 23, 3, "transformer", "SNet"),
        Sizes(32, 8, 32, 41, 1, "lstm"),
    ],
)
def test_the_run_computes_the_equations(sizes: Sizes, tmp_path: Path) -> None:
    weights, V = random_weights(sizes), sizes.V
    torch.save({f"module.{key}": value for key, value in weights.items()}, tmp_path / "model.bin")
    run = converted(tmp_path / "model.bin", tmp_path, V)
    draw = torch.Generator().manual_seed(3)
    grid = torch.randn(3, 6, sizes.D, generator=draw)
    ids = torch.randint(1, V - 2, (3, 7), generator=draw)
    ids[:, 0], ids[0, 4], ids[0, 5:], ids[1, 6] = V - 2, V - 1, 0, V - 1
    for side in ("teacher", "student"):
        logp, attention, _ = walked(on(run, side), features_of(grid), theirs_to_ours(ids, V))
        theirs = [Original(weights, sizes).logprobs(g, i, side == "teacher") for g, i in zip(grid, ids, strict=True)]
        torch.testing.assert_close(logp[..., columns(V)], torch.stack(theirs), atol=2e-4, rtol=1e-4)
        assert (logp[..., 3] == -torch.inf).all(), "byte pairs have no unknown word"
        torch.testing.assert_close(attention.sum(-1), torch.ones(3, 7))


def test_what_a_run_is_told(tmp_path: Path) -> None:
    run, sizes = saved(tmp_path, random_weights(Sizes())), Sizes()
    config = run.recipe.model
    assert isinstance(run.model, Sft) and (config.hidden, config.published, config.masked) == (sizes.D, True, False)
    assert run.info.feature_dim == sizes.D and run.recipe.frames == 15 and run.recipe.decoding.size == 1
    assert run.recipe.decoding.rules.max_length == 21 and run.encoder is None
    assert run.vocabulary.words[4:6] == ("w1", "w2") and len(run.vocabulary) == sizes.V + 1


def saved(folder: Path, weights: Weights) -> Run:
    torch.save(weights, folder / "model.bin")
    return converted(folder / "model.bin", folder, Sizes().V)


def test_misfits_are_named_and_nothing_is_written(tmp_path: Path) -> None:
    good = random_weights(Sizes())
    without = {key: value for key, value in good.items() if key != "SFTNet.ba"}
    wrong = {
        r"missing \['SFTNet.ba'\]": without,
        r"unknown \['SFTNet.extra'\]": good | {"SFTNet.extra": torch.ones(2)},
        r"network.objects.weight \(3, 3\), expected \(16, 16\)": good
        | {"SFTNet.object_embeddings.weight": torch.ones(3, 3)},
        r"decoder.weight has 36 rows, expected 37": good | {f"{HEAD}.decoder.weight": torch.ones(36, 24)},
        r"expected one of the networks SFTNet, SNet, TNet": {"conv.weight": torch.ones(2, 2)},
        r"found SFTNet, SNet": good | {"SNet.ba": torch.ones(16)},
        r"not tensors: epoch \(int\)": good | {"epoch": 3},
        r"word_fc.2.weight missing or not a matrix": {k: v for k, v in good.items() if "cap_sa_decoder" not in k},
    }
    for number, (reason, tensors) in enumerate(wrong.items()):
        (tmp_path / str(number)).mkdir()
        with pytest.raises(ValueError, match=reason):
            saved(tmp_path / str(number), tensors)
        assert not (tmp_path / str(number) / "run").exists()


def test_vocabularies_that_do_not_fit(tmp_path: Path) -> None:
    torch.save(random_weights(Sizes()), tmp_path / "model.bin")
    with pytest.raises(ValueError, match="has 36 byte pairs, the checkpoint 37"):
        converted(tmp_path / "model.bin", tmp_path, 36)
    with pytest.raises(FileNotFoundError, match=r"has no vocab\.json"):
        convert(tmp_path / "model.bin", tmp_path, tmp_path / "run", "", "RGB")
    with pytest.raises(ValueError, match="CLIP reads RGB"):
        convert(tmp_path / "model.bin", tmp_path / "words.json", tmp_path / "run", "", "BGR")


def test_the_command_takes_clips_own_files(tmp_path: Path) -> None:
    from tests.text.test_clip_bpe import write

    folder = write(tmp_path / "clip")
    size = len(json.loads((folder / "vocab.json").read_text(encoding="utf-8")))
    torch.save(random_weights(Sizes(V=size)), tmp_path / "model.bin")
    command = ["convert", "--from", "sftcap", str(tmp_path / "model.bin"), "--word-map", str(folder)]
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    stored = json.loads((tmp_path / "run" / "vocabulary.json").read_text(encoding="utf-8"))
    assert len(stored["words"]) == size + 1 and len(stored["merges"]) == 11
    assert main([*command, "--out", str(tmp_path / "run")]) != 0, "a run is there already"
    vocabulary = load_run(tmp_path / "run").vocabulary
    assert vocabulary.decode(vocabulary.encode("The dog riding")) == "the dog riding"


def test_greedy_of_a_converted_run_ends_where_the_loop_would(tmp_path: Path) -> None:
    run = saved(tmp_path, random_weights(Sizes(), 5))
    grid = torch.randn(4, 5, 24, generator=torch.Generator().manual_seed(1))
    tokens, _ = said(on(run, "student"), grid, 21)
    found = greedy(on(run, "student"), features_of(grid), run.recipe.decoding.rules).tokens
    for ours, whole in zip(found.tolist(), tokens.tolist(), strict=True):
        end = whole.index(EOS) + 1 if EOS in whole else len(whole)
        assert ours[:end] == whole[:end] and not any(ours[end:])


def test_the_stage_of_a_converted_run_trains(tmp_path: Path) -> None:
    from limner.core.types import Medium
    from limner.objectives import build_objective
    from limner.objectives.context import Context

    run = saved(tmp_path, random_weights(Sizes()))
    stage = run.recipe.stages[0]
    assert isinstance(stage.objective, SftLoss) and (stage.objective.teacher_weight, stage.accumulate) == (0.8, 4)
    objective = build_objective(
        stage.objective, Context(24, 24, [Medium("a", "", "train", ("w5 w6",))], run.vocabulary)
    )
    tokens = torch.tensor([run.vocabulary.encode("w5 w6"), run.vocabulary.encode("w7 w8")])
    features = features_of(torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(1)))
    loss = objective(run.model, Batch(("a", "b"), features, tokens, (("w5 w6",), ("w7 w8",))), 0)
    loss.value.backward()
    assert loss.value.isfinite() and run.model.get_parameter("head.words.weight").grad[3].eq(0).all()


def test_a_run_with_its_clip_captions_pictures(tmp_path: Path) -> None:
    """`--encoder` names the CLIP model; its frame vectors must be as wide as the checkpoint's."""
    import transformers
    from PIL import Image

    from tests.encoders.test_pretrained import MLP, SIDE, TEXT, VIT

    torch.manual_seed(0)
    for width in (24, 12):
        config = transformers.CLIPConfig(text_config=TEXT, vision_config={**VIT, **MLP}, projection_dim=width)
        transformers.CLIPModel(config).save_pretrained(tmp_path / f"clip{width}")
        transformers.CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=SIDE).save_pretrained(
            tmp_path / f"clip{width}"
        )
    torch.save(random_weights(Sizes()), tmp_path / "model.bin")
    (tmp_path / "words.json").write_text(json.dumps({f"w{i}": i for i in range(37)}))
    given = (tmp_path / "model.bin", tmp_path / "words.json", tmp_path / "run")
    with pytest.raises(ValueError, match="have 12 channels, those of the checkpoint have 24"):
        convert(*given, str(tmp_path / "clip12"), "RGB")
    convert(*given, str(tmp_path / "clip24"), "RGB")
    Image.new("RGB", (50, 40), (200, 30, 30)).save(tmp_path / "red.png")
    pipeline = Pipeline.load(tmp_path / "run")
    caption = pipeline.caption(tmp_path / "red.png")
    assert caption.attention.shape == (len(caption.words), 1, 1, 1) and caption.attention.min() > 0.99
    features = pipeline.encode(pipeline_pixels(pipeline, tmp_path / "red.png"))
    tokens, _ = said(on(pipeline.run, "student"), features.grid, 21)
    row = tokens[0].tolist()
    assert caption.text == pipeline.vocabulary.decode(row[: row.index(EOS)] if EOS in row else row)


def pipeline_pixels(pipeline: Pipeline, path: Path) -> Pixels:
    return Pixels(pipeline.encoder.preprocess(read_medium(path, FrameSampling(1)))[None])
