"""Colour and transparency of a picture, a few rows at a time.

The colour under transparent pixels is replaced, so that upscaling draws no foreign colour into the
edges. Rows come out the same however a picture is cut.

Shapes: `rgb` is (3, h, w), `alpha` (1, h, w); `weight_1hw` says how far a pixel's colour is
known, sums are of colours times their weights. H W HR size.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pcsr_lightning.images.picture import Picture, floats

_RINGS = 4  # filled exactly from their neighbours; what lies farther off only has to be smooth
_STRIP_PIXELS = 2**20  # read together; intermediate results take 40 bytes for each


def fill_under_alpha(rgb: Tensor, alpha: Tensor) -> Tensor:
    """Gives fully transparent pixels the colour of the visible ones near them.

    Their own colour is arbitrary, often black or white. A network or a bicubic filter would mix it
    into the half transparent edge, where it shows as a halo.

    Args:
        rgb: float (3, h, w).
        alpha: float (1, h, w), not premultiplied; any device, that of `rgb`.

    Returns:
        (3, h, w): `rgb` itself when no pixel is fully transparent or none is visible; otherwise a
        new tensor, equal to `rgb` wherever alpha is above 0.
    """
    colour = ColourRows(Picture(rgb, alpha), rgb.shape[1])
    return colour.rows(0, rgb.shape[1]) if colour.filled else rgb


class ColourRows:
    """A picture's colour as floating point, filled under its alpha, made when it is asked for.

    Besides the picture, 3 bytes a pixel are kept where there is something to fill, else nothing.

    Args:
        picture: its pixels may be whole numbers.
        strip: rows to look at together; by their number of pixels if not given.

    Attributes:
        size: (h, w).
        filled: whether there is something to fill, see :func:`fill_under_alpha`.
    """

    def __init__(self, picture: Picture, strip: int | None = None) -> None:
        self._rgb, self._alpha = picture.rgb, picture.alpha
        self.size = int(picture.rgb.shape[1]), int(picture.rgb.shape[2])
        rows = _STRIP_PIXELS // self.size[1] if strip is None else strip
        self._strip = 2 * max(1, (rows + 1) // 2)  # even, so that pairs of rows stay together
        self.filled = self._alpha is not None and self._has_hidden(self._alpha)
        self._coarse = self._make_coarse() if self.filled else None
        self._range = None if self._alpha is None else AlphaRange(self._alpha)

    def unseen(self, top: int, bottom: int) -> Tensor | None:
        """Pixels that are invisible, like all their neighbours: bool (n, w); None if none is."""
        if self._range is None or (self._range.constant or 0) > 0:
            return None
        return self._range.invisible(top, bottom)

    def rows(self, top: int, bottom: int) -> Tensor:
        """Rows `top` to `bottom` of the colour: float32 (3, n, w) in [0, 1]."""
        if not self.filled:
            return floats(self._rgb[:, top:bottom])
        colour, weight_1nw = self._near_filled(top, bottom)
        if self._coarse is None:
            return colour
        above = top // 2
        coarse = self._coarse[:, above : (bottom + 1) // 2]
        fine = _doubled(coarse)[:, top - 2 * above :, : self.size[1]][:, : bottom - top]
        return torch.where(weight_1nw > 0, colour, fine)

    def _has_hidden(self, alpha_1hw: Tensor) -> bool:
        """Whether some pixels, but not all, are fully transparent."""
        hidden = seen = False
        for rows in self._strips():
            hidden_1nw = floats(alpha_1hw[:, rows]) <= 0
            hidden = hidden or bool(hidden_1nw.any())
            seen = seen or not bool(hidden_1nw.all())
        return hidden and seen

    def _near_filled(self, top: int, bottom: int) -> tuple[Tensor, Tensor]:
        """Rows filled as far as the rings go, and how much of them is known."""
        assert self._alpha is not None
        first, last = max(0, top - _RINGS), min(self.size[0], bottom + _RINGS)
        colour = floats(self._rgb[:, first:last]).clone(memory_format=torch.contiguous_format)
        weight_1nw = floats(self._alpha[:, first:last]).to(colour.dtype).clamp(0, 1)
        for _ in range(_RINGS):
            if not _fill_ring(colour, weight_1nw):
                break
        inner = slice(top - first, bottom - first)
        return colour[:, inner], weight_1nw[:, inner]

    def _make_coarse(self) -> Tensor | None:
        """The colour at half the size, known everywhere; `None` if rings alone fill the picture."""
        known, sums, weights = True, [], []
        for rows in self._strips():
            colour, weight_1nw = self._near_filled(rows.start, rows.stop)
            known = known and bool((weight_1nw > 0).all())
            coarse_sum, coarse_weight = _halved(colour, weight_1nw)
            sums.append(coarse_sum)
            weights.append(coarse_weight)
        if known:
            return None
        return _pulled(torch.cat(sums, dim=1), torch.cat(weights, dim=1))

    def _strips(self) -> list[slice]:
        h = self.size[0]
        return [slice(top, min(h, top + self._strip)) for top in range(0, h, self._strip)]


class AlphaRange:
    """What an upscaled transparency may be at each pixel: no more and no less than around it.

    Whatever upscales it, opaque areas stay opaque to the last bit, and invisible ones invisible.

    Args:
        alpha_1hw: as in `Picture`, whole numbers too.

    Attributes:
        size: (h, w).
        constant: its value, if it has but one.
    """

    def __init__(self, alpha_1hw: Tensor) -> None:
        self._alpha = alpha_1hw
        self.size = int(alpha_1hw.shape[1]), int(alpha_1hw.shape[2])
        step = max(1, _STRIP_PIXELS // self.size[1])
        strips = [floats(alpha_1hw[:, i : i + step]) for i in range(0, self.size[0], step)]
        low, high = (min(float(s.min()) for s in strips), max(float(s.max()) for s in strips))
        self.constant = low if low == high else None

    def rows(self, top: int, bottom: int) -> Tensor:
        """Rows `top` to `bottom` of the transparency as grey: float32 (3, n, w) in [0, 1]."""
        return floats(self._alpha[:, top:bottom]).expand(3, -1, -1)

    def invisible(self, top: int, bottom: int) -> Tensor:
        """Pixels that are invisible, like all their neighbours: bool (n, w)."""
        return self._greatest(top, bottom, 1)[0] <= 0

    def unseen(self, top: int, bottom: int) -> Tensor:
        """Pixels whose value is known before anything is upscaled: bool (n, w)."""
        return (self._greatest(top, bottom, 1) == -self._greatest(top, bottom, -1))[0]

    def clamp(self, rows_1nW: Tensor, top: int, size: tuple[int, int]) -> Tensor:
        """Brings rows of the upscaled transparency into range.

        Args:
            rows_1nW: float32.
            top: the first one's number.
            size: (H, W) of the upscaled picture.
        """
        near_H, near_W = (_nearest(n, m) for n, m in zip(self.size, size, strict=True))
        near_n = near_H[top : top + rows_1nW.shape[1]]
        first, last = int(near_n[0]), int(near_n[-1]) + 1
        high, low = self._greatest(first, last, 1), -self._greatest(first, last, -1)
        low, high = (x[:, near_n - first][:, :, near_W] for x in (low, high))
        return torch.minimum(torch.maximum(rows_1nW, low), high)

    def _greatest(self, top: int, bottom: int, sign: int) -> Tensor:
        """The greatest of each pixel and its neighbours, or the least with its sign changed."""
        first, last = max(0, top - 1), min(self.size[0], bottom + 1)
        x = sign * floats(self._alpha[:, first:last])
        found: Tensor = F.max_pool2d(x[None], 3, stride=1, padding=1)[0]
        return found[:, top - first : bottom - first]


def _nearest(n_lr: int, n_hr: int) -> Tensor:
    """The LR pixel in which each HR pixel's centre lies, (n_hr,)."""
    return ((2 * torch.arange(n_hr) + 1) * n_lr).div(2 * n_hr, rounding_mode="floor")


def _fill_ring(colour: Tensor, weight_1hw: Tensor) -> bool:
    """Fills, in place, the unknown pixels that touch known ones. Whether there were any."""
    known = weight_1hw[0] > 0
    near = known.clone()
    near[1:] |= known[:-1]
    near[:-1] |= known[1:]
    across = near.clone()
    near[:, 1:] |= across[:, :-1]
    near[:, :-1] |= across[:, 1:]
    y, x = torch.nonzero(near & ~known, as_tuple=True)
    if len(y) == 0:
        return False
    h, w = known.shape
    colour_sum, weight_sum = colour.new_zeros(3, len(y)), colour.new_zeros(1, len(y))
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            at = (slice(None), (y + dy).clamp(0, h - 1), (x + dx).clamp(0, w - 1))
            weight = weight_1hw[at]
            colour_sum += colour[at] * weight
            weight_sum += weight
    colour[:, y, x] = colour_sum / weight_sum
    # A ring counts as much as its neighbours did, but never zero.
    weight_1hw[:, y, x] = (weight_sum / 9).clamp_min(1e-6)
    return True


def _pulled(colour_sum: Tensor, weight_1hw: Tensor) -> Tensor:
    """Colour everywhere: where it is unknown, that of ever coarser means."""
    colour = colour_sum / torch.where(weight_1hw > 0, weight_1hw, 1)
    known_1hw = weight_1hw > 0
    if bool(known_1hw.all()):
        return colour
    h, w = weight_1hw.shape[-2:]
    coarse = _pulled(*_halved(colour, weight_1hw))
    return torch.where(known_1hw, colour, _doubled(coarse)[:, :h, :w])


def _halved(colour: Tensor, weight_1hw: Tensor) -> tuple[Tensor, Tensor]:
    """Means of colour times weight, and of weight, over 2 x 2 pixels."""
    both = (colour * weight_1hw, weight_1hw)
    coarse_sum, coarse_weight = (F.avg_pool2d(x[None], 2, 2, ceil_mode=True)[0] for x in both)
    return coarse_sum, coarse_weight


def _doubled(coarse: Tensor) -> Tensor:
    """Each pixel as 2 x 2."""
    return F.interpolate(coarse[None], scale_factor=2)[0]
