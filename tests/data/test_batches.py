"""Batches by step: right pixels, right order, and pairs that match the whole degraded picture."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcsr_lightning.data.batches import (
    RawCrops,
    RawPicture,
    StepBatches,
    StepSampler,
    ValidationPictures,
    _cut,
)
from pcsr_lightning.data.crop_index import CropIndex
from pcsr_lightning.data.degradation import BicubicDegradation, Box, Degradation
from pcsr_lightning.data.pairs import PairMaker, validation_pair
from pcsr_lightning.data.picture_cache import PictureCache
from pcsr_lightning.errors import ConfigError, DataError
from pcsr_lightning.images import bicubic, list_pictures

MARGIN = 8


@pytest.fixture
def cache(folder: Path, tmp_path: Path) -> PictureCache:
    return PictureCache.build(list_pictures(folder), tmp_path / "cache", root=folder)


def batches(cache: PictureCache, batch_size: int = 4, **changes: int) -> StepBatches:
    index = CropIndex([(p.height, p.width) for p in cache.pictures])
    numbers = range(len(cache.pictures))
    settings = {"margin": MARGIN, "seed": 0, "steps": 5, **changes}
    return StepBatches(cache, numbers, index, batch_size, **settings)


def pair_maker(
    scale: tuple[float, float], augment: bool, seed: int = 0, degradation: Degradation | None = None
) -> PairMaker:
    return PairMaker(degradation or BicubicDegradation(), scale, 32, augment, seed)


def raw(dataset: StepBatches, step: int) -> RawCrops:
    item = dataset[step]
    return item._replace(window_BHWC=torch.from_numpy(item.window_BHWC))


@given(
    height=st.integers(10, 30),
    width=st.integers(10, 30),
    top=st.integers(-6, 24),
    left=st.integers(-6, 24),
)
@settings(deadline=None)
def test_a_cut_is_a_slice_of_the_mirrored_picture(
    height: int, width: int, top: int, left: int
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    padded = np.pad(pixels, ((6, 40), (6, 40), (0, 0)), mode="symmetric")
    out = np.empty((12, 12, 3), np.uint8)
    _cut(pixels, top, left, out)
    assert np.array_equal(out, padded[top + 6 : top + 18, left + 6 : left + 18])


def test_each_pass_takes_every_crop_once(cache: PictureCache) -> None:
    dataset = batches(cache, batch_size=5)
    n = len(dataset.index)
    assert n % 5  # passes end amid a batch
    order = np.concatenate([dataset.crop_numbers(step) for step in range(n)])  # five passes
    for epoch in range(5):
        assert sorted(order[epoch * n : (epoch + 1) * n]) == list(range(n))
    assert not np.array_equal(order[:n], order[n : 2 * n])
    assert not np.array_equal(order[:n], sorted(order[:n]))


def test_a_batch_larger_than_the_data_wraps(cache: PictureCache) -> None:
    dataset = batches(cache, batch_size=50)
    assert len(dataset.crop_numbers(0)) == 50
    assert set(dataset.crop_numbers(0)) == set(range(len(dataset.index)))


def test_order_depends_on_seed_and_step_only(cache: PictureCache) -> None:
    one, again, other = (batches(cache, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.crop_numbers(7), again.crop_numbers(7))
    assert not np.array_equal(one.crop_numbers(7), other.crop_numbers(7))


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_share_out_one_batch(cache: PictureCache, world_size: int) -> None:
    whole = batches(cache)
    parts = [batches(cache, rank=rank, world_size=world_size) for rank in range(world_size)]
    for step in (0, 3):
        shares = [part[step].window_BHWC for part in parts]
        assert np.array_equal(np.concatenate(shares), whole[step].window_BHWC)
    assert [part[0].rank for part in parts] == list(range(world_size))


def test_windows_hold_the_crop_and_its_surroundings(cache: PictureCache) -> None:
    dataset = batches(cache)
    picture, top, left = dataset.index.locate(dataset.crop_numbers(2))
    for b, window in enumerate(dataset[2].window_BHWC):
        padded = np.pad(
            cache.pixels(int(picture[b])), ((MARGIN,) * 2, (MARGIN,) * 2, (0, 0)), mode="symmetric"
        )
        assert np.array_equal(window, padded[top[b] : top[b] + 144, left[b] : left[b] + 144])


def test_lr_is_a_crop_of_the_whole_degraded_picture(cache: PictureCache) -> None:
    """The check that matters: no seam, no shift, borders as MATLAB's."""
    dataset = batches(cache, batch_size=len(CropIndex([(200, 256), (192, 140), (128, 128)])))
    dataset.numbers = [0, 5, 10]  # the three at full size, whose sides 4 divides
    dataset.index = CropIndex([(200, 256), (192, 140), (128, 128)])
    pairs = pair_maker((4.0, 4.0), augment=False)
    assert pairs.margin == MARGIN
    batch = pairs.train_batch(raw(dataset, 0))
    picture, top, left = dataset.index.locate(dataset.crop_numbers(0))
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
    dataset = batches(cache)
    pairs = pair_maker((2.0, 4.0), augment, seed=3)
    sides = set()
    for step in range(12):
        batch = pairs.train_batch(raw(dataset, step))
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


def test_augmentation_makes_all_eight_orientations(cache: PictureCache) -> None:
    dataset = batches(cache, batch_size=64)
    augmented = pair_maker((4.0, 4.0), augment=True)
    plain = pair_maker((4.0, 4.0), augment=False)
    seen = set()
    before, after = (d.train_batch(raw(dataset, 0)).hr_B3HW for d in (plain, augmented))
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


def test_random_choices_depend_on_seed_step_and_rank_only(cache: PictureCache) -> None:
    item = raw(batches(cache, batch_size=16), 0)
    pairs = pair_maker((2.0, 4.0), augment=True)

    def hr(step: int = 0, rank: int = 0, seed: int = 0) -> torch.Tensor:
        pairs.seed = seed
        return pairs.train_batch(item._replace(step=step, rank=rank)).hr_B3HW

    first = hr()
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert torch.equal(hr(), first)
    assert torch.equal(torch.get_rng_state(), state)  # the global generator is left alone
    assert hr(step=1).shape != first.shape or not torch.equal(hr(step=1), first)
    assert hr(rank=1).shape == first.shape  # one scale for all ranks
    assert not torch.equal(hr(rank=1), first)
    assert hr(seed=1).shape != first.shape or not torch.equal(hr(seed=1), first)


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
    pairs = pair_maker((4.0, 4.0), augment=True, degradation=own)
    assert (pairs.crop, pairs.margin) == (128, 0)
    item = raw(batches(cache, margin=0), 3)
    state = torch.get_rng_state()
    batch = pairs.train_batch(item)
    assert torch.equal(torch.get_rng_state(), state)
    assert own.seen == [((0, 0, 128, 128), (32, 32))]
    noise = batch.lr_B3hw - torch.nn.functional.avg_pool2d(batch.hr_B3HW, 4)
    assert 0.09 < noise.std() < 0.11
    # The same step gives the same noise; other steps, ranks and seeds give other noise.
    assert torch.equal(pairs.train_batch(item).lr_B3hw, batch.lr_B3hw)
    plain = pair_maker((4.0, 4.0), augment=False, degradation=own)
    first = plain.train_batch(item).lr_B3hw
    for other in (item._replace(step=4), item._replace(rank=1)):
        assert not torch.equal(plain.train_batch(other).lr_B3hw, first)
    reseeded = pair_maker((4.0, 4.0), augment=False, seed=1, degradation=own)
    assert not torch.equal(reseeded.train_batch(item).lr_B3hw, first)


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
