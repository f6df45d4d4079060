"""Searches over settings: what a job returns to an optimising sweeper.

Hydra's Optuna sweeper takes a float for one objective and a tuple for several; a text, which is no
number, counts as a failed trial, and the sweeper shows it.
"""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from pcsr_lightning.atomic_io import atomic_write
from pcsr_lightning.errors import ConfigError, PCSRError
from pcsr_lightning.evaluation.report import write_json

log = logging.getLogger(__name__)

FAILED = "failed.json"
"""In the folder of a job of a multirun that ended without a result: what happened."""
OBJECTIVES = "objectives.json"
"""In the folder of a trial: its overrides, and what it returned to the sweeper."""
MAXIMIZE, MINIMIZE = "maximize", "minimize"
_BETTER = {
    MAXIMIZE: ("psnr", "psnr_y", "ssim", "ssim_y"),
    MINIMIZE: ("gmacs", "gflops_published", "lpips", "seconds", "loss"),
}


Returned = float | tuple[float, ...] | str | None
"""What a job returns to Hydra."""


@dataclass(frozen=True)
class Objectives:
    """What a search optimises.

    Attributes:
        names: of numbers that a job measures.
    """

    names: tuple[str, ...]

    @classmethod
    def of(cls, objective: Any) -> Objectives:
        """``objective`` of a config: a name, or a list of names.

        Raises:
            ConfigError: it is neither.
        """
        plain = OmegaConf.to_container(objective) if OmegaConf.is_config(objective) else objective
        given = plain if isinstance(plain, list) else [plain]
        names = tuple(name for name in given if isinstance(name, str) and name)
        if not names or len(names) < len(given):
            raise ConfigError(
                f"objective={plain}: expected the name of a measured number, or a list of names"
            )
        return cls(names)

    def check(self, known: Sequence[str]) -> None:
        """Refuses an objective that is not among the ``known`` numbers.

        Raises:
            ConfigError: names it, and all that are measured.
        """
        for name in self.names:
            if name not in known:
                raise ConfigError(
                    f"objective={name}: this is not measured; there are {', '.join(known)}"
                )

    def check_directions(self, sweeper: Mapping[str, Any]) -> None:
        """Refuses directions of a sweeper that do not fit, such as a PSNR to be minimised.

        Args:
            sweeper: ``hydra.sweeper`` of a config.

        Raises:
            ConfigError: with the setting to write.
        """
        given = directions(sweeper)
        if given is None:
            return
        wanted = [_direction(name) or MAXIMIZE for name in self.names]
        right = f"[{','.join(wanted)}]" if len(wanted) > 1 else wanted[0]
        if len(given) != len(self.names):
            raise ConfigError(
                f"objective has {len(self.names)} names and hydra.sweeper.direction "
                f"{len(given)}: write hydra.sweeper.direction={right}"
            )
        for name, direction in zip(self.names, given, strict=True):
            if _direction(name) not in (None, direction):
                raise ConfigError(
                    f"hydra.sweeper.direction would {direction} {name}: write "
                    f"hydra.sweeper.direction={right}"
                )


def directions(sweeper: Mapping[str, Any]) -> list[str] | None:
    """``maximize`` or ``minimize`` for each objective; ``None`` of a sweeper that has none."""
    given = sweeper.get("direction")
    if given is None:
        return None
    each = [given] if isinstance(given, str) or not isinstance(given, Sequence) else given
    return [str(getattr(one, "name", one)).lower() for one in each]


def returned(
    objectives: Objectives, measured: Mapping[str, float | None], run_dir: Path
) -> float | tuple[float, ...] | None:
    """What a job returns; kept in ``run_dir`` for the table of trials if a sweeper optimises it.

    ``None`` where nobody does, and an objective is no finite number.

    Raises:
        ConfigError: an objective was not measured, or is optimised and no finite number.
    """
    job = HydraConfig.get()
    optimised = job.mode == RunMode.MULTIRUN and directions(job.sweeper) is not None
    if optimised or objectives.names not in (("psnr",), ("val/psnr",)):  # the defaults
        objectives.check(list(measured))
    numbers = [measured.get(name) for name in objectives.names]
    values = tuple(x for x in numbers if x is not None and math.isfinite(x))
    if len(values) < len(numbers):
        if not optimised:
            return None
        raise ConfigError(f"objective={','.join(objectives.names)}: not all are finite numbers")
    if optimised:
        content = {
            "overrides": list(job.overrides.task),
            "objectives": dict(zip(objectives.names, values, strict=True)),
        }
        run_dir.mkdir(parents=True, exist_ok=True)
        write_json(content, run_dir / OBJECTIVES)
    return values if len(values) > 1 else values[0]


@contextmanager
def failure_kept(run_dir: Path, abrupt: bool = False) -> Iterator[list[str]]:
    """Lets the other jobs of a multirun run where one fails, and keeps what happened.

    Otherwise the first error would end the process, and with it the sweep.

    Args:
        run_dir: of the job.
        abrupt: lets every error through, which ends the multirun.

    Yields:
        A list, which holds the error's text once there was one.
    """
    failures: list[str] = []
    try:
        yield failures
    except Exception as error:
        if abrupt:
            raise
        if not isinstance(error, PCSRError):
            log.exception("this job failed")
        failures.append(" ".join(str(error).split()) or type(error).__name__)
        content = {"overrides": list(HydraConfig.get().overrides.task), "error": failures[0]}
        run_dir.mkdir(parents=True, exist_ok=True)
        atomic_write(run_dir / FAILED, json.dumps(content, indent=2).encode())
        print(f"error: {failures[0]}", file=sys.stderr)


def _direction(name: str) -> str | None:
    last = name.rsplit("/", 1)[-1]
    return next((direction for direction, names in _BETTER.items() if last in names), None)
