"""Many routings of a folder of pictures, each picture seen by the network once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from pcsr_lightning.distributed import ALONE, ProcessGroup
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation.benchmark import check_fits
from pcsr_lightning.evaluation.dense import DensePicture, Routed
from pcsr_lightning.evaluation.metrics import psnr
from pcsr_lightning.evaluation.pairs import Pair, Protocol, scale_pair, shaved_border
from pcsr_lightning.evaluation.patches import Layout
from pcsr_lightning.evaluation.reader import Reader, Skipped
from pcsr_lightning.images import bicubic
from pcsr_lightning.inference import Routing
from pcsr_lightning.networks import PCSR


@dataclass(frozen=True)
class SweepPoint:
    """A routing's means over the pictures, all counting alike.

    Attributes:
        routing: which.
        psnr: dB, RGB.
        gmacs: 10^9 multiply-adds really executed.
        gflops_published: 10^9 operations by the published count.
        share: of the pixels, by class, heaviest first.
    """

    routing: Routing
    psnr: float
    gmacs: float
    gflops_published: float
    share: tuple[float, ...]


@dataclass(frozen=True)
class Sweep:
    """What :func:`sweep` found.

    Attributes:
        points: one a routing, in the order asked for.
        bicubic_psnr: dB, of MATLAB-style bicubic enlargement.
        pictures: how many were used.
        skipped: which were left out.
    """

    points: tuple[SweepPoint, ...]
    bicubic_psnr: float
    pictures: int
    skipped: tuple[Skipped, ...]


def sweep(
    model: PCSR,
    folder: str | Path,
    routings: Sequence[Routing],
    scale: float | Sequence[float] = 4,
    protocol: Protocol | str = Protocol.WHOLE,
    patch_size: int | None = None,
    progress: bool = False,
    processes: ProcessGroup = ALONE,
) -> Sweep:
    """Scores every routing on every picture.

    The network sees a picture once: every class enlarges all of it, which costs no more than two
    routings or so, and a routing is then a selection, the refinement and the PSNR. Costs are those
    of the routing itself, as :func:`benchmark` counts them.

    Args:
        model: with two classes or more.
        folder: of HR pictures; sub-folders too.
        routings: at least one.
        scale: one number, or (vertical, horizontal).
        protocol: which pixels count, see :func:`make_pair`.
        patch_size: for protocol ``patches``.
        progress: shows a progress bar on stderr where that is a terminal.
        processes: that share the pictures; each of them is told all that was found.

    Raises:
        ConfigError: no routing, or one that does not fit the model.
        PictureError: no such folder, or no picture in it.
        DataError: none of its pictures could be used.
    """
    protocol, scales = Protocol(protocol), scale_pair(scale)
    if not routings:
        raise ConfigError("a sweep needs at least one value")
    for routing in routings:
        check_fits(model, scales, routing, protocol)
    layout = Layout.of(protocol, patch_size)
    reader = Reader(Path(folder), scales, protocol, processes)

    def route(_name: str, pair: Pair) -> tuple[list[Routed], float]:
        picture = DensePicture(model, pair, scales, layout)
        found = [picture.route(routing) for routing in routings]
        size = (pair.hr_13HW.shape[-2], pair.hr_13HW.shape[-1])
        enlarged = bicubic(pair.lr_13hw, size)
        return found, psnr(enlarged, pair.hr_13HW, shaved_border(scales))

    found, simple = zip(*reader.each(route, progress), strict=True)
    points = tuple(
        _mean(routing, routed)
        for routing, routed in zip(routings, zip(*found, strict=True), strict=True)
    )
    return Sweep(points, fmean(simple), len(found), tuple(reader.skipped))


def _mean(routing: Routing, routed: Sequence[Routed]) -> SweepPoint:
    shares = [[count / sum(r.counts_M) for count in r.counts_M] for r in routed]
    return SweepPoint(
        routing,
        fmean(r.psnr for r in routed),
        fmean(r.flops.gmacs for r in routed),
        fmean(r.flops.gflops_published for r in routed),
        tuple(fmean(column) for column in zip(*shares, strict=True)),
    )
