"""SA-LSTM as published for PyTorch (hobincar/SA-LSTM): checkpoint and word map in, run folder out.

Its ids are limner's.  It attends padded frames, and its softmax runs over all ids.  The checkpoint does not hold its
vocabulary, and it cannot be told from the captions alone: the word map that training made must be saved where it was
made (`Vocabulary.word2idx` as JSON).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from limner.convert.checkpoint import check_keys, has_tensors, read_checkpoint
from limner.convert.written import must_be_free, verify
from limner.core.files import read_json
from limner.core.tensors import load_state_strictly, save_tensors
from limner.core.types import Layout
from limner.data.datasets import DataConfig
from limner.data.feature_files import FeatureRows
from limner.decode.rules import Rules
from limner.decode.search import Beam
from limner.encoders import PretrainedConfig
from limner.models.sa_lstm import GATES, SaLstm, SaLstmConfig
from limner.objectives import ObjectiveConfig
from limner.objectives.reconstruction import Reconstruction
from limner.runs.recipe import Recipe, Schedule, Stage, VocabularyConfig
from limner.runs.run import RunInfo, create_run, save_objective
from limner.text.vocabulary import SPECIALS, Vocabulary

MARKS = ("<PAD>", "<SOS>", "<EOS>", "<UNK>")  # the published names of PAD, BOS, EOS, UNK, with the ids 0 .. 3
LONGEST = 30  # words of a caption, when the checkpoint's own settings do not tell
# As published for MSR-VTT; recorded, not needed for captioning.
STAGE = Stage(
    epochs=30,
    batch_size=200,
    optimizer="amsgrad",
    lr=2e-4,
    weight_decay=1e-5,
    schedule=Schedule("plateau", factor=0.5, patience=5, start=20),
    clip_norm=5.0,
)


class Published(NamedTuple):
    """What a checkpoint holds."""

    decoder: dict[str, Tensor]
    reconstructor: dict[str, Tensor] | None
    settings: Mapping[str, Any]  # its nested configuration, {} when there is none
    source: str


@dataclass(frozen=True)
class Converted:
    """Everything a run folder needs, checked and in memory."""

    recipe: Recipe
    vocabulary: Vocabulary
    info: RunInfo
    model: SaLstm
    objective: Reconstruction | None = None


def convert(
    checkpoint: Path, word_map: Path, out: Path, encoder: str = "", channels: Literal["RGB", "BGR"] = "RGB"
) -> str:
    """Write the run folder `out` and tell in words what was done.  Nothing is written unless everything fits.

    `checkpoint`: the published dict (epoch, decoder, config) or the decoder's state dict.  Raises ValueError that names
    what is missing, unknown or misshapen, FileExistsError when `out` holds a run.
    """
    check_request(out, encoder, channels)
    published = read_published(checkpoint)
    if published.reconstructor is not None:
        raise ValueError(f"{checkpoint} holds a reconstructor too: convert it with --from recnet")
    return write(out, assemble(published, word_map, STAGE))


def check_request(out: Path, encoder: str, channels: str) -> None:
    must_be_free(out)
    if encoder or channels != "RGB":
        raise ValueError(
            "these systems caption stored frame vectors and know no encoder: leave out --encoder and --channels, and "
            "name the features in the run's recipe"
        )


def read_published(path: Path) -> Published:
    """Raises ValueError when there is no state dict, or weights that nobody knows."""
    tree = read_checkpoint(path)
    if not isinstance(tree, Mapping) or not has_tensors(dict(tree)):
        raise ValueError(f"{path} holds no state dict, but {type(tree).__name__}")
    if "decoder" not in tree:
        tree = {"decoder": tree}
    parts = ("decoder", "reconstructor")
    unknown = [str(key) for key, value in tree.items() if key not in parts and has_tensors(value)]
    if unknown:
        raise ValueError(f"{path} holds unknown weights: {', '.join(unknown)}; known are {', '.join(parts)}")
    decoder, reconstructor = (_state_dict(tree.get(part), part, path) for part in parts)
    if decoder is None:
        raise ValueError(f"{path}: its decoder is no state dict, but None")
    settings = tree.get("config")
    return Published(decoder, reconstructor, settings if isinstance(settings, Mapping) else {}, str(path))


def _state_dict(tree: Any, what: str, where: Path) -> dict[str, Tensor] | None:
    """A state dict without the prefix `module.` of DataParallel."""
    if tree is None:
        return None
    if not isinstance(tree, Mapping):
        raise ValueError(f"{where}: its {what} is no state dict, but {tree!r:.80}")
    strange = [f"{key} ({type(value).__name__})" for key, value in tree.items() if not isinstance(value, Tensor)]
    if strange:
        raise ValueError(f"{where}: its {what} has entries that are no tensors: {', '.join(strange[:8])}")
    return {str(key).removeprefix("module."): value.float() for key, value in tree.items()}


def read_words(path: Path) -> tuple[str, ...]:
    """JSON {word: id}, the marks with the ids 0 .. 3 -> the words from id 4 on.  Raises ValueError."""
    words = read_json(path)
    if not isinstance(words, dict) or not all(type(id) is int for id in words.values()):
        raise ValueError(f"{path} is no word map: expected a JSON object {{word: id}}")
    if sorted(words.values()) != list(range(len(words))):
        raise ValueError(f"{path}: the ids of {len(words)} words must be 0 .. {len(words) - 1}, each once")
    ordered = sorted(words, key=words.__getitem__)
    if tuple(ordered[:4]) != MARKS:
        raise ValueError(f"{path}: the ids 0 .. 3 are {', '.join(MARKS)}, got {', '.join(ordered[:4])}")
    if clash := [word for word in SPECIALS if word in words]:
        raise ValueError(f"{path}: {', '.join(clash)} cannot be words, limner's own marks are called so")
    return tuple(ordered[4:])


def shapes_of(tensors: Mapping[str, Tensor], vocabulary_size: int, where: str) -> dict[str, tuple[int, ...]]:
    """The shape that every key of the decoder must have, from sizes that some of the tensors tell.

    A: attention, D: channels, H: hidden of one direction, E: embedding, V: words.  Raises ValueError when one is
    missing or the recurrent layers are neither LSTM nor GRU.
    """
    telling = ("embedding.weight", "attention.U.weight", "rnn.weight_hh_l0")
    unfit = [key for key in telling if key not in tensors or tensors[key].dim() != 2]
    if unfit:
        found = ", ".join(f"{key} {tuple(tensors[key].shape)}" for key in sorted(tensors)[:6])
        raise ValueError(f"{where} is no SA-LSTM decoder: {', '.join(unfit)} missing or no matrix; it has {found} ...")
    E, V = tensors["embedding.weight"].shape[1], vocabulary_size
    (A, D), (rows, H) = tensors["attention.U.weight"].shape, tensors["rnn.weight_hh_l0"].shape
    if rows not in (GATES["lstm"] * H, GATES["gru"] * H):
        raise ValueError(
            f"{where}: rnn.weight_hh_l0 is {(rows, H)}; an LSTM has {4 * H} rows, a GRU {3 * H}, others are unknown"
        )
    endings = endings_of(tensors)
    top = len(endings) // layers_of(tensors) * H  # directions side by side
    shapes: dict[str, tuple[int, ...]] = {
        "embedding.weight": (V, E),
        "attention.W.weight": (A, top),
        "attention.U.weight": (A, D),
        "attention.w.weight": (1, A),
        "attention.b": (A,),
        "out.weight": (V, top),
        "out.bias": (V,),
    }
    for ending in endings:
        shapes[f"rnn.weight_ih_{ending}"] = (rows, E + D if ending.startswith("l0") else top)
        shapes |= {f"rnn.weight_hh_{ending}": (rows, H), f"rnn.bias_ih_{ending}": (rows,)}
        shapes[f"rnn.bias_hh_{ending}"] = (rows,)
    return shapes


def layers_of(tensors: Mapping[str, Tensor]) -> int:
    return next(k for k in range(len(tensors) + 1) if f"rnn.weight_hh_l{k}" not in tensors)


def endings_of(tensors: Mapping[str, Tensor]) -> list[str]:
    """l0, l0_reverse, l1, ...: how torch calls the directions of the layers."""
    directions = ("", "_reverse") if "rnn.weight_hh_l0_reverse" in tensors else ("",)
    return [f"l{k}{direction}" for k in range(layers_of(tensors)) for direction in directions]


def map_decoder(
    tensors: Mapping[str, Tensor], vocabulary_size: int, where: str
) -> tuple[SaLstmConfig, dict[str, Tensor]]:
    """Published state dict -> our config and state dict.  Raises ValueError that names every misfit."""
    shapes = shapes_of(tensors, vocabulary_size, where)
    check_keys(tensors, shapes, f"{where} is no SA-LSTM decoder for {vocabulary_size} words")
    rows, one = shapes["rnn.weight_hh_l0"]
    rnn: Literal["lstm", "gru"] = "lstm" if rows == GATES["lstm"] * one else "gru"
    config = SaLstmConfig(
        rnn=rnn,
        layers=layers_of(tensors),
        hidden=shapes["out.weight"][1],
        embed=shapes["embedding.weight"][1],
        attention=shapes["attention.b"][0],
        dropout=0.0,
        masked=False,
        mask_special_tokens=False,
    )
    mapped = {f"attend.{ours}": value for ours, value in map_attention(tensors).items()}
    mapped |= {"embed.weight": tensors["embedding.weight"], "head.weight": tensors["out.weight"]}
    mapped["head.bias"] = tensors["out.bias"]
    for k in range(config.layers):
        layer = side_by_side(tensors, k, GATES[rnn])
        mapped |= {f"carry.{k}.weight": layer["weight_hh"], f"carry.{k}.bias": layer["bias_hh"]}
        if k:
            mapped |= {f"read_below.{k - 1}.weight": layer["weight_ih"], f"read_below.{k - 1}.bias": layer["bias_ih"]}
        else:
            word, context = layer["weight_ih"].split([config.embed, shapes["attention.U.weight"][1]], 1)
            mapped |= {"read_word.weight": word, "read_word.bias": layer["bias_ih"], "read_context.weight": context}
    return config, mapped


def map_attention(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """w . tanh(W q + U k + b) -> our `AdditiveAttention`, which has biases in three places."""
    w = tensors["attention.w.weight"]
    return {
        "query.weight": tensors["attention.W.weight"],
        "query.bias": torch.zeros(w.shape[1]),
        "key.weight": tensors["attention.U.weight"],
        "key.bias": tensors["attention.b"],
        "score.weight": w,
        "score.bias": torch.zeros(1),
    }


def side_by_side(tensors: Mapping[str, Tensor], layer: int, gates: int) -> dict[str, Tensor]:
    """The directions of a layer as one layer that is as wide as both: of one word at a time, both read the same."""
    endings = [ending for ending in endings_of(tensors) if ending.split("_")[0] == f"l{layer}"]
    whole = {}
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        parts = [tensors[f"rnn.{name}_{ending}"].chunk(gates) for ending in endings]
        join = torch.block_diag if name == "weight_hh" else lambda *gate: torch.cat(gate)
        whole[name] = torch.cat([join(*gate) for gate in zip(*parts, strict=True)])
    return whole


def assemble(published: Published, word_map: Path, stage: Stage) -> Converted:
    """The captioner, and the recipe with the published search: 31 steps, nothing suppressed."""
    words = read_words(word_map)
    vocabulary = Vocabulary((*SPECIALS, *words), "simple", 1)
    config, tensors = map_decoder(published.decoder, len(vocabulary), published.source)
    dim = tensors["read_context.weight"].shape[1]
    model = SaLstm(config, len(vocabulary), dim)
    load_state_strictly(model, tensors, published.source)
    longest = setting(published.settings, ("loader", "max_caption_len"), LONGEST)
    recipe = Recipe(
        data=DataConfig(media="."),
        encoder=PretrainedConfig(),  # none: a later use on raw media says what is missing
        frames=setting(published.settings, ("loader", "frame_sample_len"), 28),
        feature_rows=FeatureRows(masked=False, cut=setting(published.settings, ("loader", "frame_max_len"), 60)),
        vocabulary=VocabularyConfig(min_count=1, tokenizer="simple", max_words=longest),
        model=config,
        stages=(stage,),
        decoding=Beam(
            5,
            0.0,
            Rules(min_length=0, max_length=longest + 1, no_repeat_word=False, allow_unknown=True),
            finished_compete=True,
        ),
    )
    return Converted(recipe, vocabulary, RunInfo(dim, {}), model.eval())


def setting(settings: Mapping[str, Any], path: tuple[str, ...], default: Any) -> Any:
    """A number of the checkpoint's own configuration: a count when `default` is one, else one that is not negative."""
    found: Any = settings
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    if type(default) is int:
        return found if type(found) is int and found > 0 else default
    return float(found) if type(found) in (int, float) and 0 <= found < inf else default


def with_objective(converted: Converted, config: ObjectiveConfig, module: Reconstruction) -> Converted:
    (stage,) = converted.recipe.stages
    recipe = replace(converted.recipe, stages=(replace(stage, objective=config),))
    return replace(converted, recipe=recipe, objective=module.eval())


def write(out: Path, converted: Converted) -> str:
    """The run folder, checked once written; -> what was done, in words."""
    config, info = converted.model.config, converted.info
    save_tensors(out / "model.safetensors", converted.model.state_dict())
    lines = [
        f"run folder: {out}",
        f"decoder: {config.rnn.upper()}, {config.layers} layer(s) of {config.hidden}, {len(converted.vocabulary)} "
        f"words, frame vectors of {info.feature_dim} channels, embedding {config.embed}, attention "
        f"{config.attention}; padded frames are attended, as published (model.masked)",
        "encoder: none, so this run captions stored features, not clips",
    ]
    if converted.objective is not None:
        name = converted.objective.config.name
        save_objective(converted.objective, out, name)
        lines.append(f"objective: {name}, its weights are in objective.safetensors")
    create_run(out, converted.recipe, converted.vocabulary, info)  # run.json is the last file
    verify(out, converted.model, Layout(6, 1, 1))
    return "\n".join(lines)
