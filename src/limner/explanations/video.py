"""Overlay films: for one word after the other, the clip plays with the heat map of the word over it."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from limner.core.files import atomic_write
from limner.core.replace_folder import replace_folder
from limner.core.temporaries import temporary_folder
from limner.data.images import read_image
from limner.explanations.explanation_input import DISPLAY_FPS, DisplayFrames
from limner.explanations.figure import EMPTY_CAPTION, enlarge
from limner.explanations.fonts import font_of
from limner.explanations.maps import Explanation
from limner.explanations.overlay import above_mean, heat, maps_between, word_intensity

STILL_FRAMES = 18  # number of frames of each word where the medium is an image
GIF_FPS = 7.5
BACKGROUND, TEXT, DIM, HIGHLIGHT = (24, 24, 27), (225, 225, 225), (140, 140, 145), (255, 210, 63)
MARGIN, LINE, BAR = 14, 27, 12  # pixels: margin, line height of the sentence, thickness of the bars
MIN_WIDTH = 420  # pixels of a frame


def film_frames(
    explanation: Explanation, display: DisplayFrames, still_frames: int = STILL_FRAMES
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """The frames of a film: for every word the whole clip, or an image `still_frames` times.

    A frame shows the image with the heat map and a colour scale; below it, where cells have a time, a timeline of the
    map's maximum with the current moment; then the sentence with the current word marked, and a line of numbers.
    Height and width are even, as H.264 needs.  Raises ValueError when the sentence has no word.
    """
    if not explanation.words:
        raise ValueError(EMPTY_CAPTION)
    images = [enlarge(image, 300) for image in display.frames]
    height, width = images[0].shape[:2]
    film_layout = FilmLayout.of(explanation, height, width, still=len(images) == 1)
    for word in range(len(explanation.words)):
        background = film_layout.background(word)
        for number, image in enumerate(images):
            frame = film_layout.frame(background, word, image, display, number)
            yield from repeat(frame, still_frames if len(images) == 1 else 1)


@dataclass(frozen=True)
class FilmLayout:
    """Positions of all parts of a frame, in pixels."""

    explanation: Explanation
    height: int  # of the image
    width: int  # of the image
    left: int  # of the image
    page_width: int
    word_positions: tuple[tuple[int, int], ...]  # (x, y) of each word, relative to the top of the sentence
    timeline_top: int  # 0: there is no timeline
    sentence_top: int

    @classmethod
    def of(cls, explanation: Explanation, height: int, width: int, still: bool) -> "FilmLayout":
        """The layout for images of height x width pixels; `still` means that the medium is an image."""
        page_width = max(width + 4 * MARGIN + BAR + 42, MIN_WIDTH)
        left = (page_width - width - 2 * MARGIN - BAR - 34) // 2
        word_positions, x, line = [], MARGIN, 0
        for word in explanation.words:
            length = round(font_of(word, 17).getlength(word))
            if x + length > page_width - MARGIN and x > MARGIN:
                x, line = MARGIN, line + 1
            word_positions.append((x, line * LINE))
            x += length + 11
        below = height + 2 * MARGIN
        timed = explanation.layout.t > 1 and not still
        return cls(
            explanation,
            height,
            width,
            left,
            page_width,
            tuple(word_positions),
            below if timed else 0,
            below + 24 * timed,
        )

    def background(self, word: int) -> Image.Image:
        """Draw everything that is the same in all frames of a word: all but the image and the current moment."""
        explanation = self.explanation
        bottom = self.sentence_top + self.word_positions[-1][1] + LINE + 8
        image = Image.new("RGB", (self.page_width + self.page_width % 2, (bottom + 26) // 2 * 2), BACKGROUND)
        pen = ImageDraw.Draw(image)
        for index, (text, (x, y)) in enumerate(zip(explanation.words, self.word_positions, strict=True)):
            corner = (x, self.sentence_top + y)
            if index == word:
                pen.rounded_rectangle((x - 5, corner[1] - 3, *_highlight_corner(corner, text)), 5, HIGHLIGHT)
            pen.text(corner, text, BACKGROUND if index == word else TEXT, font_of(text, 17))
        pen.text((MARGIN, bottom), _footer(explanation, word), DIM, font_of("", 12, ""))
        scale = np.linspace(1, 0, self.height)[:, None].repeat(BAR, 1)
        x = self.left + self.width + MARGIN
        image.paste(Image.fromarray(heat(np.full((*scale.shape, 3), 110, np.uint8), scale)), (x, MARGIN))
        pen.text((x + BAR + 4, MARGIN - 2), "most", DIM, font_of("", 11, ""))
        pen.text((x + BAR + 4, MARGIN + self.height - 13), "average", DIM, font_of("", 11, ""))
        if self.timeline_top:
            image.paste(self._timeline(word), (self.left, self.timeline_top))
        return image

    def _timeline(self, word: int) -> Image.Image:
        """Draw the maximum of the map at every time as a coloured strip."""
        maps = above_mean(self.explanation.maps[word], self.explanation.real)
        maxima = maps.reshape(self.explanation.layout).max((1, 2), keepdims=True)[..., 0]
        timeline = np.stack([maps_between(maxima, x, x) for x in (np.arange(self.width) + 0.5) / self.width], 1)
        return Image.fromarray(heat(np.full((BAR, self.width, 3), 60, np.uint8), timeline.repeat(BAR, 0)))

    def frame(
        self, background: Image.Image, word: int, pixels: np.ndarray, display: DisplayFrames, number: int
    ) -> UInt8[np.ndarray, "H W 3"]:
        """Draw frame `number` of a word: the image with the heat map, and the current moment on the timeline."""
        moment = float(display.moments[number])
        part = (moment, moment) if len(display.frames) > 1 else (0.0, 1.0)
        values = word_intensity(self.explanation, word, self.height, self.width, display.kept_region, part)
        image = background.copy()
        image.paste(Image.fromarray(heat(pixels, values)), (self.left, MARGIN))
        pen = ImageDraw.Draw(image)
        if self.timeline_top:
            x = self.left + round(moment * (self.width - 1))
            pen.rectangle((x - 1, self.timeline_top - 3, x + 1, self.timeline_top + BAR + 2), (255, 255, 255))
            if display.seconds is not None:
                corner = (self.left + self.width + MARGIN, self.timeline_top - 2)
                pen.text(corner, f"{display.seconds[number]:.1f} s", DIM, font_of("", 12, ""))
        return np.asarray(image)


def _footer(explanation: Explanation, word: int) -> str:
    """The line of numbers below the sentence."""
    values = explanation.maps[word, explanation.real]
    position = f"{explanation.method} · word {word + 1} of {len(explanation.words)}"
    peak = f"peak {values.max() / values.mean():.1f} x average" if values.any() else "nothing stands out"
    return f"{position} · probability {explanation.probabilities[word]:.2f} · {peak}"


def _highlight_corner(corner: tuple[int, int], text: str) -> tuple[int, int]:
    """The lower right corner of the mark of a word whose upper left corner is `corner`."""
    return corner[0] + round(font_of(text, 17).getlength(text)) + 4, corner[1] + LINE - 5


def write_film(explanation: Explanation, display: DisplayFrames, out: str | Path, overwrite: bool = False) -> Path:
    """Write the film to `out`, which ends in .mp4 or .gif, or is a folder for PNG files.

    Of an image, the folder gets one file per word; of a clip, one file per word and frame.  `overwrite` replaces the
    files of an earlier film in the folder.
    """
    out = Path(out)
    if out.suffix.lower() == ".mp4":
        return write_mp4(out, film_frames(explanation, display))
    if out.suffix.lower() == ".gif":
        return _write_gif(out, explanation, display)
    return _write_pngs(out, film_frames(explanation, display, still_frames=1), overwrite)


def write_mp4(out: str | Path, frames: Iterable[UInt8[np.ndarray, "H W 3"]], fps: int = DISPLAY_FPS) -> Path:
    """Write an MP4 in H.264, which browsers can play.  Odd sides are padded by one pixel, as H.264 needs even ones."""
    import av

    frames = iter(frames)
    first = next(frames)
    height, width = (side + side % 2 for side in first.shape[:2])
    options = {"movflags": "faststart"}  # the index first, so that a browser can start before it has the whole file
    with atomic_write(out) as temporary, av.open(str(temporary), "w", format="mp4", options=options) as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "20", "preset": "veryfast"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for frame in chain([first], frames):
            padding = [(0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0)]
            even = np.ascontiguousarray(np.pad(frame, padding, "edge"))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
        container.mux(stream.encode())
    return Path(out)


def _write_gif(out: Path, explanation: Explanation, display: DisplayFrames) -> Path:
    """Write every second frame as a GIF; an image is displayed as long as in an MP4.

    Colours are not dithered: this makes the file five times smaller.
    """
    still = len(display.frames) == 1
    frames = film_frames(explanation, display, still_frames=1)
    images = [
        Image.fromarray(frame).quantize(method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        for number, frame in enumerate(frames)
        if still or number % 2 == 0
    ]
    duration = STILL_FRAMES / DISPLAY_FPS if still else 1 / GIF_FPS
    with atomic_write(out) as temporary:
        images[0].save(
            temporary, "GIF", save_all=True, append_images=images[1:], duration=round(1000 * duration), loop=0
        )
    return out


def _write_pngs(folder: Path, frames: Iterable[UInt8[np.ndarray, "H W 3"]], overwrite: bool) -> Path:
    """Write 000000.png, 000001.png, ..., all of them or none.

    With `overwrite`, files with such names are replaced.  A folder with nothing else in it appears, or changes, in one
    step.  Raises FileExistsError when the folder already holds other PNG files.
    """
    old = set(folder.glob("[0-9]" * 6 + ".png")) if overwrite else set()
    if set(folder.glob("*.png")) - old:
        raise FileExistsError(
            f"{folder} already holds PNG files, which would be mixed with the new ones: choose another folder"
        )
    folder = Path(os.path.realpath(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(folder.parent, folder.name) as work:
        new = work / "new"
        new.mkdir()
        for number, frame in enumerate(frames):
            Image.fromarray(frame).save(new / f"{number:06}.png", compress_level=1)
        if not folder.exists() or set(folder.iterdir()) <= old:
            replace_folder(new, folder)
        else:
            for file in old:
                file.unlink()
            for file in sorted(new.iterdir()):
                os.replace(file, folder / file.name)
    return folder


def pngs_to_mp4(folder: str | Path, out: str | Path, fps: int = DISPLAY_FPS) -> int:
    """Write the PNG files of a folder, in the order of their names, as an MP4 with one frame per file.

    Returns the number of frames.  Raises ValueError when there are no files, when one cannot be read (MediaError), or
    when they differ in size.
    """
    files = sorted(Path(folder).glob("*.png"))
    if not files:
        raise ValueError(f"{folder} holds no .png files to make a film from")
    write_mp4(out, _read_equal_sizes(files), fps)
    return len(files)


def _read_equal_sizes(files: Sequence[Path]) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Read images one by one.  Raises ValueError when they differ in size."""
    first = read_image(files[0])[0].shape
    for file in files:
        frame = read_image(file)[0]
        if frame.shape != first:
            sizes = [f"{shape[1]} x {shape[0]}" for shape in (frame.shape, first)]
            raise ValueError(
                f"{file} has {sizes[0]} pixels but {files[0]} has {sizes[1]}: all frames must have the same size"
            )
        yield frame
