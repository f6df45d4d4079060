"""The released models on a hundred random strips: what the whole picture gives, and no seam."""

from __future__ import annotations

import random

import pytest
import torch
from torch.nn import functional as F

from pcsr_lightning.data import SAMPLE_FOLDER
from pcsr_lightning.images import read_rgb8
from pcsr_lightning.inference import upscale
from pcsr_lightning.networks import PCSR
from pcsr_lightning.weights import list_models, load

MOST = 1e-5


@pytest.mark.parametrize("cases", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_random_strips(cases: int) -> None:
    """Classes may differ only where a verdict lies on the edge: a few pixels of all of them."""
    draw = random.Random(0)
    models = [model for name in list_models() if isinstance(model := load(name), PCSR)]
    assert {model.backbone.name for model in models} >= {"fsrcnn", "carn"}
    photos = [read_rgb8(path) / 255 for path in sorted((SAMPLE_FOLDER / "valid").iterdir())[:4]]
    largest, others, pixels = 0.0, 0, 0
    for _ in range(cases):
        model, photo = draw.choice(models), draw.choice(photos)
        h, w = draw.randint(1, 48), draw.randint(1, 32)
        top, left = draw.randrange(photo.shape[1] - h), draw.randrange(photo.shape[2] - w)
        lr_13hw = photo[None, :, top : top + h, left : left + w].contiguous()
        scale = draw.choice([2, 3, 4, draw.uniform(1, 5), (draw.uniform(1, 4), 2)])
        routing = draw.choice([{}, {"k": draw.uniform(-1, 1)}, {"adaptive": True}])
        options = {"scale": scale, "refine": draw.random() < 0.5, **routing}
        cut = draw.choice(
            [{"tile_rows": draw.randint(1, h)}, {"max_memory": 2 ** draw.randint(0, 24)}]
        )
        whole = upscale(model, lr_13hw, tile_rows=h, **options)
        strips = upscale(model, lr_13hw, **cut, **options)
        off = strips.assignment != whole.assignment
        # Refinement looks at the classes of the pixels around.
        near = F.max_pool2d(off[:, None].float() if off.ndim == 3 else off.float(), 3, 1, 1) > 0
        error = (strips.image - whole.image).abs().amax(dim=1, keepdim=True)
        error = error[~near.reshape(error.shape)]
        largest = max(largest, float(error.max()) if error.numel() else 0.0)
        others, pixels = others + int(off.sum()), pixels + off.numel()
    print(f"largest difference {largest:.2e}; other classes at {others} of {pixels:,} pixels")
    assert largest <= MOST
    assert others <= pixels / 10_000
    assert torch.isfinite(torch.tensor(largest))
