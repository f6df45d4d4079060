"""ARM (Chen et al., ECCV 2022): sub-networks that share the weights of one, chosen by edges.

Facts from the paper and from github.com/chenbong/ARM-Net.

Legend: N patches, p side of a patch, M classes, heaviest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from pcsr_lightning.networks.original import Original
from pcsr_lightning.networks.patch_routed import PatchRouted, at_width

BINS = 30
"""Of the table from edge score to PSNR."""
MAX_PSNR = 80.0
"""dB that stand for a patch without any error."""
_GREY = (0.299, 0.587, 0.114)
_LAPLACIAN = ((2.0, 0.0, 2.0), (0.0, -8.0, 0.0), (2.0, 0.0, 2.0))


class ARM(PatchRouted):
    """One network, whose first channels alone are a narrower one; the last class is bicubic.

    A narrower network's weights are slices of the widest one's, which all of them train. Batch
    norm's statistics are each width's own.

    Args:
        widest: the original network.
        widths: of the sub-networks, widest first.

    Attributes:
        edges: the middle of each bin of the table.
        psnr_KM: the table: the mean PSNR in dB of validation patches in a bin, of each class.
    """

    kind: ClassVar[str] = "arm"
    edges: Tensor
    psnr_KM: Tensor

    def __init__(self, widest: Original, widths: Sequence[int]) -> None:
        super().__init__(widest, widths, len(widths) + 1)
        self.supernet = widest
        self.register_buffer("edges", torch.linspace(0, 255, BINS))
        # Until there is a table: none is better than another, and the first is chosen.
        self.register_buffer("psnr_KM", torch.zeros(BINS, self.num_classes))
        with torch.device("meta"):  # their own parameters are never used
            self._narrow = [at_width(widest, width) for width in widths[1:]]
        self.statistics = nn.ModuleList(_statistics(network) for network in self._narrow)

    @property
    def widest(self) -> Original:
        return self.supernet

    def run_class(self, j: int, lr_N3pp: Tensor) -> Tensor:
        if j == self.num_classes - 1:
            return F.interpolate(
                lr_N3pp, scale_factor=float(self.scale), mode="bicubic", align_corners=False
            )
        sr_N3PP: Tensor
        if j == 0:
            sr_N3PP = self.supernet(lr_N3pp)
        else:
            narrow = self._narrow[j - 1].train(self.supernet.training)
            sr_N3PP = functional_call(narrow, self.weights(j), lr_N3pp)
        return sr_N3PP

    def weights(self, j: int) -> dict[str, Tensor]:
        """Parameters and buffers of sub-network ``j`` (not the widest, nor bicubic), by name."""
        whole = dict(self.supernet.named_parameters())
        narrow = self._narrow[j - 1]
        sliced = {
            name: whole[name][tuple(map(slice, parameter.shape))]
            for name, parameter in narrow.named_parameters()
        }
        own = dict(self.statistics[j - 1].named_buffers())
        own = {name: own[_flat(name)] for name, _ in narrow.named_buffers() if name != "mean"}
        return {**sliced, **own, "mean": self.mean}

    def scores(self, lr_N3pp: Tensor) -> Tensor:
        """The PSNR that the table says, of the bin whose middle is nearest to the edge score."""
        distance_NK = (edge_score(lr_N3pp)[:, None] - self.edges).abs()
        return self.psnr_KM[distance_NK.argmin(dim=1)]

    @torch.no_grad()
    def fill_table(self, edges_N: Tensor, psnr_NM: Tensor) -> None:
        """Makes the table from patches: their edge scores, and each class's PSNR in dB.

        Bins are equally wide. One without a patch lies on the line between its neighbours that
        have some, which the published code leaves empty.
        """
        edges_N, psnr_NM = edges_N.double(), psnr_NM.double().clamp(max=MAX_PSNR)
        low, high = edges_N.aminmax()
        width = max(float(high - low) / BINS, 1e-6)
        bin_N = ((edges_N - low) / width).long().clamp(max=BINS - 1)
        counts_K = torch.bincount(bin_N, minlength=BINS)
        sums_KM = psnr_NM.new_zeros(BINS, psnr_NM.shape[1]).index_add_(0, bin_N, psnr_NM)
        filled = counts_K.nonzero()[:, 0]
        means_KM = sums_KM[filled] / counts_K[filled, None]
        at_K = torch.arange(BINS, device=filled.device)
        right_K = torch.searchsorted(filled, at_K).clamp(max=len(filled) - 1)
        left_K = torch.where(filled[right_K] > at_K, (right_K - 1).clamp(min=0), right_K)
        gap_K = (filled[right_K] - filled[left_K]).clamp(min=1)
        share_K1 = ((at_K - filled[left_K]).clamp(0) / gap_K).clamp(max=1)[:, None]
        self.psnr_KM.copy_(torch.lerp(means_KM[left_K], means_KM[right_K], share_K1.double()))
        self.edges.copy_(low + width * (at_K + 0.5))


def edge_score(lr_N3pp: Tensor) -> Tensor:
    """The mean absolute Laplacian of each patch's grey levels, ``(N,)``, as OpenCV computes it.

    Grey levels and absolute values are whole numbers from 0 to 255; the border is reflected.
    """
    rgb = (lr_N3pp.clamp(0, 1) * 255).round()
    grey_N1pp = (rgb * rgb.new_tensor(_GREY)[:, None, None]).sum(dim=1, keepdim=True).round()
    kernel = rgb.new_tensor(_LAPLACIAN)[None, None]
    padded = F.pad(grey_N1pp, (1, 1, 1, 1), mode="reflect")
    return F.conv2d(padded, kernel).abs().clamp(max=255).mean(dim=(1, 2, 3))


def _statistics(network: Original) -> nn.Module:
    """A module with the buffers of a network, all but the mean of its input."""
    made = nn.Module()
    for name, buffer in network.named_buffers():
        if name != "mean":
            start = torch.ones if name.endswith("running_var") else torch.zeros
            made.register_buffer(_flat(name), start(buffer.shape, dtype=buffer.dtype))
    return made


def _flat(name: str) -> str:
    return name.replace(".", "-")
