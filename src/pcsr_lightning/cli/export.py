"""``pcsr export MODEL OUT.onnx``: a model for other runtimes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pcsr_lightning.atomic_io import check_writable
from pcsr_lightning.cli.command import name_argument, path_argument, program, run_command
from pcsr_lightning.errors import ModelFileError, PCSRError, PictureError

# Heavy libraries are imported inside functions: --help and wrong usage answer at once.
if TYPE_CHECKING:
    from pcsr_lightning.networks import PCSR, Original

LEAST_EQUAL = 0.9995
"""The part of the pixels that must have the same class. Rounding turns a few: those that the
classifier finds as hard as easy."""
LARGEST_DIFFERENCE = 1e-4
"""How far the pictures may differ where classes are the same; an 8-bit step is forty times that."""
CHECKED_K = (-1.0, 0.0, 1.0)

_EXAMPLES = """\
examples:
  %(prog)s fsrcnn-pcsr-x4 pcsr.onnx --check photo.jpg
  %(prog)s runs/2026-01-31 mine.onnx --scale 3 --cost proportional

The file takes `image`, float32 (1, 3, h, w) in [0, 1] of any size, and `k`, a float32 scalar, and
gives `enlarged`, float32 (1, 3, H, W), and `classes`, uint8 (1, H, W). There is no `k` where there
is nothing to route: a network of one class, or an original model. Adaptive decisions and budgets
(--adaptive and --budget in pcsr_lightning.upscale) cannot be exported. The file does not check its
input.

exit codes: 0 done, 1 an error (one line on stderr), 2 wrong usage, 130 interrupted
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog=program("export"),
        description="Write a model for one integer scale as one ONNX file, with its routing.\n"
        "Needs, in the checkout: pip install -e '.[onnx]'",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "model",
        metavar="MODEL",
        type=name_argument,
        help="a released model's name, a .safetensors, .ckpt or published .pth file, or a "
        "training's run folder",
    )
    p.add_argument(
        "output",
        metavar="OUT.onnx",
        type=path_argument,
        help="what to write; its folder must exist",
    )
    p.add_argument(
        "--backbone",
        metavar="PACKAGE.CLASS",
        type=name_argument,
        help="import this class first: the backbone of a model that is not one of ours",
    )
    p.add_argument(
        "--scale",
        type=int,
        help="a whole number, 1 to 16 (default: 4; an original model's own)",
    )
    p.add_argument(
        "--cost",
        choices=["softmax", "proportional"],
        default="softmax",
        help="how FLOPs weigh in the choice by k; proportional is the published code's way "
        "(default: softmax)",
    )
    p.add_argument(
        "--refine",
        action=argparse.BooleanOptionalAction,
        help="smooth the seams between upsamplers, or leave them (default: from scale 4 up)",
    )
    p.add_argument(
        "--check",
        metavar="PICTURE",
        type=path_argument,
        help="upscale this picture with onnxruntime and with this library, and write the file only "
        "if both agree",
    )
    p.add_argument("--force", action="store_true", help="replace a file that exists")
    p.add_argument("--debug", action="store_true", help="show the whole trace of an error")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = parser().parse_args(argv)
    return run_command(lambda: _run(args), args.debug)


def _run(args: argparse.Namespace) -> str:
    _check_paths(args.output, args.force, args.check)
    from pcsr_lightning import weights
    from pcsr_lightning.export import onnx_export
    from pcsr_lightning.networks import import_backbone

    onnx_export.check_packages()
    if args.backbone is not None:
        import_backbone(args.backbone)
    model = weights.load(args.model)
    scale = args.scale
    if scale is None:
        scale = model.scale or 4
    name = Path(args.model).stem
    data = onnx_export.onnx_bytes(model, scale, args.cost, args.refine, name=name)
    checked = ""
    if args.check is not None:
        checked = "; " + check(data, model, args.check, scale, args.cost, args.refine)
    onnx_export.write_onnx(data, args.output)
    config = model.config()
    classes = f", {len(config['upsamplers'])} classes" if config["kind"] == "pcsr" else ""
    return (
        f"{args.output}: {config['backbone']['name']} {config['kind']}{classes}, x{scale}, "
        f"{len(data) / 1e6:.2f} MB{checked}"
    )


def check(
    data: bytes, model: PCSR | Original, picture: Path, scale: int, cost: str, refine: bool | None
) -> str:
    """Upscales a picture with onnxruntime and with the library, at several ``k`` if it is routed.

    Returns:
        A sentence that says how well they agree.

    Raises:
        PictureError: the picture cannot be read.
        PCSRError: they do not agree.
    """
    import numpy as np
    import onnxruntime
    import torch
    from torch.nn import functional as F

    from pcsr_lightning import images
    from pcsr_lightning.inference import upscale

    image = images.read(picture).rgb[None]
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    routed = len(session.get_inputs()) > 1
    equal, difference = 1.0, 0.0
    for k in CHECKED_K if routed else (0.0,):
        feed = {"image": image.numpy()}
        if routed:
            feed["k"] = np.array(k, np.float32)
        enlarged, classes = (torch.from_numpy(out) for out in session.run(None, feed))
        expected = upscale(model, image, scale, k, cost=cost, refine=refine)
        other = (classes != expected.assignment)[:, None]
        # Refinement carries a pixel's class to its neighbours.
        beside_other = F.max_pool2d(other.float(), 3, stride=1, padding=1) > 0
        apart = (enlarged - expected.image).abs().masked_fill(beside_other, 0)
        equal = min(equal, 1 - float(other.double().mean()))
        difference = max(difference, float(apart.max()))
    found = (
        f"{100 * equal:.4f}% of the classes are equal, and the pictures differ by "
        f"{difference:.1e} at most"
    )
    if not (equal >= LEAST_EQUAL and difference <= LARGEST_DIFFERENCE):
        raise PCSRError(
            f"onnxruntime and this library disagree on {picture}: {found}. Nothing was written"
        )
    return f"onnxruntime agrees: {found}"


def _check_paths(target: Path, force: bool, picture: Path | None) -> None:
    """Refuses, before any work, files that cannot be read or written."""
    if picture is not None and not picture.is_file():
        kind = "is a folder, not a picture" if picture.is_dir() else "no such file"
        raise PictureError(f"{picture}: {kind}")
    check_writable(target, ModelFileError)
    if target.suffix != ".onnx":
        raise ModelFileError(f"{target}: the name must end in .onnx")
    if target.exists() and not force:
        raise ModelFileError(f"{target}: exists already; choose another name, or add --force")
