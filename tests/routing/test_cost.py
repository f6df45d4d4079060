"""Eq. 9: shares of the paper, and what footnote 3 asks for."""

import pytest
import torch

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.networks import PCSR, branch_macs, build_network, default_config
from pcsr_lightning.routing.cost import class_costs


@pytest.mark.parametrize(("backbone", "light"), [("fsrcnn", 0.0900), ("carn", 0.3188)])
def test_proportional_shares_are_the_published_ones(backbone: str, light: float) -> None:
    model = build_network(default_config(backbone))
    assert isinstance(model, PCSR)
    costs = class_costs(branch_macs(model).branches(4), "proportional")
    assert costs.tolist() == pytest.approx([1 - light, light], abs=5e-5)


@pytest.mark.parametrize("backbone", ["fsrcnn", "carn", "srresnet", "bsrn"])
@pytest.mark.parametrize("num_classes", [2, 3, 6])
def test_softmax_is_neither_flat_nor_one_hot(backbone: str, num_classes: int) -> None:
    model = build_network(default_config(backbone, num_classes))
    assert isinstance(model, PCSR)
    costs = class_costs(branch_macs(model).branches(4))
    assert costs.sum() == pytest.approx(1)
    assert 0 < costs.min() < costs.max() < 0.8
    assert (costs[:-1] > costs[1:]).all()  # heavier costs more


@pytest.mark.parametrize("backbone", ["fsrcnn", "carn", "srresnet", "bsrn"])
def test_costs_do_not_depend_on_the_resolution(backbone: str) -> None:
    """Footnote 3. BSRN's coarse attention grid does not grow quite with the picture."""
    model = build_network(default_config(backbone))
    near = 1e-3 if backbone == "bsrn" else 1e-12
    first, *others = (branch_macs(model, *size) for size in ((16, 16), (20, 31), (48, 17)))
    for rule in ("softmax", "proportional"):
        expected = class_costs(first.branches(4), rule)
        for other in others:
            assert (class_costs(other.branches(4), rule) - expected).abs().max() < near


def test_costs_do_not_depend_on_the_unit_of_flops() -> None:
    for rule in ("softmax", "proportional"):
        assert torch.allclose(class_costs([3.0, 1.0], rule), class_costs([3e12, 1e12], rule))


@pytest.mark.parametrize("branches", [[], [1.0, 0.0], [1.0, float("nan")], [float("inf"), 1.0]])
def test_impossible_flops_are_refused(branches: list[float]) -> None:
    with pytest.raises(ConfigError, match="positive and finite"):
        class_costs(branches)


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ConfigError, match="softmax or proportional"):
        class_costs([2.0, 1.0], "equal")
