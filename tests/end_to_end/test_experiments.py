"""Every experiment composes with every stage it is for, and says what the paper says."""

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from pcsr_lightning import conf_dir
from pcsr_lightning.cli.train import build_stage
from pcsr_lightning.training.config import TrainSettings
from pcsr_lightning.training.settings import typed

FOLDER = conf_dir() / "experiment"
NAMES = sorted(p.relative_to(FOLDER).with_suffix("").as_posix() for p in FOLDER.rglob("*.yaml"))
RATES = {"fsrcnn": 1e-3, "carn": 2e-4, "srresnet": 2e-4, "bsrn": 2e-4}  # Sec. 4.1
ROWS = {
    # Table 1
    "fsrcnn_x4", "fsrcnn_original_x4", "carn_x4", "carn_original_x4", "srresnet_x4",
    "srresnet_original_x4",
    # Table 4
    "carn_x4_m3",
    # Table 5
    "carn_multi", "carn_original_x2", "carn_original_x8",
    # the appendix's Table 5
    "bsrn_x4", "bsrn_original_x4",
}  # fmt: skip


def composed(*words: str) -> TrainSettings:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", list(words))
    OmegaConf.set_struct(cfg, False)
    cfg.callbacks, cfg.logger = {}, {}  # they ask for a run's folder
    settings = typed(cfg, TrainSettings)
    settings.check()
    return settings


def test_every_row_of_the_tables_is_there() -> None:
    assert {name.removeprefix("paper/") for name in NAMES if name.startswith("paper/")} == ROWS


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_composes(name: str, tmp_path: Path) -> None:
    alone = composed(f"experiment={name}")
    stages = ["original"] if alone.stage.name == "original" else ["1", "2", "3"]
    for stage in stages[: alone.num_classes if stages[0] == "1" else 1]:
        named = f'stage="{stage}"'
        settings = alone if stage == alone.stage.name else composed(f"experiment={name}", named)
        assert settings.stage.name == stage
        if stage in ("1", "original"):
            build_stage(settings)
        if name.startswith("paper/"):
            check_the_papers(settings)


def check_the_papers(settings: TrainSettings) -> None:
    stage, data = settings.stage, settings.data
    assert stage.lr == RATES[settings.backbone.name]
    assert (stage.optimizer, stage.schedule, stage.recon) == ("adam", "cosine", "l1")
    assert stage.betas == [0.9, 0.99]
    assert stage.lr_min == 1e-7
    first = stage.name in ("1", "original")
    assert settings.trainer["max_steps"] == (2_000_000 if first else 500_000)
    assert (stage.w_recon, stage.w_avg) == (1000.0, 3.0)
    assert (data.batch_size, data.lr_crop, data.stride, data.min_rest) == (16, 32, 64, 48)
    assert data.shrinks == [1.0, 0.9, 0.8, 0.7, 0.6]
    wanted: tuple[Any, Any] = ([2, 4], 4096) if data.scale == [2, 4] else (data.scale, None)
    assert (data.scale, stage.queries) == wanted
    assert settings.trainer["precision"] == "32-true"


def test_the_command_line_still_decides() -> None:
    settings = composed("experiment=paper/carn_x4_m3", "num_classes=2", "stage.lr=1e-3")
    assert settings.num_classes == 2
    assert settings.stage.lr == 1e-3
