"""Words about a picture in files of its user: sidecars, EXIF and XMP; what is damaged is named."""

from pathlib import Path

import pytest
from PIL import ExifTags, Image

from limner.data.image_descriptions import read_description, xmp_description
from limner.data.sidecars import SidecarError, find_sidecar, read_sidecar, sidecar_path
from limner.inference.context import context_of

XMP = """<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:dc="http://purl.org/dc/elements/1.1/"><rdf:Description
 rdf:about=""><dc:description><rdf:Alt><rdf:li xml:lang="x-default">Ein Hund</rdf:li><rdf:li xml:lang="en-GB">A dog
 &amp; a cat</rdf:li></rdf:Alt></dc:description></rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""


def photo(path: Path, exif: dict[int, object] | None = None, comment: bytes = b"", xmp: str = "") -> Path:
    tags = Image.Exif()
    tags.update(exif or {})
    if comment:
        tags.get_ifd(0x8769)[ExifTags.Base.UserComment] = comment
    Image.new("RGB", (8, 8)).save(path, exif=tags, **({"xmp": xmp.encode()} if xmp else {}))
    return path


def test_descriptions_inside_images(tmp_path: Path):
    path = tmp_path / "a.jpg"
    assert read_description(photo(path, {0x010E: " Rex at\n the lake "})) == "Rex at the lake"
    assert read_description(photo(path, {0x010E: "Müller am See".encode()})) == "Müller am See"
    assert read_description(photo(path, {0x010E: "OLYMPUS DIGITAL CAMERA"})) == ""
    assert read_description(photo(path, comment=b"ASCII\0\0\0two birds")) == "two birds"
    assert read_description(photo(path, {0x9C9C: "Café".encode("utf-16-le")})) == "Café"
    assert read_description(photo(path, {0x010E: "old"}, xmp=XMP)) == "A dog & a cat"
    assert read_description(photo(tmp_path / "a.webp", {0x010E: "in a WebP"})) == "in a WebP"
    assert read_description(photo(path)) == "" == read_description(tmp_path / "nowhere.jpg")
    (tmp_path / "b.jpg").write_text("no picture")
    assert read_description(tmp_path / "b.jpg") == ""


def test_damaged_and_hostile_xmp_has_no_description():
    assert xmp_description(XMP.encode()[:200]) == "" == xmp_description(b"\xff" * 99)
    bomb = '<!DOCTYPE d [<!ENTITY a "x">' + "".join(
        f'<!ENTITY a{k} "{f"&a{k - 1};" * 10 if k else "&a;" * 10}">' for k in range(9)
    )
    assert xmp_description(XMP.replace("<x:xmpmeta", f"{bomb}]><x:xmpmeta", 1).replace("A dog", "&a8;").encode()) == ""


def test_sidecars(tmp_path: Path):
    image = tmp_path / "dog.jpg"
    assert find_sidecar(image) is None
    sidecar_path(image, "json").write_text('{"tags": ["x"], "caption": "from JSON"}')
    assert read_sidecar(find_sidecar(image) or image) == "from JSON"
    sidecar_path(image, "txt").write_text("\ufeff  two\nlines ")
    assert find_sidecar(image) == tmp_path / "dog.txt" and read_sidecar(tmp_path / "dog.txt") == "two lines"
    for content, why in (('["a list", "b"]', "a list"), ('"text"', "text")):
        sidecar_path(image, "json").write_text(content)
        assert read_sidecar(tmp_path / "dog.json") == why


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\xff\xfe caf\xe9", "dog.txt is not UTF-8 text (invalid start byte at byte 0)"),
        (None, "dog.txt is a folder, where a text file is expected"),
    ],
)
def test_a_sidecar_that_cannot_be_read_is_a_note(tmp_path: Path, content: bytes | None, why: str):
    path = tmp_path / "dog.txt"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(SidecarError):
        read_sidecar(path)
    notes: list[str] = []
    image = str(tmp_path / "dog.jpg")
    assert context_of(image, "any", notes) == ""
    assert notes == [f"{tmp_path}/{why}; {image} is captioned without it"]


@pytest.mark.parametrize("content", ["{", "[]", "3", '{"tags": []}', "[" * 100_000])
def test_json_without_words(tmp_path: Path, content: str):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(SidecarError, match=r"a\.json (is not JSON|has no words)"):
        read_sidecar(tmp_path / "a.json")


def test_where_context_comes_from(tmp_path: Path):
    image, notes = photo(tmp_path / "a.jpg", {0x010E: "in the file"}), []
    assert [context_of(str(image), kind, notes) for kind in ("sidecar", "exif", "any")] == ["", "in the file"] * 1 + [
        "in the file"
    ]
    (tmp_path / "a.caption").write_text("x" * 5000)
    assert context_of(str(image), "any", notes) == "x" * 1000
    assert notes == [f"{image}: the first 1000 of the 5,000 characters known about it are used"]
