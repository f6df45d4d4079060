"""The models that ship: whole, of the size they claim, and as good as they claim."""

import json
from pathlib import Path

import pytest

import pcsr_lightning
from pcsr_lightning.data import SAMPLE_FOLDER
from pcsr_lightning.evaluation import benchmark
from pcsr_lightning.inference import Routing
from pcsr_lightning.networks import PCSR
from pcsr_lightning.weights import DEFAULT_MODEL, find_model, list_models

SIZES = {"carn-pcsr-x4": 168_970, "fsrcnn-pcsr-x4": 24_502}
SET14 = {"carn-pcsr-x4": 26.1, "fsrcnn-pcsr-x4": 25.4}
"""dB at ``k = 0`` by the tables' protocol that a model may not fall below."""
MEGABYTES = 6


def released(name: str) -> tuple[PCSR, dict]:
    model = pcsr_lightning.load(name)
    assert isinstance(model, PCSR)
    return model, json.loads(find_model(name).with_suffix(".json").read_text())


def test_what_ships() -> None:
    assert list_models() == sorted(SIZES)
    assert DEFAULT_MODEL in SIZES


@pytest.mark.parametrize("name", SIZES)
def test_a_released_model_is_whole(name: str) -> None:
    model, facts = released(name)
    assert sum(p.numel() for p in model.parameters()) == SIZES[name]
    assert facts["stage"] == str(model.num_classes)
    card = find_model(name).with_suffix(".md").read_text()
    for word in ("Trained on", "licence", "Limits", "seed", "python -m pcsr_lightning."):
        assert word.lower() in card.lower()


@pytest.mark.parametrize("name", SIZES)
def test_its_golden_output(name: str) -> None:
    """On the shipped validation photographs, which it has never seen: to 0.01 dB."""
    model, facts = released(name)
    found = benchmark(model, SAMPLE_FOLDER / "valid", 4).mean
    assert found.psnr == pytest.approx(facts["golden"]["psnr"], abs=0.01)
    assert found.share[0] == pytest.approx(facts["golden"]["heavy"], abs=0.005)
    assert found.psnr > found.bicubic_psnr + 0.5


@pytest.mark.parametrize("name", SIZES)
def test_set14_by_the_tables_protocol(name: str, shared: Path) -> None:
    model, _ = released(name)
    routing = Routing(k=0.0, cost="proportional")
    mean = benchmark(model, shared / "images" / "Set14", 4, routing, "published").mean
    assert mean.bicubic_psnr == pytest.approx(24.32, abs=0.005)
    assert mean.psnr >= SET14[name]
    assert 0.2 < mean.share[0] < 0.8


def test_they_are_small_enough_to_ship() -> None:
    sizes = [find_model(name).stat().st_size for name in list_models()]
    assert sum(sizes) < MEGABYTES * 10**6
