"""Lightning's loggers: those of a training, and of evaluations one run a routing.

Lightning is imported only where a logger was chosen.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.settings.instantiation import called, errors_of_settings, instantiate

Loggers = Sequence[Any]
"""Lightning's loggers, of one run."""


@dataclass(frozen=True)
class RunLoggers:
    """Makes the loggers of each run of an evaluation or sweep.

    Attributes:
        settings: ``logger`` of the config: names of loggers, each with ``_target_`` and what that
            takes; null values are left out.
        config: the whole config in plain values.
        group: of runs to be compared in W&B, unless the settings name one.
        tags: of all runs in W&B, unless the settings name others.
    """

    settings: Mapping[str, Any]
    config: Mapping[str, Any]
    group: str | None = None
    tags: Sequence[str] = ()

    @contextmanager
    def run(self, name: str, job_type: str = "evaluation", **config: Any) -> Iterator[Loggers]:
        """The loggers, finished whatever happens; a run that raised something counts as failed.

        Args:
            name: of the run, unless the settings name it.
            job_type: ``evaluation``, or ``overview`` of several.
            config: what differs from the config at large.

        Raises:
            ConfigError: a logger does not take a setting, or cannot be reached.
        """
        of_wandb = {
            "name": name, "group": self.group, "tags": list(self.tags), "job_type": job_type,
        }  # fmt: skip
        settings = {key: self._in_own_folder(node, name) for key, node in self.settings.items()}
        with finished_runs(), errors_of_settings():
            loggers = make_loggers(settings, of_wandb)
            for logger in loggers:
                logger.log_hyperparams({**self.config, **config})
            try:
                yield loggers
            except BaseException:
                for logger in loggers:
                    logger.finalize("failed")
                raise
            for logger in loggers:
                logger.finalize("success")

    def _in_own_folder(self, node: Any, name: str) -> Any:
        """Settings with a folder for each run, of loggers that write into one."""
        if not isinstance(node, Mapping) or "version" not in node or is_wandb(node):
            return node
        return {**node, "version": f"{node['version']}/{plain_name(name)}"}


def make_loggers(settings: Mapping[str, Any], of_wandb: Mapping[str, Any]) -> list[Any]:
    """The loggers of a run, started.

    Args:
        settings: see :class:`RunLoggers`; a name with null is left out.
        of_wandb: arguments of a W&B run that the settings leave open.

    Raises:
        ConfigError: a logger does not take a setting, or cannot be reached.
    """
    loggers = []
    for name, node in settings.items():
        key = f"logger.{name}"
        if node is None:
            continue
        if not isinstance(node, Mapping):
            raise ConfigError(
                f"{key}={node}: expected a logger's settings, such as logger.wandb.{name}={node}"
            )
        given = {key: value for key, value in node.items() if value is not None}
        to_wandb = is_wandb(given)
        values = {**of_wandb, **given} if to_wandb else in_free_folder(given)
        try:
            logger = instantiate(values, key)
            called(getattr, key, logger, "experiment", None)  # W&B starts its run here
        except ConfigError as error:
            hint = f"; {key}.offline=true needs no network" if to_wandb else ""
            raise ConfigError(f"{error}{hint}") from error
        loggers.append(logger)
    return loggers


def in_free_folder(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """A CSV logger's settings with a folder not yet there.

    It would delete what an earlier run has logged there, which a resumed one continues.
    """
    if not str(values.get("_target_")).endswith("CSVLogger") or "version" not in values:
        return values
    folder, first = Path(values["save_dir"]) / values["name"], str(values["version"])
    version, count = first, 1
    while (folder / version).exists():
        count += 1
        version = f"{first}-{count}"
    return {**values, "version": version}


@contextmanager
def finished_runs() -> Iterator[None]:
    """Finishes the process's W&B run, if there is one: as failed where something was raised."""
    code = 1
    try:
        yield
        code = 0
    finally:
        wandb = sys.modules.get("wandb")  # imported by its logger alone
        if wandb is not None and wandb.run is not None:
            wandb.finish(code)


def is_wandb(logger: Any) -> bool:
    """Whether a logger, or a logger's settings, is W&B's."""
    name = logger.get("_target_") if isinstance(logger, Mapping) else type(logger).__name__
    return str(name).endswith("WandbLogger")


def wandb_logger(loggers: Loggers) -> Any:
    """W&B's among the loggers, or ``None``."""
    return next((logger for logger in loggers if is_wandb(logger)), None)


def group_name(folder: Path) -> str:
    """The group of the runs that a sweep's folder stands for."""
    return "-".join(folder.resolve().parts[-2:])


def plain_name(text: str) -> str:
    """A text as the name of a file or folder."""
    return re.sub(r"[^\w.=-]+", "_", text).strip("._")
