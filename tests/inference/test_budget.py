"""A budget is kept by what is really executed, on pictures."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from pcsr_lightning.data import SAMPLE_FOLDER
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.images import bicubic, read
from pcsr_lightning.inference import (
    RoutingConfig,
    Session,
    all_heavy_flops,
    routing_note,
    upscale,
)
from pcsr_lightning.inference.checks import output_size
from pcsr_lightning.networks import PCSR, build_network, default_config
from pcsr_lightning.routing import scores

MakeNetwork = Callable[..., PCSR]
BUDGETS = (0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 0.9, 0.97, 0.999, 1.0)


@pytest.fixture(scope="module")
def photo() -> Tensor:
    """A real picture, a quarter as wide and high as shipped."""
    hr = read(SAMPLE_FOLDER / "valid" / "coffee.png").rgb[None]
    return bicubic(hr, (hr.shape[-2] // 4, hr.shape[-1] // 4))


def shares_of_budget(found: Session, budgets: tuple[float, ...]) -> list[float]:
    """The cost of each, as a part of what it was allowed."""
    lr_size = (int(found.lr_B3hw.shape[-2]), int(found.lr_B3hw.shape[-1]))
    heavy = all_heavy_flops(found.model, lr_size, found.size, len(found.lr_B3hw)).gmacs
    runs = (found.run(RoutingConfig(budget=b, refine=False)) for b in budgets)
    return [run.flops.gmacs / (b * heavy) for run, b in zip(runs, budgets, strict=True)]


@pytest.mark.parametrize("scale", [2.5, 4])
def test_released_model_on_a_photograph(photo: Tensor, released: PCSR, scale: float) -> None:
    parts = shares_of_budget(Session(released, photo, scale), BUDGETS)
    assert all(0.99 <= part <= 1 for part in parts), parts
    assert parts[-1] == 1


@pytest.mark.parametrize("num_classes", [3, 4])
def test_more_classes(photo: Tensor, make_network: MakeNetwork, num_classes: int) -> None:
    found = Session(make_network(num_classes=num_classes), photo, 4)
    parts = shares_of_budget(found, BUDGETS)
    assert all(0.99 <= part <= 1 for part in parts), parts
    assert len(found.run(RoutingConfig(budget=0.5)).assignment.unique()) == num_classes


def test_a_class_that_is_missing_from_half_the_picture(released: PCSR, photo: Tensor) -> None:
    half_flat = photo.clamp(0, 1).clone()
    half_flat[:, :, half_flat.shape[-2] // 2 :] = 0.5
    parts = shares_of_budget(Session(released, half_flat, 4), (0.1, 0.12, 0.15, 0.2))
    assert all(0.99 <= part <= 1 for part in parts), parts


def test_floor_and_ceiling(released: PCSR, make_network: MakeNetwork) -> None:
    lr = torch.rand(1, 3, 12, 10)
    sizes = ((12, 10), (48, 40))
    low = upscale(released, lr, budget=0.05)
    assert low.shares == (0.0, 1.0)
    said = routing_note(released, *sizes, RoutingConfig(budget=0.05))
    assert said is not None
    heavy = all_heavy_flops(released, *sizes)
    floor = upscale(released, lr, budget=1e-9).flops.gmacs / heavy.gmacs
    assert f"budget of 5% is below the floor of this model, {100 * floor:.3g}% of all-heavy" in said
    assert routing_note(released, *sizes, RoutingConfig(budget=0.5)) is None
    assert "so close to the floor of this model" in str(
        routing_note(released, *sizes, RoutingConfig(budget=0.085))
    )
    top = upscale(released, lr, budget=1)
    assert (top.shares, top.flops) == ((1.0, 0.0), heavy)
    assert "ceiling" in str(routing_note(released, *sizes, RoutingConfig(budget=1.0)))
    single = make_network(num_classes=1)
    assert upscale(single, lr, budget=0.5).shares == (1.0,)
    assert "one class only" in str(routing_note(single, *sizes, RoutingConfig(budget=0.5)))


def test_what_it_buys_does_not_depend_on_the_tiles(make_network: MakeNetwork) -> None:
    lr = torch.rand(1, 3, 20, 18)
    lr[:, :, 10:] = 0.6  # ties
    for num_classes in (2, 3):
        model = make_network(num_classes=num_classes)
        whole = upscale(model, lr, budget=0.55, tile_rows=20)
        for tile_rows in (1, 3, 7):
            tiled = upscale(model, lr, budget=0.55, tile_rows=tile_rows)
            assert torch.equal(tiled.assignment, whole.assignment)
            assert tiled.flops == whole.flops


def test_each_picture_of_a_batch_has_its_own_budget(make_network: MakeNetwork) -> None:
    lr = torch.rand(2, 3, 24, 20)
    lr[0] = 0.5 + 0.01 * lr[0]
    assignment = upscale(make_network(), lr, budget=0.6).assignment
    heavy = (assignment == 0).flatten(1).sum(1)
    assert heavy[0] == heavy[1] > 0


def test_hardest_first(released: PCSR, photo: Tensor) -> None:
    found = Session(released, photo, 4)
    [heavy] = found.assign(RoutingConfig(budget=0.4)) == 0
    hardness = avg_pool2d(found.logits[:, 0] - found.logits[:, 1], 4)[0]
    heavy = heavy[::4, ::4]
    assert hardness[heavy].min() >= hardness[~heavy].max() - 1e-5


def screenshot() -> Tensor:
    """Flat panels beside lines of dots."""
    lr = torch.ones(1, 3, 60, 90)
    lr[..., :30] = 0.9
    lr[..., :8, :] = torch.tensor([0.15, 0.3, 0.55])[:, None, None]
    lr[..., 40:56, 50:80] = torch.tensor([0.8, 0.25, 0.25])[:, None, None]
    dots = torch.rand(20, 50, generator=torch.Generator().manual_seed(0)) < 0.3
    lr[..., 14:34, 36:86] = lr[..., 14:34, 36:86].masked_fill(dots, 0.1)
    return lr


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("scale", [2, 3.3, 4])
@pytest.mark.parametrize("routing", ["budget", "quantile"])
def test_no_grid_in_the_class_map(
    released: PCSR, monkeypatch: pytest.MonkeyPatch, routing: str, scale: float, counted: bool
) -> None:
    """All HR pixels of an LR pixel take one class, in flat areas and elsewhere."""
    monkeypatch.setattr(scores, "SCORE_BYTES", 0 if counted else 2**27)
    lr = screenshot()
    size = output_size((60, 90), scale)
    grid = released.grid((60, 90), size)
    lr_pixel_HW = grid.rows_H[:, None] * 90 + grid.cols_W
    before: Tensor | None = None
    for share in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        [class_HW] = upscale(
            released, lr, scale, routing=RoutingConfig(**{routing: share}), tile_rows=7
        ).assignment
        per_lr_pixel = torch.empty(60 * 90, dtype=torch.uint8)
        per_lr_pixel[lr_pixel_HW.flatten()] = class_HW.flatten()
        assert torch.equal(per_lr_pixel[lr_pixel_HW], class_HW)
        assert 0 < int((class_HW == 0).sum()) < class_HW.numel()
        assert before is None or bool((class_HW <= before).all())
        before = class_HW


def test_an_original_model_has_one_cost() -> None:
    original = build_network(default_config("fsrcnn", original=True))
    with pytest.raises(ConfigError, match=r"budget=0\.5: an original model has one class"):
        upscale(original, torch.rand(1, 3, 6, 6), budget=0.5)
    assert upscale(original, torch.rand(1, 3, 6, 6), budget=1).shares == (1.0,)
