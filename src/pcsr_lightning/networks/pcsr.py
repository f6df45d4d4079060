"""PCSR: one backbone, M upsamplers, and a classifier that picks one for each pixel (Fig. 3).

Legend: B batch, h w LR size, H W HR size, Q query pixels, D feature channels, M classes.
Class 0 is the heaviest upsampler, class M - 1 the lightest, everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.networks.backbones import Backbone, backbone_config, validate_backbone
from pcsr_lightning.networks.bias_shifts import has_bias_shifts
from pcsr_lightning.networks.cell_queries import CellQueries
from pcsr_lightning.networks.compiled import unwrapped
from pcsr_lightning.networks.pixel_mlp import BilinearOnly, PixelMLP
from pcsr_lightning.networks.query_grid import QueryGrid


class PCSROutput(NamedTuple):
    """The outputs of every class at the same query pixels, as training needs them.

    Attributes:
        residual_MB3Q: each upsampler's output, which is added to ``base_B3Q``.
        logits_BMQ: the classifier's output before the softmax; ``None`` while there is one class.
        base_B3Q: the bilinearly upsampled input.
    """

    residual_MB3Q: list[Tensor]
    logits_BMQ: Tensor | None
    base_B3Q: Tensor

    def mixed(self) -> Tensor:
        """The upsamplers' outputs weighted by the classifier, on the base: ``(B, 3, Q)``, Eq. 5."""
        if self.logits_BMQ is None:
            return self.base_B3Q + self.residual_MB3Q[0]
        # In float32 under autocast too.
        dtype = torch.promote_types(self.logits_BMQ.dtype, torch.float32)
        prob_BMQ = self.logits_BMQ.softmax(dim=1, dtype=dtype)
        mixed = self.base_B3Q
        for j, residual_B3Q in enumerate(self.residual_MB3Q):
            mixed = mixed + prob_BMQ[:, j, None] * residual_B3Q
        return mixed


class PCSR(nn.Module):
    """A backbone with ``M`` pixel-level upsamplers, heaviest first, and a pixel-level classifier.

    Args:
        backbone: computes the LR features.
        upsamplers: one MLP a class, heaviest first, all with 3 outputs. The last of several may be
            :class:`BilinearOnly`, the only one without hidden layers.
        classifier: an MLP with ``M`` outputs; ``None`` only for ``M == 1`` (the first stage).
        mean: the RGB mean taken off the input, in [0, 1].

    Raises:
        ConfigError: the parts do not fit each other.

    Example:
        >>> model = build_network(default_config("fsrcnn", num_classes=2))
        >>> feat = model.features(torch.rand(1, 3, 24, 32))
        >>> model.residual(feat, model.grid((24, 32), (60, 80)), 0).shape
        torch.Size([1, 3, 60, 80])
    """

    mean: Tensor
    scale: ClassVar[None] = None
    """It upscales by any factor; an :class:`Original` by one only."""
    trained_scales: tuple[float, float] | None = None
    """The lowest and the highest scale that it was trained for, if its file says so."""

    def __init__(
        self,
        backbone: Backbone,
        upsamplers: Sequence[PixelMLP],
        classifier: PixelMLP | None,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
    ) -> None:
        super().__init__()
        validate_backbone(backbone)
        mlps = [*upsamplers, *([classifier] if classifier is not None else [])]
        if not upsamplers:
            raise ConfigError("PCSR needs at least one upsampler")
        check_widths([mlp.hidden for mlp in upsamplers])
        if not (upsamplers[-1].hidden or isinstance(upsamplers[-1], BilinearOnly)):
            raise ConfigError("an upsampler needs a hidden layer; only BilinearOnly has none")
        for mlp in mlps:
            if mlp.in_channels != backbone.out_channels:
                raise ConfigError(
                    f"an MLP takes {mlp.in_channels} feature channels where backbone "
                    f"{backbone.name} makes {backbone.out_channels}"
                )
        outputs = 0 if classifier is None else classifier.out_channels
        if outputs != (len(upsamplers) if len(upsamplers) > 1 else 0):
            raise ConfigError(
                f"{len(upsamplers)} upsamplers need a classifier with as many outputs "
                f"(none for a single upsampler), not one with {outputs}"
            )
        self.backbone = backbone
        self.upsamplers = nn.ModuleList(upsamplers)
        self.classifier = classifier
        self.register_buffer("mean", torch.tensor(list(mean), dtype=torch.float32))

    @property
    def num_classes(self) -> int:
        """``M``; 1 where there is nothing to route."""
        return len(self.upsamplers)

    def upsampler(self, j: int) -> PixelMLP:
        """``U_j``, typed."""
        mlp = unwrapped(self.upsamplers[j])
        assert isinstance(mlp, PixelMLP)
        return mlp

    def config(self) -> dict[str, Any]:
        """The architecture in plain values, as :func:`build_network` takes it."""
        return {
            "kind": "pcsr",
            "backbone": backbone_config(self.backbone),
            "upsamplers": [list(self.upsampler(j).hidden) for j in range(self.num_classes)],
            "classifier": None if self.classifier is None else list(self.classifier.hidden),
            "mean": [round(v, 6) for v in self.mean.tolist()],
            **({"denoise": True} if has_bias_shifts(self) else {}),
        }

    def grid(self, lr_size: tuple[int, int], size: tuple[int, int]) -> QueryGrid:
        """The queries of an ``(H, W)`` picture, on this model's device and in its precision."""
        return QueryGrid.make(
            lr_size, size, self.mean.device, self.upsampler(0).project.weight.dtype
        )

    def features(self, lr_B3hw: Tensor) -> Tensor:
        """LR features ``(B, D, h, w)`` of a picture in [0, 1]."""
        # Channels last: the MLPs read a pixel's channels together, and CPU convolutions like it.
        x = (lr_B3hw - self.mean[:, None, None]).contiguous(memory_format=torch.channels_last)
        feat_BDhw: Tensor = self.backbone(x)
        return feat_BDhw

    def logits(self, feat_BDhw: Tensor, grid: QueryGrid) -> Tensor:
        """The classifier's output at every query, ``(B, M, H, W)``; its softmax is Eq. 3."""
        if self.classifier is None:
            raise ConfigError("this network has one upsampler and no classifier: nothing to route")
        return self.classifier.query(feat_BDhw, grid)

    def residual(self, feat_BDhw: Tensor, grid: QueryGrid, j: int) -> Tensor:
        """``U_j``'s output at every query, ``(B, 3, H, W)``, a residual to the base (Eq. 4)."""
        return self.upsampler(j).query(feat_BDhw, grid)

    def forward(
        self,
        lr_B3hw: Tensor,
        size: tuple[int, int] | None,
        queries: Tensor | CellQueries | None = None,
    ) -> PCSROutput:
        """Every class at the same queries, as training needs it (Sec. 3.3).

        Args:
            lr_B3hw: pictures in [0, 1].
            size: ``(H, W)`` of the output; may be ``None`` for :class:`CellQueries`, which have
                the size of each crop.
            queries: the pixels to compute: flat indices ``i * W + j``, the same for all pictures,
                or some of each LR pixel; all pixels if ``None``.

        Raises:
            ConfigError: there is no size, or an impossible one.
        """
        grid, queries_Q = self.where((lr_B3hw.shape[-2], lr_B3hw.shape[-1]), size, queries)
        feat_BDhw = self.features(lr_B3hw)
        residuals = [
            self.upsampler(j).query(feat_BDhw, grid, queries_Q).flatten(2)
            for j in range(self.num_classes)
        ]
        logits = (
            None
            if self.classifier is None
            else self.classifier.query(feat_BDhw, grid, queries_Q).flatten(2)
        )
        return PCSROutput(residuals, logits, bilinear_at(lr_B3hw, size, queries))

    def where(
        self,
        lr_size: tuple[int, int],
        size: tuple[int, int] | None,
        queries: Tensor | CellQueries | None,
    ) -> tuple[QueryGrid | CellQueries, Tensor | None]:
        """The queries of :meth:`forward`, as :meth:`PixelMLP.query` takes them.

        Raises:
            ConfigError: there is no size, or an impossible one.
        """
        if isinstance(queries, CellQueries):
            return queries, None
        if size is None:
            raise ConfigError("the output needs a size (H, W): only CellQueries have their own")
        return self.grid(lr_size, size), queries


def check_widths(hidden_M: Sequence[Sequence[int]]) -> None:
    """Refuses upsamplers without hidden layers, but for the last of several: the free class.

    Raises:
        ConfigError: there is another one without.
    """
    without = [j for j, hidden in enumerate(hidden_M) if not hidden]
    if without and (without[0] == 0 or without[0] < len(hidden_M) - 1):
        raise ConfigError(
            f"upsampler {without[0]} has no hidden widths: an empty list is the bilinear picture "
            "alone, which only the last of several classes can be"
        )


def bilinear_upsample(lr_B3hw: Tensor, size: tuple[int, int]) -> Tensor:
    """The bilinearly upsampled input ``upX`` of Eq. 6, ``(B, 3, H, W)``."""
    return F.interpolate(lr_B3hw, size=size, mode="bilinear", align_corners=False)


def bilinear_at(
    lr_B3hw: Tensor, size: tuple[int, int] | None, queries: Tensor | CellQueries | None
) -> Tensor:
    """The same at the queries of :meth:`PCSR.forward` alone, ``(B, 3, Q)``."""
    if isinstance(queries, CellQueries):
        return queries.base(lr_B3hw)
    assert size is not None
    base_B3Q = bilinear_upsample(lr_B3hw, size).flatten(2)
    return base_B3Q if queries is None else base_B3Q.index_select(2, queries)
