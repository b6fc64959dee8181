"""The overlay film: one word after the other, the clip plays with the word's heat map over it."""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, repeat
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from limner.core.files import atomic_write
from limner.data.images import read_image
from limner.explanations.figure import SILENT, enlarge
from limner.explanations.maps import Explanation
from limner.explanations.overlay import during, heat, light, outstanding
from limner.explanations.subject import PACE, Shown

HOLD = 18  # frames for which a picture is shown at each word
GIF_PACE = 7.5  # frames per second
DARK, TEXT, FAINT, BRIGHT = (24, 24, 27), (225, 225, 225), (140, 140, 145), (255, 210, 63)
MARGIN, LINE, BAR = 14, 27, 12  # pixels: border; height of a line of the sentence; thickness of the bars
NARROWEST = 420


def film(explanation: Explanation, shown: Shown, hold: int = HOLD) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Frames of even sides: for every word the clip, or a picture `hold` times.

    The picture with the heat map and its colour scale; below it, for cells that have a time, how the map's highest
    value runs through the clip, with the moment that is shown; the sentence, in which the word is marked.  Raises
    ValueError when there is no word.
    """
    if not explanation.words:
        raise ValueError(SILENT)
    pictures = [enlarge(picture, 300) for picture in shown.frames]
    height, width = pictures[0].shape[:2]
    page = Page.of(explanation, height, width, still=len(pictures) == 1)
    for word in range(len(explanation.words)):
        sheet = page.sheet(word)
        for number, picture in enumerate(pictures):
            frame = page.frame(sheet, word, picture, shown, number)
            yield from repeat(frame, hold if len(pictures) == 1 else 1)


@dataclass(frozen=True)
class Page:
    """Where everything stands."""

    explanation: Explanation
    height: int  # of the picture
    width: int
    left: int  # of the picture
    whole: int  # width of the page
    places: tuple[tuple[int, int], ...]  # of the words, from the sentence's first line on
    track: int  # top of the course over time; 0: there is none
    text: int  # top of the sentence

    @classmethod
    def of(cls, explanation: Explanation, height: int, width: int, still: bool) -> "Page":
        whole = max(width + 4 * MARGIN + BAR + 42, NARROWEST)
        left = (whole - width - 2 * MARGIN - BAR - 34) // 2
        places, x, line = [], MARGIN, 0
        for word in explanation.words:
            length = round(_font(17).getlength(word))
            if x + length > whole - MARGIN and x > MARGIN:
                x, line = MARGIN, line + 1
            places.append((x, line * LINE))
            x += length + 11
        below = height + 2 * MARGIN
        timed = explanation.layout.t > 1 and not still
        return cls(explanation, height, width, left, whole, tuple(places), below if timed else 0, below + 24 * timed)

    def sheet(self, word: int) -> Image.Image:
        """All but the picture and the moment."""
        explanation = self.explanation
        bottom = self.text + self.places[-1][1] + LINE + 8
        image = Image.new("RGB", (self.whole + self.whole % 2, (bottom + 26) // 2 * 2), DARK)
        pen = ImageDraw.Draw(image)
        for place, (said, (x, y)) in enumerate(zip(explanation.words, self.places, strict=True)):
            where = (x, self.text + y)
            if place == word:
                pen.rounded_rectangle((x - 5, where[1] - 3, *_end(where, said)), 5, BRIGHT)
            pen.text(where, said, DARK if place == word else TEXT, _font(17))
        pen.text((MARGIN, bottom), _facts(explanation, word), FAINT, _font(12, ""))
        scale = np.linspace(1, 0, self.height)[:, None].repeat(BAR, 1)
        at = (self.left + self.width + MARGIN, MARGIN)
        image.paste(Image.fromarray(heat(np.full((*scale.shape, 3), 110, np.uint8), scale)), at)
        pen.text((at[0] + BAR + 4, MARGIN - 2), "most", FAINT, _font(11, ""))
        pen.text((at[0] + BAR + 4, MARGIN + self.height - 13), "average", FAINT, _font(11, ""))
        if self.track:
            image.paste(self._course(word), (self.left, self.track))
        return image

    def _course(self, word: int) -> Image.Image:
        """The map's highest value at every time, as a strip."""
        maps = outstanding(self.explanation.maps[word], self.explanation.real)
        high = maps.reshape(self.explanation.layout).max((1, 2), keepdims=True)[..., 0]
        course = np.stack([during(high, x, x) for x in (np.arange(self.width) + 0.5) / self.width], 1)
        return Image.fromarray(heat(np.full((BAR, self.width, 3), 60, np.uint8), course.repeat(BAR, 0)))

    def frame(
        self, sheet: Image.Image, word: int, picture: np.ndarray, shown: Shown, number: int
    ) -> UInt8[np.ndarray, "H W 3"]:
        moment = float(shown.moments[number])
        part = (moment, moment) if len(shown.frames) > 1 else (0.0, 1.0)
        values = light(self.explanation, word, self.height, self.width, shown.kept_region, part)
        image = sheet.copy()
        image.paste(Image.fromarray(heat(picture, values)), (self.left, MARGIN))
        pen = ImageDraw.Draw(image)
        if self.track:
            x = self.left + round(moment * (self.width - 1))
            pen.rectangle((x - 1, self.track - 3, x + 1, self.track + BAR + 2), (255, 255, 255))
            if shown.seconds is not None:
                where = (self.left + self.width + MARGIN, self.track - 2)
                pen.text(where, f"{shown.seconds[number]:.1f} s", FAINT, _font(12, ""))
        return np.asarray(image)


def _facts(explanation: Explanation, word: int) -> str:
    values = explanation.maps[word, explanation.real]
    place = f"{explanation.method} · word {word + 1} of {len(explanation.words)}"
    peak = f"peak {values.max() / values.mean():.1f} x average" if values.any() else "nothing stands out"
    return f"{place} · probability {explanation.probabilities[word]:.2f} · {peak}"


def _end(where: tuple[int, int], said: str) -> tuple[int, int]:
    """The lower right corner of a word's mark."""
    return where[0] + round(_font(17).getlength(said)) + 4, where[1] + LINE - 5


@cache
def _font(size: int, weight: str = "-Bold") -> ImageFont.FreeTypeFont:
    from matplotlib import get_data_path

    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans{weight}.ttf", size)


def write_film(explanation: Explanation, shown: Shown, out: str | Path) -> Path:
    """`out` ends in .mp4 or .gif, or is a folder for the frames as PNG, of a picture one for each word."""
    out = Path(out)
    if out.suffix.lower() == ".mp4":
        return write_mp4(out, film(explanation, shown))
    if out.suffix.lower() == ".gif":
        return _write_gif(out, explanation, shown)
    return _write_pngs(out, film(explanation, shown, hold=1))


def write_mp4(out: str | Path, frames: Iterable[UInt8[np.ndarray, "H W 3"]], pace: int = PACE) -> Path:
    """H.264, which browsers play.  Odd sides, which it does not have, get a row or column more."""
    import av

    frames = iter(frames)
    first = next(frames)
    height, width = (side + side % 2 for side in first.shape[:2])
    streamed = {"movflags": "faststart"}
    with atomic_write(out) as temporary, av.open(str(temporary), "w", format="mp4", options=streamed) as container:
        stream = container.add_stream("libx264", rate=pace, options={"crf": "20", "preset": "veryfast"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for frame in chain([first], frames):
            more = [(0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0)]
            even = np.ascontiguousarray(np.pad(frame, more, "edge"))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
        container.mux(stream.encode())
    return Path(out)


def _write_gif(out: Path, explanation: Explanation, shown: Shown) -> Path:
    """Every second frame; a picture lasts as long as in a film.  Colours are not dithered, which takes a fifth of the
    bytes."""
    still = len(shown.frames) == 1
    frames = film(explanation, shown, hold=1)
    images = [
        Image.fromarray(frame).quantize(method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        for number, frame in enumerate(frames)
        if still or number % 2 == 0
    ]
    pause = HOLD / PACE if still else 1 / GIF_PACE
    with atomic_write(out) as temporary:
        images[0].save(temporary, "GIF", save_all=True, append_images=images[1:], duration=round(1000 * pause), loop=0)
    return out


def _write_pngs(folder: Path, frames: Iterable[UInt8[np.ndarray, "H W 3"]]) -> Path:
    """000000.png, 000001.png, ..., all or none.  Raises FileExistsError when the folder holds pictures already."""
    if any(folder.glob("*.png")):
        raise FileExistsError(f"{folder} holds pictures already, and a film of them would have both: choose another")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as unfinished:
        for number, frame in enumerate(frames):
            Image.fromarray(frame).save(Path(unfinished) / f"{number:06}.png", compress_level=1)
        folder.mkdir(exist_ok=True)
        for file in sorted(Path(unfinished).iterdir()):
            shutil.move(file, folder / file.name)
    return folder


def join(folder: str | Path, out: str | Path, pace: int = PACE) -> int:
    """The PNG files of a folder, by name, as an MP4 of one frame each; they are kept.  -> how many.

    Raises ValueError when there are none, one cannot be read (MediaError), or they differ in size.
    """
    files = sorted(Path(folder).glob("*.png"))
    if not files:
        raise ValueError(f"{folder} holds no .png files to make a film of")
    write_mp4(out, _alike(files), pace)
    return len(files)


def _alike(files: Sequence[Path]) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    first = read_image(files[0])[0].shape
    for file in files:
        frame = read_image(file)[0]
        if frame.shape != first:
            sizes = [f"{shape[1]} x {shape[0]}" for shape in (frame.shape, first)]
            raise ValueError(f"{file} has {sizes[0]} pixels, {files[0]} has {sizes[1]}: not one film")
        yield frame
