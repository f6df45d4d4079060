"""Table 4: from picture file to picture file, as a command."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from _inputs import SCALE, Models, Photograph, middle
from _measure import MIB, Timing, markdown, run, say

from pcsr_lightning.images import Picture, write

SMALL = (276, 420)
QUICK_SMALL = (24, 40)
GIB = 1.5
DEARER = 1.15
"""What a megapixel of a large picture may cost of one of the small picture's."""


class File(NamedTuple):
    """A picture to enlarge: LR ``(h, w)``, and whether adaptively."""

    lr_size: tuple[int, int]
    adaptive: bool

    @property
    def megapixels(self) -> float:
        """Of the result."""
        return SCALE**2 * self.lr_size[0] * self.lr_size[1] / 1e6


TINY = File((8, 8), adaptive=False)


def files(quick: bool) -> list[File]:
    """The pictures: one that shows what starting costs, small ones, and large ones."""
    small = QUICK_SMALL if quick else SMALL
    large = [(54, 96), (27, 48)] if quick else [(1080, 1920), (540, 960)]
    pictures = [File(small, False), File(small, True), File(large[0], False), File(large[1], True)]
    return [TINY, *pictures]


def measure(
    models: Models, photograph: Photograph, rounds: int, threads: int, quick: bool
) -> list[dict[str, Any]]:
    """Runs the command on every picture once, then once more, and so on."""
    found: dict[File, list[tuple[float, int, str]]] = {file: [] for file in files(quick)}
    piece_13hw = photograph.pair(QUICK_SMALL if quick else SMALL)[0]
    with tempfile.TemporaryDirectory() as folder:
        for file in found:
            source = Path(folder, f"{file.lr_size[1]}x{file.lr_size[0]}.png")
            write(Picture(middle(piece_13hw, file.lr_size)[0].clamp(0, 1)), source)
        for n in range(rounds):
            for file, runs in found.items():
                h, w = file.lr_size
                say(f"files, round {n + 1} of {rounds}: {w}x{h}")
                command = [sys.executable, "-m", "pcsr_lightning.upscale"]
                command += [str(Path(folder, f"{w}x{h}.png")), str(Path(folder, "out.png"))]
                command += ["--model", models.pcsr, "--threads", str(threads), "--overwrite"]
                command += ["--adaptive"] if file.adaptive else []
                ran = run(command, threads)
                runs.append((ran.seconds, ran.peak, ran.output))
    return [_facts(file, runs) for file, runs in found.items()]


def _facts(file: File, runs: list[tuple[float, int, str]]) -> dict[str, Any]:
    return {
        "lr_size": file.lr_size,
        "adaptive": file.adaptive,
        "megapixels": file.megapixels,
        "seconds": [seconds for seconds, _, _ in runs],
        "peak": max(peak for _, peak, _ in runs),
        "said": runs[-1][2],
    }


def table_4(found: list[dict[str, Any]]) -> str:
    """Whole processes, and what a megapixel costs beyond starting."""
    tiny, *pictures = found
    start = Timing(tuple(tiny["seconds"])).median
    header = ["picture", "classes by", "seconds", "s per megapixel", "of the small one's", "MiB"]
    rows, goals = [], []
    small: dict[bool, float] = {}
    for facts in pictures:
        timing = Timing(tuple(facts["seconds"]))
        each = (timing.median - start) / facts["megapixels"]
        is_small = facts["adaptive"] not in small
        part = each / small.setdefault(facts["adaptive"], each)
        h, w = facts["lr_size"]
        name = f"{w} x {h} to {SCALE * w} x {SCALE * h}"
        mode = "adaptive" if facts["adaptive"] else "k = 0"
        peak = facts["peak"] / MIB
        cells = [timing.text(), f"{each:.3f}", f"{part:.2f}", f"{peak:.0f}"]
        rows.append([name, mode, *cells])
        if not is_small:
            goals.append(_goal(name, part, peak / 1024))
    text = "Width x height. Inputs are one piece of a photograph, repeated and mirrored to size. "
    text += f"Whole processes; a picture of {TINY.lr_size[1]} x {TINY.lr_size[0]} pixels takes "
    text += f"{Timing(tuple(tiny['seconds'])).text()} s, which is taken off before dividing by "
    text += f"megapixels, and {tiny['peak'] / MIB:.0f} MiB."
    return "\n\n".join([text, markdown(header, rows), *goals])


def _goal(name: str, part: float, gib: float) -> str:
    met = gib <= GIB and part <= DEARER
    return (
        f"{name}: {gib:.2f} GiB (goal <= {GIB}), {part:.2f} of the small picture's time per "
        f"megapixel (goal <= {DEARER}): {'met' if met else 'NOT met'}."
    )
