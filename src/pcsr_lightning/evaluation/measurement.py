"""The record of a measurement: one picture, the mean over a data set, or a point of a sweep.

JSON files, tables, plots and W&B all read the fields below. A new number is a field here, computed
in :meth:`Quality.of` or where the picture is upscaled, and shows up everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import Field, asdict, dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from statistics import fmean
from typing import Any, Self

from torch import Tensor

from pcsr_lightning.evaluation.metrics import psnr, psnr_y, ssim, ssim_y
from pcsr_lightning.evaluation.pairs import scale_pair
from pcsr_lightning.evaluation.picture_metrics import PictureMetric, measure_pictures
from pcsr_lightning.inference import Flops, UpscaleResult
from pcsr_lightning.routing import RoutingConfig

Lpips = Callable[[Tensor, Tensor, int], float]


class OracleCost(StrEnum):
    """What classes that the ground truth has chosen may cost."""

    SAME = "same"
    ANY = "any"


def decibels(value: float) -> str:
    """``24.32``, or ``inf`` where nothing differs."""
    return f"{value:.2f}"


def percentages(share: Sequence[float]) -> str:
    """``50.3 / 49.7 %``."""
    return " / ".join(f"{100 * s:.1f}" for s in share) + " %"


def _number(
    heading: str, text: str | Callable[[Any], str], default: Any = None, null: float = math.nan
) -> Any:
    """A measured number.

    Args:
        heading: of its column in tables.
        text: how a value is written there: a format such as ``.3f``, or a function.
        default: where it was not measured.
        null: what a null in a JSON file stands for.
    """
    write = text if callable(text) else lambda value: format(value, text)
    return field(default=default, metadata={"heading": heading, "text": write, "null": null})


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How close an upscaled picture is to the ground truth.

    ``None``: not measured. All on pictures rounded to 8 bit, with a border shaved off.

    Attributes:
        psnr: dB, RGB; infinite where nothing differs.
        psnr_y: dB, on the luma of MATLAB's ``rgb2ycbcr``; likewise.
        ssim: on RGB; NaN where the picture is smaller than SSIM's window.
        ssim_y: on the same luma; likewise.
        lpips: with AlexNet, lower is better; NaN where the picture is too small for it.
        metrics: a user's own, by name.
    """

    psnr: float = _number("PSNR, dB", decibels, math.nan, null=math.inf)
    psnr_y: float | None = _number("PSNR of Y, dB", decibels, null=math.inf)
    ssim: float | None = _number("SSIM", ".4f")
    ssim_y: float | None = _number("SSIM of Y", ".4f")
    lpips: float | None = _number("LPIPS", ".4f")
    metrics: Mapping[str, float | None] = field(default_factory=dict, hash=False)

    @classmethod
    def of(
        cls,
        sr_13HW: Tensor,
        hr_13HW: Tensor,
        border: int,
        lpips: Lpips | None = None,
        metrics: Mapping[str, PictureMetric] | None = None,
    ) -> Quality:
        """Every measure of ``sr_13HW`` against the ground truth ``hr_13HW``, both in [0, 1].

        Args:
            sr_13HW: the upscaled picture.
            hr_13HW: the ground truth.
            border: pixels that are left out on every side.
            lpips: see :func:`~pcsr_lightning.evaluation.build_lpips`; not measured without.
            metrics: a user's own, by name.
        """
        return cls(
            psnr=psnr(sr_13HW, hr_13HW, border),
            psnr_y=psnr_y(sr_13HW, hr_13HW, border),
            ssim=ssim(sr_13HW, hr_13HW, border),
            ssim_y=ssim_y(sr_13HW, hr_13HW, border),
            lpips=None if lpips is None else lpips(sr_13HW, hr_13HW, border),
            metrics=measure_pictures(metrics or {}, sr_13HW, hr_13HW, border),
        )


@dataclass(frozen=True, kw_only=True)
class Measurement(Quality):
    """Quality, cost and time of a model under one routing, and what was measured.

    Attributes:
        gmacs: 10^9 multiply-adds really executed, hoisting included.
        gflops_published: 10^9 operations by the published count of the un-hoisted network.
        share: of the pixels, by class, heaviest first; adds up to 1.
        seconds: wall time of the upscaling alone, without reading, degrading or comparing.
        bicubic: the same of MATLAB-style bicubic upscaling.
        name: of the picture, or of the row in a table.
        size: ``(H, W)`` of the picture as compared; ``None`` for means.
        model: its name or file.
        backbone: its name.
        classes: ``M``; 1 for an original model.
        parameters: trained values of the network.
        routing: ``None`` for an original model.
        oracle: where the ground truth chose the classes, see
            :class:`~pcsr_lightning.evaluation.oracle.Oracle`; its cost may then be that of
            ``routing``, or any.
        scale: (vertical, horizontal).
        protocol: see :func:`~pcsr_lightning.evaluation.make_pair`.
        patch_size: LR pixels, where pictures are upscaled patch by patch.
        data_root: folder of the pictures.
        data_name: of the set of pictures, where it was given one.
        pictures: how many the mean is of.
    """

    gmacs: float = _number("GMACs", ".3f", math.nan)
    gflops_published: float = _number("GFLOPs (published count)", ".3f", math.nan)
    share: tuple[float, ...] = _number("share, heaviest first", percentages, ())
    seconds: float | None = _number("s", ".3f")
    bicubic: Quality = Quality()
    name: str = ""
    size: tuple[int, int] | None = None
    model: str = ""
    backbone: str = ""
    classes: int = 1
    parameters: int | None = None
    routing: RoutingConfig | None = None
    oracle: OracleCost | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    protocol: str = ""
    patch_size: int | None = None
    data_root: str = ""
    data_name: str = ""
    pictures: int = 1

    @property
    def k(self) -> float | None:
        """Of the routing, where it has one."""
        return self.routing.value if self.routing is not None and self.routing.mode == "k" else None

    @property
    def dataset(self) -> str:
        """Name of the set of pictures, or of their folder."""
        return self.data_name or Path(self.data_root).name

    @property
    def routing_name(self) -> str:
        """``k = 0.5``, ``oracle at any cost``, ...; ``original`` for a model that has none."""
        if self.oracle is OracleCost.ANY:
            return "oracle at any cost"
        own = "original" if self.routing is None else self.routing.description
        return own if self.oracle is None else f"oracle at the cost of {own}"

    def of_result(self, result: UpscaleResult, **numbers: Any) -> Self:
        """This setup with the costs and shares of an upscaling, and other numbers."""
        return self.of_cost(result.flops, result.shares, **numbers)

    def of_cost(self, flops: Flops, shares: Sequence[float], **numbers: Any) -> Self:
        """Likewise."""
        return replace(
            self,
            gmacs=flops.gmacs,
            gflops_published=flops.gflops_published,
            share=tuple(float(share) for share in shares),
            **numbers,
        )

    def bicubic_row(self, name: str = "bicubic") -> Measurement:
        """Bicubic upscaling as a row of a table."""
        return Measurement(name=name, **asdict(self.bicubic))

    def numbers(self) -> dict[str, Any]:
        """What was measured, as JSON takes it; without what was not measured."""
        content = _numbers(self)
        if not math.isnan(self.bicubic.psnr):
            content["bicubic"] = _numbers(self.bicubic)
        return content

    def setup(self) -> dict[str, Any]:
        """Of what the numbers are, as JSON takes it."""
        sy, sx = self.scale
        return {
            "model": self.model,
            "backbone": self.backbone,
            "classes": self.classes,
            "parameters": self.parameters,
            "routing": None if self.routing is None else self.routing.to_dict(),
            "oracle": self.oracle,
            "k": self.k,
            "scale": sy if sy == sx else [sy, sx],
            "protocol": self.protocol,
            "patch_size": self.patch_size,
            "data_root": self.data_root,
            "data_name": self.data_name,
            "pictures": self.pictures,
        }

    def to_json(self) -> dict[str, Any]:
        """Setup and numbers; :meth:`from_json` reads them back."""
        return {**self.setup(), **self.numbers()}

    def flat(self) -> dict[str, float | None]:
        """The numbers under one name each: ``psnr``, ``share/0`` (heaviest), ``bicubic/psnr``, ...

        ``None`` where a number is infinite or NaN.
        """
        return _flat(self.numbers())

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """The means that ``metrics.json`` holds, or a point of a sweep; unknown keys are ignored.

        A point of ``sweep.json`` has its setup one level higher: give ``{**content, **point}``.
        """
        values = _read(cls, content)
        if values.get("routing") is not None:
            values["routing"] = RoutingConfig(**values["routing"])
        if values.get("oracle") is not None:
            values["oracle"] = OracleCost(values["oracle"])
        if "bicubic" in values:
            values["bicubic"] = Quality(**_read(Quality, values["bicubic"]))
        if "scale" in values:
            values["scale"] = scale_pair(values["scale"])
        for key in ("share", "size"):
            if values.get(key) is not None:
                values[key] = tuple(values[key])
        return cls(**values)


def mean(measured: Sequence[Measurement]) -> Measurement:
    """The mean over pictures, all counting alike whatever their size, as in the paper's tables.

    A number that was not measured of every picture is ``None``. The setup is the first one's.
    """
    return replace(
        measured[0],
        **_means(measured),
        share=tuple(fmean(column) for column in zip(*(m.share for m in measured), strict=True)),
        bicubic=Quality(**_means([m.bicubic for m in measured])),
        name="",
        size=None,
        pictures=len(measured),
    )


def measured_fields(kind: type[Quality] = Measurement) -> dict[str, Field[Any]]:
    """The fields that are measured numbers, by name."""
    return {f.name: f for f in fields(kind) if "heading" in f.metadata}


def known_numbers(classes: int = 2, metrics: Iterable[str] = ()) -> list[str]:
    """The names that :meth:`Measurement.flat` may give of a model with so many classes."""
    names = [name for name in measured_fields() if name != "share"]
    names += [f"share/{j}" for j in range(classes)]
    names += [f"metrics/{name}" for name in metrics]
    return [*names, *(f"bicubic/{name}" for name in measured_fields(Quality))]


def _flat(content: Mapping[str, Any]) -> dict[str, float | None]:
    flat: dict[str, float | None] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            flat |= {f"{key}/{name}": inner for name, inner in _flat(value).items()}
        elif isinstance(value, list):
            flat |= {f"{key}/{j}": inner for j, inner in enumerate(value)}
        else:
            flat[key] = value
    return flat


def _numbers(quality: Quality) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for name in measured_fields(type(quality)):
        value = getattr(quality, name)
        if isinstance(value, tuple):
            content[name] = list(value)
        elif value is not None:
            content[name] = _finite(value)
    if quality.metrics:
        content["metrics"] = {name: _finite(value) for name, value in quality.metrics.items()}
    return content


def _finite(value: float | None) -> float | None:
    """JSON knows neither infinity nor NaN."""
    return value if value is not None and math.isfinite(value) else None


def _read(kind: type[Quality], content: Mapping[str, Any]) -> dict[str, Any]:
    known = {f.name: f for f in fields(kind)}
    return {
        key: known[key].metadata.get("null") if value is None else value
        for key, value in content.items()
        if key in known
    }


def _means(measured: Sequence[Quality]) -> dict[str, Any]:
    names = [name for name in measured_fields(type(measured[0])) if name != "share"]
    own = measured[0].metrics
    return {
        **{name: _mean([getattr(m, name) for m in measured]) for name in names},
        "metrics": {name: _mean([m.metrics.get(name) for m in measured]) for name in own},
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return fmean(known) if len(known) == len(values) else None
