"""Released models on pictures unlike photographs, held to what the paper's weights do there."""

from pathlib import Path

import pytest
import torch

from pcsr_lightning.errors import TrainingError
from pcsr_lightning.networks import PCSR, Original
from pcsr_lightning.release.robustness import (
    MOST_OFF,
    PUBLISHED,
    Robustness,
    allowed_off,
    check_robustness,
    patterns,
    robustness,
)
from pcsr_lightning.weights import find_model, list_models, load
from pcsr_lightning.weights.files import load_model_file

CHECKPOINTS = {
    ("pcsr", "fsrcnn"): "fsrcnn-pcsr-phase1.pth",
    ("pcsr", "carn"): "carn-pcsr-phase1.pth",
    ("original", "fsrcnn"): "fsrcnn-x4.pth",
    ("original", "carn"): "carn-x4.pth",
}


@pytest.mark.parametrize("name", list_models())
def test_a_released_model_is_sound(name: str) -> None:
    model, facts = load_model_file(find_model(name))
    scales = range(int(facts["scales"][0]), int(facts["scales"][-1]) + 1)
    check_robustness(robustness(model, list(scales)), name)


@pytest.mark.parametrize(
    ("kind", "backbone", "scale"),
    [
        pytest.param(*names, scale, marks=[] if scale == 4 else [pytest.mark.slow])
        for names in CHECKPOINTS
        for scale in PUBLISHED[names[0]][names[1]]
    ],
)
def test_what_the_published_weights_do(kind: str, backbone: str, scale: int, shared: Path) -> None:
    """The bounds that lie above 50 are theirs, to a tenth."""
    model = load(shared / "reference" / CHECKPOINTS[kind, backbone])
    found = robustness(model, [scale])
    over = {r.pattern: r.off for r in found if r.off > MOST_OFF}
    assert over == pytest.approx(PUBLISHED[kind][backbone][scale], abs=0.1)
    assert all((r.features or 0) < 3 for r in found)


def test_a_model_that_breaks_is_refused() -> None:
    """Large features are enough, and so is a dark result; the message names the pictures."""
    model = load("fsrcnn-pcsr-x4")
    assert isinstance(model, PCSR)
    with torch.no_grad():
        model.upsampler(0).tail[-1].bias.sub_(0.3)
        model.upsampler(1).tail[-1].bias.sub_(0.3)
    found = robustness(model)
    with pytest.raises(
        TrainingError, match=r"mine is not sound .*text on black at x4 \(off by \d+ of"
    ):
        check_robustness(found, "mine")
    grown = [Robustness("dots", 4, off=1.0, allowed=50.0, features=10.1)]
    with pytest.raises(TrainingError, match=r"dots at x4 .*features 10\.1 times a photograph's"):
        check_robustness(grown, "mine")
    for off in (float("nan"), float("inf")):
        assert not Robustness("dots", 4, off, 50.0, 1.0).sound


def test_a_backbone_without_published_weights() -> None:
    pcsr, original = load("bsrn-pcsr-x4"), load("carn-x4")
    assert isinstance(original, Original)
    assert allowed_off(pcsr, "noise", 4) == 60
    assert allowed_off(pcsr, "checkerboard, 1 pixel", 4) == 173
    assert allowed_off(original, "noise", 4) == 50


def test_the_pictures() -> None:
    found = patterns()
    assert len(found) == 7
    for picture in found.values():
        assert picture.shape[:2] == (1, 3)
        assert 0 <= picture.min() < picture.max() <= 1
    assert all(torch.equal(found[name], again) for name, again in patterns().items())
