"""Images that every viewer shows: what is wrong with them is ignored, noted, or guessed and noted."""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from limner.data.greys import to_8_bit
from limner.data.image_files import PNG_SIGNATURE
from limner.data.images import MediaError, read_image


def photograph() -> np.ndarray:
    """Rows that differ from each other, none of them black or of one colour."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(30, 226, (13, 17, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((320, 240), Image.Resampling.BICUBIC))


def encoded(format: str, pixels: np.ndarray | None = None, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(photograph() if pixels is None else pixels).save(buffer, format, **options)
    return buffer.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


LONG_TEXT = b"prompt\0\0" + zlib.compress(b"a dog " * 500_000)
CHUNKS = {
    "one long text": [chunk(b"zTXt", LONG_TEXT)],
    "many long texts": [chunk(b"zTXt", b"%d\0\0" % i + zlib.compress(bytes(1_000_000))) for i in range(70)],
    "a long colour profile": [chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(2_000_000)))],
    "a long international text": [chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(3_000_000)))],
    "a text with a wrong checksum": [chunk(b"tEXt", b"a\0dog")[:-1] + b"?"],
}


@pytest.mark.parametrize("where", ["before the pixels", "after the pixels"])
@pytest.mark.parametrize("what", CHUNKS)
def test_a_png_with_large_or_damaged_texts_is_read(tmp_path: Path, what: str, where: str) -> None:
    content = encoded("PNG")
    place = 33 if where == "before the pixels" else len(content) - 12  # behind IHDR, or in front of IEND
    path = tmp_path / "a.png"
    path.write_bytes(content[:place] + b"".join(CHUNKS[what]) + content[place:])
    for source in (path, path.read_bytes()):
        np.testing.assert_array_equal(read_image(source)[0], photograph())


def test_a_png_with_long_texts_keeps_its_transparency_and_orientation() -> None:
    pixels = np.zeros((2, 3, 4), np.uint8)
    pixels[0, :, 3] = 255  # the first row is black, the second transparent
    exif = Image.Exif()
    exif[0x0112] = 3
    content = encoded("PNG", pixels, exif=exif)
    image = read_image(content[:33] + chunk(b"zTXt", LONG_TEXT) + content[33:])[0]
    assert image[:, 0, 0].tolist() == [255, 0]


def test_a_text_of_a_png_is_never_printed() -> None:
    notes: list[str] = []
    info = PngImagePlugin.PngInfo()
    info.add_text("note", "buy this")
    read_image(encoded("PNG", pnginfo=info), notes=notes)
    assert notes == []


@pytest.mark.parametrize("missing", [2, 40, 400])
@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
def test_a_jpeg_that_lacks_its_last_bytes_is_read_with_a_note(
    tmp_path: Path, options: dict[str, bool], missing: int
) -> None:
    content, notes = encoded("JPEG", quality=95, **options), []
    path = tmp_path / "a.jpg"
    path.write_bytes(content[:-missing])
    image = read_image(path, notes=notes)
    assert len(notes) == 1 and notes[0].startswith(f"{path}: truncated: ")
    if missing == 2 or options:
        assert notes == [f"{path}: truncated: its last bytes are missing"]
    np.testing.assert_array_equal(image[0, :200], read_image(content)[0, :200])
    np.testing.assert_array_equal(read_image(path.read_bytes()), image)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "TIFF", "PPM", "TGA"])
def test_at_least_half_of_a_truncated_image_must_be_there(format: str) -> None:
    options = {"compress_level": 1} if format == "PNG" else {}
    content, notes = encoded(format, **options), []
    image = read_image(content[: len(content) * 3 // 4], notes=notes)[0]
    assert len(notes) == 1
    share = int(notes[0].split("about ")[1].split("%")[0])
    assert 55 < share < 90
    upside_down = format in ("BMP", "TGA")  # the last row is stored first
    there = slice(120, 240) if upside_down else slice(0, 120)
    np.testing.assert_array_equal(image[there], read_image(content)[0][there])
    with pytest.raises(MediaError, match=r"<bytes>: the image is damaged \(.*truncated.*\); replace or remove it"):
        read_image(content[: len(content) // 3])


def exif_with(entry: bytes, ifd_offset: int = 8, byte_order: bytes = b"II*\0") -> bytes:
    return b"Exif\0\0" + byte_order + struct.pack("<I", ifd_offset) + struct.pack("<H", 1) + entry + bytes(4)


BAD_EXIF = {
    "a byte order that does not exist": exif_with(struct.pack("<HHII", 0x112, 3, 1, 6), byte_order=b"XX*\0"),
    "a directory beyond the end": exif_with(struct.pack("<HHII", 0x112, 3, 1, 6), ifd_offset=99_999),
    "a text as orientation": exif_with(struct.pack("<HHII", 0x112, 2, 2, 0x36)),
    "an orientation of 9": exif_with(struct.pack("<HHII", 0x112, 3, 1, 9)),
    "two orientations": exif_with(struct.pack("<HHIHH", 0x112, 3, 2, 6, 6)),
    "a directory that is cut off": exif_with(struct.pack("<HHII", 0x112, 3, 1, 6))[:19],
    "a number of another type": exif_with(struct.pack("<HHII", 0x112, 12, 1, 6)),
    "a value that is too long": exif_with(struct.pack("<HHII", 0x112, 3, 0xFFFFFFFF, 6)),
}


@pytest.mark.parametrize("what", BAD_EXIF)
def test_damaged_exif_data_do_not_stop_reading_and_print_nothing(what: str) -> None:
    content = encoded("JPEG", exif=BAD_EXIF[what])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = read_image(content)[0]
    assert image.shape in ((240, 320, 3), (320, 240, 3))


@pytest.mark.parametrize("type", [(3, "<HHIHH", (6, 0)), (4, "<HHII", (6,))], ids=["SHORT", "LONG"])
def test_an_orientation_of_either_integer_type_is_applied(type: tuple[int, str, tuple[int, ...]]) -> None:
    number, layout, value = type
    content = encoded("JPEG", exif=exif_with(struct.pack(layout, 0x112, number, 1, *value)))
    np.testing.assert_array_equal(read_image(content)[0], np.rot90(read_image(encoded("JPEG"))[0], -1))


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize(("top", "bits"), [(200, 8), (1023, 10), (4095, 12), (16383, 14)])
def test_16_bit_grey_that_uses_fewer_bits_is_scaled_by_them_with_a_note(
    tmp_path: Path, name: str, top: int, bits: int
) -> None:
    path, notes = tmp_path / name, []
    Image.fromarray(np.array([[0, top // 2, top]], np.uint16)).save(path)
    image = read_image(path, notes=notes)[0, 0, :, 0]
    assert image.tolist() == [value * 255 // (2**bits - 1) for value in (0, top // 2, top)]
    assert notes == [f"{path}: values from 0 to {top} were taken as {bits} bits of grey"]


def test_16_bit_grey_that_uses_its_range_is_read_as_before_and_without_a_note(tmp_path: Path) -> None:
    notes: list[str] = []
    Image.fromarray(np.array([[0, 20000, 65535]], np.uint16)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", notes=notes)[0, 0, :, 0].tolist() == [0, 77, 255]
    (tmp_path / "a.pgm").write_bytes(b"P5 2 1 4095\n" + struct.pack(">HH", 1024, 100))  # the file says what white is
    assert read_image(tmp_path / "a.pgm", notes=notes)[0, 0, :, 0].tolist() == [63, 6]
    assert notes == []


@pytest.mark.parametrize(
    ("values", "expected", "note"),
    [
        (np.array([[0, 128, 255]], np.int32), [0, 128, 255], "taken as 8 bits"),
        (np.array([[-1000, 0, 1000]], np.int32), [0, 127, 255], "values from -1000 to 1000 were stretched"),
        (np.array([[0, 1 << 19, 1 << 20]], np.int32), [0, 127, 255], "stretched"),
        (np.array([[-1, 100, 4095]], np.int32), [0, 6, 255], "12 bits"),  # -1 marks missing values
        (np.array([[0, 0.5, 1.2]], np.float32), [0, 127, 255], "cut to [0, 1]"),
        (np.array([[0, 500, 1000]], np.float32), [0, 127, 255], "stretched"),
        (np.array([[-1, 0, 1]], np.float32), [0, 127, 255], "stretched"),
        (np.array([[0, np.nan, 1]], np.float32), [0, 0, 255], "1 of 3 values are NaN"),
        (np.array([[np.nan, np.nan]], np.float32), [0, 0], "2 of 2 values are NaN"),
        (np.array([[0, 0]], np.int32), [0, 0], ""),
    ],
)
def test_other_greys_are_scaled_by_the_range_of_their_values(
    values: np.ndarray, expected: list[int], note: str
) -> None:
    pixels, said = to_8_bit(values)
    assert pixels[0].tolist() == expected
    assert note in said and bool(note) == bool(said)


def test_floats_of_a_small_range_are_not_black_and_those_that_are_no_numbers_are_counted() -> None:
    pixels, note = to_8_bit(np.array([[0, 1e-6, 2e-6]], np.float32))
    assert pixels.tolist() == [[0, 127, 255]] and note == "values from 0 to 2e-06 were stretched from black to white"
    pixels, note = to_8_bit(np.array([[0, np.nan, 1]], np.float32))
    assert pixels.tolist() == [[0, 0, 255]] and note == "1 of 3 values are NaN or infinite"


@pytest.mark.parametrize("alpha", [4095, 65535])
@pytest.mark.parametrize("channels", [2, 4])
def test_16_bit_png_with_alpha_that_uses_12_bits_is_not_dark(tmp_path: Path, channels: int, alpha: int) -> None:
    values = np.full((8, 8, channels), 4095, ">u2")
    values[:, 4:, :-1], values[..., -1] = 2047, alpha

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 8, 8, 16, {2: 4, 4: 6}[channels], 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in values))
    path = tmp_path / "a.png"
    path.write_bytes(PNG_SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    notes: list[str] = []
    image = read_image(path, notes=notes)[0]
    assert image[0, 0].tolist() == [255] * 3 and image[0, 7].tolist() == [127] * 3
    assert notes == [f"{path}: values from 2047 to 4095 were taken as 12 bits of grey"]


def test_32_bit_grey_of_a_tiff_file_is_not_black(tmp_path: Path) -> None:
    notes: list[str] = []
    Image.fromarray(np.array([[0, 128, 255]], np.int32)).save(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif", notes=notes)[0, 0, :, 0].tolist() == [0, 128, 255]
    assert "were taken as 8 bits of grey" in notes[0]


def tiff(pixels: np.ndarray, sample_format: int, photometric: int = 2) -> bytes:
    """An uncompressed TIFF file, planes one after the other when `pixels` is (C, H, W)."""
    planar = pixels.shape[0] <= 4
    count, (height, width) = (pixels.shape[0], pixels.shape[1:]) if planar else (pixels.shape[2], pixels.shape[:2])
    bits, data = pixels.dtype.itemsize * 8, pixels.tobytes()
    tail = 8 + 2 + 12 * 11 + 4
    each = struct.pack(f"<{count}H", *[bits] * count), struct.pack(f"<{count}H", *[sample_format] * count)
    start = tail + 4 * count + 8 * count
    plane = len(data) // (count if planar else 1)
    offsets = struct.pack(f"<{count}I", *(start + i * plane for i in range(count)))
    lengths = struct.pack(f"<{count}I", *[plane] * count)
    strips = count if planar else 1
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, count, tail),
        (259, 3, 1, 1),
        (262, 3, 1, photometric),
        (273, 4, strips, tail + 4 * count if planar else start),
        (277, 3, 1, count),
        (278, 4, 1, height),
        (279, 4, strips, tail + 8 * count if planar else len(data)),
        (284, 3, 1, 2 if planar else 1),
        (339, 3, count, tail + 2 * count),
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8) + directory + b"".join(each) + offsets + lengths + data


def test_tiff_files_of_rgb_floats_and_of_12_bits_in_16_are_read() -> None:
    ramp = np.linspace(0, 1, 5 * 8 * 3).reshape(5, 8, 3)
    notes: list[str] = []
    image = read_image(tiff(ramp.astype(np.float32), 3), notes=notes)[0]
    assert np.abs(image - ramp * 255).max() <= 1 and notes == []
    image = read_image(tiff((ramp * 4095).astype(np.uint16), 1), notes=notes)[0]
    assert np.abs(image - ramp * 255).max() <= 1
    assert notes == ["<bytes>: values from 0 to 4095 were taken as 12 bits of grey"]


def test_tiff_files_with_separate_planes_are_read() -> None:
    pixels = photograph()
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    np.testing.assert_array_equal(read_image(tiff(planes, 1))[0], pixels)
    inks = np.zeros((4, 6, 6), np.uint8)
    inks[0] = 255  # cyan
    assert read_image(tiff(inks, 1, photometric=5))[0, 3, 3].tolist() == [0, 255, 255]
