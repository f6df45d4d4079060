"""Six pictures as people have them under a clean and a photo model, and both models' class maps.

    python docs/figure_photos.py LARGE     # writes photos-*.jpg into docs/images
    python docs/figure_photos.py LARGE --photo RUN --out DIR

``LARGE`` is a folder with the CC0 photographs that are named in ``SUBJECTS``. What is worn here is
worn by this script, so that anyone can make it again: nobody's own photograph is needed.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from torch import Tensor

import pcsr_lightning
from pcsr_lightning.inference import class_map

SCALE, SIDE, AROUND = 4, 72, 12
"""LR pixels: what is shown, and what is upscaled around it."""
HERE = Path(__file__).parent


def cut(file: Path, width: int, left: int, top: int) -> Image.Image:
    """A piece of a photograph once it is ``width`` pixels wide."""
    photograph = Image.open(file).convert("RGB")
    small = photograph.resize((width, round(width * photograph.height / photograph.width)))
    side = SIDE + 2 * AROUND
    return small.crop((left, top, left + side, top + side))


def saved(picture: Image.Image, quality: int) -> Image.Image:
    """As JPEG, and read again."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def grainy(picture: Image.Image, constant: float, signal: float, grey: bool = False) -> Image.Image:
    """With noise: a standard deviation in levels, and that which grows with the signal."""
    x = np.asarray(picture, np.float32)
    shape = (*x.shape[:2], 1 if grey else 3)
    noise = np.random.default_rng(0).normal(size=shape)
    x = x + noise * np.sqrt(constant**2 + signal**2 * x / 255)
    return Image.fromarray(x.clip(0, 255).round().astype(np.uint8))


def page() -> Image.Image:
    """Printed words and a line drawing, large enough to be shrunk."""
    sheet = Image.new("RGB", (1152, 1152), (244, 240, 228))
    draw, font = ImageDraw.Draw(sheet), ImageFont.truetype(findfont("DejaVu Serif"), 130)
    for row, words in enumerate(
        ["Pixels are", "sorted by", "difficulty,", "and each is", "paid for"]
    ):
        draw.text((150, 150 + 180 * row), words, (30, 28, 34), font)
    return sheet


def line_art() -> Image.Image:
    """Ink lines on white."""
    sheet = Image.new("RGB", (1152, 1152), "white")
    draw = ImageDraw.Draw(sheet)
    for n in range(9):
        draw.ellipse(
            (180 + 40 * n, 180 + 60 * n, 950 - 20 * n, 980 - 30 * n), outline="black", width=14
        )
    for n in range(12):
        draw.line((160, 1000 - 60 * n, 1000, 200 + 25 * n), "black", 8)
    return sheet


def shrunk(sheet: Image.Image) -> Image.Image:
    return sheet.resize((SIDE + 2 * AROUND,) * 2, Image.Resampling.BICUBIC)


def screenshot() -> Image.Image:
    """A piece of the page of this project, as a browser draws it."""
    shot = Image.open(HERE / "images" / "app-desktop.png").convert("RGB")
    return shot.crop((40, 20, 40 + SIDE + 2 * AROUND, 20 + SIDE + 2 * AROUND))


def old_soft(large: Path) -> Image.Image:
    """Faded, without colour, out of focus, with grain."""
    soft = cut(large / "roman-colosseum.jpg", 480, 110, 80).filter(ImageFilter.GaussianBlur(0.6))
    grey = np.asarray(soft.convert("L"), np.float32) * 0.7 + 40
    sepia = np.clip(grey[..., None] * np.array([1.06, 1.0, 0.86], np.float32), 0, 255)
    return saved(grainy(Image.fromarray(sepia.astype(np.uint8)), 6, 0, grey=True), 88)


SUBJECTS: dict[str, Callable[[Path], Image.Image]] = {
    "JPEG, q75": lambda large: saved(cut(large / "the-spices-of-life.jpg", 480, 200, 140), 75),
    "at dusk: noise, q85": lambda large: saved(
        grainy(cut(large / "tony-webster-97532.jpg", 480, 180, 180), 6, 8), 85
    ),
    "a scan: grain, q80": lambda _: saved(grainy(shrunk(page()), 5, 0), 80),
    "old and soft, q88": old_soft,
    "a screenshot": lambda _: screenshot(),
    "line art, q90": lambda _: saved(shrunk(line_art()), 90),
}


def grid(rows: list[tuple[str, list[Image.Image]]], titles: list[str]) -> Image.Image:
    """Tiles with a line of words above each column and beside each row."""
    side, left, top = SIDE * SCALE * 2 // 3, 30, 26
    font = ImageFont.truetype(findfont("DejaVu Sans"), 15)
    whole = Image.new(
        "RGB", (left + len(titles) * (side + 4), top + len(rows) * (side + 4)), "white"
    )
    draw = ImageDraw.Draw(whole)
    for n, title in enumerate(titles):
        draw.text((left + n * (side + 4) + side // 2, 4), title, "black", font, anchor="ma")
    for r, (name, tiles) in enumerate(rows):
        words = Image.new("RGB", (side, left), "white")
        ImageDraw.Draw(words).text((side // 2, 6), name, "black", font, anchor="ma")
        whole.paste(words.rotate(90, expand=True), (0, top + r * (side + 4)))
        for n, tile in enumerate(tiles):
            whole.paste(tile.resize((side, side)), (left + n * (side + 4), top + r * (side + 4)))
    return whole


def main(argv: list[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("large", type=Path, help="the folder of large photographs")
    p.add_argument("--clean", default="carn-pcsr-multi")
    p.add_argument("--photo", default="carn-photo-multi")
    p.add_argument("--out", type=Path, default=HERE / "images")
    args = p.parse_args(argv)
    clean = pcsr_lightning.load(args.clean)
    half, full = (pcsr_lightning.load(args.photo, denoise=s) for s in (0.5, 1.0))
    inner = slice(AROUND * SCALE, (AROUND + SIDE) * SCALE)
    pictures, maps = [], []
    for name, make in SUBJECTS.items():
        lr = make(args.large)
        x = torch.from_numpy(np.array(lr)).permute(2, 0, 1)[None].float() / 255
        near = lr.resize([SCALE * n for n in lr.size], Image.Resampling.NEAREST)
        found = [pcsr_lightning.upscale(model, x, SCALE) for model in (clean, half, full)]
        shown = [r.image[0] for r in found]
        mapped = [
            class_map(r.image[0], r.assignment[0], 2, opacity=0.6) for r in (found[0], found[2])
        ]
        box = (inner.start, inner.start, inner.stop, inner.stop)
        pictures.append((name, [near.crop(box), *(tile(y[:, inner, inner]) for y in shown)]))
        maps.append((name, [tile(y[:, inner, inner]) for y in mapped]))
    titles = ["the file", "clean model", "photo, denoise .5", "photo, denoise 1"]
    grid(pictures, titles).save(args.out / "photos-crops.jpg", quality=88)
    grid(maps, ["clean model", "photo model"]).save(args.out / "photos-classes.jpg", quality=85)


def tile(x_3HW: Tensor) -> Image.Image:
    return Image.fromarray(x_3HW.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy())


if __name__ == "__main__":
    main()
