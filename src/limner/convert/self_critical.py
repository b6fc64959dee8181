"""Conversion of ruotianluo/self-critical.pytorch (transformer and Up-Down), and what its descendants share with it.

Published ids: 0 is start, end and padding at once; 1 .. V-1 are words, and one of them, UNK, stands for all other
words.  Row 0 of the published embedding is copied to the rows of PAD, BOS and EOS.  Row 0 of the published output layer
is the row of EOS; PAD and BOS are masked in the softmax, so it runs over the same V classes.

Example with the published words 1 "a", 2 "UNK", 3 "b": limner's ids PAD, BOS, EOS, UNK, "a", "b" are 0 .. 5, and their
rows are the published rows 0, 0, 0, 2, 1, 3 (`published_ids`).

The vocabulary is not in the weights.  It is in the infos pickle in the same folder, with the training options; this
pickle is read without executing it.  The JSON file that `prepro_labels.py` wrote can be given instead.  The published
beam search replaces a hypothesis that has ended by the next best one: `decoding.keep_beam_full`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import Tensor

from limner.convert.checkpoint import DataUnpickler, PickledObject, has_tensors, read_checkpoint
from limner.convert.run_folder import check_no_run, verify_run
from limner.core.files import read_json
from limner.core.tensors import load_state_strictly, save_tensors
from limner.core.types import Layout
from limner.data.datasets import DataConfig
from limner.decode.rules import Rules
from limner.decode.search import Beam
from limner.encoders import PretrainedConfig
from limner.models import build_model
from limner.models.captioner import Captioner, CaptionerConfig
from limner.models.spatial_transformer import SpatialTransformerConfig
from limner.models.up_down import UpDownConfig
from limner.objectives import CrossEntropy
from limner.runs.recipe import Recipe, Stage, VocabularyConfig
from limner.runs.run import RunInfo, create_run
from limner.text.vocabulary import SPECIALS, Vocabulary

UNKNOWN_WORDS = ("UNK", "<unk>", "<UNK>")  # names that a published vocabulary may have for the unknown word
HEAD_OPTIONS = ("num_att_heads", "num_heads", "n_heads", "heads", "h")  # possible names of the training option
MAX_WORDS = 16  # words of a caption, where the options do not say
Channels = Literal["RGB", "BGR"]


class SelfCriticalCheckpoint(NamedTuple):
    """The contents of a published checkpoint and of the file with its vocabulary."""

    tensors: dict[str, Tensor]
    words: tuple[str, ...]  # `words[i - 1]` has the published id i
    options: Mapping[str, Any]  # training options; {} where the file has none
    source: str


@dataclass(frozen=True)
class PartNames:
    """Names of the parts of a transformer in the state dict of a descendant."""

    cross: str = "src_attn"  # cross attention
    up: str = "w_1"  # the two layers of a feed-forward block
    down: str = "w_2"
    weight: str = "a_2"  # of a normalisation layer
    bias: str = "b_2"
    embed: str = "model.tgt_embed.0.lut.weight"


SELF_CRITICAL_PARTS = PartNames()


def convert(checkpoint: Path, word_map: Path, out: Path, encoder: str = "", channels: Channels = "RGB") -> str:
    """Convert a checkpoint to the run folder `out` -> a summary for the user.

    Nothing is written unless everything fits.  `checkpoint` holds a state dict; `word_map` is the infos pickle or a
    file with the vocabulary (`read_words`).  Raises ValueError that names every key that is missing, unknown or of a
    wrong shape, and FileExistsError when `out` holds a run.
    """
    check_request(out, encoder, channels)
    loaded = read_published(checkpoint, word_map)
    if "core.att_lstm.weight_ih" in loaded.tensors:
        up_down = infer_up_down_config(loaded)
        return write(out, loaded, up_down, UP_DOWN_KEYS, ())
    if any(".WGs." in key for key in loaded.tensors):
        raise ValueError(f"{checkpoint} is an Object Relation Transformer (it has WGs): use --from ort")
    config = infer_transformer_config(loaded, SELF_CRITICAL_PARTS, norm="unbiased", positions="none")
    return write(out, loaded, config, transformer_keys(config, SELF_CRITICAL_PARTS), ("model.tgt_embed.1.pe",))


def check_request(out: Path, encoder: str, channels: str) -> None:
    """Raise FileExistsError when `out` holds a run, and ValueError for options that these systems do not have."""
    check_no_run(out)
    if encoder or channels != "RGB":
        raise ValueError(
            "these systems caption features of a separate detector or CNN: leave out --encoder and --channels, "
            "and name the features in the run's recipe"
        )


def read_published(checkpoint: Path, word_map: Path) -> SelfCriticalCheckpoint:
    """Read checkpoint and vocabulary.  Raises ValueError when there is no state dict or no vocabulary."""
    tree = read_checkpoint(checkpoint)
    if not isinstance(tree, Mapping) or not has_tensors(dict(tree)):
        raise ValueError(f"{checkpoint} holds no state dict, but {type(tree).__name__}")
    not_tensors = [f"{key} ({type(value).__name__})" for key, value in tree.items() if not isinstance(value, Tensor)]
    if not_tensors:
        raise ValueError(f"{checkpoint} has entries that are not tensors: {', '.join(not_tensors[:8])}")
    tensors = {str(key).removeprefix("module."): value for key, value in tree.items()}  # of DataParallel
    floats = {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
    words, options = read_words(word_map)
    return SelfCriticalCheckpoint(floats, words, options, str(checkpoint))


def read_words(path: Path) -> tuple[tuple[str, ...], Mapping[str, Any]]:
    """Read a vocabulary -> words in the order of their ids from 1 on, training options.  Raises ValueError.

    The file is an infos pickle {vocab, opt, ...}, JSON {ix_to_word: {"1": word}}, {"1": word} or {word: 1}, or a text
    file with one word per line, which begins with the word of id 1.
    """
    kind = path.suffix.lower()
    tree: Any
    if kind == ".txt":
        tree = dict(enumerate(path.read_text(encoding="utf-8").splitlines(), 1))
    else:
        tree = _read_infos(path) if kind in (".pkl", ".p", ".pickle") else read_json(path)
    if not isinstance(tree, Mapping):
        raise ValueError(f"{path} holds no vocabulary, but {type(tree).__name__}")
    if "opt" in tree and not {"vocab", "ix_to_word"} & tree.keys():
        raise ValueError(f"{path} has no 'vocab' {{id: word}}, but {', '.join(map(str, [*tree][:8]))}")
    ids = tree.get("vocab", tree.get("ix_to_word", tree))
    options = tree.get("opt", {})
    ids = ids.items if isinstance(ids, PickledObject) else ids
    options = options.state if isinstance(options, PickledObject) else options
    if not isinstance(ids, Mapping) or not ids:
        raise ValueError(f"{path} holds no vocabulary: expected 'vocab' or 'ix_to_word', {{id: word}}")
    if all(type(id) is int for id in ids.values()):
        ids = {id: word for word, id in ids.items()}
    words = {str(id): word for id, word in ids.items()}
    size = len(words)
    if any(str(i) not in words for i in range(1, size + 1)) or not all(isinstance(w, str) for w in words.values()):
        raise ValueError(f"{path}: the ids of {size} words must be 1 .. {size}, each once, and every word must be text")
    ordered = tuple(words[str(i)] for i in range(1, size + 1))
    if sum(word in UNKNOWN_WORDS for word in ordered) != 1:
        raise ValueError(f"{path}: exactly one of {', '.join(UNKNOWN_WORDS)} must be among the {size} words")
    invalid = {word for word in (*SPECIALS[:3], *ordered) if ordered.count(word) > (word not in SPECIALS[:3])}
    if invalid:
        raise ValueError(
            f"{path}: {', '.join(sorted(invalid)[:5])} occur twice, or have the name of a special token of limner"
        )
    return ordered, options if isinstance(options, Mapping) else {}


def _read_infos(path: Path) -> Any:
    """Read a pickle of Python 2 or 3 without executing it.  Raises ValueError."""
    reason: Exception | None = None
    for encoding in ("utf-8", "latin-1"):  # latin-1 for arrays that Python 2 wrote as text
        try:
            with open(path, "rb") as file:
                return DataUnpickler(file, encoding=encoding).load()
        except OSError:
            raise
        except Exception as error:  # a malicious or damaged pickle can fail anywhere
            reason = error
    raise ValueError(
        f"{path} is not a pickle that can be read without executing it: {type(reason).__name__}: {reason}"
    ) from reason


def infer_transformer_config(
    loaded: SelfCriticalCheckpoint, part_names: PartNames, **fixed: Any
) -> SpatialTransformerConfig:
    """Infer the config from the shapes of the weights; `fixed` are fields that the caller knows.

    The number of heads is a training option; 8 is assumed where it is missing.  Raises ValueError when the weights
    belong to another model.
    """
    tensors = loaded.tensors
    first = f"model.encoder.layers.0.feed_forward.{part_names.up}.weight"
    absent = [
        key for key in (part_names.embed, first, "att_embed.0.weight") if getattr(tensors.get(key), "ndim", 0) != 2
    ]
    if absent:
        raise ValueError(
            f"{loaded.source} is not a transformer of this system: {', '.join(absent)} missing or not a matrix; "
            f"it has {', '.join(sorted(tensors)[:6])} ..."
        )
    layers = {
        side: len({key.split(".")[3] for key in tensors if key.startswith(f"model.{side}.layers.")})
        for side in ("encoder", "decoder")
    }
    heads = heads_option(loaded)
    return SpatialTransformerConfig(
        encoder_layers=layers["encoder"],
        decoder_layers=layers["decoder"],
        dim=tensors[part_names.embed].shape[1],
        hidden=tensors[first].shape[0],
        feature_norm=False,
        dropout=0.1,
        cell_dropout=0.5,
        **{"heads": 8 if heads is None else heads, **fixed},
    )


def heads_option(loaded: SelfCriticalCheckpoint) -> int | None:
    """The number of heads according to the training options, or None where they do not say."""
    options = loaded.options
    return next((options[name] for name in HEAD_OPTIONS if type(options.get(name)) is int), None)


# published key -> key of our state dict; None: a bias that does not change the softmax, so it is left out
KeyMap = dict[str, str | None]


def linear_keys(source: str, target: str) -> KeyMap:
    """Keys of a linear layer."""
    return {f"{source}.weight": f"{target}.weight", f"{source}.bias": f"{target}.bias"}


def transformer_keys(config: SpatialTransformerConfig, part_names: PartNames) -> KeyMap:
    """Published key -> key of `SpatialTransformer`, for every key of the state dict but those of positions."""

    def norm(source: str, target: str) -> KeyMap:
        bias: KeyMap = {} if config.norm == "rms" else {f"{source}.{part_names.bias}": f"{target}.bias"}
        return {f"{source}.{part_names.weight}": f"{target}.weight", **bias}

    def common(source: str, target: str, sublayers: int) -> KeyMap:
        key_map = linear_keys(f"{source}.feed_forward.{part_names.up}", f"{target}.feed_forward.0")
        key_map |= linear_keys(f"{source}.feed_forward.{part_names.down}", f"{target}.feed_forward.3")
        for k in range(sublayers):
            key_map |= norm(f"{source}.sublayer.{k}.norm", f"{target}.norms.{k}")
        return key_map

    key_map = {
        **linear_keys("att_embed.0", "cells"),
        part_names.embed: "embed.weight",
        **linear_keys("model.generator.proj", "head"),
    }
    for k in range(config.encoder_layers):
        source, target = f"model.encoder.layers.{k}", f"cell_layers.{k}"
        key_map |= common(source, target, 2) | dot_product_keys(f"{source}.self_attn", f"{target}.attend")
        key_map |= linear_keys(f"{source}.self_attn.WGs", f"{target}.geometry") if config.geometry else {}
    for k in range(config.decoder_layers):
        source, target = f"model.decoder.layers.{k}", f"word_layers.{k}"
        key_map |= common(source, target, 3) | dot_product_keys(f"{source}.self_attn", f"{target}.attend_words")
        cross = dot_product_keys if config.cross_attention == "dot-product" else xlinear_keys
        key_map |= cross(f"{source}.{part_names.cross}", f"{target}.attend_cells")
    return key_map | norm("model.encoder.norm", "cell_norm") | norm("model.decoder.norm", "word_norm")


def lstm_keys(source: str, target: str) -> KeyMap:
    """Keys of an LSTM cell."""
    return {f"{source}.{name}": f"{target}.{name}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}


UP_DOWN_KEYS: KeyMap = {
    "embed.0.weight": "embed.weight",
    **linear_keys("fc_embed.0", "whole"),
    **linear_keys("att_embed.0", "cells"),
    **linear_keys("ctx2att", "attend.key"),
    **linear_keys("core.attention.h2att", "attend.query"),
    **linear_keys("core.attention.alpha_net", "attend.score"),
    **lstm_keys("core.att_lstm", "look"),
    **lstm_keys("core.lang_lstm", "speak"),
    **linear_keys("logit", "head"),
}


def infer_up_down_config(loaded: SelfCriticalCheckpoint) -> UpDownConfig:
    """Infer the config from the shapes of the weights.  Raises ValueError when one of them is missing."""
    tensors = loaded.tensors
    size_keys = ("embed.0.weight", "att_embed.0.weight", "ctx2att.weight")
    absent = [key for key in size_keys if getattr(tensors.get(key), "ndim", 0) != 2]
    if absent:
        raise ValueError(f"{loaded.source} is not an Up-Down: {', '.join(absent)} missing or not a matrix")
    embed, (hidden, _), (attention, _) = tensors[size_keys[0]].shape[1], *(tensors[key].shape for key in size_keys[1:])
    return UpDownConfig(hidden=hidden, embed=embed, attention=attention)


def dot_product_keys(source: str, target: str) -> KeyMap:
    """Keys of multi-head attention.  The bias of the key does not change the softmax, so it is left out."""
    key_map: KeyMap = {}
    for k, part in enumerate(("query", "key", "value", "output")):
        key_map |= linear_keys(f"{source}.linears.{k}", f"{target}.{part}")
    return {**key_map, f"{source}.linears.1.bias": None}


def xlinear_keys(source: str, target: str) -> KeyMap:
    """Keys of X-linear attention.  The bias of the spatial score does not change the softmax, so it is left out."""
    key_map: KeyMap = {}
    for k, part in enumerate(("query", "key", "query2", "value")):
        key_map |= linear_keys(f"{source}.linears.{k}.0", f"{target}.{part}.linear")
        key_map |= linear_keys(f"{source}.linears.{k}.2", f"{target}.{part}")
    for name, part in (("embed.0", "common"), ("spatial", "spatial"), ("squeeze.0", "channel")):
        key_map |= linear_keys(f"{source}.attention.{name}", f"{target}.{part}")
    return {**key_map, f"{source}.attention.spatial.bias": None}


def rename_tensors(
    loaded: SelfCriticalCheckpoint, key_map: KeyMap, buffers: tuple[str, ...], model: Captioner, model_name: str
) -> dict[str, Tensor]:
    """Rename published tensors to the state dict of `model`, and put the rows of words into limner's order.

    `buffers` are published keys that are ignored.  Raises ValueError that names every key that is missing, unknown or
    of a wrong shape.
    """
    tensors = {key: value for key, value in loaded.tensors.items() if key not in buffers}
    missing, unknown = sorted(key_map.keys() - tensors.keys()), sorted(tensors.keys() - key_map.keys())
    parameters = model.state_dict()
    size = len(loaded.words) + 1
    order = published_ids(loaded.words)
    mapped, wrong_shapes = {}, []
    for source, target in key_map.items():
        if source in missing or target is None:
            continue
        tensor, expected = tensors[source], tuple(parameters[target].shape)
        if target in ("embed.weight", "head.weight", "head.bias"):
            expected = (size, *expected[1:])
            if tensor.shape == expected:
                tensor = tensor[order]
        if tensor.shape != parameters[target].shape:
            wrong_shapes.append(f"{source} {tuple(tensors[source].shape)}, expected {expected}")
        mapped[target] = tensor
    if missing or unknown or wrong_shapes:
        raise ValueError(
            f"{loaded.source} does not fit a {model_name} of {len(loaded.words)} words: "
            f"missing {missing}; unknown {unknown}; shapes {wrong_shapes}"
        )
    return mapped


def published_ids(words: tuple[str, ...]) -> list[int]:
    """The published id of every id of limner: 0 for PAD, BOS and EOS, then that of UNK, then the words in their order.

    >>> published_ids(("a", "UNK", "b"))
    [0, 0, 0, 2, 1, 3]
    """
    unknown = next(i for i, word in enumerate(words, 1) if word in UNKNOWN_WORDS)
    return [0, 0, 0, unknown, *(i for i in range(1, len(words) + 1) if i != unknown)]


def build_vocabulary(words: tuple[str, ...]) -> Vocabulary:
    """limner's vocabulary of the published words.  The published code kept words that occur at least 6 times."""
    return Vocabulary((*SPECIALS, *(word for word in words if word not in UNKNOWN_WORDS)), "simple", 6)


def write(
    out: Path,
    loaded: SelfCriticalCheckpoint,
    config: CaptionerConfig,
    key_map: KeyMap,
    buffers: tuple[str, ...],
    **recipe_fields: Any,
) -> str:
    """Write the run folder and check it -> a summary for the user.  `recipe_fields` replace fields of the recipe."""
    vocabulary = build_vocabulary(loaded.words)
    cell_weights = [
        loaded.tensors[key] for key, target in key_map.items() if target == "cells.weight" and key in loaded.tensors
    ]
    dim = cell_weights[0].shape[1]
    model = build_model(config, len(vocabulary), dim)
    load_state_strictly(model, rename_tensors(loaded, key_map, buffers, model, config.name), loaded.source)
    max_words = loaded.options.get("seq_length", loaded.options.get("max_length"))
    max_words = max_words if type(max_words) is int and max_words > 0 else MAX_WORDS
    recipe = Recipe(
        data=DataConfig(media="."),
        encoder=PretrainedConfig(),  # without a source: using the run on raw media raises an error that says so
        vocabulary=VocabularyConfig(min_count=6, tokenizer="simple", max_words=max_words),
        model=config,
        stages=(
            Stage(
                CrossEntropy(),
                epochs=30,
                batch_size=15,
                captions_per_medium=5,
                optimizer="adam",
                clip_norm=None,
                clip_value=0.1,
            ),
        ),
        decoding=Beam(2, 0.0, Rules(min_length=0, max_length=max_words, no_repeat_word=False), keep_beam_full=True),
    )
    save_tensors(out / "model.safetensors", model.state_dict())
    create_run(out, replace(recipe, **recipe_fields), vocabulary, RunInfo(dim, {}))  # writes run.json, the last file
    verify_run(out, model.eval(), Layout(1, 1, 6), boxes=True)
    sizes = ", ".join(f"{name} {value}" for name, value in vars(config).items() if name != "name")
    ignored = [key for key in buffers if key in loaded.tensors]
    lines = [f"run folder: {out}", f"{config.name}: {len(vocabulary)} words, cells of {dim} channels, {sizes}"]
    if isinstance(config, SpatialTransformerConfig) and heads_option(loaded) is None:
        lines.append(_heads_note(config.heads, loaded))
    lines += [f"left out, because they are fixed tables: {', '.join(ignored)}"] if ignored else []
    return "\n".join([*lines, "encoder: none, so this run captions stored features, not images"])


def _heads_note(heads: int, loaded: SelfCriticalCheckpoint) -> str:
    """Tell the user that the number of heads is assumed, and why."""
    note = f"heads {heads} is assumed, because the weights do not say it, and"
    if not loaded.options:
        return f"{note} the file with the words has no training options; an infos pickle with `opt` may say it"
    return (
        f"{note} no training option called {', '.join(HEAD_OPTIONS)} is a number; "
        "if it was another number, set model.heads in the run's recipe.json"
    )
