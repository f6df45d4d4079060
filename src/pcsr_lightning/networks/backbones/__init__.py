"""The backbones, by name."""

from __future__ import annotations

import inspect
from typing import Any

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.networks.backbones.base import Backbone
from pcsr_lightning.networks.backbones.bsrn import BSRN
from pcsr_lightning.networks.backbones.carn import CARN
from pcsr_lightning.networks.backbones.fsrcnn import FSRCNN
from pcsr_lightning.networks.backbones.srresnet import SRResNet

BACKBONES: dict[str, type[Backbone]] = {cls.name: cls for cls in (FSRCNN, CARN, SRResNet, BSRN)}


def build_backbone(name: str, **args: Any) -> Backbone:
    """The feature extractor called ``name`` with its constructor's ``args``.

    Raises:
        ConfigError: no such backbone, or an argument it does not take.
    """
    if name not in BACKBONES:
        raise ConfigError(f"no backbone is called {name!r}; there are {', '.join(BACKBONES)}")
    takes = list(inspect.signature(BACKBONES[name]).parameters)
    unknown = sorted(set(args) - set(takes))
    if unknown:
        raise ConfigError(f"backbone {name} takes {', '.join(takes)}, not {', '.join(unknown)}")
    return BACKBONES[name](**args)


__all__ = ["BACKBONES", "BSRN", "CARN", "FSRCNN", "Backbone", "SRResNet", "build_backbone"]
