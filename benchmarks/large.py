"""A very large picture from file to file, through the command, under a limit of memory.

    python benchmarks/large.py                                # 7,500 x 5,000 to 30,000 x 20,000
    python benchmarks/large.py --size 1500x1000               # a trial
    python benchmarks/large.py --only alpha,adaptive --limit 1G
    python benchmarks/large.py --only together                # three of them in one run

The limit is the system's own, on the data that a process may have (RLIMIT_DATA): a run that wants
more fails. The peak is that of what was in memory, shared libraries included.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyvips
import torch
from _inputs import SCALE, find_photograph, middle, shared_folder
from _measure import MIB, machine_facts, markdown, positive, run, say

from pcsr_lightning import images
from pcsr_lightning.errors import PCSRError
from pcsr_lightning.images import Picture

CASES: dict[str, tuple[str, ...]] = {
    "plain": (),
    "alpha": (),
    "class map": ("--class-map", "classes.png"),
    "adaptive": ("--adaptive",),
    "budget": ("--budget", "60%"),
    "together": ("--budget", "60%", "--class-map", "classes.png"),
    "stdout": (),
    "tif": (),
    "jpg": (),
    "bmp": (),
}
_UNITS = {"M": 2**20, "G": 2**30}
_PIECE = 2**20


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns its exit code."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--size", default="7500x5000", metavar="WxH", help="of the input")
    p.add_argument("--limit", default="2G", help="memory, such as 800M or 2G (default: 2G)")
    p.add_argument("--only", default=",".join(CASES), help=f"of {', '.join(CASES)}")
    p.add_argument("--model", default="fsrcnn-pcsr-x4", help="a name or a file")
    p.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    p.add_argument("--threads", type=positive, default=os.cpu_count())
    p.add_argument("--folder", type=Path, help="for the files, instead of a temporary one")
    p.add_argument("--limited", type=int, help=argparse.SUPPRESS)
    p.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    args = p.parse_args(argv)
    if args.limited is not None:
        return _limited(args.limited, args.words)
    names = [name.strip() for name in args.only.split(",")]
    if unknown := [name for name in names if name not in CASES]:
        p.error(f"--only: no such case: {', '.join(unknown)}; there are {', '.join(CASES)}")
    width, height = (int(n) for n in args.size.split("x"))
    limit = int(float(args.limit[:-1]) * _UNITS[args.limit[-1].upper()])
    try:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            rows = _measure(Path(folder), names, (height, width), limit, args)
    except PCSRError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    facts = machine_facts(args.threads)
    print(f"{width:,} x {height:,} to {SCALE * width:,} x {SCALE * height:,} pixels, {args.model},")
    print(f"{args.precision}, limit {limit // MIB:,} MiB; {facts}\n")
    print(markdown(["case", "seconds", "peak MiB", "file MiB"], rows))
    return 0


def _measure(
    folder: Path, names: Sequence[str], size: tuple[int, int], limit: int, args: argparse.Namespace
) -> list[list[str]]:
    """A row of the table for each case."""
    rows = []
    for name in names:
        kind = "alpha" if name in ("alpha", "together") else "plain"
        source = folder / f"{kind}.png"
        if not source.exists():
            say(f"making {source.name}")
            _make(source, size)
        say(f"{name}: begins")
        suffix = name if name in ("tif", "jpg", "bmp") else "png"
        target = folder / f"result.{suffix}"
        words = [str(source), "-" if name == "stdout" else str(target), "--model", args.model]
        words += ["--precision", args.precision, "--threads", str(args.threads), *CASES[name]]
        words += ["--format", "png"] if name == "stdout" else []
        words = [str(folder / w) if w == "classes.png" else w for w in words]
        command = [sys.executable, __file__, "--limited", str(limit), "--", *words]
        if name == "stdout":
            command = ["/bin/sh", "-c", f'exec "$0" "$@" > "{target}"', *command]
        ran = run(command, args.threads)
        _check(target, size)
        rows.append(
            [
                name,
                f"{ran.seconds:.0f}",
                f"{ran.peak / MIB:,.0f}",
                f"{target.stat().st_size / MIB:,.0f}",
            ]
        )
        say(" | ".join(rows[-1]))
        target.unlink()
    return rows


def _make(path: Path, size: tuple[int, int]) -> None:
    """Writes a photograph, repeated and mirrored; transparent in parts if the name says so."""
    height, width = size
    photograph = find_photograph(shared_folder()).hr_13HW
    whole_13hw = middle((photograph * 255).round().to(torch.uint8), size)
    alpha = None
    if path.stem == "alpha":
        # Bands that fade from nothing to all.
        fade_h = (torch.arange(height) % 1000 - 300).clamp(0, 255).to(torch.uint8)
        alpha = fade_h[None, :, None].expand(1, height, width)
    facts = images.outline(Picture(whole_13hw[0], alpha), size)
    with images.written_by_rows(facts, path) as put:
        for top in range(0, height, 100):
            rows = slice(top, top + 100)
            put(whole_13hw[0][:, rows], None if alpha is None else alpha[:, rows])


def _check(target: Path, size: tuple[int, int]) -> None:
    """Reads every pixel of the result, a few rows at a time; libvips does not read BMP.

    Raises:
        PCSRError: it is damaged, or of another size.
    """
    if target.suffix == ".bmp":
        return
    image = pyvips.Image.new_from_file(str(target), access="sequential", fail_on="error")
    if (image.height, image.width) != (SCALE * size[0], SCALE * size[1]):
        raise PCSRError(f"{target}: {image.width} x {image.height} pixels")
    image.avg()


def _limited(limit: int, words: Sequence[str]) -> int:
    """The command under the limit."""
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    from pcsr_lightning.cli.upscale import main as command

    return command(list(words))


if __name__ == "__main__":
    sys.exit(main())
