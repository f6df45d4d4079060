"""Patches against whole pictures, and against loops in numpy."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation import Layout, Protocol, benchmark, upscale_patches
from pcsr_lightning.evaluation.patches import PatchRows
from pcsr_lightning.inference import Flops, RoutingConfig, UpscaleResult, upscale
from pcsr_lightning.networks import PCSR, Original

SCALE = (4.0, 4.0)


def noise(h: int, w: int) -> torch.Tensor:
    return torch.rand(1, 3, h, w, generator=torch.Generator().manual_seed(h + w))


def one_by_one(
    model: PCSR | Original, lr: torch.Tensor, routing: RoutingConfig, side: int, step: int
) -> tuple[np.ndarray, np.ndarray, list[float], list[float]]:
    """Patches one at a time: the averaged picture, heavy pixels, and costs of each patch."""
    h, w = lr.shape[-2:]
    total, times = np.zeros((3, 4 * h, 4 * w)), np.zeros((4 * h, 4 * w))
    heavy = np.zeros((4 * h, 4 * w), dtype=bool)
    gmacs, published = [], []
    for top in range(0, h - side + 1, step):
        for left in range(0, w - side + 1, step):
            patch = lr[..., top : top + side, left : left + side]
            if isinstance(model, Original):
                one = upscale(model, patch)
            else:
                one = upscale(model, patch, 4, routing=routing)
            rows = slice(4 * top, 4 * (top + side))
            columns = slice(4 * left, 4 * (left + side))
            total[:, rows, columns] += one.image[0].double().numpy()
            times[rows, columns] += 1
            heavy[rows, columns] |= one.assignment[0].numpy() == 0
            gmacs.append(one.flops.gmacs)
            published.append(one.flops.gflops_published)
    assert times.min() == 1
    return total / times, heavy, gmacs, published


@pytest.mark.parametrize("routing", [RoutingConfig(k=0.1), RoutingConfig("adaptive")], ids=str)
@pytest.mark.parametrize(("side", "step"), [(32, 28), (16, 16)])
def test_against_one_patch_at_a_time(
    pcsr: PCSR, routing: RoutingConfig, side: int, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pcsr_lightning.evaluation.patches.BATCH_CPU", 2 * side**2)
    h, w = (32, 60) if step == 28 else (32, 48)
    lr = noise(h, w)
    # one quarter much darker, so that patches differ in what is difficult
    lr[..., : h // 2, : w // 2] *= 0.2
    result = upscale_patches(pcsr, lr, SCALE, routing, Layout(side, step))
    image, heavy, gmacs, published = one_by_one(pcsr, lr, routing, side, step)
    assert len(published) == (2 if step == 28 else 6)
    np.testing.assert_allclose(result.image[0].numpy(), image, atol=2e-5)
    assert (result.assignment[0].numpy() == 0).astype(int).tolist() == heavy.astype(int).tolist()
    assert result.flops.gflops_published == pytest.approx(sum(published), rel=1e-9)
    assert result.flops.gmacs == pytest.approx(sum(gmacs), rel=1e-3)
    assert sum(result.shares) == pytest.approx(1)
    assert 0 < result.shares[0] < 1
    if routing.mode == "adaptive":  # a patch has statistics of its own
        whole = upscale_patches(pcsr, lr, SCALE, routing)
        assert not torch.equal(whole.assignment, result.assignment)


def test_averages_by_a_loop_in_numpy() -> None:
    draw = np.random.default_rng(0)
    layout, h, w = Layout(4, 3), 10, 7  # 3 x 2 patches
    patches = draw.random((6, 3, 8, 8))
    total, times = np.zeros((3, 20, 14)), np.zeros((20, 14))
    for i, patch in enumerate(patches):
        top, left = 6 * (i // 2), 6 * (i % 2)
        total[:, top : top + 8, left : left + 8] += patch
        times[top : top + 8, left : left + 8] += 1
    assert times.max() == 4
    tensors = torch.from_numpy(patches)
    joined = layout.join([tensors[:4], tensors[4:]], (h, w))
    np.testing.assert_allclose(joined[0].numpy(), total / times, atol=1e-12)


@pytest.mark.parametrize(("side", "step", "h", "w"), [(4, 3, 13, 10), (4, 3, 4, 7), (3, 3, 9, 6)])
@pytest.mark.parametrize("batch", [1, 3, 50])
def test_rows_of_patches_are_the_picture(side: int, step: int, h: int, w: int, batch: int) -> None:
    """To every digit, whatever the batches: sums of four patches are in one order."""
    layout, draw = Layout(side, step), torch.Generator().manual_seed(h)
    down, across = ((n - side) // step + 1 for n in (h, w))
    patches = torch.rand(down * across, 3, 2 * side, 2 * side, generator=draw)
    classes = torch.randint(0, 3, (down * across, 2 * side, 2 * side), generator=draw).byte()
    parts: list[torch.Tensor] = []

    def take(top: int, rows: torch.Tensor) -> None:
        assert top == sum(part.shape[2] for part in parts)
        parts.append(rows)

    rows = PatchRows(layout, (h, w), take)
    for first in range(0, len(patches), batch):
        few = slice(first, first + batch)
        rows.add(UpscaleResult(patches[few], classes[few], Flops(0.1, 0.3), (0.0, 0.0, 0.0)))
        # what waits is two rows of patches and a batch at most
        assert sum(map(len, rows._waiting)) < 2 * across + batch
    assert torch.equal(torch.cat(parts, 2), layout.join([patches], (h, w)))
    batches = -(-len(patches) // batch)
    assert rows.flops == Flops(sum([0.1] * batches), sum([0.3] * batches))
    assert rows.shares == tuple(
        float((classes == j).float().mean(dtype=torch.float64)) for j in range(3)
    )


def test_bytes_are_the_rounded_average(pcsr: PCSR) -> None:
    lr, routing = noise(32, 60), RoutingConfig(k=0.1)
    exact, rounded = (
        upscale_patches(pcsr, lr, SCALE, routing, Layout(32, 28), bits=bits) for bits in (None, 8)
    )
    assert rounded.image.dtype == torch.uint8
    assert torch.equal(rounded.image, exact.image.mul(255).round().byte())
    assert torch.equal(rounded.assignment, exact.assignment)


def test_cut_and_join_are_inverse() -> None:
    lr = noise(60, 88)
    layout = Layout(32, 28)
    batches = list(layout.cut(lr))
    assert sum(len(b) for b in batches) == 2 * 3
    assert torch.equal(batches[0][1], lr[0, :, :32, 28:60])
    torch.testing.assert_close(layout.join(batches, (60, 88)), lr)


def test_an_original_in_patches(original: Original) -> None:
    lr = noise(32, 32)
    result = upscale_patches(original, lr, SCALE, RoutingConfig(), Layout(16, 16))
    image, _, _, published = one_by_one(original, lr, RoutingConfig(), 16, 16)
    np.testing.assert_allclose(result.image[0].numpy(), image, atol=2e-5)
    # as many pixels as the whole picture, so the same cost
    assert result.flops.gflops_published == pytest.approx(sum(published))
    assert result.shares == (1.0,)
    assert not result.assignment.any()


def test_protocols_of_a_benchmark(pcsr: PCSR, tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    for name in ("set", "cut"):
        (tmp_path / name).mkdir()
    # 133 LR pixels a side at scale 2: cut to 128, or to 116 = 28 * 4 - 28 + 32
    coarse = Image.fromarray(draw.integers(0, 256, (33, 33, 3), dtype=np.uint8))
    coarse.resize((266, 266), Image.Resampling.BICUBIC).save(tmp_path / "set" / "x.png")
    heavy = RoutingConfig(fixed_class=0)

    def score(protocol: str, patch_size: int | None = None, routing: RoutingConfig = heavy):
        [image] = benchmark(
            pcsr, tmp_path / "set", 2, routing, protocol, patch_size=patch_size
        ).images
        return image

    # a patch as large as the picture: the same as that picture whole
    in_one = score("patches", 128, RoutingConfig())
    with Image.open(tmp_path / "set" / "x.png") as file:
        file.crop((0, 0, 256, 256)).save(tmp_path / "cut" / "x.png")
    [whole] = benchmark(pcsr, tmp_path / "cut", 2, RoutingConfig()).images
    assert in_one.size == whole.size == (256, 256)
    assert in_one.gflops_published == pytest.approx(whole.gflops_published, rel=2e-3)
    # the LR pixels at the cut know what lay beyond it, so not to the last digit
    assert abs(in_one.psnr - whole.psnr) < 0.2
    small = score("patches")
    assert small.size == (256, 256)
    assert small.psnr != score("patches", 16).psnr
    # 32 x 32 LR pixels, all-heavy at scale 2, without the classifier
    patch = 2e-9 * 32 * 32 * ((9936 + 60) + 4 * 13282)
    assert small.gflops_published == pytest.approx(16 * patch, rel=1e-6)
    overlapped = score("overlapped")
    assert overlapped.size == (232, 232)
    assert overlapped.gflops_published == pytest.approx(4 * 4 * patch, rel=1e-6)
    assert score("published").size == (232, 232)


def test_a_patch_as_large_as_the_picture_is_the_picture(pcsr: PCSR) -> None:
    lr = noise(32, 32)
    for routing in (RoutingConfig(), RoutingConfig("adaptive")):
        a, b = (upscale_patches(pcsr, lr, SCALE, routing, x) for x in (None, Layout(32, 32)))
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.assignment, b.assignment)
        assert a.flops == b.flops
        assert a.shares == b.shares


def test_which_protocol_takes_which_patches() -> None:
    assert Layout.of(Protocol.FULL_IMAGE) is None
    assert Layout.of(Protocol.PUBLISHED) is None
    assert Layout.of(Protocol.OVERLAPPED) == Layout(32, 28)
    assert Layout.of(Protocol.PATCHES) == Layout(32, 32)
    assert Layout.of(Protocol.PATCHES, 128) == Layout(128, 128)
    with pytest.raises(ConfigError, match="patch_size=48: must be 16, 32, 64 or 128"):
        Layout.of(Protocol.PATCHES, 48)
    with pytest.raises(ConfigError, match=r"patch_size=16: .*not protocol=overlapped"):
        Layout.of(Protocol.OVERLAPPED, 16)
