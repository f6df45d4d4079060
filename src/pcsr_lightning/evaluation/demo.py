"""A photograph upscaled x4 in five ways, compared and drawn: what ``pcsr demo`` does."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple, TypeVar

from rich.console import Console

from pcsr_lightning.errors import ConfigError, DataError, PictureError
from pcsr_lightning.evaluation.figures import Panel, save_figure, side_by_side, telling_boxes
from pcsr_lightning.evaluation.measurement import Measurement, decibels
from pcsr_lightning.evaluation.metrics import psnr
from pcsr_lightning.evaluation.pairs import Pair, make_pair
from pcsr_lightning.evaluation.tables import (
    NAME,
    UNKNOWN,
    Column,
    DataTable,
    number,
    print_path,
    print_table,
)
from pcsr_lightning.images import Picture, bicubic, list_pictures, read_rgb8, write
from pcsr_lightning.inference import RoutingConfig, Session, UpscaleResult, class_map
from pcsr_lightning.networks import PCSR
from pcsr_lightning.weights import load

SCALE = 4
RUNS = 3
PREFERRED = ("coffee", "astronaut")
"""Shipped photographs with flat parts as well as textured ones."""


Result = TypeVar("Result")


class Way(NamedTuple):
    """One way to the picture, and what came of it."""

    file: str
    result: UpscaleResult
    measured: Measurement


def shipped_photograph() -> Path:
    """A CC0 photograph that ships with the package.

    Raises:
        DataError: there is none.
    """
    folder = Path(str(resources.files("pcsr_lightning"))) / "data" / "sample"
    try:
        found = list_pictures(folder)
    except PictureError as error:
        raise DataError(f"the shipped photographs are missing, reinstall: {error}") from None
    for name in PREFERRED:
        for path in found:
            if path.stem.startswith(name):
                return path
    return found[0]


def prepare(picture: Path, model: PCSR, out: Path) -> Pair:
    """The photograph and its shrunk self, with the folder ``out`` made where missing.

    Raises:
        PCSRError: the picture or the folder cannot be used, or the model has one class.
    """
    if model.num_classes < 2:
        raise ConfigError("classes are compared here: that needs a model with two or more")
    try:
        pair = make_pair(read_rgb8(picture), (SCALE, SCALE))
    except PictureError as error:
        raise PictureError(f"{picture}: {str(error).removeprefix(f'{picture}: ')}") from None
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot make this folder ({error.strerror})") from None
    return pair


def demo(picture: Path, model: PCSR, out: Path, console: Console) -> None:
    """Shrinks a photograph, upscales it again in five ways, prints and writes what comes out.

    Args:
        picture: any picture file; cut to a multiple of 4.
        model: with two classes or more.
        out: a folder, made where missing.
        console: for the table.

    Raises:
        PCSRError: the picture cannot be used, or the model has one class.
    """
    pair = prepare(picture, model, out)
    size = (pair.hr_13HW.shape[-2], pair.hr_13HW.shape[-1])
    base_13HW, base_seconds = _timed(lambda: bicubic(pair.lr_13hw, size))
    base_psnr = psnr(base_13HW, pair.hr_13HW, SCALE)
    lightest = model.num_classes - 1
    ways = [
        _try(model, pair, RoutingConfig(fixed_class=lightest), "all light", "all_light"),
        _try(model, pair, RoutingConfig(k=0.0), "k = 0", "k0"),
        _try(model, pair, RoutingConfig("adaptive"), "adaptive", "adaptive"),
        _try(model, pair, RoutingConfig(fixed_class=0), "all heavy", "all_heavy"),
    ]
    h, w = pair.lr_13hw.shape[-2:]
    title = f"{picture.name}, {w} x {h} -> {size[1]} x {size[0]} pixels; median of {RUNS} times"
    base = Measurement(name="bicubic", psnr=base_psnr, seconds=base_seconds)
    print_table(_table([base, *(way.measured for way in ways)], title), console)

    at_k0 = ways[1]
    classes_3HW = class_map(at_k0.result.image[0], at_k0.result.assignment[0], model.num_classes)
    written = {
        "original": pair.hr_13HW[0],
        "input": pair.lr_13hw[0],
        "bicubic": base_13HW[0],
        **{way.file: way.result.image[0] for way in ways},
        "class_map": classes_3HW,
    }
    paths = [out / f"{name}.png" for name in written]
    for path, image_3HW in zip(paths, written.values(), strict=True):
        write(Picture(image_3HW), path)
    paths.append(out / "side_by_side.png")
    part = at_k0.result.flops.gmacs / ways[-1].result.flops.gmacs
    captions = {
        "bicubic": f"bicubic, {decibels(base_psnr)} dB",
        "k0": f"PCSR at k = 0, {decibels(at_k0.measured.psnr)} dB, {100 * part:.0f} % of all heavy",
        "class_map": "class map",
        "original": "the photograph",
    }
    boxes = telling_boxes(
        base_13HW[0],
        at_k0.result.image[0],
        pair.hr_13HW[0],
        at_k0.result.assignment[0],
        model.num_classes,
    )
    figure = side_by_side(
        [Panel(caption, written[name]) for name, caption in captions.items()],
        boxes,
        shares=(list(captions).index("class_map"), at_k0.result.shares),
    )
    save_figure(figure, paths[-1])
    for path in paths:
        print_path(path, console)


def _try(model: PCSR, pair: Pair, routing: RoutingConfig, name: str, file: str) -> Way:
    result, seconds = _timed(lambda: Session(model, pair.lr_13hw, SCALE).run(routing))
    decibel = psnr(result.image, pair.hr_13HW, SCALE)
    measured = Measurement(name=name).of_result(result, psnr=decibel, seconds=seconds)
    return Way(file, result, measured)


def _timed(do: Callable[[], Result]) -> tuple[Result, float]:
    """What ``do`` gives, and the median of its times, after one run that is not counted."""
    result = do()
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        do()
        times.append(time.perf_counter() - start)
    return result, statistics.median(times)


def _table(rows: Sequence[Measurement], title: str) -> DataTable[Measurement]:
    def of_heavy(row: Measurement) -> str:
        return UNKNOWN if math.isnan(row.gmacs) else f"{100 * row.gmacs / rows[-1].gmacs:.0f} %"

    costs = [number("gmacs"), Column("of all heavy", of_heavy), number("gflops_published")]
    columns = [NAME, number("psnr"), *costs, number("share"), number("seconds", "seconds")]
    return DataTable(columns, [rows], title)


def load_with_classes(name: str) -> PCSR:
    """The model called so on the command line.

    Raises:
        PCSRError: there is none, or it is an original model.
    """
    model = load(name)
    if not isinstance(model, PCSR):
        raise ConfigError(f"--model {name}: an original model has no classes to compare")
    return model
