"""A sweep says of every routing what evaluating it alone says."""

from pathlib import Path

import pytest
from PIL import Image

from pcsr_lightning.data import SAMPLE_FOLDER
from pcsr_lightning.errors import ConfigError, DataError
from pcsr_lightning.evaluation import benchmark, sweep
from pcsr_lightning.inference import RoutingConfig
from pcsr_lightning.networks import PCSR

ROUTINGS = [
    *(RoutingConfig(k=k) for k in (-3.0, 0.0, 0.4, 1.0)),
    RoutingConfig(k=0.3, refine=False),
    RoutingConfig(k=0.5, cost="proportional"),
    RoutingConfig("adaptive"),
    RoutingConfig(budget=0.4),
    RoutingConfig(fixed_class=0),
    RoutingConfig(fixed_class=1),
]


@pytest.mark.parametrize(
    ("scale", "protocol"), [(4, "whole"), (4, "published"), (2.5, "whole"), (4, "overlapped")]
)
def test_as_one_by_one(released: PCSR, scale: float, protocol: str, tmp_path: Path) -> None:
    with Image.open(SAMPLE_FOLDER / "valid" / "chelsea.png") as photograph:
        photograph.crop((0, 0, 300, 240)).save(tmp_path / "part.png")
    found = sweep(released, tmp_path, ROUTINGS, scale, protocol)
    assert found.pictures == 1
    for point, routing in zip(found.points, ROUTINGS, strict=True):
        alone = benchmark(released, tmp_path, scale, routing, protocol).mean
        assert point.routing == routing
        assert point.psnr == pytest.approx(alone.psnr, abs=2e-4), routing
        assert point.gmacs == pytest.approx(alone.gmacs, rel=1e-9), routing
        assert point.gflops_published == pytest.approx(alone.gflops_published, rel=1e-9)
        # The overlapped protocol counts a pixel of several patches as often as it is computed.
        assert point.share == pytest.approx(alone.share, abs=1e-9)
        assert found.bicubic_psnr == pytest.approx(alone.bicubic.psnr, abs=1e-6)


def test_what_a_sweep_refuses(released: PCSR, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least one"):
        sweep(released, SAMPLE_FOLDER / "valid", [])
    with pytest.raises(ConfigError, match="class"):
        sweep(released, SAMPLE_FOLDER / "valid", [RoutingConfig(fixed_class=2)])
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"broken\.png"):
        sweep(released, tmp_path, [RoutingConfig()])
