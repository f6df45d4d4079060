"""Patches through a network that chooses a sub-network for each, and what that costs.

Legend: N patches, p P side of a patch in LR and HR pixels, M classes.
"""

from __future__ import annotations

import json
from typing import NamedTuple

import torch
from torch import Tensor

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.inference.execution import Execution
from pcsr_lightning.inference.flops import Flops, original_flops
from pcsr_lightning.inference.result import UpscaleResult
from pcsr_lightning.networks import ClassSR, PatchRouted, count_macs, evaluating
from pcsr_lightning.networks.patch_routed import PATCH, at_width
from pcsr_lightning.routing import RoutingConfig
from pcsr_lightning.routing.by_k import assign_by_k
from pcsr_lightning.routing.cost import class_costs


class PatchFlops(NamedTuple):
    """Costs per LR pixel: of each class, heaviest first, and of choosing one."""

    classes: tuple[Flops, ...]
    choice: Flops


_KNOWN: dict[str, PatchFlops] = {}


def patch_flops(model: PatchRouted) -> PatchFlops:
    """What a model's parts cost, counted as original models are, once per architecture."""
    key = json.dumps(model.config(), sort_keys=True)
    if key not in _KNOWN:
        networks = [model.widest, *(at_width(model.widest, w) for w in model.widths[1:])]
        classes = [original_flops(network, 1) for network in networks]
        classes += [Flops(0.0, 0.0)] * (model.num_classes - len(classes))
        macs = 0.0
        if isinstance(model, ClassSR):
            probe = model.mean.new_zeros(1, 3, PATCH, PATCH)
            with evaluating(model), torch.no_grad():
                macs = count_macs(model.classifier, probe) / PATCH**2
        _KNOWN[key] = PatchFlops(tuple(classes), Flops(macs / 1e9, 2 * macs / 1e9))
    return _KNOWN[key]


def check_patch_routing(model: PatchRouted, routing: RoutingConfig) -> None:
    """Refuses routings that are not for patches.

    Raises:
        ConfigError: another rule than ``k`` and ``fixed_class``, or a class that there is not.
    """
    name = type(model).__name__
    if routing.mode not in ("k", "fixed_class"):
        raise ConfigError(
            f"routing.mode={routing.mode}: {name} routes patches by k or fixed_class alone"
        )
    if routing.fixed_class is not None and routing.fixed_class >= model.num_classes:
        raise ConfigError(
            f"routing.fixed_class={routing.fixed_class}: this {name} model has classes 0 (the "
            f"heaviest) to {model.num_classes - 1}"
        )


def assign_patches(model: PatchRouted, lr_N3pp: Tensor, routing: RoutingConfig) -> Tensor:
    """The class of each patch, ``(N,)``, uint8.

    ClassSR takes the most probable class; ``k`` divides probabilities by costs as Eq. 10 does,
    which is ours. ARM takes the class with the highest ``PSNR - k * cost``, the PSNR from its
    table and the cost as a share of the widest sub-network's: its ``eta`` is ``1 / k``.
    """
    check_patch_routing(model, routing)
    if routing.fixed_class is not None:
        fill, device = routing.fixed_class, lr_N3pp.device
        return torch.full((len(lr_N3pp),), fill, dtype=torch.uint8, device=device)
    k = float(routing.value or 0.0)
    scores_NM = model.scores(lr_N3pp)
    costs = [flops.gflops_published for flops in patch_flops(model).classes]
    if isinstance(model, ClassSR):
        costs_M = class_costs(costs, routing.cost)
        return assign_by_k(scores_NM[..., None, None], costs_M, k)[:, 0, 0]
    shares_M = scores_NM.new_tensor(costs) / costs[0]
    return (scores_NM - k * shares_M).argmax(dim=1).to(torch.uint8)


def upscale_each(model: PatchRouted, lr_N3pp: Tensor, routing: RoutingConfig) -> UpscaleResult:
    """Patches, each upscaled as a picture of its own by the sub-network of its class.

    Args:
        model: on the patches' device.
        lr_N3pp: in [0, 1].
        routing: by ``k`` or ``fixed_class``, see :func:`assign_patches`.

    Raises:
        ConfigError: another routing.
    """
    P, Q = (n * model.scale for n in lr_N3pp.shape[-2:])
    pixels, parts = lr_N3pp[0, 0].numel(), patch_flops(model)
    with torch.inference_mode(), Execution().arithmetic(lr_N3pp.device.type):
        class_N = assign_patches(model, lr_N3pp, routing)
        image_N3PQ = lr_N3pp.new_empty(len(lr_N3pp), 3, P, Q)
        for j in range(model.num_classes):
            chosen = (class_N == j).nonzero()[:, 0]
            if len(chosen):
                image_N3PQ[chosen] = model.run_class(j, lr_N3pp[chosen]).clamp_(0, 1)
    counts = torch.bincount(class_N, minlength=model.num_classes).tolist()
    times = [
        *(n * pixels for n in counts),
        0 if routing.mode == "fixed_class" else class_N.numel() * pixels,
    ]
    costs = [*parts.classes, parts.choice]
    flops = Flops(
        sum(n * cost.gmacs for n, cost in zip(times, costs, strict=True)),
        sum(n * cost.gflops_published for n, cost in zip(times, costs, strict=True)),
    )
    classes_NPQ = class_N[:, None, None].expand(-1, P, Q)
    shares = tuple(n / len(class_N) for n in counts)
    return UpscaleResult(image_N3PQ, classes_NPQ, flops, shares)
