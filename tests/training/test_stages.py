"""Each stage on a small real training: what learns, what stays bit-identical."""

import copy
import json
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from skimage.color import rgb2ycbcr
from skimage.metrics import structural_similarity
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchmetrics import MeanAbsoluteError

from pcsr_lightning import conf_dir
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.evaluation import psnr_y, ssim, ssim_y
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


FROZEN = partial(torch.optim.SGD, lr=0.0)


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


def fit(
    stage: L.LightningModule,
    tmp_path: object,
    crops: Dataset | None = None,
    pictures: Dataset | list[Dataset] | dict[str, Dataset] | None = None,
) -> L.Trainer:
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
    loader = partial(DataLoader, batch_size=None)
    validation: Any = loader(pictures or Pictures())
    if isinstance(pictures, list):
        validation = [loader(each) for each in pictures]
    if isinstance(pictures, dict):
        validation = {name: loader(each) for name, each in pictures.items()}
    trainer.fit(stage, loader(crops or Crops()), validation)
    return trainer


class Yields(Dataset):
    """Six times the same item."""

    def __init__(self, item: Any) -> None:
        self.item = item

    def __len__(self) -> int:
        return 6

    def __getitem__(self, _: int) -> Any:
        return self.item


LR, HR = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 32, 32)


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ((LR, HR), "this one is a list of Tensor, Tensor"),  # the loader makes lists
        ({"lr": LR, "hr": HR}, "this one is a dict of lr, hr"),
        (HR, "this one is a Tensor"),
        (Batch(LR.double(), HR), r"lr_B3hw is torch\.float64 of shape \(2, 3, 8, 8\)"),
        (Batch(LR, HR[:, :1]), r"hr_B3HW is torch\.float32 of shape \(2, 1, 32, 32\)"),
    ],
)
def test_a_training_batch_of_another_type(item: Any, said: str, tmp_path: object) -> None:
    """In one line, from every stage."""
    stages = [
        made(FirstStage, stage_network("1", "fsrcnn", 2, SMALL["fsrcnn"])),
        made(LaterStage, stage_network("2", "fsrcnn", 2, SMALL["fsrcnn"])),
        made(OriginalStage, stage_network("original", "fsrcnn", 2, SMALL["fsrcnn"])),
    ]
    for stage in stages:
        with pytest.raises(ConfigError, match=rf"^data: a training batch must have .*{said}.*$"):
            fit(stage, tmp_path, crops=Yields(item))


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ((LR, HR, "x"), "this one is a list of Tensor, Tensor, str"),
        (Batch(LR, HR), "this one is a Batch of Tensor, Tensor"),
        (Picture(LR, HR.byte(), "x"), r"hr is torch\.uint8"),
        (Picture(LR, HR, 7), "needs a name, a text"),  # type: ignore[arg-type]
    ],
)
def test_a_validation_picture_of_another_type(item: Any, said: str, tmp_path: object) -> None:
    stage = made(FirstStage, stage_network("1", "fsrcnn", 2, SMALL["fsrcnn"]))
    with pytest.raises(ConfigError, match=rf"^data: a validation picture .*{said}.*$"):
        fit(stage, tmp_path, pictures=Yields(item))


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


def test_several_validation_sets(tmp_path: object) -> None:
    """The first one is what the best checkpoint follows."""
    torch.manual_seed(0)
    network = stage_network("2", "fsrcnn", 2, SMALL["fsrcnn"])
    one = Yields(Picture(LR[:1], torch.zeros(1, 3, 32, 32), "black"))
    found = {}
    for name, sets in {
        "named": {"set5": Pictures(), "mine": one}, "listed": [Pictures(), one], "alone": Pictures()
    }.items():  # fmt: skip
        stage = made(LaterStage, copy.deepcopy(network), optimizer=FROZEN, scheduler=None)
        metrics = fit(stage, tmp_path, pictures=sets).callback_metrics
        found[name] = {k: float(v) for k, v in metrics.items() if k.startswith("val/")}
    alone = found["alone"]
    assert set(alone) == {"val/psnr", "val/gmacs", "val/share_0", "val/share_1"}
    first = {key.replace("val/", "val/set5/"): value for key, value in alone.items()}
    mine = {key: value for key, value in found["named"].items() if "/mine/" in key}
    assert found["named"] == {**alone, **first, **mine}
    assert set(mine) == {key.replace("val/", "val/mine/") for key in alone}
    assert mine["val/mine/psnr"] != alone["val/psnr"]
    assert found["listed"]["val/1/psnr"] == mine["val/mine/psnr"]


def test_metrics_of_ones_own(tmp_path: object) -> None:
    """Against numpy and scikit-image, on pictures rounded to 8 bit, without the border."""
    torch.manual_seed(0)
    metrics = {"mae": MeanAbsoluteError(), "ssim": ssim, "y": ssim_y, "psnr_y": psnr_y}
    network = stage_network("1", "fsrcnn", 2, SMALL["fsrcnn"])
    stage = made(FirstStage, network, metrics=metrics, optimizer=FROZEN, scheduler=None)
    found = fit(stage, tmp_path).callback_metrics
    assert not any("mae" in key for key in stage.state_dict())
    by_hand: dict[str, list[float]] = {name: [] for name in metrics}
    for i in range(2):
        lr, hr = Crops()[i]
        with torch.no_grad():
            sr = stage.predict(lr, (32, 32)).image_B3HW
        a, b = (x.clamp(0, 1).mul(255).round().byte()[..., 4:-4, 4:-4].numpy() for x in (sr, hr))
        for x, y in zip(a.transpose(0, 2, 3, 1), b.transpose(0, 2, 3, 1), strict=True):
            similarity = partial(
                structural_similarity, data_range=255, gaussian_weights=True, sigma=1.5,
                use_sample_covariance=False,
            )  # fmt: skip
            x_y, y_y = rgb2ycbcr(x)[..., 0], rgb2ycbcr(y)[..., 0]
            by_hand["mae"].append(np.abs(x.astype(float) - y).mean() / 255)
            by_hand["ssim"].append(similarity(x.astype(float), y.astype(float), channel_axis=2))
            by_hand["y"].append(similarity(x_y, y_y))
            by_hand["psnr_y"].append(10 * np.log10(255**2 / np.mean((x_y - y_y) ** 2)))
    for name, values in by_hand.items():
        assert len(values) == 4
        assert float(found[f"val/{name}"]) == pytest.approx(np.mean(values), rel=1e-4), name


def test_a_metric_that_fails_is_named(tmp_path: object) -> None:
    network = stage_network("1", "fsrcnn", 2, SMALL["fsrcnn"])
    for metric, said in (
        (lambda sr, hr: (sr, hr), "TypeError"),
        (lambda sr, hr: sr.view(7), "RuntimeError: shape"),
    ):
        stage = made(FirstStage, network, metrics={"mine": metric})
        with pytest.raises(
            ConfigError, match=rf"^metrics\.mine fails .* 24 x 24 pixels: {said}.*$"
        ):
            fit(stage, tmp_path)


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
    a, b = stage.draw_queries(Crops()[0]), stage.draw_queries(Crops()[1])
    assert a is not None
    assert torch.equal(a, b)
    assert a.shape == (100,)
    assert 0 <= a.min() < a.max() < 1024
    small = Batch(torch.rand(2, 3, 5, 5), torch.rand(2, 3, 10, 10))
    assert stage.draw_queries(small) is None


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
        "logger=none", f"data.cache_dir={tmp_path}/cache", "metrics=[ssim,psnr_y]",
        "+metrics.mae._target_=torchmetrics.MeanAbsoluteError",
    ]  # fmt: skip
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", words)
    OmegaConf.set_struct(cfg, False)
    cfg.callbacks = {}  # they ask for a run's folder
    found = train(cfg, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert found.keys() == {"val/psnr", "val/gmacs", "val/ssim", "val/psnr_y", "val/mae"}
    assert found["val/psnr"] == pytest.approx(record["val_psnr"], abs=1e-3)
    cfg.stage = {**cfg.stage, "optimizer": "muon"}
    with pytest.raises(ConfigError, match=r"stage\.optimizer.*called optimizer now"):
        train(cfg, tmp_path / "other")
