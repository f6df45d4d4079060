"""The models that ship: whole, of the size they claim, and as good as they claim."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

import pcsr_lightning
from pcsr_lightning.data import SAMPLE_FOLDER
from pcsr_lightning.evaluation import benchmark
from pcsr_lightning.inference import RoutingConfig, upscale
from pcsr_lightning.networks import PCSR, Original, has_bias_shifts
from pcsr_lightning.weights import DEFAULT_MODEL, describe_models, find_model, list_models
from pcsr_lightning.weights.registry import RELEASED

SIZES = {
    "bsrn-pcsr-x4": 198_124,
    "carn-pcsr-multi": 168_970,
    "carn-pcsr-x4": 168_970,
    "carn-pcsr-x4-m3": 180_750,
    "carn-photo-multi": 170_498,
    "carn-x4": 294_915,
    "fsrcnn-pcsr-x4": 24_502,
    "fsrcnn-photo-x4": 24_928,
    "srresnet-pcsr-x4": 1_078_390,
    "srresnet-x4": 1_517_571,
}
SET14 = {
    "bsrn-pcsr-x4": 25.9,
    "carn-pcsr-multi": 26.34,
    "carn-pcsr-x4": 26.32,
    "carn-pcsr-x4-m3": 26.3,
    "carn-photo-multi": 26.05,
    "carn-x4": 25.5,
    "fsrcnn-pcsr-x4": 25.85,
    "fsrcnn-photo-x4": 25.25,
    "srresnet-pcsr-x4": 26.1,
    "srresnet-x4": 26.0,
}
"""dB at x4 and ``k = 0`` by the tables' protocol that a model may not fall below."""
MEGABYTES = 6


def released(name: str) -> tuple[PCSR | Original, dict]:
    facts = json.loads(find_model(name).with_suffix(".json").read_text())
    return pcsr_lightning.load(name), facts


def test_what_ships() -> None:
    assert list_models() == sorted(SIZES)
    assert DEFAULT_MODEL in SIZES


@pytest.mark.parametrize("name", SIZES)
def test_a_released_model_is_whole(name: str) -> None:
    model, facts = released(name)
    assert sum(p.numel() for p in model.parameters()) == SIZES[name]
    last = "original" if isinstance(model, Original) else str(model.num_classes)
    assert facts["stage"] == last
    card = " ".join(find_model(name).with_suffix(".md").read_text().split())
    for word in ("Trained on", "licence", "Limits", "seed", "python -m pcsr_lightning."):
        assert word.lower() in card.lower()


@pytest.mark.parametrize("name", SIZES)
def test_its_golden_output(name: str) -> None:
    """On the shipped validation photographs, which it has never seen: to 0.01 dB."""
    model, facts = released(name)
    found = benchmark(model, SAMPLE_FOLDER / "valid", 4).mean
    assert found.psnr == pytest.approx(facts["golden"]["psnr"], abs=0.01)
    assert found.share[0] == pytest.approx(facts["golden"]["heavy"], abs=0.005)
    # A model that cleans gains less on clean pictures.
    assert found.psnr > found.bicubic.psnr + (0.35 if has_bias_shifts(model) else 0.5)


@pytest.mark.parametrize(
    "scale", [2.5, 8, *(pytest.param(scale, marks=[pytest.mark.slow]) for scale in (1.5, 2, 3, 6))]
)
def test_the_default_model_serves_every_scale(scale: float) -> None:
    """Better than bicubic by half a decibel and more, and than the model for x4 below x4."""
    photographs = SAMPLE_FOLDER / "valid"
    found = benchmark(released(DEFAULT_MODEL)[0], photographs, scale).mean
    assert found.psnr > found.bicubic.psnr + 0.5
    if scale < 4:
        for_x4 = benchmark(released("carn-pcsr-x4")[0], photographs, scale).mean
        assert found.psnr > for_x4.psnr + 0.1


# The others' weights are kept by their golden output, which is cheaper and closer.
BY_DEFAULT = {"fsrcnn-pcsr-x4"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in BY_DEFAULT else [pytest.mark.slow]) for name in SIZES],
)
def test_set14_by_the_tables_protocol(name: str, shared: Path) -> None:
    model, _ = released(name)
    routing = RoutingConfig(k=0.0, cost="proportional")
    mean = benchmark(model, shared / "images" / "Set14", 4, routing, "published").mean
    assert mean.bicubic.psnr == pytest.approx(24.32, abs=0.005)
    assert mean.psnr >= SET14[name]
    if isinstance(model, PCSR):
        assert 0.1 < mean.share[0] < 0.8


def test_they_are_small_enough_to_ship() -> None:
    sizes = [path.stat().st_size for path in RELEASED.iterdir() if path.suffix != ".md"]
    assert sum(sizes) < MEGABYTES * 10**6


# The two large ones' shares of heavy pixels are part of their golden output, too.
ROUTED = [
    pytest.param(
        m.name, marks=[pytest.mark.slow] if m.name.startswith(("bsrn", "srresnet")) else []
    )
    for m in describe_models()
    if m.has_classes
]


@pytest.fixture(scope="module")
def sea_13hw(shared: Path) -> Tensor:
    """A sea with rocks below a clear sky, small enough that every rock has detail."""
    photograph = pcsr_lightning.images.read(shared / "images/large/morning-at-sea.jpg").rgb
    return torch.nn.functional.avg_pool2d(photograph, 24)[None]


@pytest.mark.parametrize("name", ROUTED)
def test_hard_pixels_are_at_edges_and_not_in_the_sky(name: str, sea_13hw: Tensor) -> None:
    model, _ = released(name)
    found = upscale(model, sea_13hw, 4)
    heavy_HW = found.assignment[0] == 0
    steep_HW = torch.hypot(*torch.gradient(found.image[0].mean(0)))
    sky_HW = heavy_HW[8 : len(heavy_HW) // 4, 8:-8]  # the picture's border is an edge to it
    # A model that cleans looks closer at what may be noise.
    allowed = 0.1 if has_bias_shifts(model) else float(heavy_HW.float().mean()) / 4
    assert sky_HW.float().mean() < allowed
    assert steep_HW[heavy_HW].mean() > 4 * steep_HW[~heavy_HW].mean()
