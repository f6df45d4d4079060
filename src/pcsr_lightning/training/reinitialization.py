"""Reinitialises the dead units of an MLP: those that no query switches on.

No gradient reaches such a unit, so it stays dead; a network of few units cannot spare it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pcsr_lightning.networks import PCSR, CellQueries
from pcsr_lightning.networks.pixel_mlp import PixelMLP


@torch.no_grad()
def reinitialize_dead_units(
    network: PCSR,
    mlp: PixelMLP,
    lr_B3hw: Tensor,
    size: tuple[int, int],
    queries: Tensor | CellQueries | None,
    generator: torch.Generator,
) -> list[int]:
    """Gives every dead hidden unit new inputs, in place; the MLP's output stays what it was.

    A new unit looks in a random direction, as strongly as the layer's living units do in the
    median, and is on for about half of the queries. What follows takes nothing from it yet.

    Args:
        network: whose features ``mlp`` reads.
        mlp: an upsampler of ``network``.
        lr_B3hw: crops in [0, 1].
        size: ``(H, W)`` of the HR crops.
        queries: the pixels to judge by, as :meth:`PCSR.forward` takes them.
        generator: of the random directions, on the CPU.

    Returns:
        How many units of each hidden layer were dead.
    """
    grid, queries_Q = network.where((lr_B3hw.shape[-2], lr_B3hw.shape[-1]), size, queries)
    feat_BDhw = network.features(lr_B3hw)

    def first_layer(_: Tensor) -> Tensor:
        return mlp.first_layer(feat_BDhw, grid, queries_Q).flatten(0, -2)

    later = [layer for layer in mlp.tail if isinstance(layer, nn.Linear)]
    layers: list[Callable[[Tensor], Tensor]] = [first_layer, *later]
    incoming = [[mlp.project.weight, mlp.offset.weight], *([layer.weight] for layer in later)]
    biases = [mlp.project.bias, *(layer.bias for layer in later)]
    x_NC = feat_BDhw
    dead = []
    for layer, weights, bias_C, after in zip(layers, incoming, biases, later, strict=False):
        before_NC = layer(x_NC)
        dead_C = ~(before_NC > 0).any(dim=0)
        dead.append(int(dead_C.sum()))
        if 0 < dead[-1] < len(dead_C):
            after.weight[:, dead_C] = 0.0
            for weight in weights:
                _reinitialize(weight, dead_C, generator)
            bias_C[dead_C] -= layer(x_NC)[:, dead_C].median(0).values
            before_NC = layer(x_NC)
        x_NC = before_NC.relu()
    return dead


def _reinitialize(weight: Tensor, dead_C: Tensor, generator: torch.Generator) -> None:
    """Random rows of the living rows' median length, for the dead units."""
    length = weight[~dead_C].norm(dim=1).median()
    fresh = torch.randn(weight[dead_C].shape, generator=generator).to(weight)
    weight[dead_C] = fresh * (length / fresh.norm(dim=1, keepdim=True))
