"""`limner caption --sidecar`: captions beside their files; what somebody wrote there is lost only when asked for."""

import json
import os
import shutil
from pathlib import Path

import pytest

from limner.apps.caption import caption_all
from limner.apps.cli import main
from limner.apps.shared.arguments import WrongArguments
from limner.apps.shared.caption_writers import CaptionQueue
from limner.apps.shared.sidecar_writer import SidecarWriter
from limner.apps.shared.wording import Wording
from limner.data.sidecars import read_sidecar
from limner.inference.pieces import Problems
from tests.apps.test_caption import picture
from tests.data.prepared import encoded, write_tar
from tests.data.videos import greys, write
from tests.inference.loopback import says, serving
from tests.inference.test_server import grey_of

ROW = {"file": "x", "caption": "a dog", "logprob": -1.0, "finished": True}


def written(
    writer: SidecarWriter, folder: Path, before: str | bytes | None, caption: str = "a dog"
) -> tuple[str, list]:
    """The sidecar of dog.jpg after a caption, and the problems."""
    path, problems = folder / f"dog.{writer.kind}", Problems()
    path.unlink(missing_ok=True)
    if before is not None:
        path.write_bytes(before if isinstance(before, bytes) else before.encode())
    for _ in range(2):  # twice is once
        writer.write(str(folder / "dog.jpg"), [{**ROW, "caption": caption}], problems)
    return path.read_bytes().decode("utf-8", "backslashreplace") if path.exists() else "", problems.failed[::2]


@pytest.mark.parametrize(
    ("existing", "before", "after"),
    [
        ("skip", None, "a dog\n"),
        ("skip", "mine\n", "mine\n"),
        ("skip", b"\xff", None),
        ("overwrite", "mine\n", "a dog\n"),
        ("overwrite", b"\xff", "a dog\n"),
        ("append", "mine", "mine, a dog\n"),
        ("append", "Mine.\nTwo.\n", "Mine.\nTwo. a dog\n"),
        ("append", "", "a dog\n"),
        ("append", "a dog\n", "a dog\n"),
        ("append", "mine\na dog", "mine\na dog\n"),
        ("append", b"\xff", None),
        ("prepend", "mine", "a dog, mine\n"),
        ("prepend", "\ufeffmine", "a dog, mine\n"),
    ],
)
def test_what_happens_to_words_that_are_there(tmp_path: Path, existing: str, before, after: str | None):
    found, failed = written(SidecarWriter("txt", Wording(existing)), tmp_path, before)
    if after is None:
        assert found == "\\xff" and failed == [
            f"{tmp_path}/dog.jpg: {tmp_path}/dog.txt is not UTF-8 text; it stays as it is"
        ]
    else:
        assert (found, failed) == (after, [])


@pytest.mark.parametrize(
    ("existing", "before", "after"),
    [
        ("skip", None, {"caption": "a dog", "logprob": -1.0}),
        ("append", '{"description": "mine", "id": 7}', {"description": "mine, a dog", "id": 7, "logprob": -1.0}),
        ("prepend", '{"tags": ["x"]}', {"tags": ["x"], "caption": "a dog", "logprob": -1.0}),
        ("overwrite", '{"caption": "mine", "id": 7}', {"caption": "a dog", "id": 7, "logprob": -1.0}),
        ("overwrite", "no JSON", {"caption": "a dog", "logprob": -1.0}),
        ("append", "no JSON", None),
        ("append", "[1]", None),
    ],
)
def test_fields_of_others_stay_in_json(tmp_path: Path, existing: str, before: str | None, after: dict | None):
    found, failed = written(SidecarWriter("json", Wording(existing)), tmp_path, before)
    if after is None:
        assert found == before and len(failed) == 1 and failed[0].endswith("; it stays as it is")
    else:
        assert json.loads(found) == after and not failed


def test_nothing_is_written_for_an_empty_caption_or_into_a_folder(tmp_path: Path):
    found, failed = written(SidecarWriter("txt", Wording("overwrite")), tmp_path, "mine", caption="")
    assert found == "mine" and failed == [f"{tmp_path}/dog.jpg: its caption is empty, so no sidecar is written"]
    (tmp_path / "cat.txt").mkdir()
    problems = Problems()
    SidecarWriter("txt", Wording("overwrite")).write(str(tmp_path / "cat.jpg"), [ROW], problems)
    assert problems.failed == [f"{tmp_path}/cat.jpg: {tmp_path}/cat.txt is a folder; it stays as it is"]


def test_templates(tmp_path: Path):
    (tmp_path / "rex").mkdir()
    writer = SidecarWriter("txt", Wording(template="{{sks}} {caption}, {name}, {folder}"))
    assert written(writer, tmp_path / "rex", None)[0] == "{sks} a dog, dog, rex\n"
    for template, why in (
        ("{name}", "has no {caption}"),
        ("{caption} {size}", r"has \{size\}; it may have \{caption\}, \{name\}, \{folder\}"),
        ("{caption.__class__}", "has {caption.__class__}"),
        ("{caption!r}", "has {caption}"),
        ("{caption", "expected '}'"),
    ):
        with pytest.raises(WrongArguments, match=why.replace("{", "\\{").replace("\\\\{", "\\{")):
            Wording(template=template)


@pytest.mark.parametrize("existing", ["skip", "overwrite", "append", "prepend"])
def test_a_folder_of_pictures_with_sidecars(tmp_path: Path, capsys, existing: str):
    """Some of them with words of a human; a second run changes nothing, and asks only where it must."""
    folder = tmp_path / "in"
    for k in range(12):
        picture(folder / f"{k:02}.png", 10 * k)
        if k % 3 == 0:
            (folder / f"{k:02}.txt").write_text(f"mine {k}")
    with serving(lambda body: says(grey_of(body))) as server:
        command = ["caption", str(folder), "--model", f"{server.url}#tiny-vlm", "--sidecar", "txt"]
        command += ["--existing", existing, "--prefix", "sks, "]
        assert main(command) == 0
        error = capsys.readouterr().err
        joined = {
            "overwrite": "sks, grey {c}",
            "append": "mine {k}, sks, grey {c}",
            "prepend": "sks, grey {c}, mine {k}",
        }
        pattern = joined.get(existing, "mine {k}")
        expected = {
            f"{k:02}.txt": (pattern if k % 3 == 0 else "sks, grey {c}").format(k=k, c=10 * k) for k in range(12)
        }
        assert {path.name: read_sidecar(path) for path in folder.glob("*.txt")} == expected
        skipped = "files that have a sidecar and keep it: 4 (--existing overwrite, append or prepend changes it)"
        assert (skipped in error) == (existing == "skip") and len(server.seen) == (8 if existing == "skip" else 12)
        assert main(command) == 0 and len(server.seen) == (8 if existing == "skip" else 24)
        assert "no image and no video" not in capsys.readouterr().err  # sidecars are no strangers
        assert {path.name: read_sidecar(path) for path in folder.glob("*.txt")} == expected


def test_parts_of_a_video_are_one_sidecar(tmp_path: Path):
    clip = str(write(tmp_path / "v.mp4", greys(30)))
    answers = iter(["first part.", "second part."] + ["more."] * 9)
    with serving(lambda body: says(next(answers))) as server:
        command = ["caption", clip, "--model", f"{server.url}#tiny-vlm", "--requests", "1", "--every", "0.5"]
        assert main([*command, "--sidecar", "json"]) == 0
    value = json.loads((tmp_path / "v.json").read_text())
    assert value["caption"].startswith("first part. second part.") and value["parts"][1]["start"] == 0.5


def test_a_resumed_command_writes_the_sidecars_that_an_interrupt_left_out(tmp_path: Path, monkeypatch):
    """The rows are in the side file, the last sidecar is not there yet: the next call makes up for it, once."""
    files = [picture(tmp_path / "in" / f"{k}.png", 10 * k) for k in range(4)]
    (tmp_path / "in" / "1.txt").write_text("mine")
    out = tmp_path / "c.jsonl"
    with serving(lambda body: says(grey_of(body))) as server:
        command = ["caption", str(tmp_path / "in"), "--model", f"{server.url}#tiny-vlm", "--out", str(out)]
        command += ["--sidecar", "txt", "--existing", "append"]
        real = CaptionQueue.flush

        def interrupted(queue: CaptionQueue) -> None:
            if queue._file == files[1]:
                raise KeyboardInterrupt
            real(queue)

        monkeypatch.setattr(CaptionQueue, "flush", interrupted)
        assert main(command) == 130
        assert not (tmp_path / "in" / "2.txt").exists() and read_sidecar(tmp_path / "in" / "1.txt") == "mine"
        monkeypatch.setattr(CaptionQueue, "flush", real)
        assert main([*command, "--resume"]) == 0
        texts = {path.name: read_sidecar(path) for path in (tmp_path / "in").glob("*.txt")}
        assert texts == {"0.txt": "grey 0", "1.txt": "mine, grey 10", "2.txt": "grey 20", "3.txt": "grey 30"}
        assert len(out.read_text().splitlines()) == 4 and caption_all


def test_folders_that_cannot_be_written_are_named_before_the_work(tmp_path: Path, capsys, monkeypatch):
    picture(tmp_path / "a" / "1.png", 10)
    picture(tmp_path / "b" / "2.png", 20)
    import limner.apps.shared.sidecar_writer as module

    def check(path: Path) -> None:
        if path.parent.name == "b":
            raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(module, "check_writable", check)
    with serving(lambda body: says("x")) as server:
        command = ["caption", str(tmp_path), "--model", f"{server.url}#tiny-vlm", "--sidecar", "caption"]
        assert main(command) == 3 and len(server.seen) == 1
    assert f"2.png: {tmp_path}/b/2.caption cannot be written (Permission denied)" in capsys.readouterr().err
    assert (tmp_path / "a" / "1.caption").read_text() == "x\n" and not (tmp_path / "b" / "2.caption").exists()


def test_sidecars_that_cannot_be(tmp_path: Path, capsys):
    one = picture(tmp_path / "dog.png")
    shutil.copy(one, tmp_path / "dog.bmp")
    tar = write_tar(tmp_path / "all.tar", {"dog.png": encoded("red")})
    for arguments, why in (
        ([one, str(tmp_path / "dog.bmp"), "--sidecar", "txt"], f"share {tmp_path}/dog.txt; caption them in separate"),
        ([str(tar), "--sidecar", "txt"], "lies inside another file"),
        ([one, "--prefix", "x"], "--prefix is about captions beside or inside the files: give --sidecar KIND"),
        ([one, "--sidecar", "txt", "--template", "x"], "has no {caption}"),
    ):
        assert main(["caption", *arguments]) == 2
        assert why in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ["all.tar", "dog.bmp", "dog.png"]
