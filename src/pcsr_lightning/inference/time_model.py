"""How long a model takes on this machine: what was measured, and how it is kept.

Legend: M classes, heaviest first.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import platform
import statistics
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from pcsr_lightning.atomic_io import atomic_write, default_cache_folder
from pcsr_lightning.inference.execution import Execution
from pcsr_lightning.inference.features import uses_numba
from pcsr_lightning.networks import PCSR, has_bias_shifts
from pcsr_lightning.routing.cost import PictureSeconds

_log = logging.getLogger(__name__)

REMEMBERED = 5
"""Pictures whose times say whether the machine has become slower or faster."""
MOST_DRIFT = 1.4
"""Beyond this factor a model is measured again."""
LIKE = 0.15
"""Fractional scales that differ by less share what was measured."""


@dataclass(frozen=True)
class TimeModel:
    """What pictures take, in seconds.

    Attributes:
        model: its backbone, its number of classes, and whether it is one that denoises.
        device: its name.
        precision: of the arithmetic, and whether kernels of numba run.
        threads: of the processor.
        scale: vertical and horizontal.
        overhead: of any picture.
        backbone: of an LR pixel.
        classifier: of an HR pixel.
        classes_M: of an HR pixel of each class: its upsampler, and all that is done to every pixel.
        drift: what the last pictures took, as a share of what was expected of them.
    """

    model: str
    device: str
    precision: str
    threads: int
    scale: tuple[float, float]
    overhead: float
    backbone: float
    classifier: float
    classes_M: tuple[float, ...]
    drift: tuple[float, ...] = ()

    @classmethod
    def read(cls, entry: dict[str, Any]) -> TimeModel:
        """From JSON.

        Raises:
            TypeError, ValueError: it is none.
        """
        lists = {name: tuple(map(float, entry[name])) for name in ("classes_M", "drift")}
        sy, sx = map(float, entry["scale"])
        return cls(**{**entry, **lists, "scale": (sy, sx)})

    @property
    def factor(self) -> float:
        """How much slower than measured the machine is now; a single picture does not count."""
        return statistics.median((1.0, 1.0, *self.drift)[-REMEMBERED:])

    @property
    def outdated(self) -> bool:
        """Whether it should be measured again."""
        drifted = not 1 / MOST_DRIFT < self.factor < MOST_DRIFT
        return drifted and len(self.drift) > REMEMBERED // 2

    def of_picture(
        self, lr_pixels: int, pixels: int, backbones: int = 1, classifiers: int = 1
    ) -> PictureSeconds:
        """What a picture takes.

        Args:
            lr_pixels: ``h * w``.
            pixels: ``H * W``.
            backbones: how often the backbone runs.
            classifiers: how often the classifier runs.
        """
        fixed = self.overhead + backbones * lr_pixels * self.backbone
        fixed += classifiers * pixels * self.classifier
        return PictureSeconds(
            self.factor * fixed, tuple(self.factor * each for each in self.classes_M)
        )

    def observed(self, share: float) -> TimeModel:
        """With another picture, which took that share of what was predicted."""
        return replace(self, drift=(*self.drift, share * self.factor)[-REMEMBERED:])

    def serves(self, scale: tuple[float, float]) -> bool:
        """Whether it was measured at a scale like this."""
        whole = [all(s == round(s) for s in each) for each in (scale, self.scale)]
        if all(whole):
            return scale == self.scale
        return not any(whole) and abs(math.log(math.prod(scale) / math.prod(self.scale))) < LIKE


class TimeModels:
    """Those of one model, device, precision and number of threads, in a file of the cache.

    Args:
        model: on its device.
        execution: its precision and its kernels count.
        lr_pixels: of a picture: large ones may run in other kernels.

    Attributes:
        execution: with the kernels decided.
    """

    def __init__(self, model: PCSR, execution: Execution, lr_pixels: int = 0) -> None:
        device, threads = model.mean.device, torch.get_num_threads()
        numba = uses_numba(model.backbone, execution, lr_pixels)
        self.execution = replace(execution, planar=numba)
        self.about: dict[str, Any] = {
            "model": _described(model),
            "device": device_name(device),
            "precision": f"{execution.precision}{', numba' if numba else ''}",
            "threads": threads,
        }
        dtype = str(execution.dtype(model))
        exactly = [model.config(), self.about, dtype, str(device), torch.__version__]
        digest = hashlib.sha256(json.dumps(exactly, sort_keys=True).encode()).hexdigest()
        self._path = cache_folder() / f"{digest[:16]}.json"

    def find(self, scale: tuple[float, float]) -> TimeModel | None:
        """What is known at such a scale, if it has not become outdated."""
        for known in self._all():
            if known.serves(scale) and not known.outdated:
                return known
        return None

    def keep(self, measured: TimeModel, write: bool = True) -> None:
        """Replaces what is known at that scale, in the cache or in this process alone."""
        others = [each for each in self._all() if not each.serves(measured.scale)]
        _KNOWN[self._path] = [measured, *others]
        if not write:
            return
        text = json.dumps([asdict(each) for each in _KNOWN[self._path]], indent=1)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(self._path, text.encode())
        except OSError as error:  # this process knows it all the same
            _log.info("%s: times cannot be kept (%s)", self._path, error.strerror)

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """One process at a time measures: two would disturb each other."""
        lock = FileLock(cache_folder() / "measuring.lock")
        try:
            cache_folder().mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except OSError as error:
            _log.info("%s: no lock (%s)", lock.lock_file, error.strerror)
        # Another may have measured meanwhile.
        _KNOWN[self._path] = _read(self._path) or self._all()
        try:
            yield
        finally:
            lock.release()

    def _all(self) -> list[TimeModel]:
        if self._path not in _KNOWN:
            _KNOWN[self._path] = _read(self._path)
        return _KNOWN[self._path]


# The cache is read once, and serves where it cannot be written.
_KNOWN: dict[Path, list[TimeModel]] = {}


def cache_folder() -> Path:
    """Where times are kept."""
    return default_cache_folder() / "times"


def kept_times() -> list[TimeModel]:
    """All that was measured on this machine and is kept."""
    return [each for path in sorted(cache_folder().glob("*.json")) for each in _read(path)]


def device_name(device: torch.device) -> str:
    """The processor's or GPU's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _described(model: PCSR) -> str:
    classes = "1 class" if model.num_classes == 1 else f"{model.num_classes} classes"
    return f"{model.backbone.name}, {classes}{', denoising' if has_bias_shifts(model) else ''}"


def _read(path: Path) -> list[TimeModel]:
    try:
        return [TimeModel.read(entry) for entry in json.loads(path.read_bytes())]
    except (OSError, ValueError, TypeError, LookupError):  # none, or not ours: it is measured again
        return []
