"""Conversion of VideoCaptioning (yiskw713/VideoCaptioning, 3-D CNN maps and an LSTM) to a run folder.

The published word ids are the same as limner's.  The published step 0, which reads the clip and is trained to predict
<start>, is `FirstToken.init_state`; step j > 0 reads the same word as `FirstToken.step`.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import yaml
from torch import Tensor

from limner.convert.checkpoint import (
    PickledObject,
    check_finite,
    check_keys,
    id_problem,
    is_cut,
    near_names,
    read_checkpoint,
    read_pickle,
)
from limner.convert.run_folder import ConvertedRun, check_no_run, write_run
from limner.convert.settings import NONE_GIVEN, Settings, check_settings, choose
from limner.core.files import read_json
from limner.core.messages import short_repr
from limner.core.tensors import load_state_strictly
from limner.core.types import Layout
from limner.core.untrusted import load_yaml
from limner.data.datasets import DataConfig
from limner.decode.rules import Rules
from limner.decode.search import Beam
from limner.encoders import Pretrained, PretrainedConfig, ResNet3D, ResNet3DConfig
from limner.encoders.resnet3d import infer_config, load_weights, read_weights
from limner.models.spatiotemporal import FirstToken, FirstTokenConfig
from limner.runs.recipe import Recipe, Schedule, Stage, VocabularyConfig
from limner.runs.run import RunInfo
from limner.text.vocabulary import SPECIALS, Vocabulary

PUBLISHED_SPECIALS = ("<pad>", "<start>", "<end>", "<unk>")  # published names of PAD, BOS, EOS, UNK
CHECKPOINT_PAIRS = (  # files that the published training writes to a folder, the best first
    ("best_loss_encoder.prm", "best_loss_decoder.prm"),
    ("final_encoder.prm", "final_decoder.prm"),
    ("encoder.prm", "decoder.prm"),
)
LAYERS = {  # published layer -> layer of `FirstToken`
    "encoder.conv": "conv",
    "encoder.bn1": "conv_norm",
    "encoder.linear": "linear",
    "encoder.bn2": "norm",
    "decoder.embed": "embed",
    "decoder.lstm": "lstm",
    "decoder.linear": "head",
}
BATCHNORM_TENSORS = ("weight", "bias", "running_mean", "running_var")
# the published search has 20 steps, and the first one predicts <start>; no word is forbidden
DECODING = Beam(1, 0.0, Rules(min_length=0, max_length=19, no_repeat_word=False, allow_unknown=True))
FRAMES = 160  # the published model reads whole clips; 160 frames give 10 maps, the number to which it resamples


class VideoCaptioningCheckpoint(NamedTuple):
    """The contents of a published checkpoint: tensors with the prefixes "encoder." and "decoder.", and their source."""

    tensors: dict[str, Tensor]
    folder: Path
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

    Nothing is written unless everything fits.  `checkpoint` is checkpoint.pth, an encoder .prm in one folder with its
    decoder .prm, or the folder that holds them; a config.yaml there becomes the recipe.  `word_map` is the pickled
    vocabulary, or JSON {word: id}.  `encoder` is the .pth file of the 3-D ResNet that made the features, which is
    copied into the run, or a transformers video model.  Raises ValueError that names every key that is missing, unknown
    or of a wrong shape, and FileExistsError when `out` holds a run.
    """
    check_settings(settings, "video-captioning-3d")
    check_no_run(out)
    if channels != "RGB":
        raise ValueError("the published 3-D features are those of RGB frames: leave out --channels")
    loaded = read_published(checkpoint)
    words = read_vocabulary(word_map)
    config, tensors = map_weights(loaded.tensors, len(words), loaded.source)
    file = loaded.folder / "config.yaml"
    stage = Stage(optimizer="adam", epochs=300, lr=1e-3, captions_per_medium=1, clip_norm=None)
    if file.is_file():
        config, stage = read_settings(file, config)
    if settings.align is not None:
        config = replace(config, align=choose("align", settings.align, config.align, settings.align, str(file)))
    dim = tensors["linear.weight"].shape[1]  # channels of a cell
    model = FirstToken(config, len(words), dim)
    load_state_strictly(model, tensors, loaded.source)
    net = _encoder(encoder, dim)
    provenance = {} if net is None else net.provenance()
    own = net if isinstance(net, ResNet3D) else None  # the run holds its weights
    if own is not None:
        provenance["source"] = Path(encoder).name
    recipe = Recipe(
        data=DataConfig(media="."),
        # without an encoder, the recipe has one without weights: raw media then raise an error that says so
        encoder=ResNet3DConfig(trainable_from=None) if net is None else net.config,
        frames=FRAMES,
        vocabulary=VocabularyConfig(min_count=4),
        model=config,
        stages=(stage,),
        decoding=DECODING,
    )
    vocabulary = Vocabulary((*SPECIALS, *words[len(PUBLISHED_SPECIALS) :]), "simple", 4)
    info = RunInfo(dim, provenance, own is not None, media="clips")
    write_run(out, ConvertedRun(recipe, vocabulary, info, model, Layout(2, 2, 2), encoder=own), loaded.source)
    return _summary(out, recipe, model, dim, encoder, file.is_file())


def read_published(path: Path) -> VideoCaptioningCheckpoint:
    """Find and read both state dicts.  Raises ValueError, FileNotFoundError."""
    if path.is_dir():
        pairs = [(path / encoder, path / decoder) for encoder, decoder in CHECKPOINT_PAIRS]
        pair = next((pair for pair in pairs if pair[0].is_file() and pair[1].is_file()), None)
        if pair is None and not (path / "checkpoint.pth").is_file():
            raise FileNotFoundError(
                f"{path} holds no checkpoint.pth and none of {', '.join(map(' + '.join, CHECKPOINT_PAIRS))}"
            )
        path = path / "checkpoint.pth" if pair is None else pair[0]
    tree = read_checkpoint(path)
    if isinstance(tree, Mapping) and "encoder" in tree and "decoder" in tree:
        parts = {"encoder": tree["encoder"], "decoder": tree["decoder"]}
    else:
        names = {
            part: path.name.replace("decoder", "encoder").replace("encoder", part) for part in ("encoder", "decoder")
        }
        if names["encoder"] == names["decoder"]:
            raise ValueError(
                f"{path} holds no entries 'encoder' and 'decoder'; give checkpoint.pth, or an ...encoder.prm that is "
                "in one folder with its ...decoder.prm"
            )
        parts = {
            part: tree if name == path.name else read_checkpoint(path.with_name(name)) for part, name in names.items()
        }
    tensors: dict[str, Tensor] = {}
    for part, state in parts.items():
        if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
            raise ValueError(f"{path}: its {part} is not a state dict, but {short_repr(state)}")
        tensors |= {f"{part}.{str(key).removeprefix('module.')}": value for key, value in state.items()}
    check_finite(tensors, str(path))
    return VideoCaptioningCheckpoint(tensors, path.parent, str(path))


def read_vocabulary(path: Path) -> tuple[str, ...]:
    """Read a pickled `Vocabulary`, or JSON {word: id} -> words in the order of their ids.

    The pickle is read without importing or calling anything.  Raises ValueError.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no vocabulary at {path}")
    ids = read_json(path) if path.suffix == ".json" else _read_pickle(path)
    if not isinstance(ids, dict) or not all(type(word) is str and type(i) is int for word, i in ids.items()):
        raise ValueError(f"{path} is not a vocabulary: expected words with integer ids, got {short_repr(ids)}")
    words = tuple(sorted(ids, key=ids.__getitem__))
    problem = id_problem(ids)
    if problem or words[: len(PUBLISHED_SPECIALS)] != PUBLISHED_SPECIALS:
        near = near_names([token for token in PUBLISHED_SPECIALS if token not in ids], ids)
        problem = problem or f"it begins with {', '.join(words[:4])}"
        raise ValueError(
            f"{path}: expected the ids 0 .. {len(ids) - 1}, each once, and first those of "
            f"{', '.join(PUBLISHED_SPECIALS)}; {problem}{near}"
        )
    clash = [word for word in SPECIALS if word in words[len(PUBLISHED_SPECIALS) :]]
    if clash:
        raise ValueError(
            f"{path}: {', '.join(clash)} cannot be words, because limner's special tokens have these names"
        )
    return words


def _read_pickle(path: Path) -> Any:
    """`word2idx` of a pickled `Vocabulary`.  Raises ValueError."""
    try:
        vocabulary = read_pickle(path)
    except OSError:
        raise
    except Exception as error:  # a malicious or damaged pickle can fail anywhere
        if is_cut(error):
            raise ValueError(f"{path} is cut: the pickle ends too early; copy it again") from error
        raise ValueError(
            f"{path} is not a pickled vocabulary that can be read without executing code ({error}); "
            "save its word2idx as JSON {word: id}"
        ) from error
    state = vocabulary.state if isinstance(vocabulary, PickledObject) else None
    if not isinstance(state, dict) or "word2idx" not in state:
        raise ValueError(
            f"{path} is not a pickled vocabulary: expected a `Vocabulary` with word2idx, got {short_repr(vocabulary)}"
        )
    return state["word2idx"]


def expected_shapes(tensors: Mapping[str, Tensor], vocabulary_size: int, path: str) -> dict[str, tuple[int, ...]]:
    """The shape that every key must have; sizes are inferred from three of the tensors.

    The sizes are C channels of a cell, E embedding, H hidden state, V words.  Raises ValueError when one of these
    tensors is missing.
    """
    size_keys = ("encoder.linear.weight", "decoder.embed.weight", "decoder.lstm.weight_hh_l0")
    invalid = [key for key in size_keys if key not in tensors or tensors[key].dim() != 2]
    if invalid:
        raise ValueError(
            f"{path} is not a VideoCaptioning model: {', '.join(invalid)} missing or not a matrix; it has "
            f"{', '.join(sorted(tensors)[:6])} ..."
        )
    (E, C), H, V = tensors[size_keys[0]].shape, tensors[size_keys[2]].shape[1], vocabulary_size
    layers = sum(key.startswith("decoder.lstm.weight_hh_l") for key in tensors)
    shapes: dict[str, tuple[int, ...]] = {"encoder.conv.weight": (C, C, 1, 1, 1), "encoder.conv.bias": (C,)}
    shapes |= {f"encoder.bn1.{name}": (C,) for name in BATCHNORM_TENSORS}
    shapes |= {"encoder.linear.weight": (E, C), "encoder.linear.bias": (E,)}
    shapes |= {f"encoder.bn2.{name}": (E,) for name in BATCHNORM_TENSORS}
    shapes |= {"decoder.embed.weight": (V, E), "decoder.linear.weight": (V, H), "decoder.linear.bias": (V,)}
    for n in range(layers):
        shapes |= {f"decoder.lstm.weight_ih_l{n}": (4 * H, H if n else E), f"decoder.lstm.weight_hh_l{n}": (4 * H, H)}
        shapes |= {f"decoder.lstm.bias_ih_l{n}": (4 * H,), f"decoder.lstm.bias_hh_l{n}": (4 * H,)}
    return shapes


def map_weights(
    tensors: Mapping[str, Tensor], vocabulary_size: int, path: str
) -> tuple[FirstTokenConfig, dict[str, Tensor]]:
    """Convert published state dicts to config and state dict of `FirstToken`.

    Raises ValueError that names every key that is missing, unknown or of a wrong shape.
    """
    shapes = expected_shapes(tensors, vocabulary_size, path)
    counters = {f"encoder.{norm}.num_batches_tracked" for norm in ("bn1", "bn2")}
    check_keys(tensors, shapes, f"{path} is not a VideoCaptioning model for {vocabulary_size} words", counters)
    mapped = {f"{LAYERS[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": tensors[key].float() for key in shapes}
    mapped["conv.weight"] = mapped["conv.weight"].flatten(1)
    for key in counters:
        layer, _, name = key.rpartition(".")
        mapped[f"{LAYERS[layer]}.{name}"] = tensors.get(key, torch.tensor(0))  # weights of torch < 0.4.1 have none
    layers = sum(key.startswith("lstm.weight_hh_l") for key in mapped)
    embed, hidden = mapped["embed.weight"].shape[1], mapped["head.weight"].shape[1]
    return FirstTokenConfig(embed=embed, hidden=hidden, layers=layers, mask_special_tokens=False), mapped


def read_settings(path: Path, config: FirstTokenConfig) -> tuple[FirstTokenConfig, Stage]:
    """Read the published config.yaml -> config with the settings that weights do not say, training stage.

    Raises ValueError for settings that limner does not have.
    """
    try:
        tree = load_yaml(path.read_text(encoding="utf-8-sig"))
        settings: dict[str, Any] = {key: None if value == "None" else value for key, value in tree.items()}
        align = tuple(int(side) for side in settings["align_size"])
        noise = float(settings.get("stddev", 0.01)) if settings.get("add_noise") else 0.0
        return replace(config, align=align, noise=noise), _stage(settings)  # type: ignore[arg-type]
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a config.yaml of VideoCaptioning: {type(error).__name__}: {error}") from error


def _stage(settings: dict[str, Any]) -> Stage:
    """The published training as a stage.  Raises ValueError."""
    optimizers = {"Adam": "adam", "SGD": "sgd", "AdaBound": "adabound"}
    schedules: dict[Any, Schedule] = {
        None: Schedule(),
        "onplateau": Schedule("plateau", factor=0.1, patience=int(settings.get("lr_patience", 10))),
        "poly": Schedule("poly", power=float(settings.get("poly_power", 0.9))),
    }
    name, schedule = settings["optimizer"], settings.get("scheduler")
    if name not in optimizers or schedule not in schedules:
        raise ValueError(
            f"optimizer {short_repr(name)} and scheduler {short_repr(schedule)}; known: "
            f"{', '.join(optimizers)} and onplateau, poly | None"
        )
    if float(settings.get("dampening", 0)) != 0 and name == "SGD":
        raise ValueError(f"dampening {settings['dampening']} is not supported; only 0 is")
    return Stage(
        epochs=int(settings["max_epoch"]),
        batch_size=int(settings["batch_size"]),
        captions_per_medium=1,  # one random caption of a clip in every epoch
        optimizer=optimizers[name],  # type: ignore[arg-type]
        lr=float(settings["learning_rate"]),
        weight_decay=0.0
        if name == "Adam"
        else float(settings.get("weight_decay", 0)),  # the published code gives Adam none
        momentum=float(settings.get("momentum", 0.9)),
        nesterov=bool(settings.get("nesterov", False)),
        final_lr=float(settings.get("final_lr", 0.1)),
        schedule=schedules[schedule],
        clip_norm=None,
    )


def _resnet(source: str) -> ResNet3D:
    """The 3-D ResNet of a file of weights.  Raises ValueError."""
    weights = read_weights(source)
    check_finite(weights, source)
    net = ResNet3D(infer_config(weights))
    load_weights(net, weights, source)
    return net


def _encoder(source: str, dim: int) -> ResNet3D | Pretrained | None:
    """A 3-D ResNet where `source` is a file, else a model of transformers; None for "".

    Raises ValueError when its cells do not have `dim` channels.
    """
    if not source:
        return None
    encoder = _resnet(source) if Path(source).is_file() else Pretrained(PretrainedConfig(source=source))
    if encoder.dim != dim:
        raise ValueError(f"{source} gives cells of {encoder.dim} channels, the captioner reads {dim}")
    return encoder.eval()


def _summary(out: Path, recipe: Recipe, model: FirstToken, dim: int, encoder: str, has_settings: bool) -> str:
    """What was converted, for the user."""
    config = model.config
    lines = [
        f"run folder: {out}",
        f"captioner: {model.embed.num_embeddings} words, cells of {dim} channels, hidden {config.hidden}, embedding "
        f"{config.embed}, {config.layers} LSTM layer(s)",
        f"settings: from config.yaml (maps resampled to {config.align}, {recipe.stages[0].optimizer})"
        if has_settings
        else "settings: there is no config.yaml, so maps are not resampled (published: --align 10,7,7)"
        if config.align is None
        else f"settings: maps resampled to {config.align}, as given",
        f"encoder: {encoder} ({type(recipe.encoder).__name__.removesuffix('Config')})"
        if encoder
        else "encoder: none given, so this run captions features, not clips; convert again with --encoder R3D50.pth",
        "words: the published tokenizer was spaCy's; limner's `simple` removes punctuation",
        "search: captions now start at <start>; the published search lets the clip predict the first token, which is "
        "<start> in a trained model, and is had with --decoding.predict_start true",
    ]
    return "\n".join(lines)
