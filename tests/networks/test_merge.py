"""CARN's merges: batch norm folded into the convolution is the same function."""

import torch
from torch import nn

from pcsr_lightning.networks.backbones.carn import Merge


def trained_merge() -> Merge:
    torch.manual_seed(0)
    merge = Merge(12, 5).double()
    norm = merge[1]
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(tensor)
    nn.init.uniform_(norm.running_var, 0.1, 3)
    return merge


def test_folded_in_evaluation() -> None:
    merge, x = trained_merge().eval(), torch.randn(2, 12, 6, 7, dtype=torch.float64)
    plain = nn.Sequential(*merge)
    assert list(merge.state_dict()) == list(plain.state_dict())
    torch.testing.assert_close(merge(x), plain(x), rtol=1e-12, atol=1e-12)


def test_training_uses_and_follows_the_batch() -> None:
    merge, x = trained_merge().train(), torch.randn(2, 12, 6, 7, dtype=torch.float64)
    before = merge[1].running_mean.clone()
    out = merge(x)
    assert not torch.equal(merge[1].running_mean, before)
    torch.testing.assert_close(out, nn.Sequential(*merge)(x), rtol=1e-12, atol=1e-12)


def test_gradients_reach_every_parameter_in_evaluation() -> None:
    merge, x = trained_merge().eval(), torch.randn(1, 12, 4, 4, dtype=torch.float64)
    merge(x).sum().backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in merge.parameters())
