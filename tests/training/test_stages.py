"""Each stage on a small real training: what learns, what stays bit-identical."""

import json
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pcsr_lightning import conf_dir
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.networks import PCSR, Original, build_network, default_config
from pcsr_lightning.training import (
    FirstStage,
    FreezeEarlierStages,
    LaterStage,
    OriginalStage,
    SRStage,
    cosine,
    init_from_previous_stage,
)
from pcsr_lightning.training.initialization import (
    earlier_model,
    initialize,
    network_of,
    stage_network,
    stage_number,
)
from pcsr_lightning.training.train_stage import train
from pcsr_lightning.weights import save

SMALL: dict[str, dict[str, Any]] = {
    "fsrcnn": {"d": 8, "s": 4, "m": 1},
    "carn": {"nf": 8, "group": 2},
    "srresnet": {"nf": 8, "blocks": 1},
    "bsrn": {"nf": 32, "blocks": 1},
}
"""Arguments of each backbone."""


def made(kind: type[SRStage], network: PCSR | Original, **options: Any) -> SRStage:
    """A stage of six steps with the paper's loss, optimizer and schedule."""
    paper = {
        "loss": torch.nn.L1Loss(),
        "optimizer": partial(torch.optim.Adam, lr=1e-3, betas=(0.9, 0.99), fused=True),
        "scheduler": partial(cosine, steps=6),
    }
    return kind(network, **{**paper, **options})


class Batch(NamedTuple):
    lr_B3hw: Tensor
    hr_B3HW: Tensor


class Picture(NamedTuple):
    lr: Tensor
    hr: Tensor
    name: str


class Crops(Dataset):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, i: int) -> Batch:
        generator = torch.Generator().manual_seed(i)
        hr = torch.rand(2, 3, 32, 32, generator=generator)
        return Batch(torch.nn.functional.avg_pool2d(hr, 4), hr)


class Pictures(Dataset):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, i: int) -> Picture:
        return Picture(*Crops()[i], name=f"{i}")


def fit(stage: L.LightningModule, tmp_path: object) -> L.Trainer:
    trainer = L.Trainer(
        max_steps=6,
        logger=False,
        callbacks=[FreezeEarlierStages()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        val_check_interval=3,
        check_val_every_n_epoch=None,
        accelerator="cpu",
        default_root_dir=tmp_path,
    )
    trainer.fit(
        stage, DataLoader(Crops(), batch_size=None), DataLoader(Pictures(), batch_size=None)
    )
    return trainer


def snapshot(module: torch.nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in module.state_dict().items()}


def changed(module: torch.nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {k for k, v in module.state_dict().items() if not torch.equal(v, before[k])}


@pytest.mark.parametrize("backbone", list(SMALL))
def test_a_later_stage_changes_its_own_parts_alone(backbone: str, tmp_path: object) -> None:
    torch.manual_seed(0)
    network = stage_network("3", backbone, 3, SMALL[backbone])
    stage = made(LaterStage, network)
    before = snapshot(network)
    trainer = fit(stage, tmp_path)
    moved = changed(network, before)
    assert all(k.startswith(("upsamplers.2.", "classifier.")) for k in moved)
    # Every trained tensor moves, and the optimizer knows no other.
    trained = {k for k in before if k.startswith(("upsamplers.2.", "classifier."))}
    assert moved == trained
    kept = sum(len(g["params"]) for g in trainer.optimizers[0].param_groups)
    assert kept == len(trained)
    assert len(trainer.optimizers[0].state) == len(trained)
    assert not any(m.training for m in network.backbone.modules())
    assert "val/psnr" in trainer.callback_metrics
    shares = [float(trainer.callback_metrics[f"val/share_{j}"]) for j in range(3)]
    assert sum(shares) == pytest.approx(1)


@pytest.mark.parametrize("backbone", list(SMALL))
def test_the_first_stage_and_the_original_train_everything(backbone: str, tmp_path: object) -> None:
    torch.manual_seed(0)
    first = stage_network("1", backbone, 2, SMALL[backbone])
    original = stage_network("original", backbone, 2, SMALL[backbone])
    for network, kind in ((first, FirstStage), (original, OriginalStage)):
        before = snapshot(network)
        fit(made(kind, network), tmp_path)
        assert changed(network, before) == set(before) - {"mean"}


def test_query_draws_depend_on_the_step_alone() -> None:
    stage = made(FirstStage, stage_network("1", "fsrcnn", 2), queries=100, seed=3)
    a, b = stage.draw_queries((32, 32)), stage.draw_queries((32, 32))
    assert a is not None
    assert torch.equal(a, b)
    assert a.shape == (100,)
    assert 0 <= a.min() < a.max() < 1024
    assert stage.draw_queries((10, 10)) is None


def test_growing_keeps_what_was_trained() -> None:
    torch.manual_seed(0)
    two = stage_network("2", "carn", 3, SMALL["carn"])
    three = stage_network("3", "carn", 3, SMALL["carn"])
    assert isinstance(two, PCSR)
    assert isinstance(three, PCSR)
    last = snapshot(three.upsampler(2))
    init_from_previous_stage(two, three)
    lr = torch.rand(1, 3, 8, 8)
    two.eval(), three.eval()
    a, b = two(lr, (32, 32)), three(lr, (32, 32))
    assert all(torch.equal(x, y) for x, y in zip(a.residual_MB3Q, b.residual_MB3Q, strict=False))
    assert torch.allclose(a.logits_BMQ, b.logits_BMQ[:, :2], atol=1e-6)
    assert changed(three.upsampler(2), last) == set()


def test_growing_refuses_what_does_not_fit() -> None:
    carn, fsrcnn = (build_network(default_config(b)) for b in ("carn", "fsrcnn"))
    three = build_network(default_config("carn", 3))
    with pytest.raises(ConfigError, match=r"fsrcnn.*carn"):
        init_from_previous_stage(fsrcnn, three)
    with pytest.raises(ConfigError, match="does not fit"):
        init_from_previous_stage(three, carn)


@pytest.mark.parametrize(("stage", "num_classes"), [("3", 2), ("0", 2), ("x", 2), ("1", 1)])
def test_stages_that_do_not_exist(stage: str, num_classes: int) -> None:
    with pytest.raises(ConfigError):
        stage_number(stage, num_classes)


def earlier(
    stage: str, backbone: str, init: str | None = None, output: str = "outputs"
) -> PCSR | Original | None:
    """What such a stage builds on."""
    words = [f'stage="{stage}"', f"backbone={backbone}", f"init={init or 'null'}"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", [*words, f"output={output}"])
    found = earlier_model(cfg, network_of(cfg))
    return None if found is None else found[0]


def test_a_stage_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train stage=1 backbone=carn.*or name a run"):
        earlier("2", "carn", output=str(tmp_path))
    assert earlier("1", "carn") is None
    assert earlier("original", "carn") is None


def test_a_first_stage_goes_on_with_a_trained_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trained = stage_network("2", "carn", 2, SMALL["carn"])
    assert isinstance(trained, PCSR)
    init = str(save(trained, tmp_path / "trained", {"scales": [4]}))
    network = stage_network("1", "carn", 2, SMALL["carn"])
    before = earlier("1", "carn", init)
    assert before is not None
    initialize(network, before)
    for name, value in network.state_dict().items():
        assert torch.equal(value, trained.state_dict()[name]), name
    other = stage_network("1", "fsrcnn", 2, SMALL["fsrcnn"])
    with pytest.raises(ConfigError, match=r"carn.*fsrcnn"):
        initialize(other, trained)


def test_an_original_goes_on_with_an_original_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trained, pcsr = (stage_network(s, "fsrcnn", 2, SMALL["fsrcnn"]) for s in ("original", "1"))
    init = str(save(trained, tmp_path / "trained"))
    network = stage_network("original", "fsrcnn", 2, SMALL["fsrcnn"])
    before = earlier("original", "fsrcnn", init)
    assert before is not None
    initialize(network, before)
    assert all(torch.equal(v, trained.state_dict()[k]) for k, v in network.state_dict().items())
    with pytest.raises(ConfigError, match=r"an original model; stage=1 needs a PCSR"):
        earlier("1", "fsrcnn", init)
    with pytest.raises(ConfigError, match="a PCSR model; stage=original needs an original"):
        earlier("original", "fsrcnn", str(save(pcsr, tmp_path / "p")))


def test_any_loss_optimizer_and_scheduler(tmp_path: Path) -> None:
    stage = made(
        FirstStage,
        stage_network("1", "fsrcnn", 2, SMALL["fsrcnn"]),
        loss=torch.nn.HuberLoss(),
        optimizer=partial(torch.optim.SGD, lr=1e-2, momentum=0.9),
        scheduler=partial(torch.optim.lr_scheduler.StepLR, step_size=3),
    )
    before = snapshot(stage.network)
    trainer = fit(stage, tmp_path)
    assert changed(stage.network, before) == set(before) - {"mean"}
    assert type(trainer.optimizers[0]) is torch.optim.SGD
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-4)
    sr, hr = torch.zeros(1, 3, 4), torch.full((1, 3, 4), 0.5)
    assert stage.loss(sr, hr).item() == pytest.approx(0.125)


def test_train_returns_what_validation_measured(tmp_path: Path) -> None:
    words = [
        "backbone.args={d:8,s:4,m:1}", "data=sample", "data.lr_crop=8",
        "data.downscale_factors=[1.0]",
        "data.val_limit=1", "stage.queries=64", "trainer.accelerator=cpu", "trainer.max_steps=1",
        "logger=none", f"data.cache_dir={tmp_path}/cache",
    ]  # fmt: skip
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", words)
    OmegaConf.set_struct(cfg, False)
    cfg.callbacks = {}  # they ask for a run's folder
    found = train(cfg, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert found == {"val/psnr": pytest.approx(record["val_psnr"], abs=1e-3)}
    cfg.stage = {**cfg.stage, "optimizer": "muon"}
    with pytest.raises(ConfigError, match=r"stage\.optimizer.*called optimizer now"):
        train(cfg, tmp_path / "other")
