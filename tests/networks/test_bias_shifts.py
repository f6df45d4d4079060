"""Networks whose strength can be set: the same function in every form, files, and refusals."""

from pathlib import Path

import pytest
import torch
from tests.small import small_original, small_pcsr
from torch.func import functional_call

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.inference import RoutingConfig, upscale
from pcsr_lightning.networks import (
    PCSR,
    add_bias_shifts,
    biases_at,
    build_network,
    fix_strength,
    has_bias_shifts,
)
from pcsr_lightning.weights import load, save


def adjustable(backbone: str = "carn") -> PCSR:
    """With shifts that are not 0."""
    model = small_pcsr(backbone)
    add_bias_shifts(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias_shift"):
                parameter.uniform_(-0.1, 0.1)
    return model


@pytest.mark.parametrize("backbone", ["carn", "fsrcnn"])
@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
def test_a_fixed_network_is_the_one_that_was_trained(backbone: str, strength: float) -> None:
    model, x = adjustable(backbone), torch.rand(1, 3, 9, 11)
    expected = functional_call(model, biases_at(model, strength), (x, (18, 22)))
    plain = functional_call(model, biases_at(model, 1.0), (x, (18, 22))).mixed()
    fix_strength(model, strength)
    assert not has_bias_shifts(model)
    assert model.config() == small_pcsr(backbone).config()
    torch.testing.assert_close(model(x, (18, 22)).mixed(), expected.mixed(), rtol=0, atol=1e-6)
    assert torch.equal(plain, expected.mixed()) == (strength == 1)


def test_every_bias_has_a_shift_that_learns() -> None:
    model = small_pcsr("carn").train()
    add_bias_shifts(model)
    add_bias_shifts(model)  # changes nothing
    biases = [name for name, _ in model.named_parameters() if name.endswith(".bias")]
    assert list(biases_at(model, 0.5)) == biases
    x = torch.rand(1, 3, 9, 11)
    functional_call(model, biases_at(model, 0.5), (x, (9, 11))).mixed().square().sum().backward()
    shifts = [p for name, p in model.named_parameters() if name.endswith("bias_shift")]
    assert len(shifts) == len(biases)
    assert all(shift.grad is not None for shift in shifts)


def test_files_keep_the_shifts(tmp_path: Path) -> None:
    model = adjustable()
    file = save(model, tmp_path / "m.safetensors")
    loaded = load(file)
    assert isinstance(loaded, PCSR)
    assert loaded.config() == model.config() == {**small_pcsr("carn").config(), "denoise": True}
    torch.testing.assert_close(loaded.state_dict(), model.state_dict())
    x, routing = torch.rand(1, 3, 9, 11), RoutingConfig(k=0.0)
    results = {}
    for strength in (None, 1.0, 0.5):
        fixed = load(file, denoise=strength)
        assert isinstance(fixed, PCSR)
        results[strength] = upscale(fixed, x, 2, routing=routing).image
    assert torch.equal(results[None], results[1.0])
    assert not torch.equal(results[0.5], results[1.0])
    again = save(load(file, denoise=0.5), tmp_path / "half")
    other = load(again)
    assert isinstance(other, PCSR)
    assert torch.equal(upscale(other, x, 2, routing=routing).image, results[0.5])


def test_what_is_refused(tmp_path: Path) -> None:
    file = save(adjustable(), tmp_path / "m")
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(ConfigError, match=r"denoise=\S+: must be a number from 0"):
            load(file, denoise=wrong)
    with pytest.raises(ConfigError, match=r"strength cannot be set"):
        load("fsrcnn-pcsr-x4", denoise=0.5)
    with pytest.raises(ConfigError, match="denoise"):
        build_network({**small_original().config(), "denoise": True})
