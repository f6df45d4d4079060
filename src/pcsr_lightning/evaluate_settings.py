"""What ``conf/evaluate.yaml`` may hold: its keys, types and ranges."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation.metrics import check_lpips
from pcsr_lightning.evaluation.pairs import Protocol, check_whole_scale, scale_pair
from pcsr_lightning.evaluation.patches import Layout
from pcsr_lightning.evaluation.target import check_target
from pcsr_lightning.inference import Routing


@dataclass
class DataSettings:
    root: str


@dataclass
class RoutingSettings:
    mode: str
    k: float
    cost: str
    refine: bool
    budget: float | None


@dataclass
class EvaluateSettings:
    """``conf/evaluate.yaml`` with its types."""

    model: str
    data: DataSettings
    scale: Any  # a number or two
    routing: RoutingSettings
    protocol: str
    patch_size: int | None
    target_psnr: float | None
    lpips: bool
    published: bool
    per_image: bool
    save_images: bool
    device: str
    output: str
    threads: int | None
    sweep: str | None
    sweep_values: list[float]
    debug: bool = field(default=False)

    def check(self) -> None:
        """Ranges and choices, which types cannot say.

        Raises:
            ConfigError: names the first setting that cannot be used.
        """
        scale = scale_pair(self.scale)
        self.chosen_routing()
        if self.protocol not in list(Protocol):
            *names, last = Protocol
            raise ConfigError(f"protocol={self.protocol}: must be {', '.join(names)} or {last}")
        check_whole_scale(Protocol(self.protocol), scale)
        Layout.of(Protocol(self.protocol), self.patch_size)
        check_target(None, self.chosen_routing(), self.target_psnr)
        self.check_sweep()
        if self.lpips:
            check_lpips()
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads={self.threads}: must be at least 1, or null")
        root = Path(self.data.root).expanduser()
        if not root.is_dir():
            reason = "is not a folder" if root.exists() else "no such folder"
            raise ConfigError(f"data.root={self.data.root}: {reason}; name a folder of pictures")
        self.chosen_device()

    def check_sweep(self) -> None:
        """Refuses what a sweep cannot do.

        Raises:
            ConfigError: names the setting that it excludes.
        """
        if self.sweep is None:
            return
        if self.sweep != "k":
            raise ConfigError(f"sweep={self.sweep}: must be k, or null for a single routing")
        if not self.sweep_values:
            raise ConfigError("sweep_values is empty: give values of k, such as [-1,0,0.5,1,2]")
        if self.routing.mode != "k":
            raise ConfigError(f"sweep=k: routing.mode must be k, not {self.routing.mode}")
        others = {
            "target_psnr": self.target_psnr is not None,
            "lpips": self.lpips,
            "per_image": self.per_image,
            "save_images": self.save_images,
        }
        for key, given in others.items():
            if given:
                raise ConfigError(
                    f"sweep=k measures PSNR and cost alone: leave {key} out, or evaluate one value"
                )

    def chosen_routing(self) -> Routing:
        """``routing.*`` as the library takes it."""
        r = self.routing
        try:
            return Routing(r.mode, r.k, r.cost, r.refine, r.budget)
        except ConfigError as error:
            raise ConfigError(f"routing: {error}") from None

    def chosen_device(self) -> torch.device:
        """``device``; ``auto`` is CUDA where there is one.

        Raises:
            ConfigError: neither ``auto`` nor a CPU or CUDA device that is there.
        """
        count = torch.cuda.device_count()
        if self.device == "auto":
            return torch.device("cuda" if count else "cpu")
        if self.device == "cpu":
            return torch.device("cpu")
        cuda = re.fullmatch(r"cuda(?::(\d+))?", self.device)
        if cuda is None:
            raise ConfigError(f"device={self.device}: must be auto, cpu, cuda or cuda:NUMBER")
        if int(cuda[1] or 0) >= count:
            raise ConfigError(f"device={self.device}: {count} CUDA devices are to be seen here")
        return torch.device(self.device)
