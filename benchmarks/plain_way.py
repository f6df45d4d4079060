"""The slow way to the same picture: PCSR and the original models as the published code runs them.

The benchmarks time the library against it, and a test holds the two together. Nothing is hoisted,
folded, cut into strips or laid out for the processor: the whole picture goes through the backbone
in PyTorch's default layout, every HR pixel gets coordinates of its own, and every MLP reads
features, offsets and cells side by side, 300,000 pixels at a time.

Legend: h w LR size, H W HR size, Q = H * W query pixels, N those of a block, D feature channels,
M classes, 0 the heaviest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.inference import output_size
from pcsr_lightning.inference.flops import model_macs
from pcsr_lightning.networks import PCSR, Original, PixelMLP, evaluating
from pcsr_lightning.networks.backbones.carn import Merge
from pcsr_lightning.routing import CostRule, RoutingConfig
from pcsr_lightning.routing.adm import assign_adaptive
from pcsr_lightning.routing.cost import class_costs
from pcsr_lightning.routing.refine import refine as refine_seams

BLOCK = 300_000
"""Query pixels that go through an MLP at once."""


class PlainResult(NamedTuple):
    """An enlarged picture ``(1, 3, H, W)`` in [0, 1], its classes ``(H, W)``, and their cost.

    ``gmacs`` are giga multiply-adds of the un-hoisted network, as the published tables count them
    (halved, since those count a multiplication and its addition as two).
    """

    image: Tensor
    assignment: Tensor
    gmacs: float


def plain_upscale(
    model: PCSR,
    image_13hw: Tensor,
    scale: float | Sequence[float] = 4,
    k: float = 0.0,
    adaptive: bool = False,
    *,
    classes_HW: Tensor | None = None,
    cost: CostRule | str = CostRule.PROPORTIONAL,
    refine: bool | None = None,
) -> PlainResult:
    """Enlarges one picture in the published way (PCSR, ECCV 2024, Sec. 3).

    Args:
        model: a trained PCSR with at least two classes.
        image_13hw: RGB in [0, 1].
        scale: as in ``pcsr_lightning.upscale``.
        k: the exponent of Eq. 10.
        adaptive: decide by ADM instead of ``k``.
        classes_HW: classes decided elsewhere. The classifier is run all the same, since a way that
            decides by itself has to run it.
        cost: how FLOPs become the costs of Eq. 9.
        refine: whether light pixels beside heavy ones are smoothed; ``None``: by the scale.

    Raises:
        ConfigError: more than one picture, or a model without a classifier.
    """
    if len(image_13hw) != 1:
        raise ConfigError(f"the plain way takes one picture at a time, not {len(image_13hw)}")
    if model.classifier is None:
        raise ConfigError("the plain way routes pixels: it needs a model of two classes or more")
    lr_size = (image_13hw.shape[-2], image_13hw.shape[-1])
    H, W = output_size(lr_size, scale)
    macs = model_macs(model).plain  # counted once per architecture
    with torch.inference_mode(), plain_layers(model):
        mean = model.mean[:, None, None]
        lr_13hw = image_13hw.contiguous() - mean
        feat_1Dhw = model.backbone(lr_13hw)
        coord_Q2, cell_Q2 = coordinates(H, W)
        prob_QM = _in_blocks(model.classifier, feat_1Dhw, coord_Q2, cell_Q2).softmax(dim=1)
        if classes_HW is not None:
            class_Q = classes_HW.flatten()
        elif adaptive:
            prob_1MHW = prob_QM.T.reshape(1, -1, H, W)
            class_Q = assign_adaptive(prob_1MHW.log()).flatten()
        else:
            costs_M = class_costs(macs.branches((H / lr_size[0], W / lr_size[1])), cost)
            class_Q = (prob_QM / costs_M.float() ** k).argmax(dim=1).to(torch.uint8)
        out_Q3 = torch.zeros_like(coord_Q2[:, :1]).repeat(1, 3)
        for j in range(model.num_classes):
            mine_Q = class_Q == j
            if bool(mine_Q.any()):
                out_Q3[mine_Q] = _in_blocks(
                    model.upsampler(j), feat_1Dhw, coord_Q2[mine_Q], cell_Q2[mine_Q]
                )
        out_Q3 += _look_up(lr_13hw, coord_Q2, "bilinear")
        sr_13HW = out_Q3.T.reshape(1, 3, H, W) + mean
        class_HW = class_Q.view(H, W)
        if RoutingConfig(refine=refine).refines((H / lr_size[0], W / lr_size[1])):
            sr_13HW = refine_seams(sr_13HW, class_HW[None], model.num_classes)
        sr_13HW = sr_13HW.clamp(0, 1)
    counts_M = torch.bincount(class_Q, minlength=model.num_classes).tolist()
    return PlainResult(sr_13HW, class_HW, macs.picture(lr_size, counts_M) / 1e9)


def plain_original(model: Original, image_B3hw: Tensor) -> Tensor:
    """The original network on whole pictures in the default layout: ``(B, 3, H, W)`` in [0, 1]."""
    with torch.inference_mode(), plain_layers(model):
        sr_B3HW: Tensor = model(image_B3hw.contiguous())
        return sr_B3HW.clamp(0, 1)


@contextmanager
def plain_layers(model: nn.Module) -> Iterator[None]:
    """Evaluation mode with CARN's batch norms as layers of their own, not folded."""
    merges = [module for module in model.modules() if isinstance(module, Merge)]
    with evaluating(model):
        try:
            for merge in merges:
                # On the module itself, where it hides the class's own way.
                vars(merge)["forward"] = partial(nn.Sequential.forward, merge)
            yield
        finally:
            for merge in merges:
                vars(merge).pop("forward", None)


def coordinates(H: int, W: int) -> tuple[Tensor, Tensor]:
    """Every HR pixel's centre ``(Q, 2)`` as (y, x) in [-1, 1], and its size ``(Q, 2)``."""
    rows_H = -1 + (2 * torch.arange(H) + 1) / H
    cols_W = -1 + (2 * torch.arange(W) + 1) / W
    coord_Q2 = torch.stack(torch.meshgrid(rows_H, cols_W, indexing="ij"), dim=-1).view(-1, 2)
    cell_Q2 = torch.ones_like(coord_Q2)
    cell_Q2[:, 0] *= 2 / H
    cell_Q2[:, 1] *= 2 / W
    return coord_Q2, cell_Q2


def _in_blocks(mlp: PixelMLP, feat_1Dhw: Tensor, coord_Q2: Tensor, cell_Q2: Tensor) -> Tensor:
    """The MLP at every query, ``(Q, outputs)``."""
    look_up: Callable[[Tensor, Tensor], Tensor] = partial(_look_up, mode="nearest")
    h, w = feat_1Dhw.shape[-2:]
    centre_1hw2 = coordinates(h, w)[0].view(1, h, w, 2)
    centre_12hw = centre_1hw2.permute(0, 3, 1, 2).contiguous()
    lr_size_2 = torch.tensor([h, w], dtype=coord_Q2.dtype)
    out = []
    for coord_N2, cell_N2 in zip(
        torch.split(coord_Q2, BLOCK), torch.split(cell_Q2, BLOCK), strict=True
    ):
        near_ND = look_up(feat_1Dhw, coord_N2)
        offset_N2 = (coord_N2 - look_up(centre_12hw, coord_N2)) * lr_size_2
        out.append(mlp(torch.cat([near_ND, offset_N2, cell_N2 * lr_size_2], dim=1)))
    return torch.cat(out)


def _look_up(values_1Chw: Tensor, coord_N2: Tensor, mode: str) -> Tensor:
    """What lies at the coordinates, ``(N, C)``."""
    where_11N2 = coord_N2.flip(-1)[None, None]
    found_1C1N = F.grid_sample(
        values_1Chw, where_11N2, mode=mode, padding_mode="border", align_corners=False
    )
    return found_1C1N[0, :, 0].T
