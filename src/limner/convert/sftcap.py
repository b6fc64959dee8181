"""SFTCap as published (ccc000-png/SFTCap): checkpoint and CLIP's vocabulary in, run folder out.

A published run is one network that is teacher and student, and a caption head over CLIP's byte pairs; its ids are
0 for padding, V - 2 for BOS and V - 1 for EOS, so rows are put into limner's order, and the unknown word, which byte
pairs do not have, gets a row that is outside the softmax.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from limner.convert.checkpoint import has_tensors, read_checkpoint
from limner.convert.written import must_be_free, verify
from limner.core.files import read_json
from limner.core.tensors import load_state_strictly, save_tensors
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
from limner.runs.run import RunInfo, create_run
from limner.text.clip_bpe import order_pieces, read_clip_vocabulary
from limner.text.vocabulary import Vocabulary

NETWORKS = ("SFTNet", "SNet", "TNet")
HEAD, DECODER = "caption_head.prediction_head", "caption_head.cap_sa_decoder"
FRAMES, LENGTH = 15, 22  # of a clip; tokens of a caption, BOS and EOS included
IGNORED = ("word_embeddings.weight", "position_embeddings.pe")  # of the network: never read
LSTM = tuple(f"{part}_l0{way}" for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh") for way in ("", "_reverse"))
# ours -> theirs; modules with weight and bias
NETWORK = {
    **{f"frames.{k}": f"video_embeddings.{k}" for k in (0, 2, 4)},
    "objects": "object_embeddings",
    "semantics": "fc_layer",
    "ham.out": "linear_visual_layer",
}
CAPTION = {
    **{f"read_words.{k}": f"word_fc.{k}" for k in (0, 2, 4)},
    **{f"read_frames.{k}": f"video_embeddings.{k}" for k in (0, 2, 4)},
    "norm": "LayerNorm",
}
BLOCK = {
    **{name: f"attention.self.{name}" for name in ("query", "key", "value")},
    **{"out": "attention.output.dense", "norm": "attention.output.LayerNorm"},
    **{"up": "hidden_intermediate.dense", "down": "output.dense", "down_norm": "output.LayerNorm"},
}
# As published; recorded, not needed for captioning.
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
class Sizes:
    D: int  # frame features
    H: int  # teacher and student
    W: int  # words
    h: int  # caption head
    V: int
    layers: int
    module: Literal["transformer", "lstm"]


def convert(
    checkpoint: Path, word_map: Path, out: Path, encoder: str = "", channels: Literal["RGB", "BGR"] = "RGB"
) -> str:
    """Write the run folder `out` and tell in words what was done.  Nothing is written unless everything fits.

    `checkpoint`: a state dict (`pytorch_best_model.bin`, `....ckpt`).  `word_map`: a folder with CLIP's vocab.json and
    merges.txt, or a JSON file {word: id} of another vocabulary with the same marks.  `encoder`: the CLIP model whose
    frame vectors these are, if the run is to caption clips.  Raises ValueError that names what is missing, unknown or
    misshapen, FileExistsError when `out` holds a run.
    """
    must_be_free(out)
    if channels != "RGB":
        raise ValueError("CLIP reads RGB: leave out --channels")
    tensors, prefix = read_published(checkpoint)
    sizes = sizes_of(tensors, prefix, str(checkpoint))
    vocabulary = read_vocabulary(word_map, sizes.V)
    model = build(tensors, prefix, sizes, str(checkpoint))
    clip: EncoderConfig = PretrainedConfig()  # none: a later use on raw media says what is missing
    provenance: dict[str, Any] = {}
    if encoder:
        clip = ClipFramesConfig(source=encoder)
        built = build_encoder(clip)
        if built.dim != sizes.D:
            raise ValueError(f"the frames of {encoder} have {built.dim} channels, the checkpoint's have {sizes.D}")
        provenance = built.provenance()
    recipe = Recipe(
        data=DataConfig(media="."),
        encoder=clip,
        frames=FRAMES,
        feature_rows=FeatureRows(masked=False, cut=None),
        vocabulary=VocabularyConfig(min_count=1, tokenizer="split", max_words=LENGTH - 2),
        model=model.config,
        stages=(STAGE,),
        decoding=Beam(
            size=1, rules=Rules(min_length=0, max_length=LENGTH - 1, no_repeat_word=False, allow_unknown=True)
        ),
    )
    save_tensors(out / "model.safetensors", model.state_dict())
    create_run(out, recipe, vocabulary, RunInfo(sizes.D, provenance))  # run.json is the last file
    verify(out, model, Layout(6, 1, 1))
    return "\n".join(
        [
            f"run folder: {out}",
            f"teacher ({sizes.module}) and student of {sizes.H} in one network, caption head of {sizes.h} with "
            f"{sizes.layers} layer(s), {sizes.V} pieces, frame vectors of {sizes.D} channels; captions are the "
            "student's (model.side); padded frames are frames, as published (model.masked)",
            f"encoder: {encoder or 'none, so this run captions stored features, not clips'}",
        ]
    )


def read_published(path: Path) -> tuple[dict[str, Tensor], str]:
    """-> the state dict without the prefix of DataParallel, and what its network is called.  Raises ValueError."""
    tree = read_checkpoint(path)
    if not isinstance(tree, Mapping) or not has_tensors(dict(tree)):
        raise ValueError(f"{path} holds no state dict, but {type(tree).__name__}")
    strange = [f"{key} ({type(value).__name__})" for key, value in tree.items() if not isinstance(value, Tensor)]
    if strange:
        raise ValueError(f"{path}: entries that are no tensors: {', '.join(strange[:8])}")
    tensors = {str(key).removeprefix("module."): value.float() for key, value in tree.items()}
    found = [name for name in NETWORKS if any(key.startswith(f"{name}.") for key in tensors)]
    if len(found) != 1:
        raise ValueError(
            f"{path} is no SFTCap checkpoint: one of the networks {', '.join(NETWORKS)} is expected in it, found "
            f"{', '.join(found) or ', '.join(sorted(tensors)[:4])}"
        )
    return tensors, found[0]


def sizes_of(tensors: Mapping[str, Tensor], prefix: str, where: str) -> Sizes:
    """From the shapes of some tensors.  Raises ValueError when one is missing."""
    telling = (
        f"{prefix}.video_embeddings.2.weight",
        f"{DECODER}.word_embeddings.weight",
        f"{DECODER}.word_fc.2.weight",
    )
    unfit = [key for key in telling if key not in tensors or tensors[key].dim() != 2]
    if unfit:
        raise ValueError(f"{where} is no SFTCap checkpoint: {', '.join(unfit)} missing or no matrix")
    (H, D), (V, W), (h, _) = (tensors[key].shape for key in telling)
    numbers = [key.split(".")[3] for key in tensors if key.startswith(f"{DECODER}.layer_sa.")]
    layers = max((int(number) + 1 for number in numbers if number.isdigit()), default=0)
    lstm = any(key.startswith(f"{prefix}.lstm.") for key in tensors)
    return Sizes(D, H, W, h, V, max(1, layers), "lstm" if lstm else "transformer")


def build(tensors: Mapping[str, Tensor], prefix: str, sizes: Sizes, where: str) -> Sft:
    """The model with these weights.  Raises ValueError that names every missing, unknown or misshapen key."""
    names = names_of(sizes, prefix)
    ignored = ignored_of(sizes, prefix)
    missing = sorted(set(names.values()) - tensors.keys())
    unknown = sorted(tensors.keys() - set(names.values()) - ignored)
    if missing or unknown:
        raise ValueError(f"{where} is no SFTCap checkpoint: missing {missing}; unknown {unknown}")
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
        ours: tensors[theirs] for ours, theirs in names.items() if not ours.endswith(("in_proj_weight", "in_proj_bias"))
    }
    for ours, theirs in names.items():
        module, _, part = ours.rpartition(".in_proj_")
        if module and len(tensors[theirs]) == 3 * sizes.H:
            values = zip(("query", "key", "value"), tensors[theirs].chunk(3), strict=True)
            state |= {f"{module}.{name}.{part}": value for name, value in values}
    for key in ("head.embed.weight", "head.words.weight", "head.words.bias"):
        if len(state[key]) != sizes.V:
            raise ValueError(f"{where}: {names[key]} has {len(state[key])} rows, expected {sizes.V}")
        state[key] = reorder(state[key])
    load_state_strictly(model, state, where)
    return model.eval()


def names_of(sizes: Sizes, prefix: str) -> dict[str, str]:
    """Our keys -> theirs; the three projections that torch keeps in one are named as such in both."""
    modules = {f"network.{ours}": f"{prefix}.{theirs}" for ours, theirs in NETWORK.items()}
    modules |= {f"head.{ours}": f"{DECODER}.{theirs}" for ours, theirs in CAPTION.items()}
    for k in range(sizes.layers):
        modules |= {f"head.blocks.{k}.{ours}": f"{DECODER}.layer_sa.{k}.{theirs}" for ours, theirs in BLOCK.items()}
    modules |= {"head.dense": f"{HEAD}.transform.dense", "head.dense_norm": f"{HEAD}.transform.LayerNorm"}
    names = {
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
    names |= {f"network.ham.lstm.{part}": f"{prefix}.bilstm.{part}" for part in LSTM}
    if sizes.module == "lstm":
        names |= {f"network.module.lstm.{part}": f"{prefix}.lstm.{part}" for part in LSTM}
    else:
        modules |= {"network.module.dense": f"{prefix}.dense", "network.module.norm": f"{prefix}.LayerNorm"}
        for ours, theirs in (("self_attend", "self_attn"), ("attend", "multihead_attn")):
            modules[f"network.module.{ours}.out"] = f"{prefix}.{theirs}.out_proj"
            for part in ("in_proj_weight", "in_proj_bias"):
                names[f"network.module.{ours}.{part}"] = f"{prefix}.{theirs}.{part}"
    for ours, theirs in modules.items():
        names |= {f"{ours}.{part}": f"{theirs}.{part}" for part in ("weight", "bias")}
    return names


def ignored_of(sizes: Sizes, prefix: str) -> set[str]:
    """Keys that real state dicts have and no result depends on."""
    unused = {f"{prefix}.{name}" for name in IGNORED} | {f"{DECODER}.position_embeddings.pe"}
    parts = ("weight", "bias")
    unused |= {f"{DECODER}.layer_sa.{k}.memory_intermediate.dense.{p}" for k in range(sizes.layers) for p in parts}
    if sizes.module == "lstm":  # the transformer's own
        unused |= {f"{prefix}.{name}.{p}" for name in ("dense", "LayerNorm") for p in parts}
        for name in ("self_attn", "multihead_attn"):
            unused |= {f"{prefix}.{name}.{p}" for p in ("in_proj_weight", "in_proj_bias")}
            unused |= {f"{prefix}.{name}.out_proj.{p}" for p in parts}
    return unused


def reorder(rows: Tensor) -> Tensor:
    """Their rows (padding, pieces, BOS, EOS) -> ours (PAD, BOS, EOS, UNK, pieces); UNK is new and 0."""
    return torch.cat([rows[:1], rows[-2:], torch.zeros_like(rows[:1]), rows[1:-2]])


def read_vocabulary(word_map: Path, size: int) -> Vocabulary:
    """Raises ValueError when it has not `size` words."""
    folder = word_map if word_map.is_dir() else word_map.parent
    pairs = word_map.is_dir() or (word_map.name == "vocab.json" and (folder / "merges.txt").is_file())
    if pairs:
        vocabulary: Vocabulary = read_clip_vocabulary(folder)
    else:
        vocabulary = Vocabulary(order_pieces(read_json(word_map), word_map), "split", 1)
    if len(vocabulary) != size + 1:
        raise ValueError(f"{word_map} has {len(vocabulary) - 1} pieces, the checkpoint {size}")
    return vocabulary
