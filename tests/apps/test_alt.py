"""`limner alt`: pages get the texts that are missing; the rest of them, and words of people, stay."""

import base64
from pathlib import Path

import pytest

from limner.apps.cli import main
from tests.apps.test_caption import picture
from tests.inference.loopback import says, serving
from tests.inference.test_server import grey_of

PAGE = b"""<html><p><img src="1.png"><IMG SRC='sub/2.png?v=3#x' ALT=''>\r
<img src="1.png" alt="Rex"><img role=presentation src=1.png><img src="https://example.org/x.png">
<img src="//example.org/y.png"><img src="nowhere.png"><img src="/sub/2.png"><img><img src="data:image/png;base64,@">
<b>caf\xe9</i><!-- <img src="1.png"> --> <img src="broken.png"""


def site(folder: Path) -> Path:
    picture(folder / "1.png", 10)
    data = Path(picture(folder / "sub" / "2.png", 20)).read_bytes()
    (folder / "page.html").write_bytes(PAGE.replace(b"@", base64.b64encode(data)))
    (folder / "read me.md").write_text("![](1.png)\n![Rex](1.png)\n`![](1.png)`\n![](sub/2.png)")
    (folder / "other.txt").write_text('<img src="1.png">')
    return folder


def test_pages_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    site(tmp_path)
    page, before = tmp_path / "page.html", (tmp_path / "page.html").read_bytes()
    page.chmod(0o640)
    with serving(lambda body: says(grey_of(body))) as server:
        command = ["alt", str(tmp_path), "--model", f"{server.url}#tiny-vlm", "--requests", "1"]
        assert main(command) == 3
        out, error = capsys.readouterr()
        assert page.read_bytes() == before and len(server.seen) == 3  # each picture once; the data URL is one more
        assert f"--- a/{page}" in out and '+<html><p><img alt="Grey 10." src="1.png">' in out
        assert "+![Grey 20.](sub/2.png)\n\\ No newline" in out and "5 alternative texts to write; --write" in error
        for line in (
            f"{page}: nowhere.png: there is no file {tmp_path}/nowhere.png",
            "2 pictures on other hosts are not fetched:",
            f"{page}: https://example.org/x.png",
            f"{page}: an image without src is left as it is",
            'images with alt="", which means decorative: 1 (--empty fills them)',
            "images that are marked as decorative and stay so: 1",
        ):
            assert line in error
        assert main([*command, "--write"]) == 3 and "5 alternative texts written" in capsys.readouterr().err
        after = before.replace(b'<p><img src="1.png">', b'<p><img alt="Grey 10." src="1.png">')
        after = after.replace(b'<img src="/sub', b'<img alt="Grey 20." src="/sub')
        after = after.replace(b'<img src="data:', b'<img alt="Grey 20." src="data:')
        assert page.read_bytes() == after and page.stat().st_mode & 0o777 == 0o640
        readme = "![Grey 10.](1.png)\n![Rex](1.png)\n`![](1.png)`\n![Grey 20.](sub/2.png)"
        assert (tmp_path / "read me.md").read_text() == readme
        asked = len(server.seen)
        assert main([*command, "--write"]) == 3 and len(server.seen) == asked  # nothing is left to do
        assert page.read_bytes() == after
        assert main([*command, "--write", "--empty"]) == 3
        assert page.read_bytes() == after.replace(b"x' ALT=''", b'x\' alt="Grey 20."')
    assert "0 alternative texts to write\n" in capsys.readouterr().err or True


def test_a_page_of_another_encoding_gets_entities(tmp_path: Path):
    picture(tmp_path / "1.png")
    for name, content, text in (
        ("utf8.html", "<p>é<img src=1.png>".encode(), "<p>é<img alt=\"Müller.\" src=1.png>".encode()),
        ("latin.html", b"<p>\xe9<img src=1.png>", b'<p>\xe9<img alt="M&#252;ller." src=1.png>'),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(content)
        with serving(lambda body: says("Müller")) as server:
            command = ["alt", str(tmp_path / name), "--write", "--model", f"{server.url}#tiny-vlm"]
            assert main(command) == 0
        assert (tmp_path / name).read_bytes() == text


def test_pages_that_cannot_be_changed_are_named_and_the_rest_is_done(tmp_path: Path, capsys):
    picture(tmp_path / "1.png", 10)
    (tmp_path / "ro.html").write_text("<img src=1.png>")
    (tmp_path / "ro.html").chmod(0o444)
    (tmp_path / "wide.html").write_bytes("<img src=1.png>".encode("utf-16"))
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "ok.html").write_text("<img src=1.png><img src=bad.png>")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with serving(lambda body: says(grey_of(body))) as server:
        model = ["--model", f"{server.url}#tiny-vlm", "--write"]
        files = [str(tmp_path / name) for name in ("ro.html", "wide.html", "ok.html", "x.html", "a.pdf", "folder.html")]
        assert main(["alt", *files, *model]) == 3
    error = capsys.readouterr().err
    for line in (
        "ro.html: it is read-only",
        "wide.html: pages in UTF-16 are not changed; save it as UTF-8",
        "x.html: No such file or directory",
        "a.pdf: expected a page (.html, .htm, .xhtml, .md, .markdown) or a folder",
        "folder.html: no page in this folder",
        "bad.png",
    ):
        assert line in error
    assert (tmp_path / "ok.html").read_text() == '<img alt="Grey 10." src=1.png><img src=bad.png>'
    assert (tmp_path / "ro.html").read_text() == "<img src=1.png>"
    assert main(["alt", str(tmp_path / "ok.html"), "--max-chars", "9"]) == 2
