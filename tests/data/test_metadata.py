"""Descriptions inside image files: pixels and all other metadata keep their bytes, whatever the format."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from limner.data.image_descriptions import read_description
from limner.data.metadata import (
    MetadataError,
    Place,
    description,
    jpeg,
    picture_data,
    png,
    tiff,
    webp,
    with_description,
)
from limner.data.metadata import xmp as packets

PACKET = (
    '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>\n<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="uuid:1"  '
    'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating=\'5\' xmp:Label="a > b"><!-- mine -->%s</rdf:Description>'
    "</rdf:RDF></x:xmpmeta>\n   \n<?xpacket end='w'?>"
)
DESCRIPTION = '<d:description xmlns:d="http://purl.org/dc/elements/1.1/">%s</d:description>'
ALT = (
    DESCRIPTION
    % "<rdf:Alt><rdf:li xml:lang='de'>Hund</rdf:li>\n <rdf:li xml:lang='x-default'>mine &amp; %s</rdf:li></rdf:Alt>"
)
PLACES: list[Place] = ["exif", "xmp"]


def image(kind: str, xmp: str = "", exif: bool = True, **options: object) -> bytes:
    tags = Image.Exif()
    if exif:
        tags.update({271: "Maker", 33432: "(c) somebody", 274: 6})
        tags.get_ifd(0x8769)[0x927C] = b"maker note " * 9
    out = io.BytesIO()
    colours = Image.effect_noise((41, 23), 80).convert("RGB")
    given: dict[str, Any] = {
        **({"exif": tags} if exif else {}),
        **({"xmp": xmp.encode()} if xmp and kind != "PNG" else {}),
        **options,
    }
    if kind == "PNG":
        info = PngInfo()
        info.add_text("Comment", "stays")
        if xmp:
            info.add_itxt("XML:com.adobe.xmp", xmp, zip=bool(options.get("zipped")))
        given |= {"pnginfo": info}
    if kind == "JPEG":
        given |= {"comment": b"stays", "quality": 90, "dpi": (72, 72), "icc_profile": b"profile" * 30}
    colours.save(out, kind, **given)
    return out.getvalue()


def pixels(data: bytes) -> bytes:
    return Image.open(io.BytesIO(data)).tobytes()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "data",
    [
        image("JPEG"),
        image("JPEG", PACKET % "", progressive=True),
        image("JPEG", exif=False),
        image("PNG"),
        image("PNG", PACKET % (ALT % "more")),
        image("PNG", PACKET % "", zipped=True),
        image("PNG", exif=False),
        image("WEBP"),
        image("WEBP", exif=False),
        image("WEBP", exif=False, lossless=True),
        image("WEBP", PACKET % ""),
        image("TIFF"),
        image("TIFF", compression="tiff_deflate"),
    ],
)
def test_a_description_changes_nothing_else(data: bytes, place: Place, tmp_path: Path):
    other: Place = "xmp" if place == "exif" else "exif"
    before = Image.open(io.BytesIO(data)).getexif()
    new = data
    for text in ("a dog <on> a & b", "a much longer caption, with Müller 狗, " * 9, "x"):
        theirs = description(new, other)
        new = with_description(new, place, text)
        assert description(new, place) == text.strip() and description(new, other) == theirs
        assert with_description(new, place, text) == new
        assert picture_data(new) == picture_data(data) and pixels(new) == pixels(data)
        after = Image.open(io.BytesIO(new)).getexif()
        changed = {270, 700, 34665}  # the two texts; Pillow turns the place of the EXIF directory into a number
        assert {k: v for k, v in before.items() if k not in changed} == {
            k: v for k, v in after.items() if k not in changed
        }
        assert before.get_ifd(0x8769) == after.get_ifd(0x8769)
        path = tmp_path / "file"
        path.write_bytes(new)
        assert read_description(path) == (text.strip() if place == "xmp" else " ".join((theirs or text).split()))


def test_segments_of_a_jpeg_byte_for_byte():
    """Everything but the EXIF segment: the same bytes in the same order, before and after."""
    data = image("JPEG", PACKET % "")
    new = with_description(data, "exif", "a dog")
    (old, scan), (segments, new_scan) = jpeg.split(data), jpeg.split(new)
    assert scan == new_scan == data[data.index(b"\xff\xda") :]
    changed = [(a.data, b.data) for a, b in zip(old, segments, strict=True) if a != b]
    assert len(changed) == 1
    before, after = (part[10:] for part in changed[0])
    assert after[8 : len(before)] == before[8:] and after[:4] == before[:4]  # only the place of the first directory


def test_chunks_of_png_and_webp_byte_for_byte():
    data = image("PNG", exif=False)
    for place, kind in (("exif", b"eXIf"), ("xmp", b"iTXt")):
        (old, rest), (new, new_rest) = png.split(data), png.split(with_description(data, place, "a dog"))
        assert rest == new_rest and new[: len(old)] == old and [chunk.kind for chunk in new[len(old) :]] == [kind]
        assert zlib.crc32(new[-1].kind + new[-1].content).to_bytes(4, "big") == new[-1].data[-4:]
    for lossless in (True, False):
        data = image("WEBP", exif=False, lossless=lossless)
        chunks, _ = webp.split(with_description(data, "xmp", "a dog"))
        assert chunks[1:-1] == webp.split(data)[0] and chunks[-1][0] == b"XMP "
        assert chunks[0] == (b"VP8X", bytes([4, 0, 0, 0, 40, 0, 0, 22, 0, 0]))  # 41 x 23, by hand


@pytest.mark.parametrize(
    ("inside", "old", "new"),
    [
        (ALT % "more", "mine & more", ALT.replace("mine &amp; %s", "a &lt; b")),
        (DESCRIPTION % "plain &gt; text", "plain > text", DESCRIPTION % "a &lt; b"),
        (DESCRIPTION % "<rdf:Alt><rdf:li xml:lang='de'>Hund</rdf:li></rdf:Alt>", "Hund", None),
    ],
)
def test_xmp_is_changed_at_its_place(inside: str, old: str, new: str | None):
    packet = (PACKET % inside).encode()
    assert packets.description(packet) == old
    expected = inside.replace("Hund", "a &lt; b") if new is None else new
    assert packets.with_description(packet, "a < b").decode() == PACKET % expected


def test_xmp_without_a_description_keeps_every_byte():
    packet = (PACKET % "").encode()
    new = packets.with_description(packet, "a dog")
    at = packet.index(b"</rdf:RDF>")
    assert new.startswith(packet[:at]) and new.endswith(packet[at:]) and b'rdf:about="uuid:1"' in new
    assert packets.description(new) == "a dog"


@pytest.mark.parametrize(
    ("packet", "why"),
    [
        (b"<x", "its XMP is damaged"),
        (b"\xff\xfe<\0", "its XMP is not UTF-8"),
        ((PACKET % "").replace("xmp:Rating", f'xmlns:dc="{packets.DC}" dc:description="x" xmp:R'), "attribute"),
        ("<!DOCTYPE d [<!ENTITY a 'x'>]>" + (PACKET % "").partition("?>")[2], "document type"),
        ("<nothing/>", "in a form that is not changed"),
    ],
)  # fmt: skip
def test_odd_xmp_is_refused(packet: bytes | str, why: str):
    with pytest.raises(MetadataError, match=why):
        packets.with_description(packet if isinstance(packet, bytes) else packet.encode(), "a dog")


def test_damaged_files_are_refused_with_words():
    data = image("JPEG")
    exif = data.index(b"Exif\0\0") + 6
    damaged = data[: exif + 4] + struct.pack(">I", 9**9) + data[exif + 8 :]
    for broken, why in (
        (data[:60], "cut off before its picture"),
        (b"GIF89a....", "only JPEG, PNG, WebP and TIFF can hold it; --sidecar xmp or txt"),
        (damaged, "its EXIF is damaged"),
        (data[:exif] + b"??" + data[exif + 2 :], r"its EXIF is damaged \(no TIFF header\)"),
        (image("PNG")[:50], "cut off before its picture"),
        (image("WEBP")[:-9], "it is cut off"),
        (image("TIFF")[:20], "its EXIF is damaged"),
    ):
        with pytest.raises(MetadataError, match=why):
            with_description(broken, "exif", "a dog")
    assert description(with_description(damaged, "xmp", "a dog"), "xmp") == "a dog"  # its EXIF is not touched
    with pytest.raises(MetadataError, match="a JPEG holds 65,533"):
        with_description(data, "xmp", "x" * 70_000)


def test_a_picture_that_is_cut_off_keeps_what_it_has():
    data = image("JPEG")[:-200]
    new = with_description(data, "exif", "a dog")
    assert jpeg.split(new)[1] == jpeg.split(data)[1] and description(new, "exif") == "a dog"


@given(st.binary(max_size=120), st.text(max_size=30), st.integers(0, 900), st.sampled_from(PLACES))
@settings(max_examples=150, deadline=None)
def test_damage_is_an_error_or_leaves_the_picture(noise: bytes, text: str, place: int, where: Place):
    """Random bytes somewhere in a file: MetadataError, or a description and an equal picture."""
    for data in FILES:
        broken = data[:place] + noise + data[place + len(noise) :]
        try:
            new = with_description(broken, where, text.encode("utf-8", "ignore").decode())
        except MetadataError:
            continue
        assert picture_data(new) == picture_data(broken)


FILES = [image("JPEG", PACKET % (ALT % "")), image("PNG", PACKET % ""), image("WEBP"), image("TIFF")]


def test_an_empty_structure_has_no_text():
    assert tiff.read_text(tiff.EMPTY, 270) == "" and tiff.with_text(tiff.EMPTY, 270, "dog")[:4] == b"MM\0*"
