"""What of a Hydra job a training needs, for the stages of a job, and for notebooks and scripts."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import cast

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import setup_globals
from omegaconf import MISSING, DictConfig, OmegaConf, read_write

from pcsr_lightning import conf_dir
from pcsr_lightning.errors import ConfigError


@contextmanager
def output_dir(folder: Path) -> Iterator[None]:
    """Within it, ``${hydra:runtime.output_dir}`` is ``folder``, in a Hydra job or without one."""
    without_job = OmegaConf.create({"hydra": {"runtime": {"output_dir": ""}}})
    with nullcontext() if HydraConfig.initialized() else _job(without_job):
        runtime = HydraConfig.get().runtime
        missing = OmegaConf.is_missing(runtime, "output_dir")  # composed, but not run
        before = MISSING if missing else runtime.output_dir
        _set_output_dir(str(folder))
        try:
            yield
        finally:
            _set_output_dir(before)


@contextmanager
def job_of(cfg: DictConfig, run_dir: Path) -> Iterator[None]:
    """Within it, there is a Hydra job: the one that runs, or else one with the settings of ``cfg``.

    Args:
        cfg: composed with ``return_hydra_config=True`` where no job runs.
        run_dir: its output folder then.

    Raises:
        ConfigError: no job runs, and ``cfg`` lacks Hydra's own settings.
    """
    if HydraConfig.initialized():
        yield
        return
    if "hydra" not in cfg:
        raise ConfigError(
            "stage=all composes a config for each stage and needs Hydra's own settings: compose "
            "this one with return_hydra_config=True"
        )
    job = OmegaConf.masked_copy(copy.deepcopy(cfg), "hydra")
    with read_write(job.hydra):
        job.hydra.runtime.output_dir = str(run_dir)
    composing = GlobalHydra.instance().is_initialized()
    with _job(job), nullcontext() if composing else _composing():
        yield


@contextmanager
def _composing() -> Iterator[None]:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield


@contextmanager
def _job(settings: DictConfig) -> Iterator[None]:
    setup_globals()  # registers ${hydra:...}
    HydraConfig.instance().cfg = settings  # type: ignore[assignment]
    try:
        yield
    finally:
        HydraConfig.instance().cfg = None


def _set_output_dir(folder: str) -> None:
    node = OmegaConf.select(cast(DictConfig, HydraConfig.get()), "runtime")
    with read_write(node):
        node.output_dir = folder
