"""The settings of an evaluation: keys, types and ranges of ``conf/evaluate.yaml``."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from pcsr_lightning.distributed import ALONE, ProcessGroup
from pcsr_lightning.errors import ConfigError, check_path
from pcsr_lightning.evaluation.metrics import check_lpips
from pcsr_lightning.evaluation.oracle import check_oracle
from pcsr_lightning.evaluation.pairs import Protocol, check_integer_scale, scale_pair
from pcsr_lightning.evaluation.patches import Layout
from pcsr_lightning.evaluation.picture_metrics import build_metrics
from pcsr_lightning.evaluation.target import check_target
from pcsr_lightning.routing import RULES, RoutingConfig

_log = logging.getLogger(__name__)


@dataclass
class DataSettings:
    root: str
    name: str | None = None


@dataclass
class EvaluationConfig:
    """The keys of ``conf/evaluate.yaml`` with their types; the file explains them."""

    model: str
    data: DataSettings
    scale: Any  # a number or two
    routing: dict[str, Any]
    protocol: str
    patch_size: int | None
    target_psnr: float | None
    lpips: bool
    published: bool
    per_image: bool
    save_images: bool
    device: str
    devices: int
    output: str
    threads: int | None
    sweep: str | None
    sweep_values: list[float]
    reference: str | None = None
    oracle: bool = False
    metrics: dict[str, Any] | None = None
    backbones: list[str] = field(default_factory=list)
    logger: dict[str, Any] = field(default_factory=dict)  # by name
    objective: Any = "psnr"  # a name or several
    debug: bool = field(default=False)

    @classmethod
    def of(cls, cfg: DictConfig) -> EvaluationConfig:
        """A composed config with every key and type checked.

        Raises:
            ConfigError: names the first key that is unknown, missing or of the wrong type.
        """
        own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
        try:
            config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), own))
        except (ConfigKeyError, ConfigAttributeError) as error:
            raise ConfigError(f"{error.full_key}: there is no such setting") from None
        except OmegaConfBaseException as error:
            reason = str(error.msg or error).splitlines()[0]
            raise ConfigError(f"{error.full_key}: {reason}") from None
        assert isinstance(config, cls)
        return config

    def check(self, processes: ProcessGroup = ALONE) -> None:
        """Ranges and choices, which types cannot say.

        Args:
            processes: that were started from outside.

        Raises:
            ConfigError: names the first setting that cannot be used.
        """
        check_path("model", self.model, "NAME_OR_FILE")
        check_path("data.root", self.data.root, "DIR")
        check_path("output", self.output, "DIR")
        scale, routing = self.scale_pair, self.chosen_routing
        check_integer_scale(self.chosen_protocol, scale)
        Layout.of(self.chosen_protocol, self.patch_size)
        check_target(None, routing, self.target_psnr)
        self.check_sweep()
        if self.oracle:
            check_oracle(self.chosen_protocol)
        if self.lpips:
            check_lpips()
        build_metrics(self.metrics)
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads={self.threads}: must be at least 1, or null")
        if not self.folder.is_dir():
            reason = "is not a folder" if self.folder.exists() else "no such folder"
            raise ConfigError(f"data.root={self.data.root}: {reason}; name a folder of pictures")
        self.check_processes(processes)
        self.chosen_devices(processes)

    @property
    def folder(self) -> Path:
        """Of the pictures."""
        return Path(self.data.root).expanduser()

    @property
    def data_name(self) -> str:
        """Of the set of pictures: as given, or its folder's."""
        return self.data.name or self.folder.resolve().name

    @property
    def scale_pair(self) -> tuple[float, float]:
        """(vertical, horizontal)."""
        return scale_pair(self.scale)

    @property
    def chosen_protocol(self) -> Protocol:
        """Which pixels count."""
        if self.protocol not in list(Protocol):
            *names, last = Protocol
            raise ConfigError(f"protocol={self.protocol}: must be {', '.join(names)} or {last}")
        return Protocol(self.protocol)

    def check_processes(self, processes: ProcessGroup) -> None:
        """Refuses what several processes cannot share.

        Raises:
            ConfigError: names the setting.
        """
        if self.devices < 1:
            raise ConfigError(f"devices={self.devices}: must be at least 1")
        if processes.size > 1 and self.devices not in (1, processes.local_size):
            raise ConfigError(
                f"devices={self.devices}: {processes.local_size} processes were started from "
                "outside on this machine, by torchrun or srun; leave devices out"
            )
        if self.target_psnr is not None and max(self.devices, processes.size) > 1:
            raise ConfigError(
                f"target_psnr={self.target_psnr:g}: one process has to see all pictures to find "
                "k; find it with devices=1, then give routing.k on several"
            )

    def check_sweep(self) -> None:
        """Refuses what a sweep cannot do.

        Raises:
            ConfigError: names the setting that it excludes.
        """
        if self.sweep is None:
            return
        sweepable = [name for name, rule in RULES.items() if rule.parameter is not None]
        if self.sweep not in sweepable:
            raise ConfigError(
                f"sweep={self.sweep}: must be {', '.join(sweepable)}, or null for a single routing"
            )
        if not self.sweep_values:
            raise ConfigError(
                f"sweep_values is empty: give values of {self.sweep}, such as [-1,0,0.5,1,2] of k"
            )
        mode = self.routing["mode"]
        if mode not in (None, self.sweep):
            raise ConfigError(f"sweep={self.sweep}: routing.mode must be {self.sweep}, not {mode}")
        others = {
            "target_psnr": self.target_psnr is not None,
            "lpips": self.lpips,
            "metrics": self.metrics,
            "per_image": self.per_image,
            "save_images": self.save_images,
        }
        for key, given in others.items():
            if given:
                raise ConfigError(
                    f"sweep={self.sweep} measures PSNR and cost alone: leave {key} out, or "
                    "evaluate one value"
                )

    @cached_property
    def chosen_routing(self) -> RoutingConfig:
        """``routing.*`` as the library takes it."""
        given, mode = self.routing, str(self.routing["mode"])
        if mode.isdigit():
            _log.warning("routing.mode=%s is deprecated: use routing.fixed_class=%s", mode, mode)
            given = {**given, "mode": "fixed_class", "fixed_class": int(mode)}
        try:
            return RoutingConfig(**given)
        except ConfigError as error:
            raise ConfigError(f"routing: {error}") from None

    def sweep_routings(self, routing: RoutingConfig) -> tuple[RoutingConfig, ...]:
        """``routing`` with each of the values that ``sweep`` names."""
        cost, refine, rule = routing.cost, routing.refine, str(self.sweep)
        values: list[dict[str, Any]] = [{rule: value} for value in self.sweep_values]
        return tuple(RoutingConfig(rule, cost=cost, refine=refine, **value) for value in values)

    def chosen_devices(self, processes: ProcessGroup = ALONE) -> list[torch.device]:
        """A device for each process to start, or the one of this process if none is to be started.

        Raises:
            ConfigError: there are not so many.
        """
        device, count = self.chosen_device(), torch.cuda.device_count()
        several = max(self.devices, processes.size) > 1
        if several and device.index is not None:
            raise ConfigError(f"device={self.device} names one device: for several use device=cuda")
        if processes.size > 1:
            # Where each process was given a device of its own, that is all it sees.
            own = processes.local_rank % max(1, count)
            return [torch.device("cuda", own) if device.type == "cuda" else device]
        if self.devices == 1:
            return [device]
        if device.type == "cpu":
            return [device] * self.devices
        if self.devices > count:
            raise ConfigError(f"devices={self.devices}: {count} CUDA devices are visible here")
        return [torch.device("cuda", i) for i in range(self.devices)]

    def chosen_device(self) -> torch.device:
        """See :func:`find_device`."""
        return find_device(self.device)


def find_device(name: str) -> torch.device:
    """The device of that name; ``auto`` is CUDA where there is one.

    Raises:
        ConfigError: neither ``auto`` nor a CPU or CUDA device that is there.
    """
    count = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda" if count else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    cuda = re.fullmatch(r"cuda(?::(\d+))?", name)
    if cuda is None:
        raise ConfigError(f"device={name}: must be auto, cpu, cuda or cuda:NUMBER")
    if int(cuda[1] or 0) >= count:
        raise ConfigError(f"device={name}: {count} CUDA devices are visible here")
    return torch.device(name)
