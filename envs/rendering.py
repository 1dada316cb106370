"""Drawing tools for the pictures and texts of all models: numpy only, anti-aliased, no window.

`Canvas` paints shapes and text into an RGB picture; the functions at the end format numbers and bars for both
render modes. Lengths are pixels, (0, 0) is the top left corner, x runs right and y down.

The glyphs in data/font.npz are rasterised from DejaVu Sans and DejaVu Sans Bold by docs/make_font.py. DejaVu
fonts derive from Bitstream Vera (copyright 2003 Bitstream, Inc.) and Arev (copyright 2006 Tavmjong Bah), and
their changes are in the public domain; the licence permits embedding and redistribution, and its text stands
in the file under the key "licence".
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]
Size = Literal["small", "large"]

PAPER: Colour = (243, 245, 249)
CARD: Colour = (255, 255, 255)
TRACK: Colour = (231, 235, 241)
FAINT: Colour = (206, 212, 222)
MUTED: Colour = (107, 114, 128)
INK: Colour = (31, 41, 55)
BLUE: Colour = (59, 116, 231)
PALE_BLUE: Colour = (164, 192, 245)
GREEN: Colour = (5, 150, 105)
AMBER: Colour = (217, 119, 6)
PALE_AMBER: Colour = (254, 243, 219)


class Font(NamedTuple):
    """Glyphs side by side, each with a margin of one pixel left and right."""

    places: dict[str, int]
    pixels: NDArray[np.float32]  # (height, total width), coverage in [0, 1]
    starts: list[int]  # (n,) first column of a glyph, margin included
    advances: list[int]  # (n,)


@lru_cache
def load_font(size: Size) -> Font:
    """The regular font of 13 pixels ("small") or the bold one of 20 ("large"), read at first use."""
    with np.load(Path(__file__).parent / "data" / "font.npz") as file:
        characters = str(file["characters"])
        pixels = file[f"{size}_pixels"].astype(np.float32) / 255
        advances = file[f"{size}_advances"].astype(int)
    return Font(
        {character: k for k, character in enumerate(characters)},
        pixels,
        (np.cumsum(advances + 2) - advances - 2).tolist(),
        advances.tolist(),
    )


def text_width(text: str, size: Size = "small") -> int:
    """Pixels that `text` takes."""
    font = load_font(size)
    return sum(font.advances[font.places.get(character, font.places["?"])] for character in text)


def cut(text: str, width: float, size: Size = "small") -> str:
    """`text`, shortened with an ellipsis if it takes more than `width` pixels."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "…", size) > width:
        text = text[:-1]
    return text + "…"


class Canvas:
    """An RGB picture under construction. Shapes may reach over its edges."""

    def __init__(self, height: int, width: int, background: Colour = PAPER) -> None:
        self._planes = np.empty((3, height, width), np.float32)
        for plane, level in zip(self._planes, background):
            plane[:] = level

    def image(self) -> NDArray[np.uint8]:
        """The picture, (height, width, 3)."""
        return np.ascontiguousarray((self._planes + 0.5).astype(np.uint8).transpose(1, 2, 0))

    def _paint(self, top: int, left: int, cover: NDArray[np.floating], colour: Colour) -> None:
        """Blend `colour` over the pixels from (top, left) on, by `cover` (rows, columns) in [0, 1]."""
        height, width = self._planes.shape[1:]
        rows, columns = cover.shape
        cover = cover[max(0, -top) : max(0, height - top), max(0, -left) : max(0, width - left)]
        cover = cover.astype(np.float32, copy=False)
        window = slice(max(0, top), max(0, top + rows)), slice(max(0, left), max(0, left + columns))
        for plane, level in zip(self._planes, colour):
            part = plane[window]
            part += (level - part) * cover

    def _paint_distance(self, top: int, left: int, distance: NDArray[np.floating], colour: Colour) -> None:
        """Paint where `distance`, the signed distance of a pixel's centre to the shape, is negative."""
        self._paint(top, left, np.clip(0.5 - distance, 0, 1), colour)

    def rectangle(self, x: float, y: float, width: float, height: float, colour: Colour, radius: float = 0) -> None:
        """A filled rectangle with rounded corners; a radius beyond half a side gives a pill."""
        if width <= 0 or height <= 0:
            return
        radius = min(radius, width / 2, height / 2)
        left, top, right, bottom = int(x) - 1, int(y) - 1, int(x + width) + 2, int(y + height) + 2
        across = np.abs(np.arange(left, right) + 0.5 - x - width / 2) - (width / 2 - radius)
        sides = np.clip(0.5 - across + radius, 0, 1)[None]
        first, last = int(np.ceil(y + radius)), int(y + height - radius)  # rows that only the sides bound
        if last > first:
            self._paint(first, left, sides.repeat(last - first, axis=0), colour)
        for start, stop in ((top, first), (last, bottom)) if last > first else ((top, bottom),):
            down = np.abs(np.arange(start, stop) + 0.5 - y - height / 2)[:, None] - (height / 2 - radius)
            outside = np.hypot(np.maximum(across, 0), np.maximum(down, 0))
            inside = np.minimum(np.maximum(across, down), 0)
            self._paint_distance(start, left, outside + inside - radius, colour)

    def circle(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """A filled circle about (x, y)."""
        self.rectangle(x - radius, y - radius, 2 * radius, 2 * radius, colour, radius)

    def line(self, x0: float, y0: float, x1: float, y1: float, width: float, colour: Colour) -> None:
        """A straight stroke with round ends."""
        reach = width / 2 + 1
        left, top = int(min(x0, x1) - reach), int(min(y0, y1) - reach)
        right, bottom = int(max(x0, x1) + reach) + 1, int(max(y0, y1) + reach) + 1
        across = np.arange(left, right) + 0.5 - x0
        down = (np.arange(top, bottom) + 0.5 - y0)[:, None]
        length2 = max((x1 - x0) ** 2 + (y1 - y0) ** 2, 1e-9)
        along = np.clip((across * (x1 - x0) + down * (y1 - y0)) / length2, 0, 1)
        distance = np.hypot(across - along * (x1 - x0), down - along * (y1 - y0))
        self._paint_distance(top, left, distance - width / 2, colour)

    def link(self, x0: float, y0: float, x1: float, y1: float, width: float, colour: Colour) -> None:
        """An S-shaped stroke from (x0, y0) to (x1, y1), x0 < x1, level at both ends."""
        left, right = int(x0), int(np.ceil(x1))
        along = np.clip((np.arange(left, right) + 0.5 - x0) / (x1 - x0), 0, 1)
        middle = y0 + (y1 - y0) * along**2 * (3 - 2 * along)
        slope = (y1 - y0) / (x1 - x0) * 6 * along * (1 - along)
        stretch = np.sqrt(1 + slope**2)
        top, bottom = (
            int(middle.min() - width * stretch.max()) - 2,
            int(middle.max() + width * stretch.max()) + 3,
        )
        down = (np.arange(top, bottom) + 0.5)[:, None]
        self._paint_distance(top, left, np.abs(down - middle) / stretch - width / 2, colour)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        colour: Colour = INK,
        size: Size = "small",
        align: Literal["left", "centre", "right"] = "left",
    ) -> None:
        """One line of text, centred vertically on y. Characters that the font lacks become question marks."""
        if not text:
            return
        font = load_font(size)
        width = text_width(text, size)
        cover = np.zeros((len(font.pixels), width + 2), np.float32)
        pen = 0
        for character in text:
            glyph = font.places.get(character, font.places["?"])
            start, advance = font.starts[glyph], font.advances[glyph]
            cell = cover[:, pen : pen + advance + 2]
            np.maximum(cell, font.pixels[:, start : start + advance + 2], out=cell)
            pen += advance
        left = round(x) - {"left": 0, "centre": width // 2, "right": width}[align]
        self._paint(round(y) - len(font.pixels) // 2, left - 1, cover, colour)

    def card(self, x: float, y: float, width: float, height: float, caption: str, value: str) -> None:
        """A white card with a small caption over a large value."""
        self.rectangle(x, y, width, height, CARD, 8)
        self.text(x + 12, y + 17, cut(caption, width - 20), MUTED)
        self.text(x + 12, y + height - 19, cut(value, width - 20, "large"), INK, "large")

    def bar(self, x: float, y: float, width: float, height: float, fraction: float, colour: Colour, units: int = 1) -> None:
        """A pill filled to `fraction`, cut into `units` parts of equal width."""
        self.rectangle(x, y, width, height, TRACK, height / 2)
        fraction = min(max(fraction, 0.0), 1.0)
        if units > 1:
            pitch = width / units
            for k in range(round(fraction * units)):
                self.rectangle(x + k * pitch, y, pitch - 2, height, colour, height / 2)
        elif fraction > 0:
            self.rectangle(x, y, max(fraction * width, 3.0), height, colour, height / 2)


def number(value: float) -> str:
    """A number in at most nine characters."""
    size = abs(value)
    if size >= 1e6 or 0 < size < 1e-3:
        return f"{value:.2e}"
    if size >= 1e3:
        return f"{value:,.0f}"
    return f"{value:.{3 if size < 10 else 2 if size < 100 else 1}f}"


def count(value: int) -> str:
    """An integer in at most nine characters."""
    return f"{value:,d}" if abs(value) < 1e7 else f"{value:.2e}"


def scale_for(largest: int) -> int:
    """The end of a bar's scale: the first of 10, 20, 50, 100, 200, ... that is not below `largest`."""
    step = 10
    while 5 * step < largest:
        step *= 10
    return next(step * factor for factor in (1, 2, 5) if step * factor >= largest)


def text_bar(fraction: float, width: int) -> str:
    """A bar of `width` characters, filled to `fraction` in steps of an eighth of a character."""
    eighths = round(min(max(fraction, 0.0), 1.0) * width * 8)
    if fraction > 0:
        eighths = max(eighths, 1)
    full, rest = divmod(eighths, 8)
    return ("█" * full + " ▏▎▍▌▋▊▉"[rest].strip()).ljust(width)


def shown_rows(sizes: NDArray[np.integer], limit: int, always: Sequence[int] = ()) -> list[int]:
    """At most `limit` indices, increasing: those in `always`, then the largest `sizes` (first of ties)."""
    if len(sizes) <= limit:
        return list(range(len(sizes)))
    chosen = dict.fromkeys([*always, *np.argsort(-sizes, kind="stable").tolist()])
    return sorted(list(chosen)[:limit])
