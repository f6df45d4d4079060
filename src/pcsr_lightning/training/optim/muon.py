"""Muon: momentum made orthogonal for matrices, Adam for everything else."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor, nn

from pcsr_lightning.errors import ConfigError

SMALLEST_SIDE = 8
"""Matrices with fewer rows or columns (outputs, offsets, depthwise kernels) are left to Adam."""

# The quintic of https://kellerjordan.github.io/posts/muon: five steps take singular values from
# about [.005, 1] to [.7, 1.2], which is as good as 1 for a direction to step into.
QUINTIC = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Adam):
    """Steps along the orthogonal part of the momentum in weight matrices; Adam in the rest.

    A convolution's weight counts as a matrix of outputs by (inputs x kernel), one for each of its
    groups (``torch.optim.Muon`` takes plain matrices only, and Lightning one optimizer only). The
    step is scaled to Adam's usual size, ``.2 sqrt(longer side)`` (Liu et al., 2025,
    arXiv:2502.16982), so both kinds share one learning rate.

    Args:
        network: whose parameters to train, those that require gradients.
        lr: learning rate of all of them.
        betas: Adam's, for what is no matrix.
        momentum: of the matrices.
        vector_lr: share of ``lr`` for what is no matrix.
        weight_decay: of the matrices, decoupled (Loshchilov and Hutter, 2019, arXiv:1711.05101):
            every step takes ``lr * weight_decay`` of a matrix away. Without it they grow without
            bound, since the steps' size does not depend on the gradient's.

    Raises:
        ConfigError: a value out of range.
    """

    def __init__(
        self,
        network: nn.Module,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        momentum: float = 0.95,
        vector_lr: float = 1.0,
        weight_decay: float = 0.0,
    ) -> None:
        if not 0 < vector_lr <= 1:
            raise ConfigError(f"optimizer.vector_lr={vector_lr}: must be a share in (0, 1]")
        if not 0 <= weight_decay < math.inf:
            raise ConfigError(f"optimizer.weight_decay={weight_decay}: must be at least 0")
        matrices, rest = split(network)
        groups: list[dict[str, Any]] = [
            {"params": params, "matrices": large, "lr": lr * share, "weight_decay": decay}
            for params, large, share, decay in (
                (matrices, True, 1.0, weight_decay),
                (rest, False, vector_lr, 0.0),
            )
            if params
        ]
        super().__init__(groups, lr, betas=betas, fused=True)
        self.momentum = momentum
        self._counts = groups_of_convolutions(network)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Adam's own looks for Adam's state in every parameter, to mend what old versions wrote.
        torch.optim.Optimizer.__setstate__(self, state)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step; ``closure`` computes loss and gradients, as for any optimizer."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        everything = self.param_groups
        for group in everything:
            if group["matrices"]:
                self._step_matrices(group)
        try:
            self.param_groups = [group for group in everything if not group["matrices"]]
            super().step()
        finally:
            self.param_groups = everything
        return loss

    @torch.no_grad()
    def _step_matrices(self, group: dict[str, Any]) -> None:
        """All matrices of one shape in one batch: many small products cost mostly their calls."""
        alike: dict[tuple[int, int, int], list[tuple[nn.Parameter, Tensor]]] = defaultdict(list)
        for p in group["params"]:
            if p.grad is None:
                continue
            state = self.state[p]
            if not state:
                state["momentum"] = torch.zeros_like(p)
            state["momentum"].lerp_(p.grad, 1 - self.momentum)
            # Nesterov: a look ahead along the momentum.
            step = p.grad.lerp(state["momentum"], self.momentum)
            shape = matrix_shape(p, self._counts.get(p, 1))
            alike[shape].append((p, step.reshape(shape)))
        for (_, rows, columns), found in alike.items():
            batch_NRC = torch.cat([step for _, step in found])
            size = 0.2 * max(rows, columns) ** 0.5
            steps = torch.chunk(orthogonal(batch_NRC), len(found))
            for (p, _), step in zip(found, steps, strict=True):
                p.mul_(1 - group["lr"] * group["weight_decay"])
                _descend(p, step.reshape(p.shape), group["lr"] * size)


def _descend(p: nn.Parameter, step: Tensor, rate: float | Tensor) -> None:
    if isinstance(rate, Tensor):  # as in a CUDA graph, which must not wait for its number
        p.sub_(step * rate)
    else:
        p.add_(step, alpha=-rate)


def split(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Trainable parameters: those that are matrices, and all others."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    counts = groups_of_convolutions(network)
    for p in network.parameters():
        if p.requires_grad:
            large = p.ndim > 1 and min(matrix_shape(p, counts.get(p, 1))[1:]) >= SMALLEST_SIDE
            (matrices if large else rest).append(p)
    return matrices, rest


def matrix_shape(p: Tensor, count: int) -> tuple[int, int, int]:
    """``(groups, rows, columns)`` of a weight of ``count`` groups."""
    return count, p.shape[0] // count, p[0].numel()


def groups_of_convolutions(network: nn.Module) -> dict[Tensor, int]:
    """The groups of each convolution's weights; all other weights are one matrix."""
    convolutions = (m for m in network.modules() if isinstance(m, nn.Conv2d))
    return {p: m.groups for m in convolutions for p in m.parameters()}


def orthogonal(batch_NRC: Tensor, steps: int = 5) -> Tensor:
    """Each matrix with its singular values brought near 1, by Newton-Schulz iteration.

    Args:
        batch_NRC: ``N`` matrices of ``R`` rows and ``C`` columns.
        steps: of the iteration.
    """
    tall = batch_NRC.shape[1] > batch_NRC.shape[2]
    x: Tensor = batch_NRC.mT if tall else batch_NRC
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    a, b, c = QUINTIC
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = x.mT if tall else x
    return result
