"""``train(cfg)`` and ``train_all(cfg)`` in a notebook or script, without a Hydra job."""

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from tests.commands import SMALL_TRAINING

from pcsr_lightning import conf_dir
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.training import train, train_all


@pytest.fixture(autouse=True)
def _no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)


def composed(folder: Path, *overrides: str, hydra: bool = False) -> DictConfig:
    words = [*SMALL_TRAINING, "trainer.max_steps=2", f"data.cache_dir={folder}/cache", *overrides]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", words, return_hydra_config=hydra)


@pytest.mark.parametrize("hydra", [False, True])
def test_one_stage(hydra: bool, tmp_path: Path) -> None:
    run = tmp_path / "run"
    found = train(composed(tmp_path, "seed=3", hydra=hydra), run)
    record = json.loads((run / "run.json").read_text())
    assert found["val/psnr"] == pytest.approx(record["val_psnr"], abs=1e-3)
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert (run / "logs" / "metrics.csv").is_file()
    assert not HydraConfig.initialized()
    assert train(composed(tmp_path, 'stage="2"', f"init={run}"), tmp_path / "second").keys() >= {
        "val/psnr",
        "val/share_0",
    }


def test_all_stages(tmp_path: Path) -> None:
    run = tmp_path / "run"
    found = train_all(composed(tmp_path, "stage=all", hydra=True), run)
    kept = json.loads((run / "metrics.json").read_text())
    assert (found["val/psnr"], found["val/gmacs"]) == (kept["psnr"], kept["gmacs"])
    for number in (1, 2):
        assert (run / f"stage-{number}" / "checkpoints" / "last.ckpt").is_file()
        assert (run / f"stage-{number}" / "logs" / "metrics.csv").is_file()
    assert not HydraConfig.initialized()


def test_all_stages_need_to_be_composed_again(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="return_hydra_config=True"):
        train_all(composed(tmp_path, "stage=all"), tmp_path / "run")
