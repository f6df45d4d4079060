"""JPEG on the device against Pillow's encoder and decoder (libjpeg)."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pcsr_lightning.data.jpeg import jpeg
from pcsr_lightning.data.sample_pictures import SAMPLE_FOLDER
from pcsr_lightning.images import list_pictures, read


@pytest.fixture(scope="module")
def picture() -> Tensor:
    """A photograph with sides that are no multiples of a block's, (1, 3, 171, 203)."""
    return read(list_pictures(SAMPLE_FOLDER)[0]).rgb[None, :, 40:211, 60:263]


def by_pillow(rgb_13hw: Tensor, quality: int, subsampled: bool) -> Tensor:
    pixels = rgb_13hw[0].permute(1, 2, 0).mul(255).round().byte().numpy()
    file = io.BytesIO()
    options = {"quality": quality, "subsampling": 2 if subsampled else 0}
    Image.fromarray(pixels).save(file, "JPEG", **options)
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)[None].float() / 255


def psnr(x: Tensor, y: Tensor) -> float:
    return float(-10 * torch.log10((x - y).square().mean()))


@pytest.mark.parametrize("subsampled", [True, False])
@pytest.mark.parametrize("quality", [20, 40, 60, 75, 95])
def test_as_pillow_does_it(picture: Tensor, quality: int, subsampled: bool) -> None:
    ours, theirs = jpeg(picture, [quality], [subsampled]), by_pillow(picture, quality, subsampled)
    assert abs(psnr(ours, picture) - psnr(theirs, picture)) < 0.1
    assert psnr(ours, theirs) > psnr(theirs, picture) + 8
    assert torch.equal(ours * 255, (ours * 255).round())


def test_each_crop_has_its_own_quality_and_chroma(picture: Tensor) -> None:
    both = jpeg(picture.expand(3, -1, -1, -1), [90, 30, 90], [True, False, False])
    for b, (quality, subsampled) in enumerate([(90, True), (30, False), (90, False)]):
        assert torch.equal(both[b : b + 1], jpeg(picture, [quality], [subsampled]))


def test_a_crop_on_a_shifted_grid_is_cut_from_the_whole(picture: Tensor) -> None:
    whole = jpeg(picture, [50], [True])
    top, left = 21, 44
    crop = jpeg(picture[:, :, top : top + 70, left : left + 70], [50], [True], (21 % 16, 44 % 16))
    # The blocks of 16 that lie in the crop, without the pixel that their upsampled chroma borrows
    # from those beyond.
    inner = (..., slice(12, 58), slice(5, 51))
    expected = whole[:, :, top : top + 70, left : left + 70]
    assert torch.equal(crop[inner], expected[inner])
    assert not torch.equal(crop[inner], jpeg(picture, [50], [True], (5, 0))[inner])
