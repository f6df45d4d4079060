"""Table 3: how time and memory grow with the picture."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _inputs import SCALE, Models, Photograph, middle
from _measure import MIB, Timing, markdown, run_worker, say
from _ways import OURS, Way, describe
from numpy.typing import NDArray

MEGAPIXELS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 33.1776)
QUICK_MEGAPIXELS = (0.03, 0.06, 0.12)
MODES = ("k = 0", "adaptive")
ASPECT = 16 / 9


class Line(NamedTuple):
    """A straight line through the points, ``start + slope * megapixels``, and its R^2."""

    slope: float
    start: float
    r2: float


def fit(x: list[float], y: list[float]) -> Line:
    """Least squares. R^2 is 1 for points that lie on the line."""
    slope, start = (float(v) for v in np.polyfit(x, y, 1))
    points: NDArray[np.float64] = np.asarray(y, dtype=np.float64)
    left = float(((points - (start + slope * np.asarray(x))) ** 2).sum())
    whole = float(((points - points.mean()) ** 2).sum())
    return Line(slope, start, 1 - left / whole if whole else 1.0)


def lr_size(megapixels: float) -> tuple[int, int]:
    """The LR size, 16:9, whose enlargement has about so many millions of pixels."""
    lr_pixels = megapixels * 1e6 / SCALE**2
    return round(math.sqrt(lr_pixels / ASPECT)), round(math.sqrt(lr_pixels * ASPECT))


def measure(
    models: Models, photograph: Photograph, rounds: int, threads: int, quick: bool
) -> list[dict[str, Any]]:
    """Each size and mode in a process of its own, all of them once, then once more, and so on."""
    sizes = [lr_size(m) for m in (QUICK_MEGAPIXELS if quick else MEGAPIXELS)]
    piece_13hw = photograph.pair(sizes[0])[0]
    jobs = [(size, Way(OURS, "fp32", mode)) for mode in MODES for size in sizes]
    reports: dict[tuple[tuple[int, int], Way], list[dict[str, Any]]] = {job: [] for job in jobs}
    with tempfile.TemporaryDirectory() as folder:
        files = {size: Path(folder, f"{size[0]}x{size[1]}.npy") for size in sizes}
        for size, file in files.items():
            np.save(file, middle(piece_13hw, size).numpy())
        for n in range(rounds):
            for size, way in jobs:
                say(f"growth, round {n + 1} of {rounds}: LR {size[0]} x {size[1]}, {way.mode}")
                job = describe(way, models, files[size], None)
                reports[size, way].append(run_worker(job, threads))
    return [_point(size, way, found) for (size, way), found in reports.items()]


def _point(size: tuple[int, int], way: Way, reports: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "lr_size": size,
        "megapixels": SCALE**2 * size[0] * size[1] / 1e6,
        "mode": way.mode,
        "seconds": [report["seconds"] for report in reports],
        "before": max(report["before"] for report in reports),
        "after": max(report["after"] for report in reports),
        "gmacs": reports[0]["gmacs"],
        "heavy": reports[0]["heavy"],
    }


def lines(points: list[dict[str, Any]], mode: str) -> tuple[Line, Line]:
    """The straight lines of seconds and of peak MiB for one mode."""
    mine = [point for point in points if point["mode"] == mode]
    x = [point["megapixels"] for point in mine]
    seconds = [Timing(tuple(point["seconds"])).median for point in mine]
    return fit(x, seconds), fit(x, [point["after"] / MIB for point in mine])


def table_3(points: list[dict[str, Any]]) -> str:
    """The points and the lines through them."""
    header = ["output megapixels", "classes by", "seconds", "s per megapixel", "peak memory MiB"]
    header += ["of it by the call", "GMACs", "heaviest class"]
    rows = []
    for point in points:
        timing = Timing(tuple(point["seconds"]))
        rows.append(
            [
                f"{point['megapixels']:.2f}",
                point["mode"],
                timing.text(),
                f"{timing.median / point['megapixels']:.3f}",
                f"{point['after'] / MIB:.0f}",
                f"{(point['after'] - point['before']) / MIB:.0f}",
                f"{point['gmacs']:.2f}",
                f"{100 * point['heavy']:.1f}%",
            ]
        )
    text = [
        "One piece of a photograph, of the smallest size here, repeated and mirrored: every size "
        "has the same share of difficult pixels. Each call in a process of its own.",
        markdown(header, rows),
    ]
    for mode in MODES:
        time, memory = lines(points, mode)
        text.append(
            f"{mode}: {time.start:.3f} s + {time.slope:.3f} s per megapixel, R^2 {time.r2:.4f}; "
            f"{memory.start:.0f} MiB + {memory.slope:.1f} MiB per megapixel, R^2 {memory.r2:.4f}."
        )
    return "\n\n".join(text)


def plot(points: list[dict[str, Any]], file: Path) -> None:
    """Two panels, time and memory over output megapixels, with the lines."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2)
    for colour, mode in zip(("tab:blue", "tab:orange"), MODES, strict=True):
        mine = [point for point in points if point["mode"] == mode]
        x = [point["megapixels"] for point in mine]
        seconds = [Timing(tuple(point["seconds"])).median for point in mine]
        values = (seconds, [point["after"] / MIB for point in mine])
        for panel, y, line in zip(panels, values, lines(points, mode), strict=True):
            label = f"{mode}, R² {line.r2:.3f}"
            panel.plot(x, y, "o", color=colour, markersize=4, label=label)
            panel.plot(x, [line.start + line.slope * v for v in x], "-", color=colour, linewidth=1)
    for panel, what in zip(panels, ("seconds", "peak memory, MiB"), strict=True):
        panel.set(xlabel="output megapixels", ylabel=what, xlim=(0, None))
        panel.set_ylim(0, 1.1 * panel.get_ylim()[1])
        panel.legend(frameon=False, fontsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=110)
