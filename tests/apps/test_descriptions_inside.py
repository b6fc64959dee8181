"""`limner caption --exif --xmp`: captions inside their images; what cannot be changed safely stays as it is."""

import os
from pathlib import Path

import pytest
from PIL import Image

from limner.apps.cli import main
from limner.apps.shared.description_writer import DescriptionWriter
from limner.apps.shared.sidecar_writer import SidecarWriter
from limner.apps.shared.wording import Wording
from limner.data.metadata import description, picture_data, with_description, xmp
from limner.data.sidecars import read_sidecar
from limner.inference.pieces import Problems
from tests.apps.test_caption import picture
from tests.inference.loopback import says, serving
from tests.inference.test_server import grey_of

ROW = {"file": "x", "caption": "a dog", "logprob": -1.0, "finished": True}


def with_words(path: str, words: str) -> bytes:
    """An image that has words of a human in EXIF and XMP."""
    data = Path(path).read_bytes()
    for place in ("exif", "xmp"):
        data = with_description(data, place, words) if words else data
    Path(path).write_bytes(data)
    return data


def words(path: Path) -> tuple[str, str]:
    data = path.read_bytes()
    return description(data, "exif"), description(data, "xmp")


@pytest.mark.parametrize("existing", ["skip", "overwrite", "append", "prepend"])
def test_what_happens_to_words_that_are_there(tmp_path: Path, capsys: pytest.CaptureFixture[str], existing: str):
    before = {}
    for k in range(6):
        path = picture(tmp_path / f"{k}{('.jpg', '.png', '.webp')[k % 3]}", 10 * k)
        before[Path(path)] = with_words(path, "Mine." if k < 3 else "")
    with serving(lambda body: says(f"c{round(int(grey_of(body).split()[1]) / 10)}")) as server:
        command = ["caption", str(tmp_path), "--model", f"{server.url}#tiny-vlm", "--exif", "--xmp"]
        command += ["--existing", existing]
        assert main(command) == 0
        error = capsys.readouterr().err
        pattern = {"skip": "Mine.", "overwrite": "c{k}", "append": "Mine. c{k}", "prepend": "c{k}, Mine."}[existing]
        expected = {path: (pattern if k < 3 else "c{k}").format(k=k) for k, path in enumerate(before)}
        assert {path: words(path) for path in before} == {path: (text, text) for path, text in expected.items()}
        for path, data in before.items():
            assert picture_data(path.read_bytes()) == picture_data(data)
        note = "files that have a description in their EXIF and keep it: 3 (--existing overwrite, append or prepend"
        assert (note in error) == (existing == "skip") and len(server.seen) == (3 if existing == "skip" else 6)
        after = {path: path.read_bytes() for path in before}
        assert main(command) == 0 and {path: path.read_bytes() for path in before} == after


def test_each_place_is_looked_at_for_itself(tmp_path: Path):
    """Words in the sidecar keep the sidecar, and the image still gets its caption."""
    path = Path(picture(tmp_path / "a.png", 10))
    (tmp_path / "a.txt").write_text("mine")
    with serving(lambda body: says("a dog")) as server:
        assert main(["caption", str(path), "--model", f"{server.url}#tiny-vlm", "--sidecar", "txt", "--exif"]) == 0
    assert words(path) == ("a dog", "") and (tmp_path / "a.txt").read_text() == "mine"


def test_files_that_cannot_hold_a_caption_are_named_and_the_rest_is_done(tmp_path: Path, capsys):
    names = ("ok.jpg", "cut.jpg", "damaged.jpg", "locked.jpg", "x.gif", "x.bmp")
    paths = {name: Path(picture(tmp_path / name, 10)) for name in names}
    with_words(str(paths["cut.jpg"]), "Rex")
    with_words(str(paths["damaged.jpg"]), "Rex")
    paths["cut.jpg"].write_bytes(paths["cut.jpg"].read_bytes()[:-30])
    data = paths["damaged.jpg"].read_bytes()
    place = data.index(b"Exif\0\0") + 10
    paths["damaged.jpg"].write_bytes(data[:place] + b"\xff\xff\xff\xff" + data[place + 4 :])
    paths["locked.jpg"].chmod(0o444)
    before = {name: path.read_bytes() for name, path in paths.items()}
    with serving(lambda body: says("a dog")) as server:
        command = ["caption", str(tmp_path), "--model", f"{server.url}#tiny-vlm", "--exif", "--existing", "append"]
        assert main(command) == 3
    error = capsys.readouterr().err
    stays = "no description is written into its EXIF:"
    for line in (
        f"cut.jpg: {stays} it is cut off before its picture begins; it stays as it is",
        f"damaged.jpg: {stays} its EXIF is damaged (a directory at byte 4294967295 of",
        "locked.jpg: it is read-only, so no description is written into it",
        f"x.gif: {stays} only JPEG, PNG, WebP and TIFF can hold it; --sidecar xmp or txt writes beside the file",
        f"x.bmp: {stays} only JPEG",
    ):
        assert line in error
    assert words(paths["ok.jpg"])[0] == "a dog"
    for name in ("cut.jpg", "damaged.jpg", "locked.jpg", "x.gif", "x.bmp"):
        assert paths[name].read_bytes() == before[name]


def test_a_folder_that_cannot_be_written_is_named_before_the_work(tmp_path: Path, capsys, monkeypatch):
    path = Path(picture(tmp_path / "a.jpg", 10))
    before = path.read_bytes()

    def check(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("limner.apps.shared.description_writer.check_writable", check)
    with serving(lambda body: says("x")) as server:
        assert main(["caption", str(path), "--model", f"{server.url}#tiny-vlm", "--xmp"]) == 3 and not server.seen
    assert f"{path}: its description cannot be written (Permission denied)" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_file_keeps_its_permissions_and_a_link_stays_a_link(tmp_path: Path):
    path = Path(picture(tmp_path / "in" / "a.jpg", 10))
    path.chmod(0o640)
    (tmp_path / "link.jpg").symlink_to(path)
    problems = Problems()
    DescriptionWriter("exif", Wording()).write(str(tmp_path / "link.jpg"), [ROW], problems)
    assert (tmp_path / "link.jpg").is_symlink() and words(path)[0] == "a dog" and not problems.failed
    assert path.stat().st_mode & 0o777 == 0o640 and os.listdir(tmp_path / "in") == ["a.jpg"]


def test_what_cameras_write_does_not_count_as_words(tmp_path: Path):
    tags = Image.Exif()
    tags[270] = "OLYMPUS DIGITAL CAMERA         "
    path = tmp_path / "a.jpg"
    Image.new("RGB", (8, 8)).save(path, exif=tags)
    writer, problems = DescriptionWriter("exif", Wording()), Problems()
    assert writer.select([str(path)], problems) == [str(path)]
    writer.write(str(path), [ROW], problems)
    assert words(path)[0] == "a dog"


@pytest.mark.parametrize(
    ("existing", "text"),
    [("skip", "mine"), ("overwrite", "a dog"), ("append", "mine, a dog"), ("prepend", "a dog, mine")],
)
def test_xmp_sidecars_keep_what_else_they_hold(tmp_path: Path, existing: str, text: str):
    path, problems = tmp_path / "dog.xmp", Problems()
    writer = SidecarWriter("xmp", Wording(existing))
    writer.write(str(tmp_path / "dog.jpg"), [ROW], problems)
    assert read_sidecar(path) == "a dog"
    packet = xmp.with_description(None, "mine").replace(b"<rdf:Description ", b'<rdf:Description xml:id="7" ')
    path.write_bytes(packet)
    for _ in range(2):
        writer.write(str(tmp_path / "dog.jpg"), [ROW], problems)
        assert path.read_bytes() == packet.replace(b">mine<", f">{text}<".encode()) and not problems.failed
    path.write_bytes(b"<broken")
    writer.write(str(tmp_path / "dog.jpg"), [ROW], problems)
    assert path.read_bytes() == b"<broken" and "its XMP is damaged" in problems.failed[0]
