"""Rasterise DejaVu Sans into envs/data/font.npz, the glyphs of `matchgym.envs.rendering`.

    python docs/make_font.py

Needs Pillow, and matplotlib for the font files and their licence, which is stored beside the glyphs.
"""

from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

CHARACTERS = "".join(map(chr, [*range(0x20, 0x7F), *range(0xA1, 0x100)])) + "–…→μλγρθ≤≥"
FONTS = {"small": ("DejaVuSans.ttf", 13), "large": ("DejaVuSans-Bold.ttf", 20)}
MARGIN = 1  # pixels left and right of a glyph's advance, for strokes that reach over it


def atlas(path: Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Coverage (height, sum of advance + 2 MARGIN) of all glyphs side by side, and advances (n,)."""
    font = ImageFont.truetype(str(path), size)
    ascent, descent = font.getmetrics()
    advances = [round(font.getlength(character)) for character in CHARACTERS]
    picture = Image.new("L", (sum(advances) + 2 * MARGIN * len(advances), ascent + descent))
    draw, x = ImageDraw.Draw(picture), 0
    for character, advance in zip(CHARACTERS, advances):
        draw.text((x + MARGIN, 0), character, font=font, fill=255)
        x += advance + 2 * MARGIN
    return np.asarray(picture), np.array(advances, np.int16)


def main() -> None:
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    arrays = {
        "characters": np.array(CHARACTERS),
        "licence": np.array((folder / "LICENSE_DEJAVU").read_text("utf-8")),
    }
    for name, (file, size) in FONTS.items():
        arrays[f"{name}_pixels"], arrays[f"{name}_advances"] = atlas(folder / file, size)
    target = Path(__file__).parents[1] / "envs" / "data" / "font.npz"
    target.parent.mkdir(exist_ok=True)
    np.savez_compressed(target, **arrays)
    print(f"{target}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
