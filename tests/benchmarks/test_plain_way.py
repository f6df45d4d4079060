"""The plain way and the library make the same picture of the same pixels' classes.

The plain way is written from the networks' parts alone, so each is a check of the other.
Legend: h w LR size, H W HR size.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

import pcsr_lightning
from pcsr_lightning.images import read_rgb8
from pcsr_lightning.networks import PCSR, Original, QueryGrid

SAME_CLASSES = 0.9995
CLOSE = 1e-4
MODES: list[dict[str, object]] = [{"k": 0.0}, {"k": 0.5}, {"adaptive": True}]


@pytest.fixture(scope="module")
def plain_way() -> ModuleType:
    """``benchmarks/plain_way.py``, which lies outside the package."""
    path = Path(__file__).parents[2] / "benchmarks" / "plain_way.py"
    spec = importlib.util.spec_from_file_location("plain_way", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def lr_13hw() -> Tensor:
    """A real picture of textured and of flat parts, more than one block of queries at x4."""
    folder = Path(str(resources.files("pcsr_lightning"))) / "data" / "sample" / "valid"
    coffee = read_rgb8(folder / "coffee.png").float().div(255)[None]
    return coffee[..., 60:200, 120:260]


@pytest.fixture(scope="module")
def published(shared: Path) -> Callable[[str], PCSR | Original]:
    """``published("carn-x4")``: a published checkpoint."""
    return lambda name: pcsr_lightning.load(shared / "reference" / f"{name}.pth")


def compare(model: PCSR, lr_13hw: Tensor, plain: ModuleType, scale: float, **mode: object) -> None:
    """Same classes but for rounding's few, same values where the classes are the same."""
    ours = pcsr_lightning.upscale(
        model,
        lr_13hw,
        scale,
        cost="proportional",
        **mode,  # type: ignore[arg-type]
    )
    theirs = plain.plain_upscale(model, lr_13hw, scale, **mode)
    assert theirs.image.shape == ours.image.shape
    (h, w), (H, W) = lr_13hw.shape[-2:], ours.image.shape[-2:]
    grid = QueryGrid.make((h, w), (H, W))
    # A centre exactly between two LR pixels: the plain way takes either, by rounding noise.
    rows, columns = (offset.abs() < 1 - 1e-6 for offset in (grid.dy_H, grid.dx_W))
    certain_HW = rows[:, None] & columns
    same_HW = ours.assignment[0] == theirs.assignment
    assert same_HW[certain_HW].float().mean() >= SAME_CLASSES
    # Both classes are there, or the comparison would say little.
    assert 0.02 < float((theirs.assignment == 0).float().mean()) < 0.98
    # Refinement looks at the neighbours' classes and values.
    certain_HW = (
        -torch.nn.functional.max_pool2d(
            1 - (same_HW & certain_HW).float()[None], 3, stride=1, padding=1
        )[0]
        > -0.5
    )
    error_HW = (ours.image - theirs.image).abs().amax(dim=(0, 1))
    assert error_HW[certain_HW].max() < CLOSE


# x10/3 has no centres between two LR pixels at these sizes; x2.5 has, and each of them moves the
# statistics that ADM goes by.
@pytest.mark.parametrize(
    ("scale", "mode"),
    [(scale, mode) for scale in (4, 3, 10 / 3) for mode in MODES] + [(2.5, MODES[0])],
    ids=str,
)
@pytest.mark.parametrize("backbone", ["fsrcnn", "carn"])
def test_same_picture(
    published: Callable[[str], PCSR],
    plain_way: ModuleType,
    lr_13hw: Tensor,
    backbone: str,
    mode: dict[str, object],
    scale: float,
) -> None:
    if (scale, mode) == (4, MODES[0]):
        assert lr_13hw[0, 0].numel() * 16 > plain_way.BLOCK
    else:  # a part will do: one needs to fill more than one block
        lr_13hw = lr_13hw[..., :64, :80]
    compare(published(f"{backbone}-pcsr-phase1"), lr_13hw, plain_way, scale, **mode)


def test_without_refinement(
    published: Callable[[str], PCSR], plain_way: ModuleType, lr_13hw: Tensor
) -> None:
    model, part = published("carn-pcsr-phase1"), lr_13hw[..., :64, :64]
    compare(model, part, plain_way, 4, refine=False)


def test_classes_from_elsewhere(
    published: Callable[[str], PCSR], plain_way: ModuleType, lr_13hw: Tensor
) -> None:
    model, part = published("fsrcnn-pcsr-phase1"), lr_13hw[..., :64, :64]
    all_light = torch.ones(256, 256, dtype=torch.uint8)
    theirs = plain_way.plain_upscale(model, part, classes_HW=all_light)
    ours = pcsr_lightning.upscale(model, part, fixed_class=1)
    assert (ours.image - theirs.image).abs().max() < CLOSE


def test_cost_is_the_published_count(
    published: Callable[[str], PCSR], plain_way: ModuleType, lr_13hw: Tensor
) -> None:
    model, part = published("carn-pcsr-phase1"), lr_13hw[..., :40, :40]
    theirs = plain_way.plain_upscale(model, part)
    heavy = int((theirs.assignment == 0).sum())
    light = 160 * 160 - heavy
    # CARN-PCSR's published costs: backbone, batch norm, classifier, heavy, light.
    expected = 1600 * (232_596 + 624) + 160 * 160 * 680 + heavy * 20_794 + light * 1_980
    assert theirs.gmacs * 1e9 == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("backbone", ["fsrcnn", "carn"])
def test_same_original(
    published: Callable[[str], Original], plain_way: ModuleType, lr_13hw: Tensor, backbone: str
) -> None:
    model, part = published(f"{backbone}-x4"), lr_13hw[..., :64, :80]
    expected = pcsr_lightning.upscale(model, part).image
    assert (plain_way.plain_original(model, part) - expected).abs().max() < 1e-5
