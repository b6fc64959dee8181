"""Conversion of SA-LSTM (hobincar/SA-LSTM) to a run folder.

The published word ids are the same as limner's.  The model attends to padded frames, and its softmax includes all ids.
The checkpoint does not hold the vocabulary, and it cannot be reconstructed from the captions.  Save
`Vocabulary.word2idx` as JSON with the original code.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from limner.convert.checkpoint import check_finite, check_keys, has_tensors, id_problem, near_names, read_checkpoint
from limner.convert.run_folder import ConvertedRun, check_no_run, write_run
from limner.convert.settings import NONE_GIVEN, Settings, check_settings, choose
from limner.core.files import read_json
from limner.core.messages import short_repr
from limner.core.tensors import load_state_strictly
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
from limner.runs.run import RunInfo
from limner.text.vocabulary import SPECIALS, Vocabulary

PUBLISHED_SPECIALS = ("<PAD>", "<SOS>", "<EOS>", "<UNK>")  # published names of PAD, BOS, EOS, UNK; their ids are 0 .. 3
MAX_WORDS = 30  # words of a caption, where the checkpoint's settings do not say
# The published training on MSR-VTT: recorded in the recipe, not needed for captioning.
STAGE = Stage(
    epochs=30,
    batch_size=200,
    optimizer="amsgrad",
    lr=2e-4,
    weight_decay=1e-5,
    schedule=Schedule("plateau", factor=0.5, patience=5, start=20),
    clip_norm=5.0,
)


class SaLstmCheckpoint(NamedTuple):
    """The contents of a published checkpoint."""

    decoder: dict[str, Tensor]
    reconstructor: dict[str, Tensor] | None
    settings: Mapping[str, Any]  # its nested configuration; {} where there is none
    source: str


def convert(
    checkpoint: Path,
    word_map: Path,
    out: Path,
    encoder: str = "",
    channels: Literal["RGB", "BGR"] = "RGB",
    settings: Settings = NONE_GIVEN,
) -> str:
    """Convert a checkpoint to the run folder `out` -> a summary for the user.

    Nothing is written unless everything fits.  `checkpoint` holds the published dict (epoch, decoder, config) or the
    decoder's state dict.  Raises ValueError that names every key that is missing, unknown or of a wrong shape, and
    FileExistsError when `out` holds a run.
    """
    check_settings(settings, "sa-lstm")
    check_request(out, encoder, channels)
    loaded = read_published(checkpoint)
    if loaded.reconstructor is not None:
        raise ValueError(f"{checkpoint} holds a reconstructor too: convert it with --from recnet")
    return write(out, assemble(loaded, word_map, STAGE, settings), loaded)


def check_request(out: Path, encoder: str, channels: str) -> None:
    """Raise FileExistsError when `out` holds a run, and ValueError for options that these systems do not have."""
    check_no_run(out)
    if encoder or channels != "RGB":
        raise ValueError(
            "these systems caption stored frame vectors and have no encoder: leave out --encoder and --channels, and "
            "name the features in the run's recipe"
        )


def read_published(path: Path) -> SaLstmCheckpoint:
    """Read a checkpoint.  Raises ValueError when it holds no state dict, or unknown weights."""
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
        raise ValueError(f"{path}: its decoder is not a state dict, but None")
    settings = tree.get("config")
    return SaLstmCheckpoint(decoder, reconstructor, settings if isinstance(settings, Mapping) else {}, str(path))


def _state_dict(tree: Any, part: str, path: Path) -> dict[str, Tensor] | None:
    """A state dict in float32, without the prefix `module.` of DataParallel.  Raises ValueError."""
    if tree is None:
        return None
    if not isinstance(tree, Mapping):
        raise ValueError(f"{path}: its {part} is not a state dict, but {short_repr(tree)}")
    not_tensors = [f"{key} ({type(value).__name__})" for key, value in tree.items() if not isinstance(value, Tensor)]
    if not_tensors:
        raise ValueError(f"{path}: its {part} has entries that are not tensors: {', '.join(not_tensors[:8])}")
    tensors = {str(key).removeprefix("module."): value.float() for key, value in tree.items()}
    check_finite(tensors, f"{path}: its {part}")
    return tensors


def read_words(path: Path) -> tuple[str, ...]:
    """Read JSON {word: id} -> the words from id 4 on; the special tokens have the ids 0 .. 3.  Raises ValueError."""
    words = read_json(path)
    if not isinstance(words, dict) or not all(type(id) is int for id in words.values()):
        raise ValueError(f"{path} is not a word map: expected a JSON object {{word: id}}")
    if problem := id_problem(words):
        raise ValueError(f"{path}: the ids of {len(words)} words must be 0 .. {len(words) - 1}, each once: {problem}")
    ordered = sorted(words, key=words.__getitem__)
    if tuple(ordered[:4]) != PUBLISHED_SPECIALS:
        near = near_names([token for token in PUBLISHED_SPECIALS if token not in words], words)
        raise ValueError(
            f"{path}: the ids 0 .. 3 are {', '.join(PUBLISHED_SPECIALS)}, got {', '.join(ordered[:4])}{near}"
        )
    if clash := [word for word in SPECIALS if word in words]:
        raise ValueError(
            f"{path}: {', '.join(clash)} cannot be words, because limner's special tokens have these names"
        )
    return tuple(ordered[4:])


def expected_shapes(tensors: Mapping[str, Tensor], vocabulary_size: int, path: str) -> dict[str, tuple[int, ...]]:
    """The shape that every key of the decoder must have; sizes are inferred from some of the tensors.

    The sizes are A attention, D feature channels, H hidden state of one direction, E embedding, V words.  Raises
    ValueError when one of these tensors is missing, or when the recurrent layers are neither LSTM nor GRU.
    """
    size_keys = ("embedding.weight", "attention.U.weight", "rnn.weight_hh_l0")
    invalid = [key for key in size_keys if key not in tensors or tensors[key].dim() != 2]
    if invalid:
        keys = ", ".join(f"{key} {tuple(tensors[key].shape)}" for key in sorted(tensors)[:6])
        raise ValueError(
            f"{path} is not an SA-LSTM decoder: {', '.join(invalid)} missing or not a matrix; it has {keys} ..."
        )
    E, V = tensors["embedding.weight"].shape[1], vocabulary_size
    (A, D), (rows, H) = tensors["attention.U.weight"].shape, tensors["rnn.weight_hh_l0"].shape
    if rows not in (GATES["lstm"] * H, GATES["gru"] * H):
        raise ValueError(
            f"{path}: rnn.weight_hh_l0 is {(rows, H)}; an LSTM has {4 * H} rows, a GRU {3 * H}; others are "
            "not supported"
        )
    suffixes = direction_suffixes(tensors)
    output = len(suffixes) // count_layers(tensors) * H  # both directions concatenated
    shapes: dict[str, tuple[int, ...]] = {
        "embedding.weight": (V, E),
        "attention.W.weight": (A, output),
        "attention.U.weight": (A, D),
        "attention.w.weight": (1, A),
        "attention.b": (A,),
        "out.weight": (V, output),
        "out.bias": (V,),
    }
    for suffix in suffixes:
        shapes[f"rnn.weight_ih_{suffix}"] = (rows, E + D if suffix.startswith("l0") else output)
        shapes |= {f"rnn.weight_hh_{suffix}": (rows, H), f"rnn.bias_ih_{suffix}": (rows,)}
        shapes[f"rnn.bias_hh_{suffix}"] = (rows,)
    return shapes


def count_layers(tensors: Mapping[str, Tensor]) -> int:
    """Number of recurrent layers."""
    return next(k for k in range(len(tensors) + 1) if f"rnn.weight_hh_l{k}" not in tensors)


def direction_suffixes(tensors: Mapping[str, Tensor]) -> list[str]:
    """Suffixes that torch gives to the layers and directions: l0, l0_reverse, l1, ..."""
    directions = ("", "_reverse") if "rnn.weight_hh_l0_reverse" in tensors else ("",)
    return [f"l{k}{direction}" for k in range(count_layers(tensors)) for direction in directions]


def map_decoder(
    tensors: Mapping[str, Tensor], vocabulary_size: int, path: str
) -> tuple[SaLstmConfig, dict[str, Tensor]]:
    """Convert a published state dict to config and state dict of `SaLstm`.

    Raises ValueError that names every key that is missing, unknown or of a wrong shape.
    """
    shapes = expected_shapes(tensors, vocabulary_size, path)
    check_keys(tensors, shapes, f"{path} is not an SA-LSTM decoder for {vocabulary_size} words")
    rows, hidden = shapes["rnn.weight_hh_l0"]
    rnn: Literal["lstm", "gru"] = "lstm" if rows == GATES["lstm"] * hidden else "gru"
    config = SaLstmConfig(
        rnn=rnn,
        layers=count_layers(tensors),
        hidden=shapes["out.weight"][1],
        embed=shapes["embedding.weight"][1],
        attention=shapes["attention.b"][0],
        dropout=0.0,
        masked=False,
        mask_special_tokens=False,
    )
    mapped = {f"attend.{target}": value for target, value in map_attention(tensors).items()}
    mapped |= {"embed.weight": tensors["embedding.weight"], "head.weight": tensors["out.weight"]}
    mapped["head.bias"] = tensors["out.bias"]
    for k in range(config.layers):
        layer = merge_directions(tensors, k, GATES[rnn])
        mapped |= {f"carry.{k}.weight": layer["weight_hh"], f"carry.{k}.bias": layer["bias_hh"]}
        if k:
            mapped |= {f"read_below.{k - 1}.weight": layer["weight_ih"], f"read_below.{k - 1}.bias": layer["bias_ih"]}
        else:
            word, context = layer["weight_ih"].split([config.embed, shapes["attention.U.weight"][1]], 1)
            mapped |= {"read_word.weight": word, "read_word.bias": layer["bias_ih"], "read_context.weight": context}
    return config, mapped


def map_attention(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of w . tanh(W q + U k + b) for `AdditiveAttention`, whose two other biases become 0."""
    w = tensors["attention.w.weight"]
    return {
        "query.weight": tensors["attention.W.weight"],
        "query.bias": torch.zeros(w.shape[1]),
        "key.weight": tensors["attention.U.weight"],
        "key.bias": tensors["attention.b"],
        "score.weight": w,
        "score.bias": torch.zeros(1),
    }


def merge_directions(tensors: Mapping[str, Tensor], layer: int, gates: int) -> dict[str, Tensor]:
    """Merge the directions of a layer into one layer of twice the width.

    This is exact, because the published decoder runs the layer on one word at a time: both directions read the same
    input.  The rows are ordered by gate, then by direction.  Example with H = 1 and the two gates i and f, forward
    direction (W_i, W_f), backward direction (V_i, V_f):

        input weights    (W_i, V_i, W_f, V_f), concatenated for every gate
        hidden weights   [[W_i, 0], [0, V_i], [W_f, 0], [0, V_f]], block-diagonal for every gate, because a direction
                         reads only its own hidden state
    """
    suffixes = [suffix for suffix in direction_suffixes(tensors) if suffix.split("_")[0] == f"l{layer}"]
    merged = {}
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        parts = [tensors[f"rnn.{name}_{suffix}"].chunk(gates) for suffix in suffixes]
        join = torch.block_diag if name == "weight_hh" else lambda *gate: torch.cat(gate)
        merged[name] = torch.cat([join(*gate) for gate in zip(*parts, strict=True)])
    return merged


def assemble(loaded: SaLstmCheckpoint, word_map: Path, stage: Stage, settings: Settings) -> ConvertedRun:
    """Build the captioner and the recipe with the published beam search: at most 31 steps, no word is forbidden."""
    words = read_words(word_map)
    vocabulary = Vocabulary((*SPECIALS, *words), "simple", 1)
    config, tensors = map_decoder(loaded.decoder, len(vocabulary), loaded.source)
    dim = tensors["read_context.weight"].shape[1]
    model = SaLstm(config, len(vocabulary), dim)
    load_state_strictly(model, tensors, loaded.source)
    stored = read_setting(loaded.settings, ("loader", "max_caption_len"), 0) or None
    max_words = choose("max_words", settings.max_words, stored, MAX_WORDS, loaded.source)
    recipe = Recipe(
        data=DataConfig(media="."),
        encoder=PretrainedConfig(),  # without a source: using the run on raw media raises an error that says so
        frames=read_setting(loaded.settings, ("loader", "frame_sample_len"), 28),
        feature_rows=FeatureRows(masked=False, max_rows=read_setting(loaded.settings, ("loader", "frame_max_len"), 60)),
        vocabulary=VocabularyConfig(min_count=1, tokenizer="simple", max_words=max_words),
        model=config,
        stages=(stage,),
        decoding=Beam(
            5,
            0.0,
            Rules(min_length=0, max_length=max_words + 1, no_repeat_word=False, allow_unknown=True),
            finished_compete=True,
        ),
    )
    return ConvertedRun(recipe, vocabulary, RunInfo(dim, {}, media="clips"), model.eval(), Layout(6, 1, 1))


def read_setting(settings: Mapping[str, Any], path: tuple[str, ...], default: Any) -> Any:
    """A number at a path in the checkpoint's nested configuration; `default` where it is missing or not valid.

    Where `default` is an int, the number must be a positive int; else it must be finite and >= 0.
    """
    value: Any = settings
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    if type(default) is int:
        return value if type(value) is int and value > 0 else default
    return float(value) if type(value) in (int, float) and 0 <= value < inf else default


def with_objective(converted: ConvertedRun, config: ObjectiveConfig, module: Reconstruction) -> ConvertedRun:
    """The same run with an objective and its weights."""
    (stage,) = converted.recipe.stages
    recipe = replace(converted.recipe, stages=(replace(stage, objective=config),))
    return replace(converted, recipe=recipe, objective=module.eval())


def write(out: Path, converted: ConvertedRun, loaded: SaLstmCheckpoint) -> str:
    """Write the run folder and check it -> a summary for the user."""
    config, info, decoding = converted.model.config, converted.info, converted.recipe.decoding
    write_run(out, converted, loaded.source)
    lines = [
        f"run folder: {out}",
        f"decoder: {config.rnn.upper()}, {config.layers} layer(s) of {config.hidden}, {len(converted.vocabulary)} "
        f"words, frame vectors of {info.feature_dim} channels, embedding {config.embed}, attention "
        f"{config.attention}; attention includes padded frames, as published (model.masked)",
        "encoder: none, so this run captions stored features, not clips",
        f"search: as published, at most {decoding.rules.max_length} tokens (decoding.rules.max_length); limner's own "
        "is had with --decoding.finished_compete false",
    ]
    if converted.objective is not None:
        lines.append(f"objective: {converted.objective.config.name}, its weights are in objective.safetensors")
    return "\n".join(lines)
