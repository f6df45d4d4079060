"""A wider twin of a network, which a GPU trains faster: the same function of the same parameters.

Tensor cores multiply tiles of channels. The twin's channels are multiples of such a tile, and its
grouped convolutions are dense ones with zeros between the groups. All that is added is zero, so
outputs and gradients are the network's own.

Legend: B batch, D feature channels, h w LR size, Q query pixels, M classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.networks.backbones import CARN, FSRCNN, Backbone, SRResNet
from pcsr_lightning.networks.cell_queries import CellQueries
from pcsr_lightning.networks.pcsr import PCSR, PCSROutput
from pcsr_lightning.networks.pixel_mlp import BilinearOnly, PixelMLP
from pcsr_lightning.networks.query_grid import QueryGrid

TILE = 16
"""Channels of a tile of tensor cores, for which half a tile is the least."""


class PaddedTwin:
    """Runs a PCSR through its wider twin; the network stays what is trained and saved.

    At every call the twin's parameters are computed from the network's, so that gradients reach
    these; running statistics of batch norm are brought back.

    Args:
        network: any of its modules may be in training or in evaluation mode, at each call anew.

    Raises:
        ConfigError: its backbone has no twin, or ``torch.compile`` has wrapped a part of it.
    """

    def __init__(self, network: PCSR) -> None:
        backbone = wider_backbone(network.backbone)
        if backbone is None:
            raise ConfigError(f"backbone {network.backbone.name} has no form with padded channels")
        self.network = network
        with torch.device("meta"):  # its own parameters are never used
            self.twin = _WidePCSR(network, backbone)
        # Of a re-parameterised convolution the twin gets the folded weight.
        own = [m for name, m in network.named_modules() if "parametrizations" not in name]
        wide = list(self.twin.modules())
        if len(own) != len(wide):
            raise ConfigError("torch.compile has wrapped a part of the network")
        self._pairs = list(zip(own, wide, strict=True))
        self._tensors = list(self._tensor_pairs())

    def __call__(self, *inputs: object) -> PCSROutput:
        """As :meth:`PCSR.forward`."""
        for own, wide in self._pairs:
            wide.training = own.training
        tensors = {pair.name: pair.widened() for pair in self._tensors}
        out: PCSROutput = functional_call(self.twin, tensors, inputs, strict=True)
        with torch.no_grad():
            for pair in self._tensors:
                if pair.is_statistic and pair.owner.training:
                    pair.source.copy_(tensors[pair.name][: len(pair.source)])
        return out

    def _tensor_pairs(self) -> Iterator[_Pair]:
        part = (self.network.backbone.out_channels, self.twin.backbone.out_channels)
        names = (name for name, _ in self.twin.named_modules())
        for name, (own, wide) in zip(names, self._pairs, strict=True):
            tensors = itertools.chain(
                wide.named_parameters(recurse=False), wide.named_buffers(recurse=False)
            )
            for leaf, _ in tensors:
                full = f"{name}.{leaf}" if name else leaf
                yield _Pair(full, own, leaf, tuple(getattr(wide, leaf).shape), part)


def wider_backbone(backbone: Backbone) -> Backbone | None:
    """The same layers with padded channels and without groups; ``None`` for other backbones."""
    if type(backbone) is CARN:
        # Its nine merges read up to four parts of these channels: whole lines of memory each.
        return CARN(nf=padded(backbone.out_channels, 4 * TILE), group=1)
    if type(backbone) is FSRCNN:
        args = backbone.args
        return FSRCNN(d=padded(args["d"]), s=padded(args["s"]), m=args["m"])
    if type(backbone) is SRResNet:
        args = backbone.args
        return SRResNet(nf=padded(args["nf"]), blocks=args["blocks"])
    return None


def padded(channels: int, multiple: int = TILE) -> int:
    """The next multiple from ``channels`` on."""
    return -(-channels // multiple) * multiple


def widen(source: Tensor, shape: tuple[int, ...], groups: int, part: tuple[int, int]) -> Tensor:
    """A parameter, or a statistic, with zeros for all channels that are only padding.

    Args:
        source: of the network; a weight is outputs by inputs of a group by its kernel.
        shape: of the twin's.
        groups: of the convolution whose weight it is; the twin's has one.
        part: channels of a feature tensor, of the network and of the twin. Concatenated features
            are padded part by part.
    """
    if groups > 1:  # a block for each group on the diagonal of a dense weight
        blocks = source.reshape(groups, -1, *source.shape[1:]).movedim(0, -1)
        source = torch.diag_embed(blocks, dim1=0, dim2=2).flatten(0, 1).flatten(1, 2)
    pad: list[int] = []
    for dim in reversed(range(source.ndim)):
        parts = _parts(source.shape[dim], shape[dim], part)
        if parts > 1:
            sides = source.shape
            source = source.reshape(*sides[:dim], parts, -1, *sides[dim + 1 :])
            pad += [0, part[1] - part[0], 0, 0]
        else:
            pad += [0, shape[dim] - source.shape[dim]]
    return F.pad(source, pad).reshape(shape)


def _parts(own: int, wide: int, part: tuple[int, int]) -> int:
    """How many features were concatenated where ``own`` channels became ``wide`` ones."""
    parts = own // part[0]
    return parts if (own, wide) == (parts * part[0], parts * part[1]) else 1


class _Pair(NamedTuple):
    """A parameter or a buffer of the network, and what the twin needs in its place."""

    name: str
    owner: nn.Module
    leaf: str
    shape: tuple[int, ...]
    part: tuple[int, int]

    @property
    def source(self) -> Tensor:
        tensor: Tensor = getattr(self.owner, self.leaf)
        return tensor

    @property
    def is_statistic(self) -> bool:
        return self.leaf in ("running_mean", "running_var")

    def widened(self) -> Tensor:
        if not self.shape:
            return self.source  # batch norm counts its steps in place
        groups = 1
        if isinstance(self.owner, nn.Conv2d) and self.leaf == "weight":
            groups = self.owner.groups
        return widen(self.source, self.shape, groups, self.part)


class _WideMLP(PixelMLP):
    """With padded widths; its output has the channels of the MLP that it stands for.

    Args:
        mlp: that it stands for.
        in_channels: of the padded features.
    """

    def __init__(self, mlp: PixelMLP, in_channels: int) -> None:
        hidden = [padded(width) for width in mlp.hidden]
        super().__init__(in_channels, hidden, padded(mlp.out_channels, TILE // 2))
        self.kept = mlp.out_channels

    def first_layer(
        self, feat_BDhw: Tensor, grid: QueryGrid | CellQueries, queries_K: Tensor | None = None
    ) -> Tensor:
        if not isinstance(grid, CellQueries):
            return super().first_layer(feat_BDhw, grid, queries_K)
        # Rows of 8 numbers, zeros among them, are quicker to load than rows of 4.
        where_BhwN8, weight_C8 = (F.pad(x, (0, 4)) for x in (grid.offset_BhwN4, self.offset.weight))
        proj_BhwC = self.project_features(feat_BDhw)
        return proj_BhwC[..., None, :] + F.linear(where_BhwN8, weight_C8)

    def finish(self, first_NC: Tensor) -> Tensor:
        return super().finish(first_NC)[..., : self.kept]


def _wide(mlp: PixelMLP, in_channels: int) -> PixelMLP:
    if isinstance(mlp, BilinearOnly):
        return BilinearOnly(in_channels)
    return _WideMLP(mlp, in_channels)


class _WidePCSR(PCSR):
    def __init__(self, network: PCSR, backbone: Backbone) -> None:
        nn.Module.__init__(self)  # PCSR's own checks are for networks that users build
        D = backbone.out_channels
        self.backbone = backbone
        self.upsamplers = nn.ModuleList(
            _wide(network.upsampler(j), D) for j in range(network.num_classes)
        )
        self.classifier = None if network.classifier is None else _WideMLP(network.classifier, D)
        self.register_buffer("mean", torch.empty(3))
        self._grids: dict[tuple[object, ...], QueryGrid] = {}

    def grid(self, lr_size: tuple[int, int], size: tuple[int, int]) -> QueryGrid:
        """Kept, since a grid is made on the CPU, which a CUDA graph cannot copy from."""
        key = (lr_size, size, self.mean.device, self.upsampler(0).project.weight.dtype)
        if key not in self._grids:
            self._grids = {key: super().grid(lr_size, size)}  # of the latest batch alone
        return self._grids[key]
