"""Conversion of ruotianluo/self-critical.pytorch (transformer and Up-Down), and what its descendants share with it.

Row 0 of the published embedding is copied to the rows of PAD, BOS and EOS (`self_critical_words` explains the ids).
Row 0 of the published output layer is the row of EOS; PAD and BOS are masked in the softmax, so it runs over the same V
classes.

The vocabulary is not in the weights.  It is in the infos pickle in the same folder, with the training options; this
pickle is read without executing it.  The JSON file that `prepro_labels.py` wrote can be given instead.  The published
beam search replaces a hypothesis that has ended by the next best one: `decoding.keep_beam_full`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import Tensor

from limner.convert.checkpoint import check_finite, has_tensors, near_names, read_checkpoint
from limner.convert.run_folder import ConvertedRun, check_no_run, write_run
from limner.convert.self_critical_words import build_vocabulary, published_ids, read_words
from limner.convert.settings import NONE_GIVEN, Settings, check_settings, choose
from limner.core.tensors import load_state_strictly
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
from limner.runs.run import RunInfo

HEAD_OPTIONS = ("num_att_heads", "num_heads", "n_heads", "heads", "h")  # possible names of the training option
MAX_WORDS = 16  # words of a caption, where the options do not say
Channels = Literal["RGB", "BGR"]


class SelfCriticalCheckpoint(NamedTuple):
    """The contents of a published checkpoint and of the file with its vocabulary."""

    tensors: dict[str, Tensor]
    words: tuple[str, ...]  # `words[i - 1]` has the published id i
    options: Mapping[str, Any]  # training options; {} where the file has none
    source: str
    settings: Settings = NONE_GIVEN  # those that the user gives

    def option(self, *names: str) -> int | None:
        """The first training option of these names that is a whole number above 0."""
        values = (self.options.get(name) for name in names)
        return next((value for value in values if type(value) is int and value > 0), None)


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


def convert(
    checkpoint: Path,
    word_map: Path,
    out: Path,
    encoder: str = "",
    channels: Channels = "RGB",
    settings: Settings = NONE_GIVEN,
) -> str:
    """Convert a checkpoint to the run folder `out` -> a summary for the user.

    Nothing is written unless everything fits.  `checkpoint` holds a state dict; `word_map` is the infos pickle or a
    file with the vocabulary (`read_words`).  Raises ValueError that names every key that is missing, unknown or of a
    wrong shape, and FileExistsError when `out` holds a run.
    """
    check_settings(settings, "self-critical")
    check_request(out, encoder, channels)
    loaded = read_published(checkpoint, word_map, settings)
    if "core.att_lstm.weight_ih" in loaded.tensors:
        if settings.heads is not None:
            raise ValueError(f"{checkpoint} is an Up-Down, which has no heads: leave out --heads")
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


def read_published(checkpoint: Path, word_map: Path, settings: Settings = NONE_GIVEN) -> SelfCriticalCheckpoint:
    """Read checkpoint and vocabulary.  Raises ValueError when there is no state dict or no vocabulary."""
    tree = read_checkpoint(checkpoint)
    if not isinstance(tree, Mapping) or not has_tensors(dict(tree)):
        raise ValueError(f"{checkpoint} holds no state dict, but {type(tree).__name__}")
    not_tensors = [f"{key} ({type(value).__name__})" for key, value in tree.items() if not isinstance(value, Tensor)]
    if not_tensors:
        raise ValueError(f"{checkpoint} has entries that are not tensors: {', '.join(not_tensors[:8])}")
    tensors = {str(key).removeprefix("module."): value for key, value in tree.items()}  # of DataParallel
    floats = {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
    check_finite(floats, str(checkpoint))
    words, options = read_words(word_map)
    return SelfCriticalCheckpoint(floats, words, options, str(checkpoint), settings)


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
    heads = choose("heads", loaded.settings.heads, heads_option(loaded), 8, "the file with the words")
    return SpatialTransformerConfig(
        encoder_layers=layers["encoder"],
        decoder_layers=layers["decoder"],
        dim=tensors[part_names.embed].shape[1],
        hidden=tensors[first].shape[0],
        feature_norm=False,
        dropout=0.1,
        cell_dropout=0.5,
        **{"heads": heads, **fixed},
    )


def heads_option(loaded: SelfCriticalCheckpoint) -> int | None:
    """The number of heads according to the training options, or None where they do not say."""
    return loaded.option(*HEAD_OPTIONS)


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
            f"missing {missing}; unknown {unknown}; shapes {wrong_shapes}{near_names(missing, unknown)}"
        )
    return mapped


def training_words(loaded: SelfCriticalCheckpoint) -> int:
    """The most words of a caption in training."""
    stored = loaded.option("seq_length", "max_length")
    return choose("max_words", loaded.settings.max_words, stored, MAX_WORDS, "the file with the words")


def published_beam(loaded: SelfCriticalCheckpoint) -> Beam:
    """The search of the published `eval.py`: its steps are `max_length` in newer versions, `seq_length` in older."""
    steps = loaded.option("max_length") or training_words(loaded)
    return Beam(2, 0.0, Rules(min_length=0, max_length=steps, no_repeat_word=False), keep_beam_full=True)


def write(
    out: Path,
    loaded: SelfCriticalCheckpoint,
    config: CaptionerConfig,
    key_map: KeyMap,
    buffers: tuple[str, ...],
    decoding: Beam | None = None,
) -> str:
    """Write the run folder and check it -> a summary for the user.  `decoding` None is `published_beam`."""
    decoding = published_beam(loaded) if decoding is None else decoding
    vocabulary = build_vocabulary(loaded.words)
    cell_weights = [
        loaded.tensors[key] for key, target in key_map.items() if target == "cells.weight" and key in loaded.tensors
    ]
    dim = cell_weights[0].shape[1]
    model = build_model(config, len(vocabulary), dim)
    load_state_strictly(model, rename_tensors(loaded, key_map, buffers, model, config.name), loaded.source)
    recipe = Recipe(
        data=DataConfig(media="."),
        encoder=PretrainedConfig(),  # without a source: using the run on raw media raises an error that says so
        vocabulary=VocabularyConfig(min_count=6, tokenizer="simple", max_words=training_words(loaded)),
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
        decoding=decoding,
    )
    run = ConvertedRun(recipe, vocabulary, RunInfo(dim, {}, media="images"), model.eval(), Layout(1, 1, 6), boxes=True)
    write_run(out, run, loaded.source)
    sizes = ", ".join(f"{name} {value}" for name, value in vars(config).items() if name != "name")
    ignored = [key for key in buffers if key in loaded.tensors]
    lines = [f"run folder: {out}", f"{config.name}: {len(vocabulary)} words, cells of {dim} channels, {sizes}"]
    if isinstance(config, SpatialTransformerConfig) and heads_option(loaded) is None and loaded.settings.heads is None:
        lines.append(_heads_note(config.heads, loaded))
    lines += [f"left out, because they are fixed tables: {', '.join(ignored)}"] if ignored else []
    quirk = "keep_beam_full" if decoding.keep_beam_full else "finished_compete"
    lines.append(
        f"search: as published, a beam of {decoding.size} and at most {decoding.rules.max_length} tokens; limner's own "
        f"beam is had with --decoding.{quirk} false"
    )
    return "\n".join([*lines, "encoder: none, so this run captions stored features, not images"])


def _heads_note(heads: int, loaded: SelfCriticalCheckpoint) -> str:
    """Tell the user that the number of heads is assumed, and why."""
    note = f"heads {heads} is assumed, because the weights do not say it, and"
    remedy = "if it was another number, convert again with --heads N"
    if not loaded.options:
        return (
            f"{note} the file with the words has no training options; an infos pickle with `opt` may say it; {remedy}"
        )
    return f"{note} no training option called {', '.join(HEAD_OPTIONS)} is a number; {remedy}"
