"""The door for pictures: ``python -m pcsr_lightning.upscale IN OUT``.

The package's function ``pcsr_lightning.upscale(model, image, ...)`` has the same name. Importing
this module hides the function behind it, so the module can be called and passes the call on.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pcsr_lightning.errors import ConfigError, PictureError
from pcsr_lightning.plain_door import INTERRUPTED, run_plain_door

# Heavy libraries are imported inside functions: --help and wrong usage answer at once, and an
# interrupt during the imports is met like any other.
if TYPE_CHECKING:
    from torch import Tensor

    from pcsr_lightning.inference import UpscaleResult
    from pcsr_lightning.networks import PCSR, Original
    from pcsr_lightning.pictures import Picture

_EXAMPLES = """\
examples:
  python -m pcsr_lightning.upscale photo.jpg photo_x4.png
  python -m pcsr_lightning.upscale photo.jpg big.png --adaptive --class-map classes.png
  python -m pcsr_lightning.upscale photo.jpg big.png --scale 2.5 --k 1 --threads 2
  python -m pcsr_lightning.upscale photo.jpg big.png --budget 50%

exit codes: 0 done, 1 an error (one line on stderr), 2 wrong usage, 130 interrupted
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m pcsr_lightning.upscale",
        description="Enlarge a picture. Every pixel is sent to an upsampler that fits its\n"
        "difficulty, so that plain areas cost little.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("input", metavar="IN", type=Path, help="the picture to enlarge")
    p.add_argument(
        "output",
        metavar="OUT",
        type=Path,
        help="where to write the result; its suffix (.png, .jpg, .webp, .tif, ...) chooses the "
        "format, its folder must exist",
    )
    p.add_argument(
        "--model",
        metavar="NAME_OR_FILE",
        help="a released model's name, a .safetensors, .ckpt or published .pth file, or a "
        "training's run folder (default: the released model)",
    )
    p.add_argument(
        "--scale",
        type=float,
        help="how many times as wide and high, 1 to 16, whole or not (default: 4; an original "
        "model's own)",
    )
    choice = p.add_mutually_exclusive_group()
    choice.add_argument(
        "--k",
        type=float,
        default=0.0,
        help="more (k < 0) or fewer (k > 0) pixels to the heavy upsamplers (default: 0)",
    )
    choice.add_argument(
        "--adaptive", action="store_true", help="let the picture's own statistics decide"
    )
    choice.add_argument(
        "--only-class",
        metavar="J",
        type=int,
        help="send every pixel to one upsampler; 0 is the heaviest",
    )
    choice.add_argument(
        "--budget",
        metavar="SHARE",
        type=_share,
        help="spend at most this share (such as .5 or 50%%) of what the heaviest upsampler would "
        "take on every pixel, on the hardest pixels first",
    )
    p.add_argument(
        "--cost",
        choices=["softmax", "proportional"],
        default="softmax",
        help="how FLOPs weigh in the choice by k or budget; proportional is the published code's "
        "way (default: softmax)",
    )
    p.add_argument(
        "--no-refine",
        dest="refine",
        action="store_false",
        help="leave the seams between upsamplers as they are",
    )
    p.add_argument(
        "--class-map",
        metavar="FILE",
        type=Path,
        help="also write a picture of each pixel's class, red (heaviest) to blue (lightest)",
    )
    p.add_argument(
        "--precision",
        choices=["fp32", "bf16"],
        default="fp32",
        help="bf16 is about twice as fast where the processor multiplies such numbers, for a few "
        "thousandths of a dB (default: fp32)",
    )
    p.add_argument(
        "--max-memory",
        metavar="SIZE",
        type=_bytes,
        help="what may be in work at a time beside the pictures themselves, such as 200M or 1G "
        "(default: what is fastest)",
    )
    p.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="default: cpu")
    p.add_argument("--threads", type=int, metavar="N", help="processor threads (default: all)")
    p.add_argument("--debug", action="store_true", help="show the whole trace of an error")
    return p


def _share(text: str) -> float:
    """``.5`` or ``50%``."""
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share, such as .5 or 50%") from None


def _bytes(text: str) -> int:
    """``200M``, ``1G``, ``500000000``."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    number, unit = (text[:-1], units[text[-1].upper()]) if text[-1:].upper() in units else (text, 1)
    try:
        size = float(number) * unit
    except ValueError:
        size = 0.0
    if not 1 <= size < 2**60:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size, such as 200M or 1G")
    return int(size)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = parser().parse_args(argv)
    logging.basicConfig(format="%(levelname)s: %(message)s")

    def task() -> str:
        _load_libraries()
        return _run(args)

    return run_plain_door(task, args.debug)


def _load_libraries() -> None:
    """Imports all that a run needs, with Ctrl-C ending the process on the spot.

    An exception that a signal raises in the midst of an import can be swallowed there, and the
    command would run on. There is nothing to clean up yet.
    """

    def leave(*_: object) -> None:
        os.write(2, b"interrupted\n")
        os._exit(INTERRUPTED)

    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, leave) if in_main_thread else None
    try:
        import pcsr_lightning.inference
        import pcsr_lightning.pictures
        import pcsr_lightning.weights  # noqa: F401
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)


def _run(args: argparse.Namespace) -> str:
    _check_paths(args.input, args.output, args.class_map)
    _check_machine(args.device, args.threads)
    from pcsr_lightning import pictures, weights

    picture = pictures.read(args.input)
    model = weights.load(args.model or weights.DEFAULT_MODEL, args.device)
    start = time.perf_counter()
    result, enlarged = _enlarge(model, picture, args)
    seconds = time.perf_counter() - start
    pictures.write(enlarged, args.output)
    if args.class_map is not None:
        pictures.write(_class_map(result), args.class_map)
    return _summary(model, picture, enlarged, result, seconds, args.budget)


def _check_paths(source: Path, target: Path, class_map: Path | None) -> None:
    """Everything about the files that can be known before any work is done."""
    from pcsr_lightning.pictures import SUFFIXES

    if not source.is_file():
        kind = "is a folder, not a picture" if source.is_dir() else "no such file"
        raise PictureError(f"{source}: {kind}")
    outputs = [target] if class_map is None else [target, class_map]
    for path in outputs:
        folder = path.parent
        if path.suffix.lower() not in SUFFIXES:
            raise PictureError(
                f"{path}: the suffix chooses the format; use one of {', '.join(SUFFIXES)}"
            )
        if path.is_dir():
            raise PictureError(f"{path}: is a folder; name the file to write")
        if not folder.is_dir():
            raise PictureError(
                f"{path}: the folder {folder} does not exist; make it with: mkdir -p {folder}"
            )
        if not os.access(folder, os.W_OK):
            raise PictureError(f"{path}: no permission to write into the folder {folder}")
        if path.exists() and path.samefile(source):
            raise PictureError(f"{path}: is the input itself; choose another name for the output")
    if class_map is not None and class_map.resolve() == target.resolve():
        raise PictureError(f"{class_map}: the class map would overwrite the enlarged picture")


def _check_machine(device: str, threads: int | None) -> None:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("no CUDA device is available here; leave out --device cuda")
    if threads is not None:
        if threads < 1:
            raise ConfigError(f"--threads must be at least 1, not {threads}")
        torch.set_num_threads(threads)


def _enlarge(
    model: PCSR | Original, picture: Picture, args: argparse.Namespace
) -> tuple[UpscaleResult, Picture]:
    """The result, and the picture to write: alpha, depth, grey and profile as they came in."""
    from pcsr_lightning.inference import upscale
    from pcsr_lightning.networks import Original
    from pcsr_lightning.pictures import bicubic

    scale = args.scale
    if scale is None:
        scale = model.scale if isinstance(model, Original) else 4
    result = upscale(
        model,
        picture.rgb[None].to(args.device),
        scale,
        args.k,
        args.adaptive,
        only=args.only_class,
        budget=args.budget,
        cost=args.cost,
        refine=args.refine,
        precision=args.precision,
        max_memory=args.max_memory,
        bits=picture.bits,
    )
    rgb = result.image[0].cpu()
    alpha: Tensor | None = None
    if picture.alpha is not None:
        alpha = bicubic(picture.alpha, (rgb.shape[-2], rgb.shape[-1])).clamp(0, 1)
    return result, replace(picture, rgb=rgb, alpha=alpha)


def _class_map(result: UpscaleResult) -> Picture:
    import torch

    from pcsr_lightning.inference import class_map
    from pcsr_lightning.pictures import Picture

    num_classes, image = len(result.shares), result.image[0]
    image = image.float() / torch.iinfo(image.dtype).max
    return Picture(class_map(image, result.assignment[0], num_classes).cpu())


def _summary(
    model: PCSR | Original,
    picture: Picture,
    enlarged: Picture,
    result: UpscaleResult,
    seconds: float,
    budget: float | None,
) -> str:
    from pcsr_lightning.inference import all_heavy_flops, budget_words
    from pcsr_lightning.networks import PCSR

    lr_size = (picture.rgb.shape[-2], picture.rgb.shape[-1])
    size = (enlarged.rgb.shape[-2], enlarged.rgb.shape[-1])
    line = f"{lr_size[1]}x{lr_size[0]} -> {size[1]}x{size[0]} in {seconds:.2f} s"
    cost = f"{result.flops.gmacs:.3g} GMACs"
    if isinstance(model, PCSR):
        shares = " / ".join(f"{100 * share:.1f}%" for share in result.shares)
        heavy = all_heavy_flops(model, lr_size, size)
        line += f", classes heavy to light {shares}"
        cost += f", {100 * result.flops.gmacs / heavy.gmacs:.0f}% of all-heavy"
        words = None if budget is None else budget_words(model, lr_size, size, budget)
        cost += f"; {words}" if words else ""
    return f"{line}, {cost}"


class _CallableModule(ModuleType):
    """Lets ``pcsr_lightning.upscale(...)`` work after this module was imported under that name."""

    def __call__(self, *args: Any, **kwargs: Any) -> UpscaleResult:
        """See ``pcsr_lightning.inference.upscale``."""
        from pcsr_lightning.inference import upscale

        return upscale(*args, **kwargs)


if __name__ == "__main__":
    sys.exit(main())
else:
    sys.modules[__name__].__class__ = _CallableModule
