"""Self-critical.pytorch and its descendants, converted: equal numbers on golden data, and refusals that tell why."""

import json
import os
import pickle
import re
from argparse import Namespace
from collections.abc import Mapping
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from limner.apps.cli import main
from limner.convert import SYSTEMS
from limner.convert.ort import join_heads
from limner.convert.self_critical import (
    SELF_CRITICAL_PARTS,
    UP_DOWN_KEYS,
    SelfCriticalCheckpoint,
    infer_transformer_config,
    transformer_keys,
)
from limner.convert.self_critical_words import published_ids, read_words
from limner.convert.spatial import activation_option, position_keys
from limner.convert.xlan import xlan_keys
from limner.core.types import BOS, EOS, PAD, UNK, Features, Layout
from limner.models import CAPTIONERS, build_model
from limner.models.captioner import Captioner
from limner.models.spatial_transformer import SpatialTransformer, SpatialTransformerConfig
from limner.models.up_down import UpDownConfig
from limner.models.xlan import Xlan, XlanConfig
from limner.objectives.cross_entropy import smoothed_cross_entropy
from limner.runs.run import Run, load_run
from tests.convert.published import Near, goldens

D = 24


def vocabulary(classes: int) -> dict[str, str]:
    """Published: ids 1 .. V-1, UNK is the last."""
    return {str(i): "UNK" if i == classes - 1 else f"w{i}" for i in range(1, classes)}


def ours(ids: Tensor, classes: int) -> Tensor:
    """Published ids -> limner's; 0 becomes EOS."""
    table = torch.empty(classes, dtype=torch.long)
    table[0], table[-1], table[1:-1] = EOS, UNK, torch.arange(4, classes + 2)
    return table[ids]


def classes_of(logits: Tensor) -> Tensor:
    """limner's scores in the order of the published classes."""
    return torch.cat([logits[..., [EOS]], logits[..., UNK + 1 :], logits[..., [UNK]]], -1)


def converted(system: str, checkpoint: Path, folder: Path, classes: int, **options: Any) -> Run:
    (folder / "infos.pkl").write_bytes(pickle.dumps({"vocab": vocabulary(classes), "opt": Namespace(**options)}))
    SYSTEMS[system](checkpoint, folder / "infos.pkl", folder / "run", "", "RGB")
    return load_run(folder / "run")


def golden_data(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        pytest.skip(f"no golden data {path}")
    with np.load(path, allow_pickle=False) as saved:
        return {name: torch.from_numpy(saved[name]) for name in saved.files}


def regions(data: Mapping[str, Tensor]) -> Features:
    grid = data["att_feats"]
    boxes = data.get("boxes", torch.zeros(*grid.shape[:2], 4))
    return Features(grid, data["att_mask"].bool(), Layout(1, 1, grid.shape[1]), boxes)


@torch.no_grad()
def published_beam(
    model: Captioner, features: Features, width: int, steps: int, classes: int
) -> list[tuple[list[int], list[float]]]:
    """README, Beam: what has ended goes to a list and leaves its slot to the next best; in the end all compete."""
    found = []
    for row in range(len(features)):
        one = features.map(lambda x, row=row: x[row : row + 1])
        memory = model.encode(one)
        live: list[tuple[list[int], list[float], Any]] = [([], [], model.init_state(memory))]
        done: list[tuple[list[int], list[float]]] = []
        for _ in range(steps):
            longer = []
            for tokens, scores, state in live:
                last = int(ours(torch.tensor(tokens[-1]), classes)) if tokens else BOS
                out = model.step(torch.tensor([last]), state, memory)
                logp = classes_of(out.logits.log_softmax(-1))[0]
                ruled = logp - 1000 * (torch.arange(classes) == classes - 1)
                for token in ruled.topk(width).indices.tolist():
                    longer.append(([*tokens, token], [*scores, float(logp[token])], out.state))
            longer = sorted(longer, key=lambda item: -sum(item[1]))[:width]
            done += [item[:2] for item in longer if item[0][-1] == 0]
            live = [item for item in longer if item[0][-1] != 0]
        done += [item[:2] for item in live]
        found.append(max(done, key=lambda item: sum(item[1])))
    return found


def check_beam(near: Near, run: Run, data: Mapping[str, Tensor], classes: int, tolerance: float) -> None:
    steps = data["beam3_tokens"].shape[1]
    for row, (tokens, scores) in enumerate(published_beam(run.model, regions(data), 3, steps, classes)):
        assert tokens == data["beam3_tokens"][row, : len(tokens)].tolist()
        assert not data["beam3_tokens"][row, len(tokens) :].any()
        near("beam step", scores, data["beam3_step_logprobs"][row, : len(scores)], tolerance)
        near("beam score", sum(scores), data["beam3_scores"][row], tolerance)


@torch.no_grad()
def check_transformer(near: Near, run: Run, data: Mapping[str, Tensor], tolerance: float) -> None:
    """What every transformer of the family must give: regions to log-probabilities, taught and step by step."""
    model, features, classes = run.model, regions(data), data["logprobs"].shape[-1]
    assert isinstance(model, SpatialTransformer)
    embedded = model.embed_cells(features)
    near("att_embedded", embedded, data["att_embedded"], 2e-5)
    cells, relations = model.add_positions(embedded, features), model.geometry_features(features)
    if "src_embedded" in data:
        near("src_embedded", cells, data["src_embedded"], 2e-5)
    if relations is not None:
        near("geometry_embedding", relations, data["geometry_embedding"], 2e-3)
    for layer in model.cell_layers:
        cells = layer(cells, features.mask, relations)
    near("encoder_memory", model.cell_norm(cells)[features.mask], data["encoder_memory"][features.mask], tolerance)
    tokens = ours(data["labels"][:, :-1], classes)
    tokens[:, 0] = BOS
    said = data["label_mask"].bool()
    logp = classes_of(model(features, tokens).log_softmax(-1))
    near("logprobs", logp[said], data["logprobs"][said], tolerance)
    nll = -logp.gather(2, data["labels"][:, 1:, None]).squeeze(2)[said]
    near("xe_loss", nll.mean(), data["xe_loss"], 1e-5)
    if (
        "label_smoothing_loss" in data
    ):  # a divergence: without the entropy of the smoothed target, which limner leaves in
        others = 0.2 / (classes - 1)
        entropy = -(0.8 * log(0.8) + 0.2 * log(others))
        loss, _ = smoothed_cross_entropy(model(features, tokens)[said], ours(data["labels"][:, 1:], classes)[said], 0.2)
        near("label_smoothing_loss", loss - entropy, data["label_smoothing_loss"], 2e-5)
    memory = model.encode(features)
    state = model.init_state(memory)
    for t in range(tokens.shape[1]):
        out = model.step(tokens[:, t], state, memory)
        state, rows = out.state, said[:, t]
        near("step", classes_of(out.logits.log_softmax(-1))[rows], data["logprobs"][rows, t], tolerance)
    check_beam(near, run, data, classes, tolerance)


@pytest.mark.data
@pytest.mark.parametrize(
    ("folder", "name", "options"),
    [
        ("spatial_transformer", "dot", {}),
        ("spatial_transformer", "xlinear", {}),
        ("spatial_transformer_rms", "xlinear_rms_gelu", {"ff_activation": "gelu"}),
    ],
)
def test_golden_numbers_of_the_spatial_transformer(
    folder: str, name: str, options: dict[str, str], tmp_path: Path
) -> None:
    near = Near()
    for golden in goldens(folder):
        data = golden_data(golden / f"{name}.npz")
        told = re.search(r"heads=(\d+)", (golden / "README.md").read_text(encoding="utf-8"))
        options = options | {"heads": int(told[1]) if told else 4}
        run = converted("spatial", golden / f"{name}.pt", tmp_path, data["logprobs"].shape[-1], **options)
        check_transformer(near, run, data, 2e-5)
        features, steps = regions(data), data["greedy_tokens"].shape[1]
        memory = run.model.encode(features)
        token, state = torch.full((len(features),), BOS), run.model.init_state(memory)
        running = torch.ones(len(features), dtype=torch.bool)
        for t in range(steps):
            out = run.model.step(token, state, memory)
            best = classes_of(out.logits.log_softmax(-1)).max(-1)
            assert torch.equal(best.indices.where(running, 0), data["greedy_tokens"][:, t])
            near("greedy", best.values[running], data["greedy_logprobs"][running, t], 2e-5)
            running &= best.indices != 0
            token, state = ours(best.indices, data["logprobs"].shape[-1]), out.state
    print(near.worst)


@pytest.mark.data
def test_golden_numbers_of_the_object_relation_transformer(tmp_path: Path) -> None:
    near = Near()
    for golden in goldens("ort"):
        data = golden_data(golden / "ort.npz")
        run = converted("ort", golden / "ort.pt", tmp_path, data["logprobs"].shape[-1])
        check_transformer(near, run, data, 5e-4)
        model, features = run.model, regions(data)
        assert isinstance(model, SpatialTransformer)
        layer, mask = model.cell_layers[0], features.mask
        bias = layer.geometry(model.geometry_features(features))
        expected = data["layer0_geometry_weights"].clamp(min=1e-6)
        near("geometry weights", bias.exp(), expected, 1e-3)
        normed = layer.norms[0](data["att_embedded"])
        out, weights = layer.attend(normed, layer.attend.project(normed), mask[:, None], bias)
        near("attention weights", weights[mask], data["layer0_attention_weights"].mean(1)[mask], 1e-3)
        near("attention out", out[mask], data["layer0_attention_out"][mask], 1e-3)
    print(near.worst)


@pytest.mark.data
@torch.no_grad()
def test_golden_numbers_of_xlan(tmp_path: Path) -> None:
    near = Near()
    for golden in goldens("xlan"):
        data = golden_data(golden / "data.npz")
        classes = data["logits"].shape[-1]
        run = converted("xlan", golden / "model.pt", tmp_path, classes)
        model, features = run.model, regions(data)
        assert isinstance(model, Xlan)
        mask = features.mask
        cells, whole = model.refine_cells(features)
        near("encoder_att", cells[mask], data["encoder_att"][mask], 2e-5)
        near("encoder_global", whole, data["encoder_global"], 2e-5)
        layer = model.refine[0]
        for query, out in (("query", "lowrank_out"), ("query_seq", "lowrank_seq_out")):
            queries = data[query] if data[query].dim() == 3 else data[query][:, None]
            read, _ = layer(queries, layer.project(data["att_embedded"]), mask[:, None])
            near(out, read.reshape(data[out].shape), data[out], 2e-5)
        tokens = ours(data["input_seq"], classes)
        tokens[:, 0] = BOS
        memory = model.encode(features)
        state = model.init_state(memory)
        for t in range(tokens.shape[1]):
            out = model.step(tokens[:, t], state, memory)
            state = out.state
            near("logits", classes_of(out.logits), data["logits"][:, t], 2e-5)
        token, state, running = tokens[:, 0], model.init_state(memory), torch.ones(len(tokens), dtype=torch.bool)
        for t in range(data["greedy_tokens"].shape[1]):
            out = model.step(token, state, memory)
            best = classes_of(out.logits.log_softmax(-1)).max(-1)
            assert torch.equal(best.indices.where(running, 0), data["greedy_tokens"][:, t])
            near("greedy", best.values[running], data["greedy_logprobs"][running, t], 2e-5)
            running &= best.indices != 0
            token, state = ours(best.indices, classes), out.state
    print(near.worst)


# ---- without golden data: a random model of ours, saved as the published code would have saved it

SMALL = {"encoder_layers": 2, "decoder_layers": 1, "dim": 16, "hidden": 12, "heads": 8, "feature_norm": False}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "spatial": ("spatial", {"num_grids": 9}),
    "spatial xlinear g2": ("spatial", {"cross_attention": "xlinear", "positions": "g2", "num_grids": 4}),
    "spatial rms box": ("spatial", {"norm": "rms", "positions": "box"}),
    "spatial without positions": ("spatial", {"positions": "none", "activation": "gelu"}),
    "ort": ("ort", {"norm": "unbiased", "positions": "none", "geometry": True}),
    "self-critical": ("self-critical", {"norm": "unbiased", "positions": "none"}),
    "up_down": ("self-critical", {"hidden": 6, "embed": 5, "attention": 4}),
    "xlan": ("xlan", {"layers": 2, "dim": 16, "heads": 4, "mid": 3}),
}


def saved(case: str, path: Path) -> tuple[Captioner, dict[str, Tensor]]:
    """A random captioner of 9 published classes, and its weights under the published names."""
    from limner.convert.self_critical import PartNames

    system, options = CASES[case]
    torch.manual_seed(3)
    classes = 9
    config: Any = {"xlan": XlanConfig, "up_down": UpDownConfig}.get(case, SpatialTransformerConfig)(
        **(options if case in ("xlan", "up_down") else SMALL | options)
    )
    model = build_model(config, classes + 2, D)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
        for name in ("embed", "head"):  # PAD, BOS and EOS are one published row
            getattr(model, name).weight[[PAD, BOS]] = getattr(model, name).weight[EOS].clone()
    if system == "xlan":
        names = xlan_keys(config)
    elif case == "up_down":
        names = UP_DOWN_KEYS
    else:
        weight = "scale" if config.norm == "rms" else "weight"
        part_names = PartNames("cross_attn", "fc.0", "fc.3", weight, "bias", "model.tgt_embed.0.embedding.weight")
        names = transformer_keys(config, part_names if system == "spatial" else SELF_CRITICAL_PARTS) | position_keys(
            config
        )
    own, tensors = model.state_dict(), {}
    backwards = [EOS, *range(4, classes + 2), UNK]
    for theirs, mine in names.items():
        tensor = torch.randn(own[names[theirs.replace("bias", "weight")]].shape[0]) if mine is None else own[mine]
        tensors[theirs] = tensor[backwards] if mine in ("embed.weight", "head.weight", "head.bias") else tensor
    for key in [key for key in tensors if ".WGs." in key]:
        before, _, name = key.partition(".WGs.")
        for head, part in enumerate(tensors.pop(key).split(1)):
            tensors[f"{before}.WGs.{head}.{name}"] = part
    torch.save(tensors, path)
    return model.eval(), tensors


def random_regions() -> Features:
    draw = torch.Generator().manual_seed(5)
    boxes = torch.rand(3, 5, 2, 2, generator=draw).sort(2).values.flatten(2)
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[1, 3:] = False
    return Features(torch.randn(3, 5, D, generator=draw), mask, Layout(1, 1, 5), boxes)


TOKENS = torch.tensor([[BOS, 4, UNK, 10], [BOS, 6, 7, 5], [BOS, 8, 9, 4]])


@pytest.mark.parametrize("case", CASES)
def test_a_checkpoint_gives_the_scores_of_its_model(case: str, tmp_path: Path) -> None:
    """The biases that change no softmax are random numbers in the checkpoint, and are not missed."""
    model, _ = saved(case, tmp_path / "model.pth")
    run = converted(
        CASES[case][0], tmp_path / "model.pth", tmp_path, 9, seq_length=12, activation=CASES[case][1].get("activation")
    )
    torch.testing.assert_close(
        run.model(random_regions(), TOKENS), model(random_regions(), TOKENS), rtol=1e-5, atol=1e-5
    )
    assert run.vocabulary.words[3:] == ("<unk>", *(f"w{i}" for i in range(1, 8)))
    steps = 13 if case == "xlan" else 12  # X-LAN's steps count the end
    assert run.recipe.decoding.rules.max_length == steps and run.recipe.vocabulary.max_words == 12
    assert run.encoder is None


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved("spatial", tmp_path / "model.pth")
    (tmp_path / "cocotalk.json").write_text(json.dumps({"ix_to_word": vocabulary(9), "images": []}))
    words, out = str(tmp_path / "cocotalk.json"), str(tmp_path / "run")
    command = ["convert", "--from", "spatial", str(tmp_path / "model.pth"), "--word-map", words, "--out", out]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert (
        "positions gxg, num_grids 9" in told and "heads 8 is assumed" in told and "activation relu is assumed" in told
    )
    assert main(command) == 1 and "already holds a run" in capsys.readouterr().err
    assert main([*command[:-1], out + "2", "--encoder", "x"]) == 1 and "--encoder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("infos", "said"),
    [
        ({"opt": Namespace(num_att_heads=8)}, ""),
        ({"opt": Namespace(seq_length=12)}, "no training option called num_att_heads, "),
        ({"opt": Namespace(num_att_heads="8")}, "no training option called"),
        ({}, "the file with the words has no training options; an infos pickle with `opt` may say it"),
    ],
)
def test_the_number_of_heads_is_said_to_be_assumed_when_it_is(infos: dict[str, Any], said: str, tmp_path: Path) -> None:
    saved("spatial", tmp_path / "model.pth")
    (tmp_path / "infos.pkl").write_bytes(pickle.dumps({"vocab": vocabulary(9), **infos}))
    told = SYSTEMS["spatial"](tmp_path / "model.pth", tmp_path / "infos.pkl", tmp_path / "run", "", "RGB")
    assert ("heads 8 is assumed" in told) == bool(said) and said in told
    assert ("an infos pickle" in told) == (not infos)


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"activation": "gelu"}, "gelu"), ({"use_gelu": True}, "gelu"), ({"act": "ReLU"}, "relu"), ({"action": 1}, None)],
)
def test_only_options_tell_the_activation(options: dict[str, Any], expected: str | None) -> None:
    assert activation_option(SelfCriticalCheckpoint({}, ("UNK",), options, "x")) == expected


def test_fixed_tables_are_left_out_and_anything_else_is_refused(tmp_path: Path) -> None:
    _, tensors = saved("spatial", tmp_path / "model.pth")
    (tmp_path / "words.json").write_text(json.dumps({word: int(i) for i, word in vocabulary(9).items()}))
    tensors["model.tgt_embed.1.pe"], tensors["model.src_embed.rows"] = torch.zeros(1, 50, 16), torch.arange(3)

    def attempt(change: dict[str, Tensor | None]) -> str:
        torch.save({k: v for k, v in (tensors | change).items() if v is not None}, tmp_path / "model.pth")
        return SYSTEMS["spatial"](tmp_path / "model.pth", tmp_path / "words.json", tmp_path / "run", "", "RGB")

    with pytest.raises(ValueError, match=r"unknown \['model.odd'\]"):
        attempt({"model.odd": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"missing \['model.decoder.layers.0.cross_attn.linears.2.bias'\]"):
        attempt({"model.decoder.layers.0.cross_attn.linears.2.bias": None})
    with pytest.raises(ValueError, match=r"proj.weight \(8, 16\), expected \(9, 16\)"):
        attempt({"model.generator.proj.weight": torch.zeros(8, 16)})
    with pytest.raises(ValueError, match=r"not a transformer of this system: att_embed\.0\.weight"):
        attempt({"att_embed.0.weight": None})
    assert not (tmp_path / "run").exists()
    assert "left out, because they are fixed tables: model.tgt_embed.1.pe, model.src_embed.rows" in attempt({})


def test_relations_must_be_told_apart(tmp_path: Path) -> None:
    _, tensors = saved("ort", tmp_path / "model.pth")
    joined, heads = join_heads(tensors)
    assert heads == 8 and joined["model.encoder.layers.1.self_attn.WGs.weight"].shape == (8, 64)
    for k in range(8):
        row = tensors[f"model.encoder.layers.1.self_attn.WGs.{k}.weight"][0]
        assert torch.equal(joined["model.encoder.layers.1.self_attn.WGs.weight"][k], row)
    del tensors["model.encoder.layers.1.self_attn.WGs.7.weight"]
    with pytest.raises(ValueError, match="of equal number"):
        join_heads(tensors)
    saved("self-critical", tmp_path / "model.pth")
    with pytest.raises(ValueError, match="--from self-critical"):
        converted("ort", tmp_path / "model.pth", tmp_path, 9)
    saved("ort", tmp_path / "model.pth")
    with pytest.raises(ValueError, match="--from ort"):
        converted("self-critical", tmp_path / "model.pth", tmp_path, 9)


def test_grids_that_are_no_square_are_refused(tmp_path: Path) -> None:
    _, tensors = saved("spatial xlinear g2", tmp_path / "model.pth")
    tensors["model.src_embed.fc.weight"] = torch.zeros(16, 5)
    torch.save(tensors, tmp_path / "model.pth")
    with pytest.raises(ValueError, match="5 cells is no square"):
        converted("spatial", tmp_path / "model.pth", tmp_path, 9)


def test_word_order_by_hand() -> None:
    assert published_ids(("a", "UNK", "b")) == [0, 0, 0, 2, 1, 3]


class Trap:
    """Running this pickle would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_infos_are_read_as_data(protocol: int, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    opt = Namespace(num_att_heads=4, seq_length=16, id="x")
    infos = {"vocab": {"1": "a", "2": "é", "3": "UNK"}, "opt": opt, "best": np.float64(1.5), "x": Trap(trap)}
    (tmp_path / "infos.pkl").write_bytes(pickle.dumps(infos, protocol))
    words, options = read_words(tmp_path / "infos.pkl")
    assert words == ("a", "é", "UNK") and options["num_att_heads"] == 4 and options["seq_length"] == 16
    assert not trap.exists()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("w.json", '{"1": "a", "3": "UNK"}', "ids of 2 words must be 1 .. 2"),
        ("w.json", '{"1": "a", "2": "b"}', "exactly one of UNK"),
        ("w.json", '{"1": "a", "2": "a", "3": "UNK"}', "a occur twice, or have the name"),
        ("w.json", '{"1": "<bos>", "2": "UNK"}', "<bos> occur twice, or have the name of a special token"),
        ("w.json", '["a"]', "no vocabulary, but list"),
        ("w.json", '{"vocab": {}}', "no vocabulary: expected 'vocab'"),
        ("w.json", '{"opt": {}, "iter": 3}', "has no 'vocab' {id: word}, but opt, iter"),
        ("w.pkl", "nonsense", "not a pickle that can be read without executing it"),
        ("w.txt", "a\nb\n", "exactly one of UNK"),
    ],
)
def test_vocabularies_that_cannot_be(name: str, text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=said):
        read_words(tmp_path / name)


def test_a_vocabulary_of_lines(tmp_path: Path) -> None:
    (tmp_path / "w.txt").write_text("a\nb\nUNK\n")
    assert read_words(tmp_path / "w.txt") == (("a", "b", "UNK"), {})


def test_heads_come_from_the_options() -> None:
    shapes = {"model.tgt_embed.0.lut.weight": (5, 8), "att_embed.0.weight": (8, 3)}
    shapes["model.encoder.layers.0.feed_forward.w_1.weight"] = (6, 8)
    tensors = {key: torch.zeros(shape) for key, shape in shapes.items()}
    for options, heads in (({}, 8), ({"num_att_heads": 4}, 4), ({"heads": 2}, 2)):
        assert (
            infer_transformer_config(SelfCriticalCheckpoint(tensors, ("UNK",), options, "x"), SELF_CRITICAL_PARTS).heads
            == heads
        )
    assert CAPTIONERS["spatial_transformer"].config is SpatialTransformerConfig
