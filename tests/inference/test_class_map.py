"""Colours of classes: warm is heavy, cool is light, and the picture stays recognisable."""

from __future__ import annotations

import pytest
import torch

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.inference import class_colours, class_map


@pytest.mark.parametrize("num_classes", [2, 3, 4, 6])
def test_colours_run_from_warm_to_cool(num_classes: int) -> None:
    colours = class_colours(num_classes)
    assert colours.shape == (num_classes, 3)
    assert ((colours >= 0) & (colours <= 1)).all()
    warmth = colours[:, 0] - colours[:, 2]
    assert warmth[0] > 0.5
    assert warmth[-1] < -0.3
    assert (warmth.diff() < 0).all()
    # No two are close, red-green blind or not: they differ in blue-yellow or in brightness.
    opponent = torch.stack([colours[:, :2].mean(1), colours[:, 2]], dim=1)
    gaps = torch.cdist(opponent, opponent) + torch.eye(num_classes)
    assert gaps.min() > 0.1


def test_blend() -> None:
    image = torch.tensor([1.0, 0.5, 0.0]).view(3, 1, 1).repeat(1, 1, 2)
    assignment = torch.tensor([[0, 1]], dtype=torch.uint8)
    mixed = class_map(image, assignment, 2)
    luma = 0.299 + 0.587 * 0.5
    expected = 0.5 * luma + 0.5 * class_colours(2)
    torch.testing.assert_close(mixed[:, 0].T, expected)
    torch.testing.assert_close(class_map(image, assignment, 2, opacity=1)[:, 0].T, class_colours(2))
    assert mixed.shape == (3, 1, 2)


def test_refusals() -> None:
    image, assignment = torch.rand(3, 2, 2), torch.tensor([[0, 1], [2, 0]])
    with pytest.raises(ConfigError, match="class 2 of 2"):
        class_map(image, assignment, 2)
    with pytest.raises(ConfigError, match="do not fit"):
        class_map(image[None], assignment, 3)
    with pytest.raises(ConfigError, match="at least 1"):
        class_colours(0)
