"""ClassSR: sizes as published, and what a patch's sub-network makes of it."""

import pytest
import torch
from tests.small import small_patch_routed

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.networks import ClassSR, build_network, patch_routed_config


@pytest.mark.parametrize(
    ("kind", "backbone", "thousands"),
    [("classsr", "fsrcnn", 113), ("classsr", "carn", 645), ("classsr", "srresnet", 3062)],
)
def test_parameters_are_those_of_the_papers_table(kind: str, backbone: str, thousands: int) -> None:
    network = build_network(patch_routed_config(kind, backbone))
    assert round(sum(p.numel() for p in network.parameters()) / 1000) == thousands
    assert build_network(network.config()).config() == network.config()


def test_the_published_widths() -> None:
    assert patch_routed_config("classsr", "fsrcnn")["widths"] == [56, 36, 16]
    assert patch_routed_config("classsr", "carn")["widths"] == [64, 52, 36]


@pytest.mark.parametrize("widths", [(8,), (8, 8), (4, 8), (6, 4)])
def test_widths_fall_from_the_backbones_own(widths: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"widths=.*fall from 8"):
        small_patch_routed("classsr", widths=widths)


def test_the_classifier_by_hand() -> None:
    model = small_patch_routed("classsr")
    assert isinstance(model, ClassSR)
    assert [p.shape for p in model.classifier.parameters()][:1] == [(128, 3, 4, 4)]
    patches = torch.rand(2, 3, 32, 32)
    scores = model.scores(patches)
    assert scores.shape == (2, 3)
    # A patch is judged by the mean over its 4 x 4 cells: shifted by a cell it is the same.
    torch.testing.assert_close(model.scores(patches.roll(4, dims=3)), scores)
    for j, width in enumerate((8, 6, 4)):
        assert model.branch(j).backbone.args["d"] == width
        torch.testing.assert_close(model.run_class(j, patches), model.branch(j)(patches))
