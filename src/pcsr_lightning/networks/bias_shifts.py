"""One knob: how much a network cleans, by biases that depend on a strength from 0 to 1.

Every bias ``b`` becomes ``b + (1 - strength) * shift``, with a trained shift beside it. At a given
strength that is a network like any other, with other biases: nothing else has to know about it.
A constant input channel, the usual way (FFDNet, Zhang et al., TIP 2018), is such a shift of the
first layer's biases alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pcsr_lightning.errors import ConfigError

SHIFT = "bias_shift"


def add_bias_shifts(network: nn.Module) -> None:
    """Gives every layer with a bias a shift, 0 at first, in place."""
    for module in network.modules():
        bias = getattr(module, "bias", None)
        if isinstance(bias, nn.Parameter) and not hasattr(module, SHIFT):
            # torch.empty is what limits on a file's network count, see weights/limits.py.
            shift = torch.empty(bias.shape, dtype=bias.dtype, device=bias.device)
            module.register_parameter(SHIFT, nn.Parameter(nn.init.zeros_(shift)))


def has_bias_shifts(network: nn.Module) -> bool:
    """Whether its strength can be set."""
    return next(_shifted(network), None) is not None


def biases_at(network: nn.Module, strength: float) -> dict[str, Tensor]:
    """Its biases at a strength, by their parameters' names, as ``functional_call`` takes them."""
    return {
        f"{name}.bias" if name else "bias": bias + (1 - strength) * shift
        for name, bias, shift in _shifted(network)
    }


@torch.no_grad()
def fix_strength(network: nn.Module, strength: float) -> None:
    """Makes it the plain network of one strength, without shifts, in place.

    Raises:
        ConfigError: a strength out of [0, 1], or a network without shifts.
    """
    if not 0 <= strength <= 1:
        raise ConfigError(f"denoise={strength}: must be a number from 0 (keep all) to 1 (clean)")
    found = list(_shifted(network))
    if not found:
        raise ConfigError(
            f"denoise={strength}: this model's strength cannot be set; take one trained for "
            "that, with denoise=true"
        )
    for name, bias, shift in found:
        bias.add_(shift, alpha=1 - strength)
        delattr(network.get_submodule(name), SHIFT)


def _shifted(network: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Parameter]]:
    for name, module in network.named_modules():
        shift = getattr(module, SHIFT, None)
        if isinstance(shift, nn.Parameter):
            bias = module.bias
            assert isinstance(bias, nn.Parameter)
            yield name, bias, shift
