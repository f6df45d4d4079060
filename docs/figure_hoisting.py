"""The picture of the first layer in two terms, for ``figures.py``.

Legend: h w LR size, H W HR size, C width of the first layer, N queries.
"""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from pcsr_lightning.inference import Session
from pcsr_lightning.networks import PCSR, branch_macs, hoisted_macs, plain_inputs

SCALE = 4
PART = slice(20, 36), slice(60, 84)
"""Rows and columns of the LR picture that are drawn."""


def hoisting(
    drawn: Figure, session: Session, models: dict[str, PCSR]
) -> tuple[Figure, dict[str, Any]]:
    """One channel of the first layer as a sum of two terms, and what that saves each model."""
    model, feat = session.model, session.feat_BDhw[..., PART[0], PART[1]]
    mlp, (h, w) = model.upsampler(0), feat.shape[-2:]
    grid = model.grid((h, w), (SCALE * h, SCALE * w))
    with torch.inference_mode():
        proj_hwC = mlp.project_features(feat)[0]
        rows_HC, cols_WC = mlp.offset_terms(grid)
        offset_HWC = rows_HC[:, None] + cols_WC
        sum_HWC = mlp.first_layer(feat, grid)[0]
        plain_HWC = mlp_first(mlp, plain_inputs(feat, grid)).reshape(SCALE * h, SCALE * w, -1)
    # A channel in which rows, columns and features all tell.
    telling = torch.stack([x.flatten(0, -2).std(dim=0) for x in (rows_HC, cols_WC, proj_hwC / 2)])
    channel = int(telling.min(dim=0).values.argmax())
    top, bottom = drawn.subfigures(2, 1, height_ratios=[1.35, 1])
    axes = top.subplots(1, 3)
    titles = (
        f"features' term: {h} x {w} values",
        f"offsets' term: {SCALE} x {SCALE} values, repeated",
        f"their sum: {SCALE * h} x {SCALE * w} values",
    )
    for one, values, title in zip(axes, (proj_hwC, offset_HWC, sum_HWC), titles, strict=True):
        one.imshow(values[..., channel].numpy(), cmap="gray", interpolation="nearest")
        one.set_xticks([])
        one.set_yticks([])
        one.set_title(title, fontsize=11)
    axes[1].add_patch(
        Rectangle((-0.5, -0.5), SCALE, SCALE, fill=False, edgecolor="#d7191c", linewidth=2)
    )
    said = {name: macs_per_lr_pixel(one) for name, one in models.items()}
    bars(bottom.subplots(), said)
    off = (sum_HWC - plain_HWC).abs().max() / plain_HWC.abs().max()
    return drawn, {"largest difference": float(f"{float(off):.1e}"), "macs": said}


def mlp_first(mlp: Any, x_ND4: Tensor) -> Tensor:
    """The first layer in its plain form."""
    weight = torch.cat([mlp.project.weight, mlp.offset.weight], dim=1)
    return torch.nn.functional.linear(x_ND4, weight, mlp.project.bias)


def macs_per_lr_pixel(model: PCSR) -> dict[str, float]:
    """Multiply-adds of all heavy, classifier included, as the paper runs it and hoisted."""
    plain_macs = branch_macs(model)
    queries = SCALE * SCALE
    assert model.classifier is not None
    hoisted = sum(hoisted_macs(mlp, 1, queries) for mlp in (model.upsampler(0), model.classifier))
    pixels = queries * (plain_macs.upsamplers[0] + plain_macs.classifier)
    return {
        "backbone": round(plain_macs.backbone),
        "plain": round(pixels),
        "hoisted": round(hoisted),
    }


def bars(axes: Axes, macs: dict[str, dict[str, float]]) -> None:
    """Backbone and upsampler, plain above hoisted, as parts of the plain whole."""
    labels, place = [], 0.0
    for name, found in macs.items():
        whole = found["backbone"] + found["plain"]
        for way in ("plain", "hoisted"):
            labels.append((place, f"{name}, {way}"))
            backbone, rest = 100 * found["backbone"] / whole, 100 * found[way] / whole
            axes.barh(place, backbone, color="#9e9e9e", label="backbone" if not place else "_")
            axes.barh(
                place, rest, left=backbone, color="#d7191c",
                label="classifier and heavy upsampler" if not place else "_",
            )  # fmt: skip
            axes.text(backbone + rest + 0.7, place, f"{backbone + rest:.0f} %", va="center")
            place -= 1
        place -= 0.5
    axes.set_yticks([y for y, _ in labels], [text for _, text in labels])
    axes.set_xlim(0, 130)
    axes.set_xticks([])
    axes.set_title("multiply-adds, every pixel to the heavy class", fontsize=11)
    axes.legend(loc="lower right", frameon=False, fontsize=9)
    axes.spines[:].set_visible(False)
