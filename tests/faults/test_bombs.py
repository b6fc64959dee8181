"""Small files that ask for much memory or time are refused, in a process that may have 1.5 GB more than it has."""

import gzip
import io
import json
import os
import resource
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from limner.apps.cli import main
from limner.core.files import read_json
from limner.core.untrusted import load_yaml
from limner.data.captions_file import read_captions
from limner.data.media import read_medium
from limner.data.msrvtt import read as read_msrvtt
from limner.text.vectors import load_vectors
from limner.text.vocabulary import Vocabulary
from tests.faults.harness import REPORTED

MIB = 1 << 20


def refused(read: Callable[[], Any]) -> str:
    """The message with which a file is refused, within 10 s and 1.5 GB."""
    begin, end = os.pipe()
    child = os.fork()
    if child == 0:
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + 1536 * MIB
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
        started = time.process_time()  # a busy machine is no fault of a reader
        try:
            read()
            text = "accepted"
        except REPORTED as error:
            text = str(error) if time.process_time() - started < 10 else "too late"
        except BaseException as error:
            text = f"broken: {error!r}"
        os.write(end, text.encode()[:4000])
        os._exit(0)
    os.close(end)
    with os.fdopen(begin, "rb") as said:
        text = said.read().decode()
    assert os.waitpid(child, 0)[1] == 0
    return text


def compressed(head: bytes, block: bytes, times: int) -> bytes:
    """gzip of `head` and of many times `block`, without having it all in memory."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return packer.compress(head) + b"".join(packer.compress(block) for _ in range(times)) + packer.flush()


def zip_of(name: str, block: bytes, times: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(name, "w") as file:
        for _ in range(times):
            file.write(block)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def zeros() -> dict[str, bytes]:
    """600 MB of blanks as gzip and ZIP, 600 kB each; that a bomb may hold 8 GB makes no difference."""
    return {
        "c.json.gz": compressed(b"", b" " * MIB, 600),
        "c.zip": zip_of("c.json", b" " * MIB, 600),
        "m.zip": zip_of("test_videodatainfo.json", b" " * MIB, 600),
    }


def test_archives_that_grow(zeros: dict[str, bytes], tmp_path: Path):
    for name, data in zeros.items():
        (tmp_path / name).write_bytes(data)
        assert len(data) < MIB
    for name in ("c.json.gz", "c.zip"):
        assert "when it is unpacked, which no caption file does" in refused(
            lambda name=name: read_captions(tmp_path / name)
        )
    assert "no caption file does" in refused(lambda: read_msrvtt(tmp_path / "m.zip"))
    words = Vocabulary.build(["a dog"], 1)
    embedding = nn.Embedding(len(words), 3)
    assert "a line of more than 1,048,576 bytes" in refused(
        lambda: load_vectors(tmp_path / "c.json.gz", words, embedding)
    )
    honest = json.dumps([{"image_id": k, "caption": "a dog runs"} for k in range(20_000)]).encode()  # grows 15 times
    (tmp_path / "h.json.gz").write_bytes(gzip.compress(honest))
    assert len(read_captions(tmp_path / "h.json.gz").captions) == 20_000


def test_json_nested_without_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """In every file of JSON that a command reads, at its beginning and in a value."""
    deep = "[" * 100_000
    (tmp_path / "a.json").write_text(deep)
    assert "nested too deep" in refused(lambda: read_json(tmp_path / "a.json"))
    assert "nested too deep" in refused(lambda: load_yaml(deep))
    (tmp_path / "run").mkdir()
    for name in (
        "run.json",
        "recipe.json",
        "manifest.json",
        "model.json",
        "vocabulary.json",
        "truth.json",
        "index.json",
    ):
        (tmp_path / "run" / name).write_text('{"a": ' + deep)
    for command in (
        ["caption", "x.png", "--model", str(tmp_path / "run")],
        ["pack", str(tmp_path / "run"), "--verify"],
        ["train", str(tmp_path / "run" / "recipe.json"), "--out", str(tmp_path / "o")],
        ["extract", "--verify", "--out", str(tmp_path / "run")],
        ["score", "--candidates", str(tmp_path / "a.json"), "--references", str(tmp_path / "a.json")],
        ["score", "--candidates", str(tmp_path / "run"), "--references", str(tmp_path / "run")],
    ):
        assert main(command) == 1, command
        error = capsys.readouterr().err
        assert "nested too deep" in error and error.count("\n") == 1, error


def test_pictures_that_claim_to_be_huge(tmp_path: Path):
    """900 million pixels in 110 kB, and a header alone."""
    whole = Image.fromarray(np.zeros((8, 8), np.uint8))
    whole.save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    size = (30_000).to_bytes(4, "big") * 2
    head = b"IHDR" + size + data[24:29]
    (tmp_path / "a.png").write_bytes(data[:12] + head + zlib.crc32(head).to_bytes(4, "big") + data[33:])
    assert "pixels" in refused(lambda: read_medium(tmp_path / "a.png"))


def test_a_safetensors_header_without_end(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    path.write_bytes((1 << 40).to_bytes(8, "little") + b"{" + b" " * 1000)
    from limner.core.tensors import load_tensors

    assert "is damaged or no safetensors file" in refused(lambda: load_tensors(path))


def test_a_long_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As above with smaller numbers: a line of 2,000 characters where 1,000 are allowed."""
    monkeypatch.setattr("limner.data.layouts.text_files.MAX_FIELD", 1000)
    (tmp_path / "a.csv").write_text("file,caption\n" + "b.png,a dog\n" * 40 + f'a.png,"{"x" * 2000}"\n')
    with pytest.raises(ValueError, match=r"line 42 has more than 500 characters; is it a caption file\?"):
        read_captions(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("file,caption\n" + f"a.png,{'x' * 400}\n" * 40)
    read_captions(tmp_path / "a.csv")


def test_memory_that_runs_out_is_one_line(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Of Python, and of PyTorch, whose error is no MemoryError; another RuntimeError stays a traceback."""
    picture = str(tiny / "world" / "images" / "000001.png")
    command = ["caption", picture, "--model", str(tiny / "run")]
    for error in (
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    ):
        monkeypatch.setattr("limner.apps.caption.caption_all", lambda *_, error=error: (_ for _ in ()).throw(error))
        assert main(command) == 1
        said = capsys.readouterr().err
        assert said.startswith("limner: there is not enough memory (") and said.count("\n") == 1
    monkeypatch.setattr("limner.apps.caption.caption_all", lambda *_: torch.zeros(2) + torch.zeros(3))
    with pytest.raises(RuntimeError, match="must match"):
        main(command)
