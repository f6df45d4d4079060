"""Memory of an evaluation on sets of very large pictures, by the number of pictures.

    python benchmarks/set_memory.py                               # 1 and 3 pictures of 7680 x 4320
    python benchmarks/set_memory.py --counts 50 --model carn-pcsr-x4
    python benchmarks/set_memory.py --size 800x600 --counts 1,2   # a trial

Each row is one `evaluate` in a process of its own: `target_psnr`, a sweep over `k`, one `k`,
overlapping patches (`--model` may be an original, ClassSR or ARM), or one `k` with its oracle.
The pictures are the photographs of `images/large` in $PCSR_SHARED, resized and cut to the size.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyvips
from _inputs import shared_folder
from _measure import MIB, machine_facts, markdown, positive, run, say

from pcsr_lightning.data import SAMPLE_FOLDER
from pcsr_lightning.errors import PCSRError
from pcsr_lightning.images import list_pictures

CASES = {
    "target": ("target_psnr={target}",),
    "sweep": ("sweep=k", "sweep_values=[-1,0,1]"),
    "one k": ("routing.k=0",),
    "overlapped": ("routing.k=0", "protocol=overlapped"),
    "oracle": ("routing.k=0", "oracle=true"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns its exit code."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--size", default="7680x4320", metavar="WxH", help="of the pictures")
    p.add_argument("--counts", default="1,3", help="how many pictures")
    p.add_argument("--only", default=",".join(CASES), help=f"of {', '.join(CASES)}")
    p.add_argument("--model", default="fsrcnn-pcsr-x4", help="a name or a file")
    p.add_argument("--target", default="30", help="target_psnr")
    p.add_argument("--threads", type=positive, default=1)
    args = p.parse_args(argv)
    width, height = (int(n) for n in args.size.split("x"))
    rows = []
    try:
        for count in map(int, args.counts.split(",")):
            with tempfile.TemporaryDirectory() as folder:
                say(f"making {count} pictures")
                make_set(Path(folder) / "set", count, (width, height))
                for name in args.only.split(","):
                    rows.append(_measure(Path(folder), count, name, args))
                    say(" | ".join(rows[-1]))
    except PCSRError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{width} x {height} pixels, {args.model}; {machine_facts(args.threads)}\n")
    print(markdown(["pictures", "case", "seconds", "peak MiB"], rows))
    return 0


def make_set(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Writes so many pictures of a size: photographs, and the same upside down and so on."""
    shared = shared_folder()
    sources = list_pictures(SAMPLE_FOLDER if shared is None else shared / "images" / "large")
    folder.mkdir()
    for number in range(count):
        source = sources[number % len(sources)]
        image = pyvips.Image.thumbnail(str(source), size[0], height=size[1], crop="centre")
        image = image.copy_memory()
        turned = image.rot180() if number // len(sources) % 2 else image
        turned.write_to_file(str(folder / f"{number:03}.jpg"), Q=95)


def _measure(folder: Path, count: int, name: str, args: argparse.Namespace) -> list[str]:
    words = [word.format(target=args.target) for word in CASES[name]]
    if "protocol=overlapped" not in words:
        words.append("protocol=published")
    output = folder / name.replace(" ", "_")
    command = [
        sys.executable, "-m", "pcsr_lightning.evaluate", f"model={args.model}",
        f"data.root={folder / 'set'}", f"threads={args.threads}", f"output={output}",
        "routing.cost=proportional", "device=cpu", *words,
    ]  # fmt: skip
    ran = run(command, args.threads)
    return [str(count), name, f"{ran.seconds:.0f}", f"{ran.peak / MIB:,.0f}"]


if __name__ == "__main__":
    sys.exit(main())
