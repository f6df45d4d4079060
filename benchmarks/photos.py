"""Noisy and compressed pictures: bicubic, a clean and a photo model, as a table in Markdown.

Each picture is downscaled bicubically, rounded to 8 bit and damaged as the columns say, JPEG by
Pillow (4:2:0); PSNR and SSIM are those of `evaluate`. Of the photo model at several strengths:

    python benchmarks/photos.py --photo carn-photo-multi PICTURES [LARGE ...]

`--crop 1024` measures the centre of larger pictures. `heavy` is the share of pixels in the heaviest
class at k = 0, `flat` that share in areas which the ground truth has flat.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
import zlib
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

import pcsr_lightning
from pcsr_lightning.evaluation import psnr, ssim
from pcsr_lightning.images import bicubic, list_pictures, read
from pcsr_lightning.networks import PCSR, Original

Damage = Callable[[Tensor, np.random.Generator], Tensor]
KEYS = ("folder", "scale", "count", "model", "pictures")
Kept = dict[tuple[str, int, int, str, str], dict[str, float]]
"""Means by :data:`KEYS`."""
FLAT = 2 / 255
"""Standard deviation of the ground truth's 9 x 9 pixels below which an area is flat."""


def rounded(x: Tensor) -> Tensor:
    return x.clamp(0, 1).mul(255).round().div(255)


def compressed(x: Tensor, quality: int, shift: int = 0) -> Tensor:
    """Through Pillow's JPEG, on a grid that begins ``shift`` pixels above and left of it."""
    padded = F.pad(x, (shift, 0, shift, 0), mode="replicate")
    file = io.BytesIO()
    pixels = padded[0].permute(1, 2, 0).mul(255).round().byte().numpy()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    decoded = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)[None].float() / 255
    return decoded[:, :, shift:, shift:].contiguous()


def noisy(x: Tensor, levels: float, draw: np.random.Generator) -> Tensor:
    """With white noise of this standard deviation, in levels of 255, in each channel."""
    return rounded(x + torch.from_numpy(draw.normal(0, levels / 255, x.shape)).float())


def blurred(x: Tensor, sigma: float) -> Tensor:
    at = torch.arange(-3.0, 4.0)
    one = torch.exp(-at.square() / (2 * sigma**2))
    kernel = (one[:, None] * one / one.sum() ** 2).expand(3, 1, 7, 7)
    return F.conv2d(F.pad(x, (3, 3, 3, 3), mode="replicate"), kernel, groups=3)


DAMAGES: dict[str, Damage] = {
    "clean": lambda x, _: x,
    "q85": lambda x, _: compressed(x, 85),
    "q75": lambda x, _: compressed(x, 75),
    "q60": lambda x, _: compressed(x, 60),
    "q40": lambda x, _: compressed(x, 40),
    "q75 twice": lambda x, _: compressed(compressed(x, 75), 75, shift=4),
    "noise 4": lambda x, draw: noisy(x, 4, draw),
    "noise 8": lambda x, draw: noisy(x, 8, draw),
    "noise 15": lambda x, draw: noisy(x, 15, draw),
    "blur, noise 8, q75": lambda x, draw: compressed(noisy(blurred(x, 0.5), 8, draw), 75),
}


def flat_areas(hr_13HW: Tensor) -> Tensor:
    """Where the ground truth is flat, ``(H, W)``."""
    grey = hr_13HW.mean(dim=1, keepdim=True).double()
    mean = F.avg_pool2d(grey, 9, 1, 4, count_include_pad=False)
    square = F.avg_pool2d(grey.square(), 9, 1, 4, count_include_pad=False)
    return (square - mean.square()).clamp(min=0).sqrt()[0, 0] < FLAT


def centre(x: Tensor, side: int | None) -> Tensor:
    if side is None:
        return x
    top, left = (max(0, (n - side) // 2) for n in x.shape[-2:])
    return x[..., top : top + side, left : left + side]


def measure(
    models: dict[str, PCSR | Original], hr_13HW: Tensor, name: str, scale: int, damages: list[str]
) -> dict[tuple[str, str], dict[str, float]]:
    """Every model on every damaged version of a picture; ``bicubic`` too."""
    h, w = (side // scale for side in hr_13HW.shape[-2:])
    hr = hr_13HW[..., : h * scale, : w * scale]
    lr, flat = rounded(bicubic(hr, (h, w))), flat_areas(hr)
    found = {}
    for damage in damages:
        seed = [zlib.crc32(name.encode()), sorted(DAMAGES).index(damage)]
        damaged = DAMAGES[damage](lr, np.random.default_rng(seed))
        size = (h * scale, w * scale)
        results: dict[str, tuple[Tensor, Tensor | None]] = {
            "bicubic": (bicubic(damaged, size).clamp(0, 1), None)
        }
        for row, model in models.items():
            fixed = 0 if model.num_classes == 1 else None
            result = pcsr_lightning.upscale(model, damaged, scale, fixed_class=fixed)
            results[row] = (result.image, result.assignment)
        for row, (image, classes) in results.items():
            numbers = {"psnr": psnr(image, hr, scale), "ssim": ssim(image, hr, scale)}
            if classes is not None:
                heavy = classes[0] == 0
                numbers["heavy"] = float(heavy.float().mean())
                if flat.any():
                    numbers["flat"] = float(heavy[flat].float().mean())
            found[row, damage] = numbers
    return found


def measured(
    models: dict[str, PCSR | Original],
    files: list[Path],
    place: tuple[str, int, int],
    damages: list[str],
    crop: int | None,
) -> Kept:
    """The means of every number over the pictures, of bicubic and all models."""
    found: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for n, file in enumerate(files):
        hr = centre(read(file).rgb[None], crop)
        for key, numbers in measure(models, hr, file.name, place[1], damages).items():
            for k, v in numbers.items():
                if math.isfinite(v):
                    found[key][k].append(v)
        print(f"{place[0]} x{place[1]}: {n + 1} of {len(files)}", file=sys.stderr)
    return {
        (*place, *key): {k: fmean(v) for k, v in numbers.items()} for key, numbers in found.items()
    }


def table(kept: Kept, place: tuple[str, int, int], names: list[str], damages: list[str]) -> str:
    """PSNR (and dB over bicubic) / SSIM / heavy share / the same in flat areas."""
    lines = ["| | " + " | ".join(damages) + " |", "|---|" + "---|" * len(damages)]
    for name in names:
        cells = []
        for damage in damages:
            means = kept[*place, name, damage]
            gain = means["psnr"] - kept[*place, "bicubic", damage]["psnr"]
            cell = f"{means['psnr']:.2f}" + (f" ({gain:+.2f})" if name != "bicubic" else "")
            cell += f" / {means['ssim']:.3f}"
            shares = [f"{100 * means[k]:.0f} %" for k in ("heavy", "flat") if k in means]
            cells.append(" / ".join([cell, *shares]))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("folders", type=Path, nargs="+", help="pictures to measure on")
    p.add_argument("--clean", default="carn-pcsr-multi", help="the model of clean pictures")
    p.add_argument("--photo", help="the model of photographs")
    p.add_argument("--strengths", type=float, nargs="+", default=[0.0, 0.5, 1.0])
    p.add_argument("--scales", type=int, nargs="+", default=[2, 4])
    p.add_argument("--damages", nargs="+", choices=DAMAGES, default=list(DAMAGES))
    p.add_argument("--crop", type=int, default=None, help="centre of each picture, in pixels")
    p.add_argument("--pictures", type=int, default=None, help="that many, evenly spread")
    p.add_argument(
        "--json",
        type=Path,
        default=None,
        help="for the numbers; what is in it is not measured again",
    )
    args = p.parse_args(argv)
    models: dict[str, PCSR | Original] = {args.clean: pcsr_lightning.load(args.clean)}
    if args.photo is not None:
        name = Path(args.photo).name.removesuffix(".safetensors")
        for s in args.strengths:
            models[f"{name}, denoise {s:g}"] = pcsr_lightning.load(args.photo, denoise=s)
    names = ["bicubic", *models]
    kept: Kept = {}
    if args.json is not None and args.json.is_file():
        for row in json.loads(args.json.read_text(encoding="utf-8")):
            kept[tuple(row.pop(k) for k in KEYS)] = row
    for folder in args.folders:
        files = list_pictures(folder)
        count = min(args.pictures or len(files), len(files))
        files = [files[int(n)] for n in np.linspace(0, len(files) - 1, count)]
        for scale in args.scales:
            place = (folder.name, scale, count)
            missing = {
                name
                for name in names
                for damage in args.damages
                if (*place, name, damage) not in kept
            }
            todo = {name: model for name, model in models.items() if name in missing}
            if missing:
                kept |= measured(todo, files, place, args.damages, args.crop)
            print(f"\n{folder.name}, x{scale}, {count} pictures\n")
            print(table(kept, place, names, args.damages), flush=True)
            if args.json is not None:
                rows = [dict(zip(KEYS, key, strict=True)) | found for key, found in kept.items()]
                args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
