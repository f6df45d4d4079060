"""Every experiment composes with every stage it is for, and says what the paper says."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from pcsr_lightning import conf_dir
from pcsr_lightning.training.settings_check import check_settings
from pcsr_lightning.training.train_stage import build_stage

FOLDER = conf_dir() / "experiment"
NAMES = sorted(
    p.relative_to(FOLDER).with_suffix("").as_posix()
    for p in FOLDER.rglob("*.yaml")
    if p.stem != "base"
    and "release" not in p.relative_to(FOLDER).parts  # those are stage=all's
    and not {"classsr", "arm"} & set(p.stem.split("_"))
)
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


def composed(*words: str) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", list(words))
    OmegaConf.set_struct(cfg, False)
    cfg.callbacks, cfg.logger = {}, {}  # they ask for a run's folder
    check_settings(cfg)
    return cfg


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


@pytest.mark.parametrize("backbone", ["fsrcnn", "carn", "srresnet"])
def test_the_rivals_as_published(backbone: str) -> None:
    arm = composed(f"experiment=paper/{backbone}_arm_x4")
    together = OmegaConf.load(FOLDER / "paper" / f"{backbone}_classsr_x4.yaml")
    branches, classifier = (
        composed(f"experiment=paper/{backbone}_classsr_x4", *words) for words in together.stages
    )
    stages = [(branches, 500_000, 48), (classifier, 200_000, 96), (arm, 2_000_000, 16)]
    for cfg, steps, crops in stages:
        assert (cfg.trainer.max_steps, cfg.data.batch_size) == (steps, crops)
        assert cfg.optimizer.lr == (2e-4 if cfg is classifier else RATES[backbone])
    for cfg in (branches, arm):
        build_stage(cfg)
    weights = classifier.stage
    assert (weights.w_recon, weights.w_class, weights.w_avg) == (1000, 0.5, 3)


def check_the_papers(cfg: DictConfig) -> None:
    stage, data, optimizer, scheduler = cfg.stage, cfg.data, cfg.optimizer, cfg.scheduler
    assert optimizer.lr == RATES[cfg.backbone.name]
    assert optimizer._target_ == "torch.optim.Adam"
    assert (optimizer.betas, optimizer.weight_decay) == ([0.9, 0.99], 0)
    assert scheduler._target_ == "pcsr_lightning.training.optim.cosine"
    assert (scheduler.lr_min, scheduler.warmup) == (1e-7, 0)
    assert cfg.loss == {"_target_": "torch.nn.L1Loss"}
    first = stage.name in ("1", "original")
    assert cfg.trainer.max_steps == scheduler.steps == (2_000_000 if first else 500_000)
    if not first:
        assert (stage.w_recon, stage.w_avg) == (1000.0, 3.0)
    assert (data.batch_size, data.lr_crop, data.stride, data.min_rest) == (16, 32, 64, 48)
    assert data.downscale_factors == [1.0, 0.9, 0.8, 0.7, 0.6]
    if stage.name != "original":
        assert stage.queries == (4096 if data.scale == [2, 4] else None)
    assert cfg.trainer.precision == "32-true"


def test_the_command_line_still_decides() -> None:
    cfg = composed("experiment=paper/carn_x4_m3", "num_classes=2", "optimizer.lr=1e-3")
    assert cfg.num_classes == 2
    assert cfg.optimizer.lr == 1e-3
