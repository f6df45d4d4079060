"""Many routings of a folder of pictures, each picture seen by the network once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pcsr_lightning.distributed import ALONE, ProcessGroup
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation.benchmark import check_fits, describe_setup
from pcsr_lightning.evaluation.measurement import Measurement, OracleCost, Quality, mean
from pcsr_lightning.evaluation.metrics import psnr
from pcsr_lightning.evaluation.oracle import Oracle, check_oracle
from pcsr_lightning.evaluation.pairs import Pair, Protocol, scale_pair, shaved_border
from pcsr_lightning.evaluation.patches import Layout
from pcsr_lightning.evaluation.reader import Reader, Skipped
from pcsr_lightning.evaluation.routed_picture import routed_picture
from pcsr_lightning.images.comparison import bicubic_bytes
from pcsr_lightning.inference import RoutingConfig
from pcsr_lightning.networks import PCSR, PatchRouted

OnOracle = Callable[[str, Oracle], None]


@dataclass(frozen=True)
class Sweep:
    """What :func:`sweep` measured.

    Attributes:
        points: the mean over the pictures for each routing, in the order asked for: PSNR and cost.
        skipped: which pictures were left out.
        unrefined: the same routings without refinement; empty where no oracle was asked for.
        oracle: the best choice at the cost of each routing, then the best at any cost.
    """

    points: tuple[Measurement, ...]
    skipped: tuple[Skipped, ...] = ()
    unrefined: tuple[Measurement, ...] = ()
    oracle: tuple[Measurement, ...] = ()

    @property
    def bicubic_psnr(self) -> float:
        """dB, of MATLAB-style bicubic upscaling."""
        return self.points[0].bicubic.psnr

    @property
    def pictures(self) -> int:
        """How many were used."""
        return self.points[0].pictures


def sweep(
    model: PCSR | PatchRouted,
    folder: str | Path,
    routings: Sequence[RoutingConfig],
    scale: float | Sequence[float] = 4,
    protocol: Protocol | str = Protocol.FULL_IMAGE,
    patch_size: int | None = None,
    progress: bool = False,
    processes: ProcessGroup = ALONE,
    oracle: bool = False,
    on_oracle: OnOracle | None = None,
    warn: bool = True,
) -> Sweep:
    """Scores every routing on every picture.

    The network sees a picture once: every class enlarges all of it, which costs no more than two
    routings or so, and a routing is then a selection, the refinement and the PSNR. Costs are those
    of the routing itself. A sweep over ``k`` works in strips, and its memory hardly grows with the
    pictures, nor of patches; other rules keep a picture's pixels by every class.

    Arguments that are not listed are those of :func:`benchmark`.

    Args:
        model: with two classes or more.
        routings: at least one.
        oracle: measures also what the best classifier would reach, see
            :class:`~pcsr_lightning.evaluation.oracle.Oracle`.
        on_oracle: gets each picture's name and oracle, in the process that measured it.
        warn: names pictures that are left out.

    Raises:
        ConfigError: no routing, or one that does not fit the model; or an oracle of patches.
        PictureError: no such folder, or no picture in it.
        DataError: none of its pictures could be used.
    """
    protocol, scales = Protocol(protocol), scale_pair(scale)
    if not routings:
        raise ConfigError("a sweep needs at least one value")
    for routing in routings:
        check_fits(model, scales, routing, protocol)
    if oracle:
        check_oracle(protocol)
    layout = Layout.of(protocol, patch_size)
    reader = Reader(Path(folder), scales, protocol, processes)
    setups = [describe_setup(model, folder, scales, r, protocol, layout) for r in routings]

    def measure(name: str, pair: Pair) -> list[Measurement]:
        truth_13HW = pair.truth_13HW
        upscaled_13HW = bicubic_bytes(pair.lr_13hw, (truth_13HW.shape[-2], truth_13HW.shape[-1]))
        simple = Quality(psnr=psnr(upscaled_13HW, truth_13HW, shaved_border(scales)))
        here = [replace(setup, bicubic=simple) for setup in setups]
        measured = routed_picture(model, pair, scales, layout).measure(here)
        if oracle:
            assert isinstance(model, PCSR)  # check_oracle refuses patches
            bound = Oracle(model, pair, scales)
            measured += [bound.measure_unrefined(setup) for setup in here]
            measured += [bound.measure(setup, OracleCost.SAME) for setup in here]
            measured.append(bound.measure(here[0], OracleCost.ANY))
            if on_oracle is not None:
                on_oracle(name, bound)
        return measured

    means = [mean(pictures) for pictures in zip(*reader.each(measure, progress, warn), strict=True)]
    points, unrefined, bounds = (
        tuple(means[part])
        for part in (
            slice(len(setups)),
            slice(len(setups), 2 * len(setups)),
            slice(2 * len(setups), None),
        )
    )
    return Sweep(points, tuple(reader.skipped), unrefined, bounds)
