"""Conversion of Show, Attend and Tell (sgrvinod/a-PyTorch-Tutorial-to-Image-Captioning and its ResNeXt-101 successor).

The published ids (pad 0, words, <unk>, <start>, <end>) become limner's (PAD 0, BOS 1, EOS 2, UNK 3, words).  The rows
of the embedding and of the output layer are reordered with them (`published_ids`).  The softmax still includes all ids.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from limner.convert.checkpoint import check_finite, check_keys, has_tensors, id_problem, near_names, read_checkpoint
from limner.convert.run_folder import ConvertedRun, check_no_run, write_run
from limner.convert.settings import NONE_GIVEN, Settings, check_settings
from limner.core.files import read_json
from limner.core.messages import short_repr
from limner.core.tensors import load_state_strictly
from limner.core.types import Layout
from limner.decode.rules import Rules
from limner.decode.search import Beam
from limner.encoders import Encoder, PretrainedConfig, ResNet, ResNetConfig, build_encoder
from limner.encoders.resnet import infer_config
from limner.models.show_attend_tell import ShowAttendTell, ShowAttendTellConfig
from limner.objectives import CrossEntropy
from limner.runs.recipe import Recipe, Stage, VocabularyConfig
from limner.runs.run import RunInfo
from limner.text.vocabulary import SPECIALS, Vocabulary

PUBLISHED_SPECIALS = ("<pad>", "<start>", "<end>", "<unk>")  # published names of PAD, BOS, EOS, UNK
ENTRIES = (
    "encoder",
    "decoder",
    "encoder_optimizer",
    "decoder_optimizer",
)  # of a full checkpoint that hold weights; other entries are ignored
LAYERS = {  # published layer -> layer of `ShowAttendTell`
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
# index in the published nn.Sequential -> torchvision's name
CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}

# The search of the published caption.py: at most 51 words, because it checks the number of steps after a word is added.
# No word is forbidden, and every hypothesis stays until it ends: its end uses up a place of the beam.
DECODING = Beam(
    5, 0.0, Rules(min_length=0, max_length=51, no_repeat_word=False, allow_unknown=True), drop_hopeless=False
)
# The published train.py: recorded in the recipe, not needed for captioning.
STAGE = Stage(
    CrossEntropy(doubly_stochastic=1.0), epochs=120, batch_size=32, optimizer="adam", clip_norm=None, clip_value=5.0
)


def convert(
    checkpoint: Path,
    word_map: Path,
    out: Path,
    encoder: str = "",
    channels: Literal["RGB", "BGR"] = "RGB",
    settings: Settings = NONE_GIVEN,
) -> str:
    """Convert a checkpoint to the run folder `out` -> a summary for the user.

    Nothing is written unless everything fits.  `checkpoint` holds the decoder's state dict, a dict with "decoder" (and
    "encoder") state dicts, or the published dict of pickled modules.  `encoder` is a transformers folder, for a
    checkpoint without an encoder.  `channels` is the channel order with which the checkpoint's encoder was trained.
    Raises ValueError that names every key that is missing, unknown or of a wrong shape, and FileExistsError when `out`
    holds a run.
    """
    check_settings(settings, "show-attend-tell")
    check_no_run(out)
    decoder, encoder_tensors, left_out = split(read_checkpoint(checkpoint), checkpoint)
    words = read_word_map(word_map)
    converted = assemble(decoder, encoder_tensors, words, encoder, channels, str(checkpoint))
    write_run(out, converted, str(checkpoint))
    return _summary(out, converted, left_out)


def split(tree: Any, path: str | Path) -> tuple[dict[str, Tensor], dict[str, Tensor] | None, list[str]]:
    """Split a checkpoint -> state dict of the decoder, that of the encoder or None, names of the entries left out.

    Raises ValueError for unknown weights.
    """
    if not isinstance(tree, Mapping) or not has_tensors(dict(tree)):
        raise ValueError(f"{path} holds no state dict, but {type(tree).__name__}")
    if "decoder" not in tree:
        return _tensors(tree, "the decoder", path), None, []
    unknown = [str(key) for key, value in tree.items() if key not in ENTRIES and has_tensors(value)]
    if unknown:
        raise ValueError(f"{path} holds unknown weights: {', '.join(unknown)}; known are {', '.join(ENTRIES)}")
    encoder = None if tree.get("encoder") is None else _tensors(tree["encoder"], "its encoder", path)
    left_out = [str(key) for key in tree if key not in ("decoder", "encoder")]
    return _tensors(tree["decoder"], "its decoder", path), encoder, left_out


def _tensors(tree: Any, part: str, path: str | Path) -> dict[str, Tensor]:
    """A state dict without the prefix `module.` of DataParallel.  Raises ValueError."""
    if not isinstance(tree, Mapping):
        raise ValueError(f"{path}: {part} is neither a state dict nor a module, but {short_repr(tree)}")
    not_tensors = [f"{key} ({type(value).__name__})" for key, value in tree.items() if not isinstance(value, Tensor)]
    if not_tensors:
        raise ValueError(f"{path}: {part} has entries that are not tensors: {', '.join(not_tensors[:8])}")
    wrapped = bool(tree) and all(str(key).startswith("module.") for key in tree)
    check_finite(tree, f"{path}: {part}")
    return {str(key).removeprefix("module.") if wrapped else str(key): value for key, value in tree.items()}


def read_word_map(path: Path) -> tuple[str, ...]:
    """Read JSON {word: id} with the ids 0 .. V-1 -> words in the order of their ids.  Raises ValueError."""
    words = read_json(path)
    if not isinstance(words, dict) or not all(type(id) is int for id in words.values()):
        raise ValueError(f"{path} is not a word map: expected a JSON object {{word: id}}")
    absent = [token for token in PUBLISHED_SPECIALS if token not in words]
    if absent:
        raise ValueError(
            f"{path} lacks {', '.join(absent)}{near_names(absent, words)}; a word map has "
            f"{', '.join(PUBLISHED_SPECIALS)}"
        )
    if problem := id_problem(words):
        raise ValueError(f"{path}: the ids of {len(words)} words must be 0 .. {len(words) - 1}, each once: {problem}")
    clash = [word for word in SPECIALS if word in words and word not in PUBLISHED_SPECIALS]
    if clash:
        raise ValueError(
            f"{path}: {', '.join(clash)} cannot be words, because limner's special tokens have these names"
        )
    return tuple(sorted(words, key=words.__getitem__))


def published_ids(words: tuple[str, ...]) -> list[int]:
    """The published id of every id of limner: the four special tokens first, then the words in their order.

    >>> published_ids(("<pad>", "a", "b", "<unk>", "<start>", "<end>"))
    [0, 4, 5, 3, 1, 2]
    """
    return [
        *(words.index(token) for token in PUBLISHED_SPECIALS),
        *(i for i, word in enumerate(words) if word not in PUBLISHED_SPECIALS),
    ]


def expected_shapes(tensors: Mapping[str, Tensor], vocabulary_size: int) -> dict[str, tuple[int, ...]]:
    """The shape that every key of the decoder must have; sizes are inferred from four of the tensors.

    The sizes are A attention, D channels of a cell, H hidden state, E embedding, V words.  Raises ValueError when one
    of these tensors is missing.
    """
    size_keys = ("attention.encoder_att.weight", "decode_step.weight_hh", "embedding.weight", "decode_step.weight_ih")
    invalid = [key for key in size_keys if key not in tensors or tensors[key].dim() != 2]
    if invalid:
        present = {key: tuple(tensors[key].shape) for key in invalid if key in tensors}
        raise ValueError(
            f"not a Show-Attend-Tell decoder: {', '.join(invalid)} missing or not a matrix {present or ''}; "
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
    tensors: Mapping[str, Tensor], words: tuple[str, ...], path: str
) -> tuple[ShowAttendTellConfig, dict[str, Tensor]]:
    """Convert a published state dict to config and state dict of `ShowAttendTell`, with reordered rows of words.

    Raises ValueError that names every key that is missing, unknown or of a wrong shape.
    """
    shapes = expected_shapes(tensors, len(words))
    check_keys(tensors, shapes, f"{path} is not a Show-Attend-Tell decoder for {len(words)} words")
    order = torch.tensor(published_ids(words))
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


def map_encoder(tensors: Mapping[str, Tensor], channels: Literal["RGB", "BGR"], path: str) -> ResNet:
    """Build the frozen `ResNet` from the published encoder, whose keys begin with `resnet.N.` or `resnext.N.`.

    Raises ValueError for unknown keys and wrong shapes.
    """
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
            f"{path}: its encoder has unknown keys {unknown[:8]}; expected resnet.N. or resnext.N. with N in "
            f"{', '.join(CHILDREN)}"
        )
    try:
        net_config = infer_config(mapped, channels)
    except ValueError as error:
        raise ValueError(f"{path}: its encoder is {error}") from error
    encoder = ResNet(net_config)
    counters = {key: value for key, value in encoder.state_dict().items() if key.endswith("num_batches_tracked")}
    floats = {key: value if key in counters else value.float() for key, value in mapped.items()}
    # weights of torch < 0.4.1 have no counters
    load_state_strictly(encoder, {**counters, **floats}, f"{path}: its encoder")
    return encoder.eval()


def assemble(
    decoder: Mapping[str, Tensor],
    encoder_tensors: Mapping[str, Tensor] | None,
    words: tuple[str, ...],
    encoder_source: str,
    channels: Literal["RGB", "BGR"],
    path: str,
) -> ConvertedRun:
    """Convert all parts, choose the encoder and check that they fit together.  Raises ValueError."""
    config, tensors = map_decoder(decoder, words, path)
    dim = tensors["init_h.weight"].shape[1]
    model = ShowAttendTell(config, len(words), dim)
    load_state_strictly(model, tensors, path)
    if encoder_tensors is not None and encoder_source:
        raise ValueError(f"{path} has its own encoder; leave out --encoder {encoder_source}")
    if encoder_tensors is None and encoder_source and channels != "RGB":
        raise ValueError(
            f"the transformers encoder {encoder_source} reads RGB; --channels is for the encoder of the checkpoint"
        )
    encoder: Encoder | None = None
    # without an encoder, the recipe has one without a source: using the run on raw media raises an error that says so
    encoder_config: PretrainedConfig | ResNetConfig = PretrainedConfig(source=encoder_source)
    if encoder_tensors is not None:
        encoder = map_encoder(encoder_tensors, channels, path)
        encoder_config = encoder.config
    elif encoder_source:
        encoder = build_encoder(encoder_config)
    if encoder is not None and encoder.dim != dim:
        raise ValueError(f"{path}: the decoder reads cells of {dim} channels, but its encoder gives {encoder.dim}")
    recipe = Recipe(
        encoder=encoder_config,
        vocabulary=VocabularyConfig(
            min_count=6, tokenizer="simple"
        ),  # the published code kept words that occur at least 6 times
        model=config,
        stages=(STAGE,),
        decoding=DECODING,
    )
    vocabulary = Vocabulary((*SPECIALS, *(word for word in words if word not in PUBLISHED_SPECIALS)), "simple", 6)
    provenance = {} if encoder is None else encoder.provenance()
    own = encoder if isinstance(encoder, ResNet) else None  # the encoder of the checkpoint
    if own is not None:
        provenance["source"] = Path(path).name
    info = RunInfo(dim, provenance, own is not None, channels, media="images")
    return ConvertedRun(recipe, vocabulary, info, model.eval(), Layout(1, 2, 3), encoder=own)


def _summary(out: Path, converted: ConvertedRun, left_out: list[str]) -> str:
    """What was converted, for the user."""
    config, info = converted.model.config, converted.info
    lines = [
        f"run folder: {out}",
        f"decoder: {len(converted.vocabulary)} words, cells of {info.feature_dim} channels, hidden {config.hidden}, "
        f"embedding {config.embed}, attention {config.attention}",
    ]
    if converted.encoder is not None:
        net = converted.recipe.encoder
        assert isinstance(net, ResNetConfig)
        lines.append(
            f"encoder: the checkpoint's {info.encoder['architecture']}, {net.size}x{net.size} pixels, {net.channels} "
            "(size and pooling are the published ones, because the checkpoint does not say them)"
        )
    elif info.encoder:
        lines.append(f"encoder: {info.encoder['source']}; captions are good only if the decoder was trained on it")
    else:
        lines.append(
            "encoder: none in the checkpoint and none given, so this run captions features, not images; "
            "convert again with --encoder FOLDER for images"
        )
    lines.append(
        "search: as published, hypotheses that cannot win any more keep their places in the beam; limner's own search, "
        "which sometimes finds a likelier caption, is had with --decoding.drop_hopeless true"
    )
    if left_out:
        lines.append(f"left out: {', '.join(left_out)}")
    return "\n".join(lines)
