"""Re-parameterised convolutions: trained with parallel branches, run as one plain convolution.

In training a weight is the sum of k x k, 1 x 1, identity, and 1 x 1 followed by k x k (RepVGG, Ding
et al., CVPR 2021; ECBSR, Zhang et al., ACM MM 2021). All branches are linear and see the same
input, so the sum is a plain convolution's weight; it is what runs, in training too.

Legend: G groups, O outputs, I inputs of a group, E channels of the chain in a group, k l kernel.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

Network = TypeVar("Network", bound=nn.Module)

_ORIGINAL = ".parametrizations.weight.original"
_BRANCHES = ".parametrizations.weight.0."
_CHAIN = f"{_BRANCHES}last"


class Branches(nn.Module):
    """The branches beside a convolution's own weight; they add nothing to it at first.

    Args:
        conv: the convolution.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        weight_OIkl = conv.weight.detach()
        O, I, k, l = weight_OIkl.shape  # noqa: E741
        G, E = conv.groups, 2 * I
        self.point = nn.Parameter(weight_OIkl.new_zeros(O, I))
        same = conv.in_channels == O
        self.identity = nn.Parameter(weight_OIkl.new_zeros(O)) if same else None
        self.first = nn.Parameter(weight_OIkl.new_empty(G * E, I).normal_(std=I**-0.5))
        self.last = nn.Parameter(weight_OIkl.new_zeros(O, E, k, l))

    def forward(self, weight_OIkl: Tensor) -> Tensor:
        return folded_weight(weight_OIkl, self.point, self.identity, self.first, self.last)


def folded_weight(
    weight_OIkl: Tensor,
    point_OI: Tensor,
    identity_O: Tensor | None,
    first_GEI: Tensor,
    last_OEkl: Tensor,
) -> Tensor:
    """The weight of the plain convolution, ``(O, I, k, l)``; ``first_GEI`` is ``(G * E, I)``.

    Raises:
        ValueError: the shapes do not belong together.
    """
    O, I, k, l = weight_OIkl.shape  # noqa: E741
    E = last_OEkl.shape[1]
    G = len(first_GEI) // E
    found = [point_OI.shape, first_GEI.shape, last_OEkl.shape]
    fits = found == [(O, I), (G * E, I), (O, E, k, l)] and O % G == 0
    if not fits or (identity_O is not None and (identity_O.shape != (O,) or O != G * I)):
        raise ValueError(f"branches of {found} do not fit a weight of {weight_OIkl.shape}")
    # In the weights' precision: what is trained is what is saved.
    with torch.autocast(weight_OIkl.device.type, enabled=False):
        last, first = last_OEkl.reshape(G, O // G, E, k, l), first_GEI.reshape(G, E, I)
        chain_OIkl = torch.einsum("goekl,gei->goikl", last, first).flatten(0, 1)
        if identity_O is not None:
            eye_OI = torch.eye(I, dtype=point_OI.dtype, device=point_OI.device).repeat(G, 1)
            point_OI = point_OI + identity_O[:, None] * eye_OI
        sides = [l // 2, l - 1 - l // 2, k // 2, k - 1 - k // 2]
        return weight_OIkl + chain_OIkl + F.pad(point_OI[..., None, None], sides)


def reparameterize(network: nn.Module) -> None:
    """Gives all convolutions larger than 1 x 1 parallel branches, in place.

    The network stays the same function. Left alone are weights that several layers share, and
    those that are computed already, as by ``weight_norm``. Pickling such a network is refused by
    PyTorch; its state dict and copies work.
    """
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    owners = [m._parameters.get("weight") for m in convolutions]
    for conv in convolutions:
        weight = conv._parameters.get("weight")
        alone = weight is not None and sum(weight is one for one in owners) == 1
        if alone and max(conv.kernel_size) > 1:
            parametrize.register_parametrization(conv, "weight", Branches(conv))


@torch.no_grad()
def start_from_identity(network: nn.Module) -> None:
    """Adds the identity to re-parameterised convolutions with as many outputs as inputs, in place.

    It is for a network with random weights, as in RepVGG; it changes the function.
    """
    for module in network.modules():
        if isinstance(module, Branches) and module.identity is not None:
            module.identity.fill_(1.0)


def is_reparameterized(names: Iterable[str]) -> bool:
    """Whether the names of a state dict are those of a network with such convolutions."""
    return any(name.endswith(_CHAIN) for name in names)


def folded_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of the plain network; that of a plain network as it is.

    Raises:
        ValueError: branches do not fit their weight.
        KeyError: one is missing.
    """
    found = dict(state)
    for layer in [key.removesuffix(_CHAIN) for key in state if key.endswith(_CHAIN)]:
        weight, identity = found.pop(layer + _ORIGINAL), f"{layer}{_BRANCHES}identity"
        point, first, last = (found.pop(layer + _BRANCHES + k) for k in ("point", "first", "last"))
        found[f"{layer}.weight"] = folded_weight(
            weight, point, found.pop(identity, None), first, last
        )
    return found


def folded(network: Network) -> Network:
    """A copy as a plain network; a network without branches itself."""
    if not is_reparameterized(network.state_dict()):
        return network
    copied = copy.deepcopy(network)
    for module in list(copied.modules()):
        if isinstance(module, nn.Conv2d) and any(isinstance(m, Branches) for m in module.modules()):
            # Not by remove_parametrizations: it changes the class, which is the original's too.
            weight = nn.Parameter(module.weight.detach())
            module.__class__ = parametrize.type_before_parametrizations(module)
            del module.parametrizations
            module.weight = weight
    return copied
