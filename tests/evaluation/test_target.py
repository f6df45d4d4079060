"""The k that meets a target: by the search alone, and on pictures, against ordinary evaluation."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

import pcsr_lightning
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation import benchmark, check_target, find_k, sweep
from pcsr_lightning.evaluation.target import CHEAP, DEAR, search
from pcsr_lightning.inference import RoutingConfig
from pcsr_lightning.networks import PCSR, Original, build_network, default_config


@pytest.mark.parametrize("target", [24.0, 25.37, 26.9])
def test_search_on_a_falling_curve(target: float) -> None:
    passes = []

    def curve(k: float) -> float:
        return 25.5 - 1.5 * math.tanh(k)

    def curves(ks: Sequence[float]) -> list[float]:
        passes.append(ks)
        assert all(-60 < k < 40 for k in ks)
        return [curve(k) for k in ks]

    found = search(curves, {k: curve(k) for k in (-60.0, *DEAR, *CHEAP, 40.0)}, target)
    assert found.reached
    assert abs(found.psnr - target) <= 0.0005
    assert found.psnr == 25.5 - 1.5 * math.tanh(found.k)
    assert found.k == float(f"{found.k:g}")  # as it is printed
    assert len(passes) <= 2
    assert max(map(len, passes), default=0) <= 9


@pytest.mark.parametrize(("target", "psnr"), [(24.9, 25.0), (24.1, 24.0)])
def test_search_takes_the_closest_of_a_staircase(target: float, psnr: float) -> None:
    """Few pixels, so few values: the nearest step, not the last one tried."""
    found = search(
        lambda ks: [24.0 if k > 0.3 else 25.0 for k in ks], {-5.0: 25.0, 5.0: 24.0}, target
    )
    assert found.psnr == psnr
    assert not found.reached


def test_pictures_that_a_heavy_class_makes_perfectly() -> None:
    found = search(
        lambda ks: [math.inf if k < 1 else 50 - k for k in ks], {0.5: math.inf, 4.0: 46.0}, 48.0
    )
    assert found.reached


@pytest.mark.parametrize(("target", "k", "psnr"), [(30.0, -5, 25.0), (20.0, 5, 24.0)])
def test_out_of_reach_is_the_nearer_end(target: float, k: float, psnr: float) -> None:
    found = search(lambda ks: [], {-5.0: 25.0, 0.0: 24.5, 5.0: 24.0}, target)
    assert (found.k, found.psnr, found.reached) == (k, psnr, False)
    assert "all-light gives 24.000 dB, all-heavy 25.000 dB" in found.description


def test_heavy_classes_are_measured_only_if_the_target_needs_them() -> None:
    def curve(k: float) -> float:
        return 25.5 - 1.5 * math.tanh(k)

    def curves(ks: Sequence[float]) -> list[float]:
        return list(map(curve, ks))

    def refuse() -> dict[float, float]:
        raise AssertionError("light classes are enough")

    seen = {k: curve(k) for k in (*CHEAP, 40.0)}
    found = search(curves, seen, 24.5, refuse)
    assert (found.reached, found.all_heavy, found.all_light) == (True, None, 24.0)
    more = {k: curve(k) for k in (-60.0, *DEAR)}
    found = search(curves, seen, 26.0, lambda: more)
    assert abs(found.psnr - 26.0) <= 0.0005
    assert found.all_heavy == 27.0
    found = search(curves, seen, 28.0, lambda: more)
    assert (found.k, found.psnr, found.reached) == (-60.0, 27.0, False)


def test_a_model_whose_light_class_is_better() -> None:
    found = search(lambda ks: [24.5 + k / 10 for k in ks], {-5.0: 24.0, 5.0: 25.0}, 24.8)
    assert found.k == pytest.approx(3, abs=0.01)


@pytest.mark.parametrize(
    ("name", "protocol", "scale", "refine"),
    [
        ("fsrcnn-pcsr-x4", "whole", 4, True),
        # Trained there: where a model was not, PSNR may go down and up with k.
        ("carn-pcsr-multi", "whole", 2.5, False),
        ("fsrcnn-pcsr-x4", "overlapped", 1, True),
    ],
)
def test_ordinary_evaluation_agrees(
    name: str, folder: Path, protocol: str, scale: float, refine: bool
) -> None:
    released = pcsr_lightning.load(name)
    assert isinstance(released, PCSR)

    def mean(routing: RoutingConfig) -> float:
        return benchmark(released, folder, scale, routing, protocol).mean.psnr

    heavy, light = mean(RoutingConfig(fixed_class=0)), mean(RoutingConfig(fixed_class=1))
    target = 0.5 * heavy + 0.5 * light
    routing = RoutingConfig(refine=refine, cost="proportional")
    found = find_k(released, folder, target, scale, routing, protocol)
    assert found.all_heavy is None or found.all_heavy == pytest.approx(heavy, abs=1e-4)
    assert found.all_light == pytest.approx(light, abs=1e-4)
    assert abs(heavy - light) > 0.02
    assert found.reached
    again = benchmark(
        released,
        folder,
        scale,
        RoutingConfig(k=found.k, refine=refine, cost="proportional"),
        protocol,
    ).mean
    assert 0 < again.share[0] < 1
    assert again.psnr == pytest.approx(found.psnr, abs=1e-4)
    assert again.psnr == pytest.approx(target, abs=0.005)


def test_nothing_of_a_full_image_is_kept(
    released: PCSR, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test8K would not fit: a session keeps 40 bytes of a pixel and more."""

    def refuse(*_: object) -> None:
        raise AssertionError("a session keeps a whole picture")

    monkeypatch.setattr("pcsr_lightning.evaluation.routed_picture.Session", refuse)
    assert find_k(released, folder, 25.0).psnr > 0
    assert sweep(released, folder, [RoutingConfig(k=1), RoutingConfig(fixed_class=1)]).points


def test_every_pixel_is_at_an_end(released: PCSR, folder: Path) -> None:
    """The ends of the interval are beyond every pixel's own threshold."""
    (folder / "broken.png").write_bytes(b"nothing")
    shares = set()
    for target in (99.0, 1.0):
        found = find_k(released, folder, target)
        shares.add(benchmark(released, folder, 4, RoutingConfig(k=found.k)).mean.share)
    assert shares == {(1.0, 0.0), (0.0, 1.0)}


def test_three_classes(folder: Path) -> None:
    torch.manual_seed(0)
    model = build_network(default_config("fsrcnn", 3))
    assert isinstance(model, PCSR)
    ends = find_k(model, folder, 1.0)
    heavy, light = (
        benchmark(model, folder, 4, RoutingConfig(fixed_class=m)).mean.psnr for m in (0, 2)
    )
    assert (ends.all_heavy, ends.all_light) == pytest.approx((heavy, light), abs=1e-4)
    found = find_k(model, folder, (heavy + light) / 2)
    mean = benchmark(model, folder, 4, RoutingConfig(k=found.k)).mean
    assert mean.psnr == pytest.approx(found.psnr, abs=1e-4)
    assert max(mean.share) < 1


def test_what_cannot_be_found(released: PCSR, original: Original) -> None:
    check_target(released, RoutingConfig(), 26.0)
    check_target(original, RoutingConfig(fixed_class=0), None)
    for model, routing, target, says in (
        (released, RoutingConfig("adaptive"), 26.0, "routing.mode must be k, not adaptive"),
        (released, RoutingConfig(k=1), 26.0, "target_psnr=26 and routing.k=1 exclude"),
        (released, RoutingConfig(), math.nan, "positive"),
        (released, RoutingConfig(), -3.0, "positive"),
        (original, RoutingConfig(), 26.0, "one class only"),
    ):
        with pytest.raises(ConfigError, match=says):
            check_target(model, routing, target)


def test_out_of_reach_is_a_warning(
    released: PCSR, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        find_k(released, folder, 90.0)
    [record] = [r for r in caplog.records if "target_psnr=90" in r.message]
    assert record.levelname == "WARNING"
    assert "out of reach" in record.message
