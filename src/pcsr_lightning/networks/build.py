"""Builds networks from configs in plain values, and gives the default configs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.networks.arm import ARM
from pcsr_lightning.networks.backbones import backbone_class, build_backbone, class_config
from pcsr_lightning.networks.bias_shifts import add_bias_shifts
from pcsr_lightning.networks.classsr import ClassSR
from pcsr_lightning.networks.original import Original
from pcsr_lightning.networks.patch_routed import PatchRouted
from pcsr_lightning.networks.pcsr import PCSR, check_widths
from pcsr_lightning.networks.pixel_mlp import BilinearOnly, PixelMLP

AnyNetwork = PCSR | Original | PatchRouted
"""What :func:`build_network` builds."""
PATCH_ROUTED: dict[str, type[ClassSR | ARM]] = {"classsr": ClassSR, "arm": ARM}
"""The networks that route patches, by their kind."""


def default_config(backbone: str, num_classes: int = 2, original: bool = False) -> dict[str, Any]:
    """The default config of a network on a backbone; for the built-in ones the paper's.

    Args:
        backbone: ``fsrcnn``, ``carn``, ``srresnet``, ``bsrn``, or one registered since.
        num_classes: ``M``. 1 gives the first stage's network, without classifier.
        original: the original x4 model instead of PCSR.

    Raises:
        ConfigError: an unknown backbone or fewer than one class.
    """
    cls = backbone_class(backbone)
    sizes, mean = cls.sizes, list(cls.sizes.mean)
    if original:
        network = class_config(cls, sizes.original or {})
        return {"kind": "original", "backbone": network, "scale": 4, "mean": mean}
    channels = build_backbone(backbone).out_channels
    widths = upsampler_widths(channels, sizes.heavy, sizes.light, num_classes)
    return {
        "kind": "pcsr",
        "backbone": class_config(cls, {}),
        "upsamplers": [list(w) for w in widths],
        "classifier": None if num_classes == 1 else list(sizes.classifier),
        "mean": mean,
    }


def patch_routed_config(kind: str, backbone: str) -> dict[str, Any]:
    """The published config of a network that routes patches, ``classsr`` or ``arm``.

    Raises:
        ConfigError: an unknown backbone.
    """
    widths = list(backbone_class(backbone).sizes.widths)
    return {**default_config(backbone, original=True), "kind": kind, "widths": widths}


def upsampler_widths(
    channels: int, heavy: Sequence[int], light: Sequence[int], num_classes: int
) -> list[tuple[int, ...]]:
    """Hidden widths for ``M`` upsamplers, heaviest first, whose costs fall in equal steps.

    The middle ones are as deep as the heavy one and of constant width. For CARN and three classes
    this gives 181K parameters in all, as Table 4 says.

    Raises:
        ConfigError: fewer than one class.
    """
    if num_classes < 1:
        raise ConfigError(f"num_classes must be at least 1, not {num_classes}")

    def macs(hidden: Sequence[int]) -> int:
        widths = [channels + 4, *hidden, 3]
        return sum(a * b for a, b in itertools.pairwise(widths))

    top, bottom = macs(heavy), macs(light)
    widths = [tuple(heavy)]
    for j in range(1, num_classes - 1):
        target = top + (bottom - top) * j / (num_classes - 1)
        width = min(range(1, max(heavy) + 1), key=lambda c: abs(macs([c] * len(heavy)) - target))
        widths.append((width,) * len(heavy))
    return widths + ([tuple(light)] if num_classes > 1 else [])


def build_network(config: Mapping[str, Any]) -> AnyNetwork:
    """The network that ``config`` (what the network's ``config()`` returns) describes.

    Raises:
        ConfigError: a key is missing, unknown or does not fit.
    """
    kind = config.get("kind")
    original = {"kind", "backbone", "scale", "mean"}
    wanted = {
        "pcsr": {"kind", "backbone", "upsamplers", "classifier", "mean"},  # and perhaps denoise
        "original": original,
        **dict.fromkeys(PATCH_ROUTED, original | {"widths"}),
    }
    if kind not in wanted:
        *names, last = map(repr, wanted)
        raise ConfigError(f"a network's kind is {', '.join(names)} or {last}, not {kind!r}")
    optional = {"denoise"} if kind == "pcsr" else set()
    odd = sorted((set(config) ^ wanted[kind]) - optional)
    if odd:
        raise ConfigError(f"keys missing or unknown in the network's config: {', '.join(odd)}")
    named = dict(config["backbone"])
    # Found by its name alone. A class named by the config serves error messages; it is never
    # imported because a file names it.
    backbone_class(named.get("name"), noted=named.pop("class", None))
    backbone = build_backbone(**named)
    if kind != "pcsr":
        original_network = Original(backbone, config["scale"], config["mean"])
        if kind == "original":
            return original_network
        return PATCH_ROUTED[kind](original_network, config["widths"])
    channels = backbone.out_channels
    check_widths(config["upsamplers"])
    upsamplers = [
        PixelMLP(channels, hidden, 3) if hidden else BilinearOnly(channels)
        for hidden in config["upsamplers"]
    ]
    hidden = config["classifier"]
    classifier = None if hidden is None else PixelMLP(channels, hidden, len(upsamplers))
    network = PCSR(backbone, upsamplers, classifier, config["mean"])
    if config.get("denoise"):
        add_bias_shifts(network)
    return network
