"""The losses of Eq. 6 and Eq. 7, per mean instead of per sum, and one of ClassSR's.

The reconstruction loss of Eq. 6 is ``torch.nn.L1Loss``, on images in [0, 1]: taking the bilinearly
upsampled input off both sides, as the equation does, changes nothing. Any other module of two
tensors can take its place (``loss._target_=torch.nn.HuberLoss``), or a weighted sum of several.

Legend: B batch, M classes, H W HR size, Q query pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pcsr_lightning.errors import ConfigError, single_line


class SquaredError(nn.Module):
    """Mean squared error, which is what PSNR measures.

    Args:
        weight: of the error; 20 makes it about as large as the mean absolute error.
    """

    def __init__(self, weight: float = 20.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, sr_B3Q: Tensor, hr_B3Q: Tensor) -> Tensor:
        """The loss of an upscaled picture against the ground truth."""
        return self.weight * F.mse_loss(sr_B3Q, hr_B3Q)


class WeightedSum(nn.Module):
    """Several losses, each with a weight; ``loss=sum`` in a config.

    Args:
        losses: modules of two tensors, by the names under which each is logged, ``train/NAME``.
        weights: of each; 1 where it has none.
    """

    def __init__(
        self, losses: Mapping[str, nn.Module], weights: Mapping[str, float] | None = None
    ) -> None:
        super().__init__()
        self.losses = nn.ModuleDict(losses)
        self.weights = {name: (weights or {}).get(name, 1.0) for name in losses}

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """The sum for an upscaled picture against the ground truth."""
        return self.total(self.parts(sr, hr))

    def parts(self, sr: Tensor, hr: Tensor) -> dict[str, Tensor]:
        """Each loss, before its weight."""
        return {name: loss(sr, hr) for name, loss in self.losses.items()}

    def total(self, parts: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum of :meth:`parts`."""
        return torch.stack([self.weights[name] * part for name, part in parts.items()]).sum()


def needs_pictures(loss: nn.Module) -> bool:
    """Whether a loss, or a part of it, says by an attribute ``needs_pictures = True`` that it works
    on pictures ``(B, 3, H, W)`` only, and not on drawn pixels ``(B, 3, Q)``."""
    return any(getattr(part, "needs_pictures", False) is True for part in loss.modules())


def reconstruction(
    loss: nn.Module, sr_B3Q: Tensor, hr_B3Q: Tensor, size: tuple[int, int] | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """The reconstruction loss of a step, and its parts to be logged.

    Args:
        loss: gets pictures ``(B, 3, H, W)`` where all pixels are there, else ``(B, 3, Q)``.
        sr_B3Q: the upscaled crops at the query pixels.
        hr_B3Q: the ground truth there.
        size: ``(H, W)`` if these are all pixels; ``None`` if they were drawn.

    Raises:
        ConfigError: the loss does not work on drawn pixels, or gives no single number.
    """
    if size is not None:
        sr_B3Q, hr_B3Q = (x.reshape(len(x), 3, *size) for x in (sr_B3Q, hr_B3Q))
    parts: dict[str, Tensor] = {}
    try:
        if isinstance(loss, WeightedSum):
            parts = loss.parts(sr_B3Q, hr_B3Q)
            total = loss.total(parts)
        else:
            total = loss(sr_B3Q, hr_B3Q)
    except (TypeError, ValueError, IndexError, RuntimeError) as error:
        if size is not None or isinstance(error, torch.OutOfMemoryError):
            raise
        raise ConfigError(
            f"the loss does not work on drawn pixels, {tuple(sr_B3Q.shape)} "
            f"({type(error).__name__}: {single_line(str(error))[:200]}): set stage.queries=null, "
            "and it gets pictures (B, 3, H, W)"
        ) from error
    if total.ndim:
        raise ConfigError(
            f"the loss gives a tensor of shape {tuple(total.shape)}: expected a single number, "
            "such as the mean"
        )
    return total, parts


def average_loss(
    logits_BMQ: Tensor, sum_over_ranks: Callable[[Tensor], Tensor] = lambda x: x
) -> Tensor:
    """How far the classes are from equal shares of the whole batch (Eq. 7).

    For each class ``|sum of p over the batch - B*Q/M| / (B*Q/M)``, then the mean over classes; for
    two classes both terms are equal and the value is the published implementation's.

    Args:
        logits_BMQ: the classifier's output before the softmax.
        sum_over_ranks: adds a tensor up over all processes, keeping its gradient.
    """
    M = logits_BMQ.shape[1]
    # In float32 under autocast too: bfloat16 could not tell shares apart that differ by 0.4%.
    dtype = torch.promote_types(logits_BMQ.dtype, torch.float32)
    totals_M = sum_over_ranks(logits_BMQ.softmax(dim=1, dtype=dtype).sum(dim=(0, 2)))
    # The probabilities of a pixel sum to 1, so the totals say how many pixels there were.
    target = totals_M.detach().sum() / M
    return ((totals_M - target).abs() / target).mean()


def class_loss(p_NM: Tensor) -> Tensor:
    """How far patches are from having one sure class: ClassSR's class loss, 0 where they have.

    ``M - 1`` minus the sum of ``|p_i - p_j|`` over all pairs of classes, the mean over patches.

    Args:
        p_NM: the classifier's probabilities.
    """
    M = p_NM.shape[1]
    pairs = torch.combinations(torch.arange(M, device=p_NM.device))
    spread_N = (p_NM[:, pairs[:, 0]] - p_NM[:, pairs[:, 1]]).abs().sum(dim=1)
    return (M - 1 - spread_N).mean()
