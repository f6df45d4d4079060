"""Errors under many routings, against pictures that are selected, refined and compared whole."""

import itertools

import pytest
import torch
from torch import Tensor

from pcsr_lightning.evaluation.routed_errors import RoutedErrors
from pcsr_lightning.images.comparison import eight_bit
from pcsr_lightning.routing.refine import refine


def compared(sr_3MHW: Tensor, class_HW: Tensor, truth: Tensor, border: int, refines: bool) -> float:
    M, (H, W) = sr_3MHW.shape[1], class_HW.shape
    sr_13HW = sr_3MHW.gather(1, class_HW.long().expand(3, 1, H, W)).transpose(0, 1)
    if refines:
        sr_13HW = refine(sr_13HW, class_HW[None], M)
    difference = eight_bit(sr_13HW) - eight_bit(truth)
    inside = difference[..., border : H - border, border : W - border]
    return float(inside.square().sum(dtype=torch.float64))


@pytest.mark.parametrize("M", [2, 3])
@pytest.mark.parametrize(
    ("H", "W", "border", "strip"),
    [(23, 17, 2, 5), (9, 31, 1, 1), (12, 12, 4, 12), (4, 3, 1, 3), (2, 5, 0, 1), (11, 2, 0, 4)],
)
def test_equal_to_whole_pictures(M: int, H: int, W: int, border: int, strip: int) -> None:
    draw = torch.Generator().manual_seed(H * W + M)
    sr_3MHW = torch.randn(3, M, H, W, generator=draw) * 0.4 + 0.5
    hardness_HW = torch.rand(H, W, generator=draw)
    # Rising thresholds as those of k, and some maps that are alike.
    steps = (-1.0, 0.1, 0.1, 0.5, 0.9, 2.0)
    maps = [sum((hardness_HW > t + j / 5).byte() for j in range(M - 1)) for t in steps]
    cases = list(itertools.product(maps, (True, False)))
    truths = (torch.rand(1, 3, H, W, generator=draw), torch.randint(0, 256, (1, 3, H, W)).byte())
    for truth in truths:
        errors = RoutedErrors(truth, border, [refines for _, refines in cases])
        for top in range(0, H, strip):
            rows = slice(top, top + strip)
            errors.add([class_HW[rows] for class_HW, _ in cases], sr_3MHW[:, :, rows])
        expected = [compared(sr_3MHW, class_HW, truth, border, on) for class_HW, on in cases]
        assert errors.totals == expected
        assert errors.values == 3 * (H - 2 * border) * (W - 2 * border)
