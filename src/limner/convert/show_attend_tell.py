"""Show, Attend and Tell as published for PyTorch (sgrvinod/a-PyTorch-Tutorial-to-Image-Captioning and its ResNeXt-101
successor): checkpoint and word map in, run folder out.

The published ids (pad 0, words, <unk>, <start>, <end>) become limner's (PAD 0, BOS 1, EOS 2, UNK 3, words); the rows
of the embedding and of the output layer move with them, and the softmax still runs over all of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from limner.convert.checkpoint import check_keys, has_tensors, read_checkpoint
from limner.convert.written import must_be_free, verify
from limner.core.files import read_json
from limner.core.tensors import load_state_strictly, save_tensors
from limner.core.types import Layout
from limner.decode.rules import Rules
from limner.decode.search import Beam
from limner.encoders import Encoder, PretrainedConfig, ResNet, ResNetConfig, build_encoder
from limner.encoders.resnet import infer_config
from limner.models.show_attend_tell import ShowAttendTell, ShowAttendTellConfig
from limner.objectives import CrossEntropy
from limner.runs.recipe import Recipe, Stage, VocabularyConfig
from limner.runs.run import RunInfo, create_run
from limner.text.vocabulary import SPECIALS, Vocabulary

MARKS = ("<pad>", "<start>", "<end>", "<unk>")  # the published names of PAD, BOS, EOS, UNK
ENTRIES = ("encoder", "decoder", "encoder_optimizer", "decoder_optimizer")  # of a whole checkpoint; the rest is plain
LAYERS = {
    "attention.encoder_att": "attend.key",
    "attention.decoder_att": "attend.query",
    "attention.full_att": "attend.score",
    "embedding": "embed",
    "decode_step": "lstm",
    "init_h": "init_h",
    "init_c": "init_c",
    "f_beta": "gate",
    "fc": "head",
}
CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}  # of the Sequential

# The search of the published caption.py: it looks at its step count after the 51st word, and suppresses nothing.
DECODING = Beam(5, 0.0, Rules(min_length=0, max_length=51, no_repeat_word=False, allow_unknown=True))
# Its train.py (options.average and the like are off); recorded, not needed for captioning.
STAGE = Stage(
    CrossEntropy(doubly_stochastic=1.0), epochs=120, batch_size=32, optimizer="adam", clip_norm=None, clip_value=5.0
)


@dataclass(frozen=True)
class Converted:
    """Everything a run folder needs, checked and in memory."""

    recipe: Recipe
    vocabulary: Vocabulary
    info: RunInfo
    model: ShowAttendTell
    own_encoder: ResNet | None  # the checkpoint's


def convert(
    checkpoint: Path, word_map: Path, out: Path, encoder: str = "", channels: Literal["RGB", "BGR"] = "RGB"
) -> str:
    """Write the run folder `out` and tell in words what was done.  Nothing is written unless everything fits.

    `checkpoint`: the decoder's state dict, a dict with "decoder" (and "encoder") state dicts, or the published dict of
    pickled modules.  `encoder`: a transformers folder for a checkpoint without one; `channels`: the order that the
    checkpoint's own encoder was trained with.  Raises ValueError that names what is missing, unknown or misshapen,
    FileExistsError when `out` holds a run.
    """
    must_be_free(out)
    decoder, own, left_out = split(read_checkpoint(checkpoint), checkpoint)
    words = read_word_map(word_map)
    converted = assemble(decoder, own, words, encoder, channels, str(checkpoint))
    tensors = converted.model.state_dict()
    if converted.own_encoder is not None:
        tensors |= {f"encoder.{key}": value for key, value in converted.own_encoder.state_dict().items()}
    save_tensors(out / "model.safetensors", tensors)
    create_run(out, converted.recipe, converted.vocabulary, converted.info)  # run.json is the last file
    verify(out, converted.model, Layout(1, 2, 3))
    return _summary(out, converted, left_out)


def split(tree: Any, where: str | Path) -> tuple[dict[str, Tensor], dict[str, Tensor] | None, list[str]]:
    """What a checkpoint holds -> the decoder's state dict, the encoder's or None, names of entries left out."""
    if not isinstance(tree, Mapping) or not has_tensors(dict(tree)):
        raise ValueError(f"{where} holds no state dict, but {type(tree).__name__}")
    if "decoder" not in tree:
        return _tensors(tree, "the decoder", where), None, []
    unknown = [str(key) for key, value in tree.items() if key not in ENTRIES and has_tensors(value)]
    if unknown:
        raise ValueError(f"{where} holds unknown weights: {', '.join(unknown)}; known are {', '.join(ENTRIES)}")
    encoder = None if tree.get("encoder") is None else _tensors(tree["encoder"], "its encoder", where)
    left_out = [str(key) for key in tree if key not in ("decoder", "encoder")]
    return _tensors(tree["decoder"], "its decoder", where), encoder, left_out


def _tensors(tree: Any, what: str, where: str | Path) -> dict[str, Tensor]:
    """A state dict without the prefix `module.` of DataParallel."""
    if not isinstance(tree, Mapping):
        raise ValueError(f"{where}: {what} is no state dict and no module, but {tree!r:.80}")
    strange = [f"{key} ({type(value).__name__})" for key, value in tree.items() if not isinstance(value, Tensor)]
    if strange:
        raise ValueError(f"{where}: {what} has entries that are no tensors: {', '.join(strange[:8])}")
    wrapped = bool(tree) and all(str(key).startswith("module.") for key in tree)
    return {str(key).removeprefix("module.") if wrapped else str(key): value for key, value in tree.items()}


def read_word_map(path: Path) -> tuple[str, ...]:
    """JSON {word: id} with the ids 0 .. V-1 -> words in the order of their ids.  Raises ValueError."""
    words = read_json(path)
    if not isinstance(words, dict) or not all(type(id) is int for id in words.values()):
        raise ValueError(f"{path} is no word map: expected a JSON object {{word: id}}")
    absent = [mark for mark in MARKS if mark not in words]
    if absent:
        raise ValueError(f"{path} lacks {', '.join(absent)}; a word map has {', '.join(MARKS)}")
    if sorted(words.values()) != list(range(len(words))):
        raise ValueError(f"{path}: the ids of {len(words)} words must be 0 .. {len(words) - 1}, each once")
    clash = [word for word in SPECIALS if word in words and word not in MARKS]
    if clash:
        raise ValueError(f"{path}: {', '.join(clash)} cannot be words, limner's own marks are called so")
    return tuple(sorted(words, key=words.__getitem__))


def order_of(words: tuple[str, ...]) -> list[int]:
    """`order[new id]` = published id: the four marks first, then the words as they stood."""
    return [*(words.index(mark) for mark in MARKS), *(i for i, word in enumerate(words) if word not in MARKS)]


def shapes_of(tensors: Mapping[str, Tensor], vocabulary_size: int) -> dict[str, tuple[int, ...]]:
    """The shape that every key of the decoder must have, from sizes that four of the tensors tell.

    A: attention, D: channels of a cell, H: hidden, E: embedding, V: words.  Raises ValueError when one is missing.
    """
    telling = ("attention.encoder_att.weight", "decode_step.weight_hh", "embedding.weight", "decode_step.weight_ih")
    unfit = [key for key in telling if key not in tensors or tensors[key].dim() != 2]
    if unfit:
        found = {key: tuple(tensors[key].shape) for key in unfit if key in tensors}
        raise ValueError(
            f"no Show-Attend-Tell decoder: {', '.join(unfit)} missing or no matrix {found or ''}; "
            f"it has {', '.join(sorted(tensors)[:6])} ..."
        )
    A, D = tensors["attention.encoder_att.weight"].shape
    H, E, V = tensors["decode_step.weight_hh"].shape[1], tensors["embedding.weight"].shape[1], vocabulary_size
    linear = {
        "attention.encoder_att": (A, D),
        "attention.decoder_att": (A, H),
        "attention.full_att": (1, A),
        "init_h": (H, D),
        "init_c": (H, D),
        "f_beta": (D, H),
        "fc": (V, H),
    }
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (V, E)}
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    shapes |= {"decode_step.weight_ih": (4 * H, E + D), "decode_step.weight_hh": (4 * H, H)}
    return shapes | {"decode_step.bias_ih": (4 * H,), "decode_step.bias_hh": (4 * H,)}


def map_decoder(
    tensors: Mapping[str, Tensor], words: tuple[str, ...], where: str
) -> tuple[ShowAttendTellConfig, dict[str, Tensor]]:
    """Published state dict -> our config and state dict, ids permuted.  Raises ValueError that names every misfit."""
    shapes = shapes_of(tensors, len(words))
    check_keys(tensors, shapes, f"{where} is no Show-Attend-Tell decoder for {len(words)} words")
    order = torch.tensor(order_of(words))
    mapped = {}
    for key, tensor in tensors.items():
        layer, _, name = key.rpartition(".")
        mapped[f"{LAYERS[layer]}.{name}"] = (tensor[order] if layer in ("embedding", "fc") else tensor).float()
    config = ShowAttendTellConfig(
        hidden=shapes["init_h.bias"][0],
        embed=shapes["embedding.weight"][1],
        attention=shapes["attention.encoder_att.bias"][0],
        mask_special_tokens=False,
    )
    return config, mapped


def map_encoder(tensors: Mapping[str, Tensor], channels: Literal["RGB", "BGR"], where: str) -> ResNet:
    """`resnet.N.` or `resnext.N.` of the published encoder -> our ResNet with torchvision's names, frozen."""
    mapped, unknown = {}, []
    for key, tensor in tensors.items():
        net, _, rest = key.partition(".")
        child, _, name = rest.partition(".")
        if net in ("resnet", "resnext") and child in CHILDREN:
            mapped[f"{CHILDREN[child]}.{name}"] = tensor
        else:
            unknown.append(key)
    if unknown:
        raise ValueError(
            f"{where}: its encoder has unknown keys {unknown[:8]}; expected resnet.N. or resnext.N. with N in "
            f"{', '.join(CHILDREN)}"
        )
    try:
        net_config = infer_config(mapped, channels)
    except ValueError as error:
        raise ValueError(f"{where}: its encoder is {error}") from error
    encoder = ResNet(net_config)
    counters = {key: value for key, value in encoder.state_dict().items() if key.endswith("num_batches_tracked")}
    floats = {key: value if key in counters else value.float() for key, value in mapped.items()}
    load_state_strictly(encoder, {**counters, **floats}, f"{where}: its encoder")  # torch < 0.4.1 had no counters
    return encoder.eval()


def assemble(
    decoder: Mapping[str, Tensor],
    own: Mapping[str, Tensor] | None,
    words: tuple[str, ...],
    source: str,
    channels: Literal["RGB", "BGR"],
    where: str,
) -> Converted:
    """Map everything, choose the encoder and check that the parts fit."""
    config, tensors = map_decoder(decoder, words, where)
    dim = tensors["init_h.weight"].shape[1]
    model = ShowAttendTell(config, len(words), dim)
    load_state_strictly(model, tensors, where)
    if own is not None and source:
        raise ValueError(f"{where} has its own encoder; leave out --encoder {source}")
    if own is None and source and channels != "RGB":
        raise ValueError(f"the transformers encoder {source} reads RGB; --channels is for the checkpoint's own encoder")
    encoder: Encoder | None = None
    # without any encoder the recipe names one without a source, so that a later use says what is missing
    encoder_config: PretrainedConfig | ResNetConfig = PretrainedConfig(source=source)
    if own is not None:
        encoder = map_encoder(own, channels, where)
        encoder_config = encoder.config
    elif source:
        encoder = build_encoder(encoder_config)
    if encoder is not None and encoder.dim != dim:
        raise ValueError(f"{where}: the decoder reads cells of {dim} channels, but its encoder gives {encoder.dim}")
    recipe = Recipe(
        encoder=encoder_config,
        vocabulary=VocabularyConfig(min_count=6, tokenizer="simple"),  # it kept words with count > 5
        model=config,
        stages=(STAGE,),
        decoding=DECODING,
    )
    vocabulary = Vocabulary((*SPECIALS, *(word for word in words if word not in MARKS)), "simple", 6)
    provenance = {} if encoder is None else encoder.provenance()
    if isinstance(encoder, ResNet):
        provenance["source"] = Path(where).name
        return Converted(recipe, vocabulary, RunInfo(dim, provenance, True, channels), model.eval(), encoder)
    return Converted(recipe, vocabulary, RunInfo(dim, provenance, False, channels), model.eval(), None)


def _summary(out: Path, converted: Converted, left_out: list[str]) -> str:
    config, info = converted.model.config, converted.info
    lines = [
        f"run folder: {out}",
        f"decoder: {len(converted.vocabulary)} words, cells of {info.feature_dim} channels, hidden {config.hidden}, "
        f"embedding {config.embed}, attention {config.attention}",
    ]
    if converted.own_encoder is not None:
        net = converted.own_encoder.config
        lines.append(
            f"encoder: the checkpoint's {info.encoder['architecture']}, {net.size}x{net.size} pixels, {net.channels} "
            "(size and pooling are the published ones, the checkpoint does not tell them)"
        )
    elif info.encoder:
        lines.append(f"encoder: {info.encoder['source']}; captions are good only if the decoder was trained on it")
    else:
        lines.append(
            "encoder: none in the checkpoint and none given, so this run captions features, not pictures; "
            "convert again with --encoder FOLDER for pictures"
        )
    if left_out:
        lines.append(f"left out: {', '.join(left_out)}")
    return "\n".join(lines)
