"""Checkpoints that are damaged, cut or diverged are refused by name in every system, and nothing is left behind."""

import json
import pickle
import resource
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from limner.apps.cli import main
from limner.convert import SYSTEMS, run_folder
from limner.convert.checkpoint import check_finite, id_problem, near_names, read_checkpoint, read_pickle
from limner.convert.self_critical_words import read_words
from limner.convert.settings import Settings
from limner.core.messages import short_repr
from limner.core.untrusted import check_pickle, load_yaml
from limner.runs.run import load_run
from tests.convert import test_recnet as recnet
from tests.convert import test_sa_lstm as sa_lstm
from tests.convert import test_self_critical as self_critical
from tests.convert import test_sftcap as sftcap
from tests.convert import test_show_attend_tell as show_attend_tell
from tests.convert import test_video_captioning_3d as video

SMALL = sa_lstm.Sizes(6, 5, 4, 3, 9)


def written(system: str, folder: Path) -> tuple[Path, Path]:
    """A small random checkpoint -> its file and that of its words."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, words = folder / "model.pth", folder / "words.json"
    trees: dict[str, Callable[[], Any]] = {
        "show-attend-tell": lambda: show_attend_tell.random_weights(show_attend_tell.Sizes(6, 5, 4, 3, 9), 0),
        "sa-lstm": lambda: {"decoder": sa_lstm.random_weights(SMALL, 0), "config": {}},
        "recnet": lambda: {
            "decoder": sa_lstm.random_weights(SMALL, 0),
            "reconstructor": recnet.random_reconstructor(SMALL, True),
        },
        "sftcap": lambda: sftcap.random_weights(sftcap.Sizes()),
    }
    maps: dict[str, Any] = {
        "show-attend-tell": show_attend_tell.word_map(9),
        "sa-lstm": sa_lstm.word_map(9),
        "recnet": sa_lstm.word_map(9),
        "sftcap": {f"w{i}": i for i in range(37)},
    }
    if system == "video-captioning-3d":
        _, words = video.save(folder, *video.random_weights(6, 5, 7, 11))
        return folder / "best_loss_decoder.prm", words
    if system in trees:
        torch.save(trees[system](), checkpoint)
    else:
        self_critical.saved(system, checkpoint)
    words.write_text(json.dumps(maps.get(system, {"ix_to_word": self_critical.vocabulary(9)})))
    return checkpoint, words


def tensors_of(tree: Any) -> list[tuple[str, Tensor]]:
    """All tensors of a checkpoint with their keys."""
    parts = [part for part in tree.values() if isinstance(part, dict)]
    return [(key, x) for part in parts or [tree] for key, x in part.items() if isinstance(x, Tensor)]


def convert(system: str, checkpoint: Path, words: Path, out: Path, **settings: Any) -> str:
    return SYSTEMS[system](checkpoint, words, out, "", "RGB", Settings(**settings))


def nothing_left(folder: Path, out: Path) -> bool:
    return not out.exists() and not [path.name for path in folder.iterdir() if path.name.startswith(".run")]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("system", SYSTEMS)
def test_weights_that_are_no_numbers_are_named_and_do_not_block_the_next_try(
    system: str, value: float, tmp_path: Path
) -> None:
    checkpoint, words = written(system, tmp_path)
    good, out = checkpoint.read_bytes(), tmp_path / "run"
    tree = torch.load(checkpoint, weights_only=True)
    key, tensor = [pair for pair in tensors_of(tree) if pair[1].is_floating_point()][-1]  # RecNet: of its reconstructor
    tensor.view(-1)[0] = value
    torch.save(tree, checkpoint)
    message = rf"has weights that are NaN or infinite: \S*{key} \(1 of {tensor.numel()}\)"
    with pytest.raises(ValueError, match=message) as caught:
        convert(system, checkpoint, words, out)
    assert str(tmp_path) in str(caught.value) and nothing_left(tmp_path, out)
    checkpoint.write_bytes(good)
    convert(system, checkpoint, words, out)
    assert load_run(out).folder == out


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_flipped_byte_is_found(system: str, tmp_path: Path) -> None:
    checkpoint, words = written(system, tmp_path)
    data = bytearray(checkpoint.read_bytes())
    with zipfile.ZipFile(checkpoint) as archive:
        member = max(archive.infolist(), key=lambda info: info.file_size)
    name_and_extra = struct.unpack("<HH", data[member.header_offset + 26 : member.header_offset + 30])
    data[member.header_offset + 30 + sum(name_and_extra) + member.file_size // 2] ^= 1
    checkpoint.write_bytes(data)
    with pytest.raises(ValueError, match=rf"{checkpoint.name} is damaged: the checksum of {member.filename} in it"):
        convert(system, checkpoint, words, tmp_path / "run")
    assert nothing_left(tmp_path, tmp_path / "run")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_cut_file_says_so(system: str, zipped: bool, tmp_path: Path) -> None:
    checkpoint, words = written(system, tmp_path)
    torch.save(torch.load(checkpoint, weights_only=True), checkpoint, _use_new_zipfile_serialization=zipped)
    whole = checkpoint.read_bytes()
    for share in (0.05, 0.5, 0.99):
        checkpoint.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ValueError, match=rf"{checkpoint.name} is cut") as caught:
            convert(system, checkpoint, words, tmp_path / "run")
        assert "copy or download it again" in str(caught.value)
    assert nothing_left(tmp_path, tmp_path / "run")


def test_every_byte_of_the_weights_is_watched(tmp_path: Path) -> None:
    torch.save({"w": torch.arange(3.0)}, tmp_path / "c.pth")
    data = (tmp_path / "c.pth").read_bytes()
    start = data.index(torch.arange(3.0).numpy().tobytes())
    for place in range(start, start + 12):
        (tmp_path / "c.pth").write_bytes(data[:place] + bytes([data[place] ^ 255]) + data[place + 1 :])
        with pytest.raises(ValueError, match="is damaged"):
            read_checkpoint(tmp_path / "c.pth")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        (b"\x1f\x8b\x08\x00", "is a gzip file: unpack it"),
        (struct.pack("<Q", 20) + b'{"w":{"dtype":"F32"}}' + b"\0" * 8, "is a safetensors file"),
        (b"\x89HDF\r\n\x1a\n", "is an HDF5 file"),
    ],
)
def test_other_files_are_named_for_what_they_are(data: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "c.pth").write_bytes(data)
    with pytest.raises(ValueError, match=rf"c\.pth {said}"):
        read_checkpoint(tmp_path / "c.pth")


def test_an_archive_that_grows_without_bounds_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "c.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("c/data.pkl", b"\0" * 10_000_000)
    with pytest.raises(ValueError, match=r"would grow from .* to 10,000,000 bytes"):
        read_checkpoint(tmp_path / "c.pth")


def test_a_conversion_that_fails_in_the_middle_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, words = written("sa-lstm", tmp_path)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    for name in ("create_run", "verify_run"):
        with monkeypatch.context() as patch:
            patch.setattr(run_folder, name, full)
            with pytest.raises(OSError, match="No space left"):
                convert("sa-lstm", checkpoint, words, tmp_path / "run")
        assert nothing_left(tmp_path, tmp_path / "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    convert("sa-lstm", checkpoint, words, tmp_path / "run")
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine" and load_run(tmp_path / "run")
    with pytest.raises(FileExistsError, match="is a file; give the name of a new folder"):
        convert("sa-lstm", checkpoint, words, words)


def test_scores_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    """Finite weights with a negative variance."""
    checkpoint, words = written("video-captioning-3d", tmp_path)
    encoder = torch.load(tmp_path / "best_loss_encoder.prm", weights_only=True)
    encoder["bn2.running_var"][0] = -5.0
    torch.save(encoder, tmp_path / "best_loss_encoder.prm")
    with pytest.raises(ValueError, match="its weights are finite, but the scores that they give are not numbers"):
        convert("video-captioning-3d", checkpoint, words, tmp_path / "run")
    assert nothing_left(tmp_path, tmp_path / "run")


def test_settings_that_a_checkpoint_does_not_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint, words = written("spatial", tmp_path)
    told = convert("spatial", checkpoint, words, tmp_path / "a", heads=4, activation="gelu", max_words=12)
    config, recipe = load_run(tmp_path / "a").recipe.model, load_run(tmp_path / "a").recipe
    assert (config.heads, config.activation, recipe.decoding.rules.max_length) == (4, "gelu", 12)
    assert "assumed" not in told
    with pytest.raises(ValueError, match=r"dim is 16; it must be even and a multiple of the number of heads, 7"):
        convert("spatial", checkpoint, words, tmp_path / "b", heads=7)
    infos = {"vocab": self_critical.vocabulary(9), "opt": {"num_att_heads": 8}}
    (tmp_path / "infos.pkl").write_bytes(pickle.dumps(infos))
    with pytest.raises(ValueError, match="--heads 4: the file with the words says 8; leave out --heads"):
        convert("spatial", checkpoint, tmp_path / "infos.pkl", tmp_path / "b", heads=4)
    checkpoint, words = written("xlan", tmp_path / "x")
    convert("xlan", checkpoint, words, tmp_path / "c", max_words=20)
    assert load_run(tmp_path / "c").recipe.decoding.rules.max_length == 21  # with the end
    checkpoint, words = written("video-captioning-3d", tmp_path / "v")
    assert "maps resampled to (2, 3, 3), as given" in convert(
        "video-captioning-3d", checkpoint, words, tmp_path / "d", align=(2, 3, 3)
    )
    assert load_run(tmp_path / "d").recipe.model.align == (2, 3, 3)
    command = ["convert", "--from", "xlan", str(checkpoint), "--word-map", str(words), "--out", str(tmp_path / "e")]
    assert main([*command, "--heads", "4"]) == 2
    assert "--heads: a checkpoint of xlan needs no such setting; it takes --max-words" in capsys.readouterr().err
    assert main([*command[:2], "show_attend_tel", *command[3:]]) == 2
    assert "(did you mean show-attend-tell?)" in capsys.readouterr().err


def test_the_command_says_how_the_published_search_is_had(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for system, said in (
        ("video-captioning-3d", "captions now start at <start>"),
        ("video-captioning-3d", "is had with --decoding.predict_start true"),
        ("show-attend-tell", "--decoding.drop_hopeless true"),
        ("sa-lstm", "--decoding.finished_compete false"),
        ("xlan", "a beam of 3 and at most 17 tokens; limner's own beam is had with --decoding.finished_compete false"),
        ("ort", "a beam of 2 and at most 16 tokens; limner's own beam is had with --decoding.keep_beam_full false"),
    ):
        checkpoint, words = written(system, tmp_path / system)
        out = tmp_path / f"run {len(list(tmp_path.iterdir()))}{system}"
        assert main(["convert", "--from", system, str(checkpoint), "--word-map", str(words), "--out", str(out)]) == 0
        assert said in capsys.readouterr().out


def test_what_nearly_fits_is_named(tmp_path: Path) -> None:
    checkpoint, words = written("show-attend-tell", tmp_path)
    tree = torch.load(checkpoint, weights_only=True)
    tree["decode_step.weight_Ih"] = tree["decode_step.weight_ih"]
    tree["fbeta.bias"] = tree.pop("f_beta.bias")
    torch.save(tree, checkpoint)
    with pytest.raises(ValueError, match=r"'fbeta\.bias' nearly is 'f_beta\.bias'"):
        convert("show-attend-tell", checkpoint, words, tmp_path / "run")
    words.write_text(json.dumps({"a": 1, "<PAD>": 0, "<start>": 2, "<end>": 3, "<unk>": 4}))
    with pytest.raises(ValueError, match=r"words\.json lacks <pad> \('<PAD>' nearly is '<pad>'\)"):
        convert("show-attend-tell", checkpoint, words, tmp_path / "run")
    assert near_names(["embed"], ["a.b"]) == ""
    assert id_problem({"a": 0, "b": 1}) == ""
    assert id_problem({"a": 0, "b": 1, "c": 5}) == "no word has the id 2; 'c' has the id 5"
    check_finite({"a": torch.ones(2), "count": torch.tensor(7)}, "x")


# --- values that ask for memory or never end


def nested(times: int, kind: type = list) -> Any:
    value: Any = kind((0, 0)) if kind is not dict else {"a": 0}
    for _ in range(times):
        value = {"a": value, "b": value} if kind is dict else kind((value, value))
    return value


HUGE_MEMO = b"\x80\x02Nr\xff\xff\xff\x0f."


def test_a_pickle_that_asks_for_memory_is_refused(tmp_path: Path) -> None:
    """In another process with 2 GB: the ten bytes would take 4.3 GB."""
    (tmp_path / "infos.pkl").write_bytes(HUGE_MEMO)
    (tmp_path / "long.pkl").write_bytes(b"Np268435455\n.")
    code = (
        "import sys, pathlib\n"
        "from limner.convert.checkpoint import read_pickle\n"
        "for name in sys.argv[1:]:\n"
        "    try: read_pickle(pathlib.Path(name))\n"
        "    except Exception as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "infos.pkl"), str(tmp_path / "long.pkl")],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (1 << 31, 1 << 31)),
    )
    assert done.stdout.splitlines() == ["it gives object 0 the number 268435455, which is damage or harm"] * 2
    with pytest.raises(ValueError, match="the number 268435455"):
        read_words(tmp_path / "infos.pkl")
    with pytest.raises(ValueError, match="without executing code"):
        video.read_vocabulary(tmp_path / "infos.pkl")
    with zipfile.ZipFile(tmp_path / "c.pth", "w") as archive:
        archive.writestr("c/data.pkl", HUGE_MEMO)
    with pytest.raises(ValueError, match="the number 268435455"):
        read_checkpoint(tmp_path / "c.pth")


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_usual_pickles_pass_the_check(protocol: int, tmp_path: Path) -> None:
    value = {
        "words": {str(i): f"é{i}\n" for i in range(3000)},
        "bytes": b"\x80\n" * 300,
        "big": 1 << 200,
        "x": [1.5, None],
    }
    path = tmp_path / "v.pkl"
    path.write_bytes(pickle.dumps(value, protocol))
    read = read_pickle(path)
    assert read["words"] == value["words"] and read["big"] == value["big"]
    with open(path, "rb") as file:
        check_pickle(file)
        assert file.tell() == 0


@pytest.mark.parametrize("kind", [list, tuple, dict])
def test_messages_about_nested_values_end(kind: type, tmp_path: Path) -> None:
    laughs = nested(40, kind)
    assert len(short_repr(laughs)) <= 80 and short_repr({"a": "b"}) == "{'a': 'b'}"
    torch.save({"decoder": [laughs, torch.ones(1)]}, tmp_path / "c.pth")
    (tmp_path / "words.json").write_text(json.dumps(show_attend_tell.word_map(9)))
    for system in ("show-attend-tell", "sa-lstm", "recnet", "sftcap", "spatial", "xlan"):
        with pytest.raises(ValueError, match=r"c\.pth"):
            convert(system, tmp_path / "c.pth", tmp_path / "words.json", tmp_path / "run")
    torch.save({"encoder": {}, "decoder": [laughs]}, tmp_path / "checkpoint.pth")
    with pytest.raises(ValueError, match="its decoder is not a state dict"):
        convert("video-captioning-3d", tmp_path, tmp_path / "words.json", tmp_path / "run")
    (tmp_path / "v.pkl").write_bytes(pickle.dumps(laughs))
    with pytest.raises(ValueError, match="expected a `Vocabulary`"):
        video.read_vocabulary(tmp_path / "v.pkl")
    with pytest.raises(ValueError, match="every word must be text; that of id 1 is not"):
        read_words(_words(tmp_path, {"vocab": {"1": laughs}}))


def _words(folder: Path, value: Any) -> Path:
    (folder / "infos.pkl").write_bytes(pickle.dumps(value))
    return folder / "infos.pkl"


def test_yaml_aliases_without_end_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["a0: &a0 [0, 0]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 41))]
    (tmp_path / "r.yaml").write_text("\n".join([*lines, "stages: *a40"]))
    assert main(["train", str(tmp_path / "r.yaml")]) == 1
    assert "is not YAML: its aliases (*name) stand for more than 1,000,000 values" in capsys.readouterr().err
    (tmp_path / "r.yaml").write_text("a: &a [*a]")
    assert main(["train", str(tmp_path / "r.yaml")]) == 1
    assert "an alias (*name) contains itself" in capsys.readouterr().err
    (tmp_path / "r.yaml").write_text("[" * 100_000)
    assert main(["train", str(tmp_path / "r.yaml")]) == 1 and "is not YAML" in capsys.readouterr().err
    folder, words = video.save(tmp_path / "old", *video.random_weights(6, 5, 7, 11), **video.SETTINGS)
    with open(folder / "config.yaml", "a") as file:
        file.write("\n".join(lines))
    with pytest.raises(ValueError, match=r"config\.yaml is not a config\.yaml of VideoCaptioning.*aliases"):
        convert("video-captioning-3d", folder, words, tmp_path / "run")
    assert load_yaml("a: &x {b: [1]}\nc: {<<: *x, d: 2}") == {"a": {"b": [1]}, "c": {"b": [1], "d": 2}}
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"deep\.json is JSON that is nested too deep"):
        read_words(tmp_path / "deep.json")


def test_the_weights_of_a_named_encoder_are_checked_too(tmp_path: Path) -> None:
    from limner.encoders import ResNet3D, ResNet3DConfig

    checkpoint, words = written("video-captioning-3d", tmp_path)
    torch.save(video.random_weights(16, 5, 7, 11)[0], tmp_path / "best_loss_encoder.prm")
    net = ResNet3D(ResNet3DConfig(depth=10, width=2))
    net.layer1[0].conv1.weight.data[0, 0, 0, 0, 0] = float("nan")
    encoder = tmp_path / "r3d10.pth"
    torch.save(net.state_dict(), encoder)
    with pytest.raises(ValueError, match=r"r3d10\.pth has weights that are NaN or infinite: layer1\.0\.conv1\.weight"):
        SYSTEMS["video-captioning-3d"](checkpoint, words, tmp_path / "run", str(encoder), "RGB")
    encoder.write_bytes(encoder.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"r3d10\.pth is cut"):
        SYSTEMS["video-captioning-3d"](checkpoint, words, tmp_path / "run", str(encoder), "RGB")
    assert nothing_left(tmp_path, tmp_path / "run")


def test_files_of_words_that_are_cut_or_have_a_byte_order_mark(tmp_path: Path) -> None:
    infos = pickle.dumps({"vocab": {str(i): f"w{i}" for i in range(1, 50)} | {"50": "UNK"}})
    (tmp_path / "infos.pkl").write_bytes(infos[: len(infos) // 2])
    for reader in (read_words, video.read_vocabulary):
        with pytest.raises(ValueError, match=r"infos\.pkl is cut: the pickle ends too early; copy it again"):
            reader(tmp_path / "infos.pkl")
    (tmp_path / "words.json").write_text('\ufeff{"1": "a", "2": "UNK"}', encoding="utf-8")
    assert read_words(tmp_path / "words.json")[0] == ("a", "UNK")
    (tmp_path / "words.txt").write_text("\ufeffa\nUNK\n", encoding="utf-8")
    assert read_words(tmp_path / "words.txt")[0] == ("a", "UNK")
