"""Captioners of ruotianluo/self-critical.pytorch (transformer and Up-Down), and what its descendants share with it.

Published ids: 0 is start, end and padding at once, 1 .. V-1 are words, one of which, UNK, stands for all others.  Here
the row 0 of the embedding becomes PAD's, BOS's and EOS's, and that of the word head EOS's; PAD and BOS stay outside the
softmax, so that it runs over the same V classes.  The vocabulary is not in the weights: it and the training options are
in the infos pickle beside them, which is read without executing it; the JSON that `prepro_labels.py` wrote will do.
Their beam gives the place of a hypothesis that has ended to the next best one: `decoding.n_best_beam_full`.
"""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import Tensor

from limner.convert.checkpoint import Record, has_tensors, read_checkpoint
from limner.convert.written import must_be_free, verify
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

UNKNOWN = ("UNK", "<unk>", "<UNK>")  # how a published vocabulary may call the word for all others
HEADS = ("num_att_heads", "num_heads", "n_heads", "heads", "h")  # options that tell what no weight tells
LONGEST = 16  # words of a caption when the options do not tell
Channels = Literal["RGB", "BGR"]


class Published(NamedTuple):
    """What a checkpoint and the file with its vocabulary hold."""

    tensors: dict[str, Tensor]
    words: tuple[str, ...]  # `words[i - 1]` has the published id i
    options: Mapping[str, Any]  # of its training; {} when the file does not tell
    source: str


@dataclass(frozen=True)
class Dialect:
    """How a descendant names the parts of a transformer."""

    cross: str = "src_attn"
    up: str = "w_1"  # the two layers of a feed-forward block
    down: str = "w_2"
    weight: str = "a_2"  # of a norm
    bias: str = "b_2"
    embed: str = "model.tgt_embed.0.lut.weight"


LUO = Dialect()


def convert(checkpoint: Path, word_map: Path, out: Path, encoder: str = "", channels: Channels = "RGB") -> str:
    """Write the run folder `out` and tell in words what was done.  Nothing is written unless everything fits.

    `checkpoint`: a state dict; `word_map`: infos pickle, or JSON with the vocabulary (`read_words`).  Raises ValueError
    that names what is missing, unknown or misshapen, FileExistsError when `out` holds a run.
    """
    check_request(out, encoder, channels)
    published = read_published(checkpoint, word_map)
    if "core.att_lstm.weight_ih" in published.tensors:
        up_down = up_down_config(published)
        return write(out, published, up_down, UP_DOWN, ())
    if any(".WGs." in key for key in published.tensors):
        raise ValueError(f"{checkpoint} is an Object Relation Transformer (it has WGs): use --from ort")
    config = transformer_config(published, LUO, norm="unbiased", positions="none")
    return write(out, published, config, transformer_names(config, LUO), ("model.tgt_embed.1.pe",))


def check_request(out: Path, encoder: str, channels: str) -> None:
    must_be_free(out)
    if encoder or channels != "RGB":
        raise ValueError(
            "these systems caption the features of a detector or a CNN of others: leave out --encoder and --channels, "
            "and name the features in the run's recipe"
        )


def read_published(checkpoint: Path, word_map: Path) -> Published:
    """Raises ValueError when there is no state dict or no vocabulary."""
    tree = read_checkpoint(checkpoint)
    if not isinstance(tree, Mapping) or not has_tensors(dict(tree)):
        raise ValueError(f"{checkpoint} holds no state dict, but {type(tree).__name__}")
    strange = [f"{key} ({type(value).__name__})" for key, value in tree.items() if not isinstance(value, Tensor)]
    if strange:
        raise ValueError(f"{checkpoint} has entries that are no tensors: {', '.join(strange[:8])}")
    tensors = {str(key).removeprefix("module."): value for key, value in tree.items()}  # of DataParallel
    floats = {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
    words, options = read_words(word_map)
    return Published(floats, words, options, str(checkpoint))


def read_words(path: Path) -> tuple[tuple[str, ...], Mapping[str, Any]]:
    """Infos pickle {vocab, opt, ...}, JSON {ix_to_word: {"1": word}}, {"1": word} or {word: 1}, or a text file with the
    word 1 in its first line -> words in the order of their ids, options.  Raises ValueError."""
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
    found = tree.get("vocab", tree.get("ix_to_word", tree))
    options = tree.get("opt", {})
    found = found.items if isinstance(found, Record) else found
    options = options.state if isinstance(options, Record) else options
    if not isinstance(found, Mapping) or not found:
        raise ValueError(f"{path} holds no vocabulary: expected 'vocab' or 'ix_to_word', {{id: word}}")
    if all(type(id) is int for id in found.values()):
        found = {id: word for word, id in found.items()}
    words = {str(id): word for id, word in found.items()}
    size = len(words)
    if any(str(i) not in words for i in range(1, size + 1)) or not all(isinstance(w, str) for w in words.values()):
        raise ValueError(f"{path}: the ids of {size} words must be 1 .. {size}, each once, and every word a text")
    ordered = tuple(words[str(i)] for i in range(1, size + 1))
    if sum(word in UNKNOWN for word in ordered) != 1:
        raise ValueError(f"{path}: exactly one of {', '.join(UNKNOWN)} must be among the {size} words")
    twice = {word for word in (*SPECIALS[:3], *ordered) if ordered.count(word) > (word not in SPECIALS[:3])}
    if twice:
        raise ValueError(f"{path}: {', '.join(sorted(twice)[:5])} cannot be words, or not twice")
    return ordered, options if isinstance(options, Mapping) else {}


class _Infos(pickle.Unpickler):
    """Makes nothing but plain values and inert `Record`s of everything else."""

    def find_class(self, module: str, name: str) -> type[Record]:
        return type(name, (Record,), {"__slots__": (), "origin": f"{module}.{name}"})


def _read_infos(path: Path) -> Any:
    """A pickle of Python 2 or 3 as data.  Raises ValueError."""
    reason: Exception | None = None
    for encoding in ("utf-8", "latin-1"):  # the second for arrays that Python 2 wrote as text
        try:
            with open(path, "rb") as file:
                return _Infos(file, encoding=encoding).load()
        except OSError:
            raise
        except Exception as error:  # a hostile or damaged pickle may fail anywhere
            reason = error
    raise ValueError(f"{path} is no pickle that can be read as data: {type(reason).__name__}: {reason}") from reason


def transformer_config(published: Published, dialect: Dialect, **fixed: Any) -> SpatialTransformerConfig:
    """The sizes that the weights tell; the number of heads is an option, 8 when it is not told."""
    tensors = published.tensors
    first = f"model.encoder.layers.0.feed_forward.{dialect.up}.weight"
    absent = [key for key in (dialect.embed, first, "att_embed.0.weight") if getattr(tensors.get(key), "ndim", 0) != 2]
    if absent:
        raise ValueError(
            f"{published.source} is no such transformer: {', '.join(absent)} missing or no matrix; "
            f"it has {', '.join(sorted(tensors)[:6])} ..."
        )
    layers = {
        side: len({key.split(".")[3] for key in tensors if key.startswith(f"model.{side}.layers.")})
        for side in ("encoder", "decoder")
    }
    heads = told_heads(published)
    return SpatialTransformerConfig(
        encoder_layers=layers["encoder"],
        decoder_layers=layers["decoder"],
        dim=tensors[dialect.embed].shape[1],
        hidden=tensors[first].shape[0],
        feature_norm=False,
        dropout=0.1,
        cell_dropout=0.5,
        **{"heads": 8 if heads is None else heads, **fixed},
    )


def told_heads(published: Published) -> int | None:
    """How many heads the options of the training tell."""
    options = published.options
    return next((options[name] for name in HEADS if type(options.get(name)) is int), None)


Names = dict[str, str | None]  # published key -> ours; None: a bias that changes no softmax, and is not kept


def linear(theirs: str, ours: str) -> Names:
    return {f"{theirs}.weight": f"{ours}.weight", f"{theirs}.bias": f"{ours}.bias"}


def transformer_names(config: SpatialTransformerConfig, dialect: Dialect) -> Names:
    """Every key that the published state dict must have, but for positions."""

    def norm(theirs: str, ours: str) -> Names:
        bias: Names = {} if config.norm == "rms" else {f"{theirs}.{dialect.bias}": f"{ours}.bias"}
        return {f"{theirs}.{dialect.weight}": f"{ours}.weight", **bias}

    def common(theirs: str, ours: str, sublayers: int) -> Names:
        names = linear(f"{theirs}.feed_forward.{dialect.up}", f"{ours}.feed_forward.0")
        names |= linear(f"{theirs}.feed_forward.{dialect.down}", f"{ours}.feed_forward.3")
        for k in range(sublayers):
            names |= norm(f"{theirs}.sublayer.{k}.norm", f"{ours}.norms.{k}")
        return names

    names = {**linear("att_embed.0", "cells"), dialect.embed: "embed.weight", **linear("model.generator.proj", "head")}
    for k in range(config.encoder_layers):
        theirs, ours = f"model.encoder.layers.{k}", f"cell_layers.{k}"
        names |= common(theirs, ours, 2) | dot_product(f"{theirs}.self_attn", f"{ours}.attend")
        names |= linear(f"{theirs}.self_attn.WGs", f"{ours}.geometry") if config.geometry else {}
    for k in range(config.decoder_layers):
        theirs, ours = f"model.decoder.layers.{k}", f"word_layers.{k}"
        names |= common(theirs, ours, 3) | dot_product(f"{theirs}.self_attn", f"{ours}.attend_words")
        cross = dot_product if config.cross_attention == "dot-product" else xlinear
        names |= cross(f"{theirs}.{dialect.cross}", f"{ours}.attend_cells")
    return names | norm("model.encoder.norm", "cell_norm") | norm("model.decoder.norm", "word_norm")


def lstm(theirs: str, ours: str) -> Names:
    return {f"{theirs}.{name}": f"{ours}.{name}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}


UP_DOWN: Names = {
    "embed.0.weight": "embed.weight",
    **linear("fc_embed.0", "whole"),
    **linear("att_embed.0", "cells"),
    **linear("ctx2att", "attend.key"),
    **linear("core.attention.h2att", "attend.query"),
    **linear("core.attention.alpha_net", "attend.score"),
    **lstm("core.att_lstm", "look"),
    **lstm("core.lang_lstm", "speak"),
    **linear("logit", "head"),
}


def up_down_config(published: Published) -> UpDownConfig:
    """The sizes that the weights tell.  Raises ValueError when one is missing."""
    tensors = published.tensors
    telling = ("embed.0.weight", "att_embed.0.weight", "ctx2att.weight")
    absent = [key for key in telling if getattr(tensors.get(key), "ndim", 0) != 2]
    if absent:
        raise ValueError(f"{published.source} is no Up-Down: {', '.join(absent)} missing or no matrix")
    embed, (hidden, _), (attention, _) = tensors[telling[0]].shape[1], *(tensors[key].shape for key in telling[1:])
    return UpDownConfig(hidden=hidden, embed=embed, attention=attention)


def dot_product(theirs: str, ours: str) -> Names:
    names: Names = {}
    for k, part in enumerate(("query", "key", "value", "output")):
        names |= linear(f"{theirs}.linears.{k}", f"{ours}.{part}")
    return {**names, f"{theirs}.linears.1.bias": None}


def xlinear(theirs: str, ours: str) -> Names:
    names: Names = {}
    for k, part in enumerate(("query", "key", "query2", "value")):
        names |= linear(f"{theirs}.linears.{k}.0", f"{ours}.{part}.linear")
        names |= linear(f"{theirs}.linears.{k}.2", f"{ours}.{part}")
    for name, part in (("embed.0", "common"), ("spatial", "spatial"), ("squeeze.0", "channel")):
        names |= linear(f"{theirs}.attention.{name}", f"{ours}.{part}")
    return {**names, f"{theirs}.attention.spatial.bias": None}


def renamed(
    published: Published, names: Names, buffers: tuple[str, ...], model: Captioner, what: str
) -> dict[str, Tensor]:
    """-> the state dict of `model`.  Raises ValueError that names every key that is missing, unknown or misshapen."""
    tensors = {key: value for key, value in published.tensors.items() if key not in buffers}
    missing, unknown = sorted(names.keys() - tensors.keys()), sorted(tensors.keys() - names.keys())
    own = model.state_dict()
    size = len(published.words) + 1
    order = order_of(published.words)
    mapped, misshapen = {}, []
    for theirs, ours in names.items():
        if theirs in missing or ours is None:
            continue
        tensor, expected = tensors[theirs], tuple(own[ours].shape)
        if ours in ("embed.weight", "head.weight", "head.bias"):
            expected = (size, *expected[1:])
            if tensor.shape == expected:
                tensor = tensor[order]
        if tensor.shape != own[ours].shape:
            misshapen.append(f"{theirs} {tuple(tensors[theirs].shape)}, expected {expected}")
        mapped[ours] = tensor
    if missing or unknown or misshapen:
        raise ValueError(
            f"{published.source} does not fit a {what} of {len(published.words)} words: "
            f"missing {missing}; unknown {unknown}; shapes {misshapen}"
        )
    return mapped


def order_of(words: tuple[str, ...]) -> list[int]:
    """`order[new id]` = published id: 0 for PAD, BOS and EOS, then UNK, then the words as they stood."""
    unknown = next(i for i, word in enumerate(words, 1) if word in UNKNOWN)
    return [0, 0, 0, unknown, *(i for i in range(1, len(words) + 1) if i != unknown)]


def vocabulary_of(words: tuple[str, ...]) -> Vocabulary:
    return Vocabulary((*SPECIALS, *(word for word in words if word not in UNKNOWN)), "simple", 6)  # kept count > 5


def write(
    out: Path, published: Published, config: CaptionerConfig, names: Names, buffers: tuple[str, ...], **more: Any
) -> str:
    """The run folder, checked once written; -> what was done, in words.  `more` replaces fields of the recipe."""
    vocabulary = vocabulary_of(published.words)
    told = {
        key: published.tensors[key]
        for key, ours in names.items()
        if ours == "cells.weight" and key in published.tensors
    }
    dim = next(iter(told.values())).shape[1]
    model = build_model(config, len(vocabulary), dim)
    load_state_strictly(model, renamed(published, names, buffers, model, config.name), published.source)
    longest = published.options.get("seq_length", published.options.get("max_length"))
    longest = longest if type(longest) is int and longest > 0 else LONGEST
    recipe = Recipe(
        data=DataConfig(media="."),
        encoder=PretrainedConfig(),  # none: a later use on raw media says what is missing
        vocabulary=VocabularyConfig(min_count=6, tokenizer="simple", max_words=longest),
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
        decoding=Beam(2, 0.0, Rules(min_length=0, max_length=longest, no_repeat_word=False), keep_beam_full=True),
    )
    save_tensors(out / "model.safetensors", model.state_dict())
    create_run(out, replace(recipe, **more), vocabulary, RunInfo(dim, {}))  # run.json is the last file
    verify(out, model.eval(), Layout(1, 1, 6), boxes=True)
    sizes = ", ".join(f"{name} {value}" for name, value in vars(config).items() if name != "name")
    ignored = [key for key in buffers if key in published.tensors]
    lines = [f"run folder: {out}", f"{config.name}: {len(vocabulary)} words, cells of {dim} channels, {sizes}"]
    if isinstance(config, SpatialTransformerConfig) and told_heads(published) is None:
        lines.append(_assumed(config.heads, published))
    lines += [f"left out, being fixed tables: {', '.join(ignored)}"] if ignored else []
    return "\n".join([*lines, "encoder: none, so this run captions stored features, not pictures"])


def _assumed(heads: int, published: Published) -> str:
    without = f"heads {heads} is assumed: no weight tells it, and"
    if not published.options:
        return f"{without} the file of words has no options of the training; an infos pickle with `opt` may tell it"
    return (
        f"{without} of the options of the training none is a number called {', '.join(HEADS)}; "
        "if it was another, put it into the run's recipe.json, model.heads"
    )
