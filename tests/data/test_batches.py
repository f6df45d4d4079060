"""Batches by step: right pixels, right order, and pairs that match the whole degraded picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcsr_lightning.data.batches import RawCrops, StepBatches, StepSampler
from pcsr_lightning.data.crop_index import CropIndex
from pcsr_lightning.data.crop_plan import CropPlan, CropPlanner
from pcsr_lightning.data.cutting import cut_windows
from pcsr_lightning.data.degradation import BicubicDegradation, Box, Degradation
from pcsr_lightning.data.pairs import PairMaker, validation_pair
from pcsr_lightning.data.picture_buffer import PictureBuffer
from pcsr_lightning.data.picture_cache import PictureCache
from pcsr_lightning.data.whole_pictures import RawPicture, ValidationPictures
from pcsr_lightning.errors import ConfigError, DataError
from pcsr_lightning.images import bicubic, list_pictures


@pytest.fixture
def cache(folder: Path, tmp_path: Path) -> PictureCache:
    return PictureCache.build(list_pictures(folder), tmp_path / "cache", root=folder)


def batches(
    cache: PictureCache,
    batch_size: int = 4,
    seed: int = 0,
    numbers: Sequence[int] | None = None,
    **options: Any,
) -> StepBatches:
    numbers = range(len(cache.pictures)) if numbers is None else numbers
    index = CropIndex([(cache.pictures[n].height, cache.pictures[n].width) for n in numbers])
    planner = CropPlanner(index, batch_size, seed, **options)
    return StepBatches(cache, numbers, planner, steps=5)


def pairs(degradation: Degradation | None = None, seed: int = 0) -> PairMaker:
    return PairMaker(degradation or BicubicDegradation(), 32, seed)


def test_each_pass_takes_every_crop_once(cache: PictureCache) -> None:
    planner = batches(cache, batch_size=5).planner
    n = len(planner.index)
    assert n % 5  # passes end amid a batch
    order = np.concatenate([planner.crop_numbers(step) for step in range(n)])  # five passes
    for epoch in range(5):
        assert sorted(order[epoch * n : (epoch + 1) * n]) == list(range(n))
    assert not np.array_equal(order[:n], order[n : 2 * n])
    assert not np.array_equal(order[:n], sorted(order[:n]))


def test_a_batch_larger_than_the_data_wraps(cache: PictureCache) -> None:
    planner = batches(cache, batch_size=50).planner
    assert len(planner.crop_numbers(0)) == 50
    assert set(planner.crop_numbers(0)) == set(range(len(planner.index)))


def test_plans_depend_on_seed_and_step_only(cache: PictureCache) -> None:
    one, again, other = (batches(cache, 16, seed, scale=(2.0, 4.0)).planner for seed in (1, 1, 2))
    first = one.plan(7).numbers_7B
    assert np.array_equal(first, again.plan(7).numbers_7B)
    assert np.array_equal(first, one.plan(7).numbers_7B)
    for another in (other.plan(7).numbers_7B, one.plan(8).numbers_7B):
        # each of crops, directions, orientations and scales
        assert all((first[row] != another[row]).any() for row in range(7))


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize(
    "scales", [{}, {"scale": (2.0, 4.0)}, {"scale": (2.0, 4.0), "mix_scales": True}]
)
def test_ranks_share_out_one_batch(
    cache: PictureCache, world_size: int, scales: dict[str, Any]
) -> None:
    """Crops, augmentation and scales of several processes are those of one."""
    whole = batches(cache, 8, **scales)
    parts = [
        batches(cache, 8, **scales, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    for step in (0, 3):
        raw = [part[step] for part in parts]
        assert [r.plan.rank for r in raw] == list(range(world_size))
        assert torch.equal(torch.cat([r.window_B3SS for r in raw]), whole[step].window_B3SS)
        made = [pairs().train_batch(r) for r in raw]
        expected = pairs().train_batch(whole[step])
        assert torch.equal(torch.cat([m.hr_B3HW for m in made]), expected.hr_B3HW)
        torch.testing.assert_close(
            torch.cat([m.lr_B3hw for m in made]), expected.lr_B3hw, rtol=0, atol=1e-6
        )
        if expected.side_B is not None:
            sides = [m.side_B for m in made if m.side_B is not None]
            assert torch.equal(torch.cat(sides), expected.side_B)


def test_windows_hold_the_crop_and_its_surroundings(cache: PictureCache) -> None:
    dataset = batches(cache, augment=False)
    picture, top, left = dataset.planner.index.locate(dataset.planner.crop_numbers(2))
    raw = dataset[2]
    assert raw.plan.margin == 8
    for b, window in enumerate(raw.window_B3SS.numpy()):
        padded = np.pad(cache.pixels(int(picture[b])), ((8, 8), (8, 8), (0, 0)), mode="symmetric")
        expected = padded[top[b] : top[b] + 144, left[b] : left[b] + 144]
        assert np.array_equal(window.transpose(1, 2, 0), expected)


@given(
    height=st.integers(3, 30),
    width=st.integers(3, 30),
    start=st.tuples(st.integers(-9, 24), st.integers(-9, 24)),
    side=st.integers(1, 12),
    margin=st.integers(0, 6),
    turns=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
@settings(deadline=None)
def test_a_window_is_a_turned_slice_of_the_mirrored_picture(
    height: int,
    width: int,
    start: tuple[int, int],
    side: int,
    margin: int,
    turns: tuple[bool, bool, bool],
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    padded = np.pad(pixels, ((20, 60), (20, 60), (0, 0)), mode="symmetric")
    S = side + 2 * margin
    top, left = (at - margin for at in start)
    expected = padded[top + 20 : top + 20 + S, left + 20 : left + 20 + S]
    down, across, transposed = turns
    expected = expected[:: -1 if down else 1, :: -1 if across else 1]
    if transposed:
        expected = expected.transpose(1, 0, 2)
    numbers = [
        0,
        top + S - 1 if down else top,
        -1 if down else 1,
        left + S - 1 if across else left,
        -1 if across else 1,
        int(transposed),
        side,
    ]
    plan = CropPlan(np.array(numbers)[:, None], side, margin, mixed=False, step=0, rank=0)
    [window] = cut_windows(lambda _: pixels, plan)
    assert np.array_equal(window.transpose(1, 2, 0), expected)


def test_lr_is_a_crop_of_the_whole_degraded_picture(cache: PictureCache) -> None:
    """The check that matters: no seam, no shift, borders as MATLAB's."""
    at_full_size = [0, 5, 10]  # whose sides 4 divides
    dataset = batches(cache, batch_size=9, numbers=at_full_size, augment=False)
    raw = dataset[0]
    batch = pairs().train_batch(raw)
    picture, top, left = dataset.planner.index.locate(dataset.planner.crop_numbers(0))
    assert set(picture) == {0, 1, 2}
    for b, number in enumerate(picture):
        pixels = cache.pixels(dataset.numbers[number]).copy()
        whole = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
        lr = bicubic(whole, (whole.shape[1] // 4, whole.shape[2] // 4))
        y, x = int(top[b]), int(left[b])
        assert y % 4 == x % 4 == 0
        expected_lr = lr[:, y // 4 : y // 4 + 32, x // 4 : x // 4 + 32]
        torch.testing.assert_close(batch.lr_B3hw[b], expected_lr, rtol=0, atol=1e-5)
        assert torch.equal(batch.hr_B3HW[b], whole[:, y : y + 128, x : x + 128])


@pytest.mark.parametrize("augment", [False, True])
def test_multi_scale_pairs_match(cache: PictureCache, augment: bool) -> None:
    dataset = batches(cache, seed=3, scale=(2.0, 4.0), augment=augment)
    sides = set()
    for step in range(12):
        batch = pairs().train_batch(dataset[step])
        side = batch.hr_B3HW.shape[2]
        sides.add(side)
        assert batch.lr_B3hw.shape == (4, 3, 32, 32)
        assert batch.hr_B3HW.shape == (4, 3, side, side)
        # away from the crop's border HR alone decides LR
        inner = bicubic(batch.hr_B3HW, (32, 32))[..., 3:-3, 3:-3]
        torch.testing.assert_close(batch.lr_B3hw[..., 3:-3, 3:-3], inner, rtol=0, atol=1e-5)
    assert min(sides) >= 64
    assert max(sides) <= 128
    assert len(sides) > 6


@pytest.mark.parametrize("augment", [False, True])
def test_mixed_scales_in_a_batch(cache: PictureCache, augment: bool) -> None:
    """Each crop has its own scale; HR, LR and side belong together."""
    data = batches(cache, 64, scale=(2.0, 4.0), mix_scales=True, augment=augment)
    raw = data[0]
    batch = pairs().train_batch(raw)
    assert batch.side_B is not None
    assert (batch.lr_B3hw.shape, batch.hr_B3HW.shape) == ((64, 3, 32, 32), (64, 3, 128, 128))
    assert (batch.hr_B3HW.dtype, batch.side_B.dtype) == (torch.uint8, torch.int64)
    sides = batch.side_B.tolist()
    assert sides == raw.plan.side_B.tolist()
    assert 64 <= min(sides) <= max(sides) <= 128
    assert len(set(sides)) > 20
    assert raw.window_B3SS is not None
    for b, side in enumerate(sides):
        # As the same crop would be in a batch of its own scale, with its own margin.
        own = CropPlan(raw.plan.numbers_7B[:, b : b + 1].copy(), side, 8, False, 0, 0)
        window_13SS = raw.window_B3SS[b : b + 1, :, : side + 16, : side + 16]
        alone = pairs().train_batch(RawCrops(window_13SS, own))
        hr_3HW = batch.hr_B3HW[b, :, :side, :side]
        assert torch.equal(hr_3HW.float().div(255), alone.hr_B3HW[0])
        torch.testing.assert_close(batch.lr_B3hw[b], alone.lr_B3hw[0], rtol=0, atol=1e-6)


def test_mixed_crops_are_of_the_plain_pictures(cache: PictureCache) -> None:
    data = batches(cache, 32, scale=(2.0, 4.0), mix_scales=True, augment=False)
    raw = data[1]
    batch = pairs().train_batch(raw)
    for b, (picture, row, _, column, _, _, side) in enumerate(raw.plan.numbers_7B.T.tolist()):
        top, left = row + raw.plan.margin, column + raw.plan.margin
        expected = cache.pixels(picture)[top : top + side, left : left + side]
        found = batch.hr_B3HW[b, :, :side, :side].permute(1, 2, 0).numpy()
        assert np.array_equal(found, expected)


def test_scales_are_not_mixed_where_there_is_one(cache: PictureCache) -> None:
    batch = pairs().train_batch(batches(cache, scale=(4.0, 4.0), mix_scales=True)[0])
    assert batch.side_B is None
    assert batch.hr_B3HW.dtype == torch.float32


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"augment": False},
        {"scale": (1.5, 4.0)},
        {"scale": (2.0, 4.0), "mix_scales": True},
        {"scale": (2.0, 4.0), "rank": 1, "world_size": 2},
        {"margin": 60.0},  # windows reach over the pictures' borders, and over them again
    ],
)
def test_the_device_cuts_the_same_windows(cache: PictureCache, options: dict[str, Any]) -> None:
    data = batches(cache, 32, numbers=[1, 4, 0, 10], **options)
    sizes = [(cache.pictures[n].height, cache.pictures[n].width) for n in data.numbers]
    pictures = (cache.pixels(n) for n in data.numbers)
    buffer = PictureBuffer(pictures, sizes, torch.device("cpu"))
    for step in range(3):
        raw = data[step]
        window_B3SS = buffer.cut_windows(raw.plan)
        assert window_B3SS.dtype == torch.uint8
        assert window_B3SS.is_contiguous()
        assert torch.equal(window_B3SS, raw.window_B3SS)


def test_a_smaller_crop_lies_anywhere_in_the_largest(cache: PictureCache) -> None:
    planner = batches(cache, 256, scale=(2.0, 2.0), augment=False).planner
    _, top, left = planner.index.locate(planner.crop_numbers(0))
    plan = planner.plan(0)
    assert (plan.side_B == 64).all()
    for start, first in ((plan.numbers_7B[1], top), (plan.numbers_7B[3], left)):
        place = start + plan.margin - first
        assert (place.min(), place.max()) == (0, 64)
        assert 28 < place.mean() < 36


def test_all_eight_orientations_are_equally_likely(cache: PictureCache) -> None:
    planner = batches(cache, 4000).planner
    _, _, down, _, across, transposed, _ = planner.plan(0).numbers_7B
    ways, counts = np.unique(np.stack([down, across, transposed]), axis=1, return_counts=True)
    assert ways.shape[1] == 8
    assert (np.abs(counts - 500) < 5 * np.sqrt(500)).all()


def test_augmentation_makes_all_eight_orientations(cache: PictureCache) -> None:
    plain, augmented = (batches(cache, 64, augment=augment) for augment in (False, True))
    seen = set()
    before, after = (pairs().train_batch(data[0]).hr_B3HW for data in (plain, augmented))
    for old, new in zip(before, after, strict=True):
        ways = {
            (turns, flip): torch.rot90(old.flip(2) if flip else old, turns, (1, 2))
            for turns in range(4)
            for flip in (False, True)
        }
        matches = [way for way, picture in ways.items() if torch.equal(picture, new)]
        assert len(matches) == 1  # nothing but turned and mirrored, not a pixel resampled
        seen.add(matches[0])
    assert len(seen) == 8


def test_batches_leave_the_global_generators_alone(cache: PictureCache) -> None:
    torch.manual_seed(99)
    state = torch.get_rng_state()
    pairs().train_batch(batches(cache, scale=(2.0, 4.0))[0])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("window", "box", "size"),
    [
        ((144, 144), Box(8, 8, 128, 128), (32, 32)),  # a training crop
        ((144, 144), Box(7, 7, 128, 128), (32, 32)),  # too little around it
        ((144, 160), Box(8, 8, 128, 128), (32, 32)),
        ((144, 144), Box(8, 8, 128, 64), (32, 16)),
        ((128, 128), Box(0, 0, 128, 128), (32, 32)),  # a full image
    ],
)
def test_bicubic_degradation_is_bicubic(
    window: tuple[int, int], box: Box, size: tuple[int, int]
) -> None:
    draws = torch.Generator().manual_seed(0)
    window_B3HW = torch.rand(2, 3, *window, generator=draws)
    found = BicubicDegradation()(window_B3HW, box, size, draws)
    scale = (size[0] / box.height, size[1] / box.width)
    expected = bicubic(window_B3HW, size, scale, (box.top, box.left))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


class NoisyArea(Degradation):
    """The mean of each block, with noise. The crop alone decides, so it needs no margin."""

    margin = 0

    def __init__(self, sigma: float = 0.1) -> None:
        self.sigma = sigma
        self.seen: list[tuple[Box, tuple[int, int]]] = []

    def __call__(
        self, window_B3HW: torch.Tensor, box: Box, size: tuple[int, int], generator: torch.Generator
    ) -> torch.Tensor:
        self.seen.append((box, size))
        top, left, height, width = box
        crop = window_B3HW[..., top : top + height, left : left + width]
        lr = torch.nn.functional.adaptive_avg_pool2d(crop, size)
        return lr + self.sigma * torch.randn(lr.shape, generator=generator).to(lr)


def test_a_degradation_of_ones_own(cache: PictureCache) -> None:
    own = NoisyArea()
    data = batches(cache, margin=0)
    raw = data[3]
    assert raw.window_B3SS.shape == (4, 3, 128, 128)
    state = torch.get_rng_state()
    batch = pairs(own).train_batch(raw)
    assert torch.equal(torch.get_rng_state(), state)
    assert own.seen == [((0, 0, 128, 128), (32, 32))]
    noise = batch.lr_B3hw - torch.nn.functional.avg_pool2d(batch.hr_B3HW, 4)
    assert 0.09 < noise.std() < 0.11
    # The same step gives the same noise; other steps, ranks and seeds give other noise.
    assert torch.equal(pairs(own).train_batch(raw).lr_B3hw, batch.lr_B3hw)
    for step, rank, seed in ((4, 0, 0), (3, 1, 0), (3, 0, 1)):
        plan = CropPlan(raw.plan.numbers_7B, 128, 0, mixed=False, step=step, rank=rank)
        other = pairs(own, seed).train_batch(RawCrops(raw.window_B3SS, plan))
        assert torch.equal(other.hr_B3HW, batch.hr_B3HW)
        assert not torch.equal(other.lr_B3hw, batch.lr_B3hw)


def test_a_degradation_of_ones_own_at_mixed_scales(cache: PictureCache) -> None:
    """Crop by crop, through the one method that it has."""
    own = NoisyArea(sigma=0)
    raw = batches(cache, 3, margin=0, scale=(2.0, 4.0), mix_scales=True)[0]
    batch = pairs(own).train_batch(raw)
    sides = raw.plan.side_B.tolist()
    assert own.seen == [((0, 0, side, side), (32, 32)) for side in sides]
    for b, side in enumerate(sides):
        hr_3HW = batch.hr_B3HW[b, :, :side, :side].float().div(255)
        expected = torch.nn.functional.adaptive_avg_pool2d(hr_3HW, (32, 32))
        torch.testing.assert_close(batch.lr_B3hw[b], expected)


def test_what_a_class_adds_to_bicubic_is_added_at_mixed_scales(cache: PictureCache) -> None:
    class Brighter(BicubicDegradation):
        def __call__(self, *arguments: Any) -> torch.Tensor:
            return super().__call__(*arguments) + 0.5

    raw = batches(cache, 3, scale=(2.0, 4.0), mix_scales=True)[0]
    brighter, plain = (pairs(d).train_batch(raw).lr_B3hw for d in (Brighter(), None))
    torch.testing.assert_close(brighter, plain + 0.5, rtol=0, atol=1e-6)


def test_a_degradation_may_draw_on_the_device(cache: PictureCache) -> None:
    class Recorded(NoisyArea):
        draws_on_device = True

        def __call__(self, window_B3HW: torch.Tensor, *more: Any) -> torch.Tensor:
            devices.append((window_B3HW.device, more[-1].device))
            return super().__call__(window_B3HW, *more)

    devices: list[tuple[torch.device, torch.device]] = []
    raw = batches(cache, margin=0)[0]
    with_own = pairs(Recorded()).train_batch(raw)
    assert devices == [(torch.device("cpu"), torch.device("cpu"))]
    assert torch.equal(with_own.lr_B3hw, pairs(NoisyArea()).train_batch(raw).lr_B3hw)


def test_a_degradation_of_ones_own_in_validation() -> None:
    hr = torch.full((1, 3, 33, 40), 128, dtype=torch.uint8)
    own = NoisyArea()
    a, again, b = (validation_pair(RawPicture(hr, name), 4.0, own) for name in ("a", "a", "b"))
    assert own.seen[0] == ((0, 0, 32, 40), (8, 10))
    assert torch.equal(a.lr, again.lr)  # every validation sees the same picture
    assert not torch.equal(a.lr, b.lr)
    assert not torch.equal(a.lr, validation_pair(RawPicture(hr, "a"), 4.0, own, seed=1).lr)


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (torch.zeros(1, 3, 8, 9), r"a torch\.float32 tensor of shape \(1, 3, 8, 9\)"),
        (torch.zeros(1, 3, 8, 10, dtype=torch.float64), r"a torch\.float64 tensor"),
        (None, "a NoneType"),
    ],
)
def test_a_degradation_that_gives_something_else(returned: object, said: str) -> None:
    class Wrong(Degradation):
        def __call__(self, *_: object) -> torch.Tensor:
            return returned  # type: ignore[return-value]

    hr = torch.zeros(1, 3, 32, 40, dtype=torch.uint8)
    message = rf"data\.degradation: Wrong returned {said}.*, expected .*\(1, 3, 8, 10\)"
    with pytest.raises(ConfigError, match=message):
        validation_pair(RawPicture(hr, "x"), 4.0, Wrong())


def test_sampler_goes_on_from_the_present_step(cache: PictureCache) -> None:
    at = 0
    sampler = StepSampler(batches(cache), lambda: at)
    assert list(sampler) == [0, 1, 2, 3, 4]
    at = 3
    assert list(sampler) == [3, 4]
    at = 5  # a second epoch
    assert list(sampler) == [5, 6, 7, 8, 9]
    assert len(sampler) == 5


def test_validation_pictures_are_whole(cache: PictureCache) -> None:
    dataset = ValidationPictures(cache)
    assert len(dataset) == 3
    item = dataset[1]
    assert item.name == "c.png"
    assert item.hr_B3HW.shape == (1, 3, 192, 140)
    assert np.array_equal(item.hr_B3HW[0].permute(1, 2, 0).numpy(), cache.pixels(5))


def test_validation_pictures_are_limited_evenly(cache: PictureCache) -> None:
    names = [[item.name for item in ValidationPictures(cache, n)] for n in (1, 2, 3, 9)]
    assert names == [["a.png"], ["a.png", "sub/b.bmp"], *[["a.png", "c.png", "sub/b.bmp"]] * 2]


@pytest.mark.parametrize("crop", ["a", "b"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_validation_pairs_are_golden(shared: Path, crop: str, scale: int) -> None:
    golden = np.load(shared / "reference" / "golden.npz")
    hr = torch.from_numpy(golden[f"{crop}/hr_uint8"])[None]
    pair = validation_pair(RawPicture(hr, "golden"), float(scale))
    expected = torch.from_numpy(golden[f"{crop}/bicubic_x{scale}"])[None]
    torch.testing.assert_close(pair.lr, expected, rtol=0, atol=1e-5)
    assert [n * scale for n in pair.lr.shape[2:]] == list(pair.hr.shape[2:])
    assert torch.equal((pair.hr * 255).round(), hr[..., : pair.hr.shape[2], : pair.hr.shape[3]])


@pytest.mark.parametrize("scale", [1.5, 2.5, 3.7])
def test_validation_pairs_at_broken_scales(scale: float) -> None:
    hr = torch.randint(0, 256, (1, 3, 74, 37), dtype=torch.uint8)
    pair = validation_pair(RawPicture(hr, "x"), scale)
    for lr_side, hr_side, side in zip(pair.lr.shape[2:], pair.hr.shape[2:], (74, 37), strict=True):
        assert hr_side == round(lr_side * scale) <= side
        assert side - hr_side <= scale + 1
    assert validation_pair(RawPicture(hr, "x"), 3.7).lr.shape[2:] == (20, 10)


def test_a_validation_picture_below_one_lr_pixel_is_an_error() -> None:
    tiny = RawPicture(torch.zeros(1, 3, 3, 80, dtype=torch.uint8), "tiny.png")
    with pytest.raises(DataError, match=r"tiny\.png: .* smaller than one LR pixel at scale 4"):
        validation_pair(tiny, 4.0)
