"""VideoCaptioning as published (yiskw713/VideoCaptioning, 3-D CNN maps and an LSTM): weights and vocabulary in, run
folder out.

Its ids are limner's.  Its step 0, which reads the clip and is trained to predict <start>, is `FirstToken.init_state`;
its step j reads the word that `step` reads.
"""

import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import yaml
from torch import Tensor

from limner.convert.checkpoint import Record, check_keys, read_checkpoint
from limner.convert.written import must_be_free, verify
from limner.core.files import read_json
from limner.core.tensors import load_state_strictly, save_tensors
from limner.core.types import Layout
from limner.data.datasets import DataConfig
from limner.decode.rules import Rules
from limner.decode.search import Beam
from limner.encoders import Pretrained, PretrainedConfig, ResNet3D, ResNet3DConfig
from limner.encoders.resnet3d import infer_config, load_weights, read_weights
from limner.models.spatiotemporal import FirstToken, FirstTokenConfig
from limner.runs.recipe import Recipe, Schedule, Stage, VocabularyConfig
from limner.runs.run import RunInfo, create_run
from limner.text.vocabulary import SPECIALS, Vocabulary

MARKS = ("<pad>", "<start>", "<end>", "<unk>")  # the published names of PAD, BOS, EOS, UNK
PAIRS = (  # what its training leaves in a folder, the best first
    ("best_loss_encoder.prm", "best_loss_decoder.prm"),
    ("final_encoder.prm", "final_decoder.prm"),
    ("encoder.prm", "decoder.prm"),
)
LAYERS = {  # our name of each of its layers
    "encoder.conv": "conv",
    "encoder.bn1": "conv_norm",
    "encoder.linear": "linear",
    "encoder.bn2": "norm",
    "decoder.embed": "embed",
    "decoder.lstm": "lstm",
    "decoder.linear": "head",
}
STATISTICS = ("weight", "bias", "running_mean", "running_var")
# 20 steps, of which the first says <start>; nothing is suppressed
DECODING = Beam(1, 0.0, Rules(min_length=0, max_length=19, no_repeat_word=False, allow_unknown=True))
FRAMES = 160  # it reads whole clips; so many give the 10 maps to which it resamples


class Published(NamedTuple):
    """A checkpoint's state dicts under "encoder." and "decoder.", and where they come from."""

    tensors: dict[str, Tensor]
    folder: Path
    source: str


def convert(
    checkpoint: Path, word_map: Path, out: Path, encoder: str = "", channels: Literal["RGB", "BGR"] = "RGB"
) -> str:
    """Write the run folder `out` and tell in words what was done.  Nothing is written unless everything fits.

    `checkpoint`: checkpoint.pth, an encoder .prm beside its decoder .prm, or the folder that holds them; a config.yaml
    there becomes the recipe.  `word_map`: the pickled vocabulary, or JSON {word: id}.  `encoder`: weights of the 3-D
    ResNet that made the features (.pth, copied into the run), or a transformers video model.  Raises ValueError that
    names what is missing, unknown or misshapen, FileExistsError when `out` holds a run.
    """
    must_be_free(out)
    if channels != "RGB":
        raise ValueError("the published 3-D features are of RGB frames; leave out --channels")
    published = read_published(checkpoint)
    words = read_vocabulary(word_map)
    config, tensors = map_weights(published.tensors, len(words), published.source)
    settings = published.folder / "config.yaml"
    stage = Stage(optimizer="adam", epochs=300, lr=1e-3, captions_per_medium=1, clip_norm=None)
    if settings.is_file():
        config, stage = read_settings(settings, config)
    dim = tensors["linear.weight"].shape[1]  # channels of a cell
    model = FirstToken(config, len(words), dim)
    load_state_strictly(model, tensors, published.source)
    net = _encoder(encoder, dim)
    provenance = {} if net is None else net.provenance()
    if isinstance(net, ResNet3D):  # its weights travel with the run
        tensors |= {f"encoder.{key}": value for key, value in net.state_dict().items()}
        provenance["source"] = Path(encoder).name
    recipe = Recipe(
        data=DataConfig(media="."),
        # without any encoder the recipe names one without weights, so that a later use says what is missing
        encoder=ResNet3DConfig(trainable_from=None) if net is None else net.config,
        frames=FRAMES,
        vocabulary=VocabularyConfig(min_count=4),
        model=config,
        stages=(stage,),
        decoding=DECODING,
    )
    save_tensors(out / "model.safetensors", tensors)
    vocabulary = Vocabulary((*SPECIALS, *words[len(MARKS) :]), "simple", 4)
    create_run(
        out, recipe, vocabulary, RunInfo(dim, provenance, isinstance(net, ResNet3D))
    )  # run.json is the last file
    verify(out, model.eval(), Layout(2, 2, 2))
    return _summary(out, recipe, model, dim, encoder, settings.is_file())


def read_published(path: Path) -> Published:
    """Find and read both state dicts.  Raises ValueError, FileNotFoundError."""
    if path.is_dir():
        pairs = [(path / one, path / other) for one, other in PAIRS]
        found = next((pair for pair in pairs if pair[0].is_file() and pair[1].is_file()), None)
        if found is None and not (path / "checkpoint.pth").is_file():
            raise FileNotFoundError(f"{path} holds no checkpoint.pth and none of {', '.join(map(' + '.join, PAIRS))}")
        path = path / "checkpoint.pth" if found is None else found[0]
    tree = read_checkpoint(path)
    if isinstance(tree, Mapping) and "encoder" in tree and "decoder" in tree:
        parts = {"encoder": tree["encoder"], "decoder": tree["decoder"]}
    else:
        names = {
            part: path.name.replace("decoder", "encoder").replace("encoder", part) for part in ("encoder", "decoder")
        }
        if names["encoder"] == names["decoder"]:
            raise ValueError(
                f"{path} holds no entries 'encoder' and 'decoder'; give checkpoint.pth, or an ...encoder.prm that lies "
                "beside its ...decoder.prm"
            )
        parts = {
            part: tree if name == path.name else read_checkpoint(path.with_name(name)) for part, name in names.items()
        }
    tensors: dict[str, Tensor] = {}
    for part, state in parts.items():
        if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
            raise ValueError(f"{path}: its {part} is no state dict, but {state!r:.80}")
        tensors |= {f"{part}.{str(key).removeprefix('module.')}": value for key, value in state.items()}
    return Published(tensors, path.parent, str(path))


def read_vocabulary(path: Path) -> tuple[str, ...]:
    """Words in the order of their ids, of a pickle of its class `Vocabulary` or of JSON {word: id}.

    Nothing that the pickle names is imported or called.  Raises ValueError.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no vocabulary at {path}")
    ids = read_json(path) if path.suffix == ".json" else _unpickled(path)
    if not isinstance(ids, dict) or not all(type(word) is str and type(i) is int for word, i in ids.items()):
        raise ValueError(f"{path} is no vocabulary: expected words with whole numbers, got {ids!r:.80}")
    words = tuple(sorted(ids, key=ids.__getitem__))
    if sorted(ids.values()) != list(range(len(ids))) or words[: len(MARKS)] != MARKS:
        raise ValueError(
            f"{path}: expected the ids 0 .. {len(ids) - 1}, each once, of {', '.join(MARKS)} and then the words; it "
            f"begins with {', '.join(words[:4])}"
        )
    clash = [word for word in SPECIALS if word in words[len(MARKS) :]]
    if clash:
        raise ValueError(f"{path}: {', '.join(clash)} cannot be words, limner's own marks are called so")
    return words


class _Reader(pickle.Unpickler):
    """Makes an inert `Record` of whatever the pickle names: no class and no function is looked up."""

    def find_class(self, module: str, name: str) -> type[Record]:
        return type(name, (Record,), {"__slots__": (), "origin": f"{module}.{name}"})


def _unpickled(path: Path) -> Any:
    try:
        with open(path, "rb") as file:
            record = _Reader(file).load()
    except Exception as error:  # a hostile or damaged pickle may fail anywhere
        raise ValueError(
            f"{path} is no pickled vocabulary that can be read without executing code ({error}); "
            "save its word2idx as JSON {word: id}"
        ) from error
    if not isinstance(record, Record) or not isinstance(record.state, dict) or "word2idx" not in record.state:
        raise ValueError(f"{path} is no pickled vocabulary: expected a `Vocabulary` with word2idx, got {record!r:.80}")
    return record.state["word2idx"]


def shapes_of(tensors: Mapping[str, Tensor], vocabulary_size: int, where: str) -> dict[str, tuple[int, ...]]:
    """The shape that every key must have, from sizes that three of the tensors tell.

    C: channels of a cell, E: embedding, H: hidden, V: words.  Raises ValueError when one is missing.
    """
    telling = ("encoder.linear.weight", "decoder.embed.weight", "decoder.lstm.weight_hh_l0")
    unfit = [key for key in telling if key not in tensors or tensors[key].dim() != 2]
    if unfit:
        raise ValueError(
            f"{where} is no VideoCaptioning model: {', '.join(unfit)} missing or no matrix; it has "
            f"{', '.join(sorted(tensors)[:6])} ..."
        )
    (E, C), H, V = tensors[telling[0]].shape, tensors[telling[2]].shape[1], vocabulary_size
    layers = sum(key.startswith("decoder.lstm.weight_hh_l") for key in tensors)
    shapes: dict[str, tuple[int, ...]] = {"encoder.conv.weight": (C, C, 1, 1, 1), "encoder.conv.bias": (C,)}
    shapes |= {f"encoder.bn1.{name}": (C,) for name in STATISTICS}
    shapes |= {"encoder.linear.weight": (E, C), "encoder.linear.bias": (E,)}
    shapes |= {f"encoder.bn2.{name}": (E,) for name in STATISTICS}
    shapes |= {"decoder.embed.weight": (V, E), "decoder.linear.weight": (V, H), "decoder.linear.bias": (V,)}
    for n in range(layers):
        shapes |= {f"decoder.lstm.weight_ih_l{n}": (4 * H, H if n else E), f"decoder.lstm.weight_hh_l{n}": (4 * H, H)}
        shapes |= {f"decoder.lstm.bias_ih_l{n}": (4 * H,), f"decoder.lstm.bias_hh_l{n}": (4 * H,)}
    return shapes


def map_weights(
    tensors: Mapping[str, Tensor], vocabulary_size: int, where: str
) -> tuple[FirstTokenConfig, dict[str, Tensor]]:
    """Published state dicts -> our config and state dict.  Raises ValueError that names every misfit."""
    shapes = shapes_of(tensors, vocabulary_size, where)
    counters = {f"encoder.{norm}.num_batches_tracked" for norm in ("bn1", "bn2")}
    check_keys(tensors, shapes, f"{where} is no VideoCaptioning model for {vocabulary_size} words", counters)
    mapped = {f"{LAYERS[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": tensors[key].float() for key in shapes}
    mapped["conv.weight"] = mapped["conv.weight"].flatten(1)
    for key in counters:
        layer, _, name = key.rpartition(".")
        mapped[f"{LAYERS[layer]}.{name}"] = tensors.get(key, torch.tensor(0))  # torch < 0.4.1 had none
    layers = sum(key.startswith("lstm.weight_hh_l") for key in mapped)
    embed, hidden = mapped["embed.weight"].shape[1], mapped["head.weight"].shape[1]
    return FirstTokenConfig(embed=embed, hidden=hidden, layers=layers, mask_special_tokens=False), mapped


def read_settings(path: Path, config: FirstTokenConfig) -> tuple[FirstTokenConfig, Stage]:
    """Its config.yaml -> what the weights do not tell about the model, and its training as a stage.

    Raises ValueError for settings that have no counterpart.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        settings: dict[str, Any] = {key: None if value == "None" else value for key, value in found.items()}
        align = tuple(int(side) for side in settings["align_size"])
        noise = float(settings.get("stddev", 0.01)) if settings.get("add_noise") else 0.0
        return replace(config, align=align, noise=noise), _stage(settings)  # type: ignore[arg-type]
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no config.yaml of VideoCaptioning: {type(error).__name__}: {error}") from error


def _stage(settings: dict[str, Any]) -> Stage:
    optimizers = {"Adam": "adam", "SGD": "sgd", "AdaBound": "adabound"}
    schedules: dict[Any, Schedule] = {
        None: Schedule(),
        "onplateau": Schedule("plateau", factor=0.1, patience=int(settings.get("lr_patience", 10))),
        "poly": Schedule("poly", power=float(settings.get("poly_power", 0.9))),
    }
    name, schedule = settings["optimizer"], settings.get("scheduler")
    if name not in optimizers or schedule not in schedules:
        raise ValueError(
            f"optimizer {name!r} and scheduler {schedule!r}; known: {', '.join(optimizers)} and onplateau, poly | None"
        )
    if float(settings.get("dampening", 0)) != 0 and name == "SGD":
        raise ValueError(f"dampening {settings['dampening']} has no counterpart; 0 has")
    return Stage(
        epochs=int(settings["max_epoch"]),
        batch_size=int(settings["batch_size"]),
        captions_per_medium=1,  # one of a clip's captions, drawn anew in each epoch
        optimizer=optimizers[name],  # type: ignore[arg-type]
        lr=float(settings["learning_rate"]),
        weight_decay=0.0 if name == "Adam" else float(settings.get("weight_decay", 0)),  # its Adam is given none
        momentum=float(settings.get("momentum", 0.9)),
        nesterov=bool(settings.get("nesterov", False)),
        final_lr=float(settings.get("final_lr", 0.1)),
        schedule=schedules[schedule],
        clip_norm=None,
    )


def _resnet(source: str) -> ResNet3D:
    weights = read_weights(source)
    net = ResNet3D(infer_config(weights))
    load_weights(net, weights, source)
    return net


def _encoder(source: str, dim: int) -> ResNet3D | Pretrained | None:
    """A 3-D ResNet when `source` is a file, else a model of transformers.  Raises ValueError when it does not fit."""
    if not source:
        return None
    encoder = _resnet(source) if Path(source).is_file() else Pretrained(PretrainedConfig(source=source))
    if encoder.dim != dim:
        raise ValueError(f"{source} gives cells of {encoder.dim} channels, the captioner reads {dim}")
    return encoder.eval()


def _summary(out: Path, recipe: Recipe, model: FirstToken, dim: int, encoder: str, told: bool) -> str:
    config = model.config
    lines = [
        f"run folder: {out}",
        f"captioner: {model.embed.num_embeddings} words, cells of {dim} channels, hidden {config.hidden}, embedding "
        f"{config.embed}, {config.layers} LSTM layer(s)",
        f"settings: its config.yaml (maps resampled to {config.align}, {recipe.stages[0].optimizer})"
        if told
        else "settings: no config.yaml beside it, so maps are read as they are (published: align_size [10, 7, 7])",
        f"encoder: {encoder} ({type(recipe.encoder).__name__.removesuffix('Config')})"
        if encoder
        else "encoder: none given, so this run captions features, not clips; convert again with --encoder R3D50.pth",
        "words: the published ones were split by spaCy; limner's `simple` has no punctuation",
    ]
    return "\n".join(lines)
