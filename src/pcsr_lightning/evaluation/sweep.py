"""Many routings of a folder of pictures, each picture seen by the network once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pcsr_lightning.distributed import ALONE, ProcessGroup
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation.benchmark import check_fits, describe_setup
from pcsr_lightning.evaluation.measurement import Measurement, Quality, mean
from pcsr_lightning.evaluation.metrics import psnr
from pcsr_lightning.evaluation.pairs import Pair, Protocol, scale_pair, shaved_border
from pcsr_lightning.evaluation.patches import Layout
from pcsr_lightning.evaluation.reader import Reader, Skipped
from pcsr_lightning.evaluation.routed_picture import RoutedPicture
from pcsr_lightning.images import bicubic
from pcsr_lightning.inference import RoutingConfig
from pcsr_lightning.networks import PCSR


@dataclass(frozen=True)
class Sweep:
    """What :func:`sweep` measured.

    Attributes:
        points: the mean over the pictures for each routing, in the order asked for: PSNR and cost.
        skipped: which pictures were left out.
    """

    points: tuple[Measurement, ...]
    skipped: tuple[Skipped, ...] = ()

    @property
    def bicubic_psnr(self) -> float:
        """dB, of MATLAB-style bicubic upscaling."""
        return self.points[0].bicubic.psnr

    @property
    def pictures(self) -> int:
        """How many were used."""
        return self.points[0].pictures


def sweep(
    model: PCSR,
    folder: str | Path,
    routings: Sequence[RoutingConfig],
    scale: float | Sequence[float] = 4,
    protocol: Protocol | str = Protocol.FULL_IMAGE,
    patch_size: int | None = None,
    progress: bool = False,
    processes: ProcessGroup = ALONE,
) -> Sweep:
    """Scores every routing on every picture.

    The network sees a picture once: every class enlarges all of it, which costs no more than two
    routings or so, and a routing is then a selection, the refinement and the PSNR. Costs are those
    of the routing itself. Arguments that are not listed are those of :func:`benchmark`.

    Args:
        model: with two classes or more.
        routings: at least one.

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
    setups = [describe_setup(model, folder, scales, r, protocol, layout) for r in routings]

    def measure(_name: str, pair: Pair) -> list[Measurement]:
        picture = RoutedPicture(model, pair, scales, layout)
        upscaled_13HW = bicubic(pair.lr_13hw, (pair.hr_13HW.shape[-2], pair.hr_13HW.shape[-1]))
        simple = Quality(psnr=psnr(upscaled_13HW, pair.hr_13HW, shaved_border(scales)))
        return [picture.measure(replace(setup, bicubic=simple)) for setup in setups]

    by_routing = zip(*reader.each(measure, progress), strict=True)
    return Sweep(tuple(mean(pictures) for pictures in by_routing), tuple(reader.skipped))
