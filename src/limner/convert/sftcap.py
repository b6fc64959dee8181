"""Conversion of SFTCap (ccc000-png/SFTCap) to a run folder.

A published checkpoint has one network, which is both teacher and student, and a caption head over CLIP's byte pairs.
Its ids are 0 for padding, V - 2 for BOS and V - 1 for EOS; the rows are put into limner's order (`reorder_rows`).  Byte
pairs have no unknown word, so UNK gets a row of zeros and is masked in the softmax.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from limner.convert.checkpoint import check_finite, has_tensors, near_names, read_checkpoint
from limner.convert.run_folder import ConvertedRun, check_no_run, write_run
from limner.convert.settings import NONE_GIVEN, Settings, check_settings
from limner.core.files import read_json
from limner.core.tensors import load_state_strictly
from limner.core.types import Layout
from limner.data.datasets import DataConfig
from limner.data.feature_files import FeatureRows
from limner.decode.rules import Rules
from limner.decode.search import Beam
from limner.encoders import EncoderConfig, PretrainedConfig, build_encoder
from limner.encoders.clip_frames import ClipFramesConfig
from limner.models.sft import Sft, SftConfig
from limner.objectives.hierarchical import SftLoss
from limner.runs.recipe import Recipe, Schedule, Stage, VocabularyConfig
from limner.runs.run import RunInfo
from limner.text.clip_bpe import order_pieces, read_clip_vocabulary
from limner.text.vocabulary import Vocabulary

NETWORK_NAMES = ("SFTNet", "SNet", "TNet")
HEAD, DECODER = "caption_head.prediction_head", "caption_head.cap_sa_decoder"
FRAMES, LENGTH = 15, 22  # frames of a clip; tokens of a caption, BOS and EOS included
UNUSED_KEYS = ("word_embeddings.weight", "position_embeddings.pe")  # of the network: no result depends on them
LSTM_TENSORS = tuple(
    f"{part}_l0{direction}"
    for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    for direction in ("", "_reverse")
)
# our module -> published module, for modules with a weight and a bias
NETWORK_KEYS = {
    **{f"frames.{k}": f"video_embeddings.{k}" for k in (0, 2, 4)},
    "objects": "object_embeddings",
    "semantics": "fc_layer",
    "ham.out": "linear_visual_layer",
}
CAPTION_KEYS = {
    **{f"read_words.{k}": f"word_fc.{k}" for k in (0, 2, 4)},
    **{f"read_frames.{k}": f"video_embeddings.{k}" for k in (0, 2, 4)},
    "norm": "LayerNorm",
}
BLOCK_KEYS = {
    **{name: f"attention.self.{name}" for name in ("query", "key", "value")},
    **{"out": "attention.output.dense", "norm": "attention.output.LayerNorm"},
    **{"up": "hidden_intermediate.dense", "down": "output.dense", "down_norm": "output.LayerNorm"},
}
# The published training: recorded in the recipe, not needed for captioning.
STAGE = Stage(
    objective=SftLoss(teacher_weight=0.8, label_smoothing=0.3, published=True),
    epochs=20,
    batch_size=64,
    accumulate=4,
    optimizer="adamw",
    lr=2e-4,
    weight_decay=0.01,
    eps=1e-6,
    schedule=Schedule("step", warmup=0.1, factor=0.95, every=1, start=2),
    clip_norm=1.0,
)


@dataclass(frozen=True)
class SftcapSizes:
    """Sizes and kind of a published checkpoint."""

    D: int  # channels of a frame feature
    H: int  # width of teacher and student
    W: int  # width of a word embedding
    h: int  # width of the caption head
    V: int  # number of byte pairs
    layers: int  # of the caption head
    module: Literal["transformer", "lstm"]


def convert(
    checkpoint: Path,
    word_map: Path,
    out: Path,
    encoder: str = "",
    channels: Literal["RGB", "BGR"] = "RGB",
    settings: Settings = NONE_GIVEN,
) -> str:
    """Convert a checkpoint to the run folder `out` -> a summary for the user.

    Nothing is written unless everything fits.  `checkpoint` holds a state dict (`pytorch_best_model.bin`, `....ckpt`).
    `word_map` is a folder with CLIP's vocab.json and merges.txt, or a JSON file {word: id} of another vocabulary with
    the same special tokens.  `encoder` is the CLIP model that made the frame features; with it, the run captions
    clips.  Raises ValueError that names every key that is missing, unknown or of a wrong shape, and FileExistsError
    when `out` holds a run.
    """
    check_settings(settings, "sftcap")
    check_no_run(out)
    if channels != "RGB":
        raise ValueError("CLIP reads RGB: leave out --channels")
    tensors, prefix = read_published(checkpoint)
    sizes = infer_sizes(tensors, prefix, str(checkpoint))
    vocabulary = read_vocabulary(word_map, sizes.V)
    model = build_sft(tensors, prefix, sizes, str(checkpoint))
    clip: EncoderConfig = (
        PretrainedConfig()
    )  # without a source: using the run on raw media raises an error that says so
    provenance: dict[str, Any] = {}
    if encoder:
        clip = ClipFramesConfig(source=encoder)
        built = build_encoder(clip)
        if built.dim != sizes.D:
            raise ValueError(
                f"the features of {encoder} have {built.dim} channels, those of the checkpoint have {sizes.D}"
            )
        provenance = built.provenance()
    recipe = Recipe(
        data=DataConfig(media="."),
        encoder=clip,
        frames=FRAMES,
        feature_rows=FeatureRows(masked=False, max_rows=None),
        vocabulary=VocabularyConfig(min_count=1, tokenizer="split", max_words=LENGTH - 2),
        model=model.config,
        stages=(STAGE,),
        decoding=Beam(
            size=1, rules=Rules(min_length=0, max_length=LENGTH - 1, no_repeat_word=False, allow_unknown=True)
        ),
    )
    info = RunInfo(sizes.D, provenance, media="clips")
    write_run(out, ConvertedRun(recipe, vocabulary, info, model, Layout(6, 1, 1)), str(checkpoint))
    return "\n".join(
        [
            f"run folder: {out}",
            f"teacher ({sizes.module}) and student of {sizes.H} in one network, caption head of {sizes.h} with "
            f"{sizes.layers} layer(s), {sizes.V} byte pairs, frame vectors of {sizes.D} channels; captions are the "
            "student's (model.side); attention includes padded frames, as published (model.masked)",
            f"encoder: {encoder or 'none, so this run captions stored features, not clips'}",
        ]
    )


def read_published(path: Path) -> tuple[dict[str, Tensor], str]:
    """Read a checkpoint -> state dict without the prefix of DataParallel, name of the network.  Raises ValueError."""
    tree = read_checkpoint(path)
    if not isinstance(tree, Mapping) or not has_tensors(dict(tree)):
        raise ValueError(f"{path} holds no state dict, but {type(tree).__name__}")
    not_tensors = [f"{key} ({type(value).__name__})" for key, value in tree.items() if not isinstance(value, Tensor)]
    if not_tensors:
        raise ValueError(f"{path}: entries that are not tensors: {', '.join(not_tensors[:8])}")
    tensors = {str(key).removeprefix("module."): value.float() for key, value in tree.items()}
    check_finite(tensors, str(path))
    networks = [name for name in NETWORK_NAMES if any(key.startswith(f"{name}.") for key in tensors)]
    if len(networks) != 1:
        raise ValueError(
            f"{path} is not an SFTCap checkpoint: expected one of the networks {', '.join(NETWORK_NAMES)}, found "
            f"{', '.join(networks) or ', '.join(sorted(tensors)[:4])}"
        )
    return tensors, networks[0]


def infer_sizes(tensors: Mapping[str, Tensor], prefix: str, path: str) -> SftcapSizes:
    """Infer the sizes from the shapes of some tensors.  Raises ValueError when one of them is missing."""
    size_keys = (
        f"{prefix}.video_embeddings.2.weight",
        f"{DECODER}.word_embeddings.weight",
        f"{DECODER}.word_fc.2.weight",
    )
    invalid = [key for key in size_keys if key not in tensors or tensors[key].dim() != 2]
    if invalid:
        raise ValueError(f"{path} is not an SFTCap checkpoint: {', '.join(invalid)} missing or not a matrix")
    (H, D), (V, W), (h, _) = (tensors[key].shape for key in size_keys)
    numbers = [key.split(".")[3] for key in tensors if key.startswith(f"{DECODER}.layer_sa.")]
    layers = max((int(number) + 1 for number in numbers if number.isdigit()), default=0)
    lstm = any(key.startswith(f"{prefix}.lstm.") for key in tensors)
    return SftcapSizes(D, H, W, h, V, max(1, layers), "lstm" if lstm else "transformer")


def build_sft(tensors: Mapping[str, Tensor], prefix: str, sizes: SftcapSizes, path: str) -> Sft:
    """Build the model with these weights.

    Raises ValueError that names every key that is missing, unknown or of a wrong shape.
    """
    key_map = key_map_of(sizes, prefix)
    ignored = ignored_keys(sizes, prefix)
    missing = sorted(set(key_map.values()) - tensors.keys())
    unknown = sorted(tensors.keys() - set(key_map.values()) - ignored)
    if missing or unknown:
        raise ValueError(
            f"{path} is not an SFTCap checkpoint: missing {missing}; unknown {unknown}{near_names(missing, unknown)}"
        )
    config = SftConfig(
        module=sizes.module,
        shared="all",
        hidden=sizes.h,
        embed=sizes.W,
        width=sizes.H,
        layers=sizes.layers,
        published=True,
        masked=False,
        mask_special_tokens=False,
        unknown=False,
    )
    model = Sft(config, sizes.V + 1, sizes.D)
    state = {
        target: tensors[source]
        for target, source in key_map.items()
        if not target.endswith(("in_proj_weight", "in_proj_bias"))
    }
    for target, source in key_map.items():
        module, _, part = target.rpartition(".in_proj_")
        if module and len(tensors[source]) == 3 * sizes.H:
            values = zip(("query", "key", "value"), tensors[source].chunk(3), strict=True)
            state |= {f"{module}.{name}.{part}": value for name, value in values}
    for key in ("head.embed.weight", "head.words.weight", "head.words.bias"):
        if len(state[key]) != sizes.V:
            raise ValueError(f"{path}: {key_map[key]} has {len(state[key])} rows, expected {sizes.V}")
        state[key] = reorder_rows(state[key])
    load_state_strictly(model, state, path)
    return model.eval()


def key_map_of(sizes: SftcapSizes, prefix: str) -> dict[str, str]:
    """Key of our state dict -> published key.

    torch stores the query, key and value projections in one tensor `in_proj_weight`; here it has the same name on both
    sides, and `build_sft` splits it.
    """
    modules = {f"network.{target}": f"{prefix}.{source}" for target, source in NETWORK_KEYS.items()}
    modules |= {f"head.{target}": f"{DECODER}.{source}" for target, source in CAPTION_KEYS.items()}
    for k in range(sizes.layers):
        modules |= {
            f"head.blocks.{k}.{target}": f"{DECODER}.layer_sa.{k}.{source}" for target, source in BLOCK_KEYS.items()
        }
    modules |= {"head.dense": f"{HEAD}.transform.dense", "head.dense_norm": f"{HEAD}.transform.LayerNorm"}
    key_map = {
        "head.embed.weight": f"{DECODER}.word_embeddings.weight",
        "head.kinds.weight": f"{DECODER}.token_type_embeddings.weight",
        "head.words.weight": f"{HEAD}.decoder.weight",
        "head.words.bias": f"{HEAD}.bias",
        "network.ham.of_actions.weight": f"{prefix}.Ua.weight",
        "network.ham.of_actions.bias": f"{prefix}.ba",
        "network.ham.of_frames.weight": f"{prefix}.Uv.weight",
        "network.ham.of_read": f"{prefix}.bv",
        "network.ham.score_actions.weight": f"{prefix}.wa.weight",
        "network.ham.score_read.weight": f"{prefix}.wv.weight",
    }
    key_map |= {f"network.ham.lstm.{part}": f"{prefix}.bilstm.{part}" for part in LSTM_TENSORS}
    if sizes.module == "lstm":
        key_map |= {f"network.module.lstm.{part}": f"{prefix}.lstm.{part}" for part in LSTM_TENSORS}
    else:
        modules |= {"network.module.dense": f"{prefix}.dense", "network.module.norm": f"{prefix}.LayerNorm"}
        for target, source in (("self_attend", "self_attn"), ("attend", "multihead_attn")):
            modules[f"network.module.{target}.out"] = f"{prefix}.{source}.out_proj"
            for part in ("in_proj_weight", "in_proj_bias"):
                key_map[f"network.module.{target}.{part}"] = f"{prefix}.{source}.{part}"
    for target, source in modules.items():
        key_map |= {f"{target}.{part}": f"{source}.{part}" for part in ("weight", "bias")}
    return key_map


def ignored_keys(sizes: SftcapSizes, prefix: str) -> set[str]:
    """Published keys that no result depends on."""
    unused = {f"{prefix}.{name}" for name in UNUSED_KEYS} | {f"{DECODER}.position_embeddings.pe"}
    parts = ("weight", "bias")
    unused |= {f"{DECODER}.layer_sa.{k}.memory_intermediate.dense.{p}" for k in range(sizes.layers) for p in parts}
    if sizes.module == "lstm":  # of the transformer, which is not used
        unused |= {f"{prefix}.{name}.{p}" for name in ("dense", "LayerNorm") for p in parts}
        for name in ("self_attn", "multihead_attn"):
            unused |= {f"{prefix}.{name}.{p}" for p in ("in_proj_weight", "in_proj_bias")}
            unused |= {f"{prefix}.{name}.out_proj.{p}" for p in parts}
    return unused


def reorder_rows(rows: Tensor) -> Tensor:
    """Reorder rows from (padding, byte pairs, BOS, EOS) to (PAD, BOS, EOS, UNK, byte pairs); the row of UNK is 0.

    >>> reorder_rows(torch.tensor([[9.0], [1.0], [2.0], [7.0], [8.0]])).flatten().tolist()
    [9.0, 7.0, 8.0, 0.0, 1.0, 2.0]
    """
    return torch.cat([rows[:1], rows[-2:], torch.zeros_like(rows[:1]), rows[1:-2]])


def read_vocabulary(word_map: Path, size: int) -> Vocabulary:
    """Read the vocabulary.  Raises ValueError when it does not have `size` byte pairs."""
    folder = word_map if word_map.is_dir() else word_map.parent
    is_clip = word_map.is_dir() or (word_map.name == "vocab.json" and (folder / "merges.txt").is_file())
    if is_clip:
        vocabulary: Vocabulary = read_clip_vocabulary(folder)
    else:
        vocabulary = Vocabulary(order_pieces(read_json(word_map), word_map), "split", 1)
    if len(vocabulary) != size + 1:
        raise ValueError(f"{word_map} has {len(vocabulary) - 1} byte pairs, the checkpoint {size}")
    return vocabulary
