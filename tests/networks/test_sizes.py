"""Parameter and multiply-add counts of the paper and of the published models."""

import itertools

import pytest
import torch
from torch import nn

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.networks import (
    PCSR,
    branch_macs,
    build_network,
    default_config,
    hoisted_macs,
    upsampler_widths,
)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("backbone", "total"),
    [("fsrcnn", 24_515), ("carn", 294_915), ("srresnet", 1_517_571), ("bsrn", 352_400)],
)
def test_originals_have_the_published_size(backbone: str, total: int) -> None:
    model = build_network(default_config(backbone, original=True))
    assert parameters(model) == total
    assert model(torch.rand(1, 3, 17, 21)).shape == (1, 3, 68, 84)


@pytest.mark.parametrize(
    ("backbone", "parts"),
    [
        ("fsrcnn", (10_096, 13_517, 783, 106)),
        ("carn", (145_132, 21_093, 2_043, 702)),
        ("srresnet", (972_312, 98_433, 5_923, 1_722)),
    ],
)
def test_pcsr_parts_have_the_published_size(backbone: str, parts: tuple[int, ...]) -> None:
    model = build_network(default_config(backbone))
    assert isinstance(model, PCSR)
    assert model.classifier is not None
    found = (
        parameters(model.backbone),
        parameters(model.upsampler(0)),
        parameters(model.upsampler(1)),
        parameters(model.classifier),
    )
    assert found == parts
    assert parameters(model) == sum(parts)


def test_carn_with_three_classes_and_bsrn_have_about_the_published_size() -> None:
    assert parameters(build_network(default_config("carn", 3))) == pytest.approx(181e3, rel=0.003)
    assert parameters(build_network(default_config("bsrn"))) == pytest.approx(198e3, rel=0.003)


@pytest.mark.parametrize(
    ("backbone", "backbone_macs", "heavy", "light", "classifier"),
    [
        ("fsrcnn", 9_936 + 0.5 * 120, 13_282, 750, 104),  # PReLU on 48 + 12 + 12 + 48 channels
        ("carn", 232_596 + 624, 20_794, 1_980, 680),  # 624 for batch norm
        ("srresnet", 970_398, 97_750, 5_800, 1_680),
    ],
)
def test_branch_macs_are_the_published_ones(
    backbone: str, backbone_macs: float, heavy: float, light: float, classifier: float
) -> None:
    model = build_network(default_config(backbone))
    assert isinstance(model, PCSR)
    macs = branch_macs(model)
    assert macs.backbone == backbone_macs
    assert macs.upsamplers == (heavy, light)
    assert macs.classifier == classifier
    # Footnote 3: whatever the resolution.
    assert branch_macs(model, 9, 23) == macs


def test_counting_leaves_the_model_as_it_was() -> None:
    model = build_network(default_config("carn"))
    assert isinstance(model, PCSR)
    model.train()
    model.backbone.eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    branch_macs(model)
    assert model.training
    assert not model.backbone.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_hoisting_saves_what_it_says() -> None:
    """At x4 the projection runs once per LR pixel instead of 16 times, the offsets are gone."""
    model = build_network(default_config("carn"))
    assert isinstance(model, PCSR)
    mlp = model.upsampler(0)
    plain = 16 * 100 * branch_macs(model).upsamplers[0]
    saved = plain - hoisted_macs(mlp, 100, 1600)
    assert saved == 1600 * 56 * 74 - 100 * 52 * 74


def test_middle_upsamplers_fall_in_equal_steps() -> None:
    widths = upsampler_widths(52, (74,) * 4, (20,) * 3, 4)
    costs = [
        sum(a * b for a, b in zip([56, *hidden], [*hidden, 3], strict=True)) for hidden in widths
    ]
    steps = [a - b for a, b in itertools.pairwise(costs)]
    assert max(steps) / min(steps) < 1.1
    assert widths[0] == (74,) * 4
    assert widths[-1] == (20,) * 3


def test_config_describes_the_network() -> None:
    for config in (default_config("bsrn", 3), default_config("carn", original=True)):
        assert build_network(config).config() == config


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"kind": "swinir"}, "kind"),
        ({**default_config("fsrcnn"), "extra": 1}, "extra"),
        ({**default_config("fsrcnn"), "backbone": {"name": "vgg"}}, "vgg"),
        ({**default_config("fsrcnn"), "backbone": {"name": "fsrcnn", "depth": 3}}, "depth"),
        ({**default_config("fsrcnn"), "classifier": None}, "classifier"),
        ({**default_config("carn", original=True), "scale": 3}, "2, 4 or 8"),
    ],
)
def test_a_wrong_config_is_named(config: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        build_network(config)
