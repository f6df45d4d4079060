"""Captured training steps on a CPU, where they run without a graph, against Lightning's own."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from safetensors.torch import load_file
from tests.commands import SMALL_TRAINING, run_command
from tests.small import small_first_stage
from tests.training.test_stages import Batch, Crops, Pictures, made
from tests.training.test_two_processes import train_on_two
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from pcsr_lightning.errors import ConfigError
from pcsr_lightning.networks import build_network, default_config
from pcsr_lightning.training import FirstStage, FreezeEarlierStages, SRStage
from pcsr_lightning.training.captured_step import CapturedStep
from pcsr_lightning.training.optim import Muon

# Small steps, since batch norm blows rounding up: at the usual rate tenfold every five steps.
CARN = ("backbone=carn", "backbone.args={nf:8,group:2}", "optimizer.lr=2e-5")
LONG = ("trainer.max_steps=20", "trainer.val_check_interval=5", "trainer.log_every_n_steps=4")
MUON = ("optimizer=muon", "optimizer.vector_lr=0.5", "optimizer.weight_decay=0.1")


def train(folder: Path, name: str, *settings: str, steps: tuple[str, ...] = LONG) -> Path:
    """A run in ``folder``; settings given later win."""
    words: dict[str, str] = {}
    for word in (*SMALL_TRAINING, "logger=none", *steps, *settings):
        words[word.partition("=")[0]] = word
    if "stage=original" in settings:
        del words["stage.queries"]
    run_command("train", *words.values(), f"hydra.run.dir={name}", cwd=folder, code=0)
    return folder / name


def weights(run: Path) -> dict[str, Tensor]:
    return load_file(run / "model.safetensors")


def difference(one: dict[str, Tensor], two: dict[str, Tensor]) -> float:
    assert one.keys() == two.keys()
    return max(float((one[name] - two[name]).abs().max()) for name in one)


WAYS: dict[str, tuple[str, ...]] = {
    "adam": ("stage=1", "stage.queries=null"),
    "adam, clipped": ("stage=1", "trainer.gradient_clip_val=0.01", "optimizer.lr=1e-2"),
    "adam, unfused": ("stage=1", "optimizer.fused=false", "scheduler=trapezoid"),
    "muon": ("stage=1", "stage.queries=per_pixel:2", *MUON),
    "muon, warm-up": ("stage=1", *MUON, "scheduler=trapezoid", "scheduler.warmup=5"),
    "carn": (*CARN, "stage=1", "stage.queries=per_pixel:2", "+optimizer.eps=1e-5"),
    "carn, fractional": (*CARN, *MUON, "stage=1", "data.scale=3.3"),
    "mixed loss": ("stage=1", "loss=sum"),
    "original": (*CARN, "stage=original"),
}


@pytest.mark.parametrize("way", WAYS)
def test_twenty_steps_end_in_the_same_weights(way: str, tmp_path: Path) -> None:
    plain, captured = (
        weights(train(tmp_path, name, *WAYS[way], f"stage.captured={value}"))
        for name, value in (("plain", "null"), ("captured", "true"))
    )
    assert 0 < difference(plain, captured) < 1e-5


@pytest.mark.parametrize("queries", ["null", "64", "per_pixel:2"])
def test_later_stages(queries: str, tmp_path: Path) -> None:
    first = train(tmp_path, "first", "stage=1", steps=("trainer.max_steps=2",))
    before = weights(first)
    words = ("stage=2", f"init={first}", f"stage.queries={queries}", *MUON)
    plain, captured = (
        weights(train(tmp_path, name, *words, f"stage.captured={value}"))
        for name, value in (("plain", "null"), ("captured", "true"))
    )
    assert 0 < difference(plain, captured) < 1e-5
    frozen = {name for name in before if name.startswith(("backbone", "upsamplers.0"))}
    assert frozen == before.keys() - {"mean"}
    assert all(torch.equal(before[name], captured[name]) for name in frozen)


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_a_resumed_run_is_the_uninterrupted_one(optimizer: str, tmp_path: Path) -> None:
    """Bit for bit; and a checkpoint of either kind of step goes on with the other."""
    words = ("stage=1", f"optimizer={optimizer}", "trainer.val_check_interval=5")
    whole = weights(train(tmp_path, "whole", *words, "stage.captured=true", steps=LONG))
    found = {}
    for first, second in (("true", "true"), ("true", "null"), ("null", "true")):
        name, ends = f"{first}-{second}", "scheduler.steps=20"
        half, rest = (f"trainer.max_steps={steps}" for steps in (10, 20))
        begun = train(tmp_path, f"{name}-1", *words, f"stage.captured={first}", steps=(half, ends))
        more = (rest, ends, f"ckpt_path={begun}")
        run = train(tmp_path, name, *words, f"stage.captured={second}", steps=more)
        assert "stage.captured" not in (run / "train.log").read_text()
        found[name] = difference(whole, weights(run))
    assert found["true-true"] == 0
    assert 0 < found["true-null"] < 1e-5
    assert 0 < found["null-true"] < 1e-5


def fit(stage: SRStage, crops: Dataset | None = None, **options: Any) -> None:
    """Six steps, and a validation."""
    callbacks = [FreezeEarlierStages(), *options.pop("callbacks", [])]
    trainer = L.Trainer(
        max_steps=6,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        val_check_interval=6,
        check_val_every_n_epoch=None,
        accelerator="cpu",
        **options,
    )
    loaders = (DataLoader(data, batch_size=None) for data in (crops or Crops(), Pictures()))
    trainer.fit(stage, *loaders)


class Broken(Crops):
    """The fifth batch is not a number, the sixth is infinite."""

    def __getitem__(self, i: int) -> Batch:
        lr, hr = super().__getitem__(i)
        return Batch(lr, hr * {4: torch.nan, 5: torch.inf}.get(i, 1.0))


@pytest.mark.parametrize("captured", [None, True])
def test_a_loss_that_is_not_a_number(captured: bool | None) -> None:
    """A captured one is found later, at the latest before a validation, and with its step."""
    stage = made(FirstStage, small_first_stage(), captured=captured)
    with pytest.raises(ConfigError, match=r"^the training loss became nan at step 4: lower"):
        fit(stage, Broken())


def test_losses_are_logged_where_loggers_want_them() -> None:
    logged = []

    class Log(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
            logged.append(float(trainer.callback_metrics.get("train/loss", torch.nan)))

    found = []
    for captured, every in ((None, 1), (True, 2)):
        logged.clear()
        stage = made(FirstStage, small_first_stage(), captured=captured)
        fit(stage, callbacks=[Log()], log_every_n_steps=every)
        found.append(list(logged))
    every_step, some = found
    assert some[1::2] == pytest.approx(every_step[1::2], abs=1e-6)
    assert some[2::2] == some[1:-1:2]


class Looks(L.Callback):
    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        pass


class OwnLosses(FirstStage):
    def losses(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, parts = super().losses(batch)
        return 2 * loss, parts


class OwnStep(FirstStage):
    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        super().backward(loss, *args, **kwargs)


def bsrn() -> nn.Module:
    torch.manual_seed(0)
    backbone = {"name": "bsrn", "nf": 32, "blocks": 1}
    return build_network(default_config("bsrn", 1) | {"backbone": backbone, "upsamplers": [[8]]})


SGD = {"optimizer": partial(torch.optim.SGD, lr=1e-2), "scheduler": None}
OBSTACLES: dict[str, tuple[type[SRStage], dict[str, Any], dict[str, Any]]] = {
    "trainer.accumulate_grad_batches=2": (FirstStage, {}, {"accumulate_grad_batches": 2}),
    "SGD has no argument capturable": (FirstStage, SGD, {}),
    "backbone bsrn has no form": (FirstStage, {"network": bsrn}, {}),
    "Looks.on_after_backward looks into": (FirstStage, {}, {"callbacks": [Looks()]}),
    "OwnStep.backward looks into": (OwnStep, {}, {}),
}


@pytest.mark.parametrize("reason", OBSTACLES)
def test_what_cannot_be_captured_trains_plainly(
    reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    kind, options, trainer = OBSTACLES[reason]
    found = []
    for captured in (None, True):
        kept = {"network": small_first_stage, **options}
        network = kept.pop("network")()
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            fit(made(kind, network, captured=captured, **kept), **trainer)
        said = [r.getMessage() for r in caplog.records if "captured" in r.getMessage()]
        assert len(said) == (captured is True)
        assert all(one.startswith("the training step is not captured: ") for one in said)
        assert all(reason in one for one in said)
        found.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
    assert difference(*found) == 0


def test_losses_of_ones_own_are_captured_when_asked_for() -> None:
    found = []
    for captured in (None, True):
        network = small_first_stage()
        fit(made(OwnLosses, network, captured=captured))
        found.append(network.state_dict())
    assert 0 < difference(*found) < 1e-5


def test_two_processes_say_why_not(tmp_path: Path) -> None:
    train_on_two(
        tmp_path, "stage=1", "trainer.max_steps=1", "stage.captured=true", "hydra.run.dir=two"
    )
    assert "is not captured: it has 2 processes" in (tmp_path / "two/train.log").read_text()


def test_rates_stay_plain_numbers() -> None:
    """So schedules and checkpoints see what they always do; inside a step they are tensors."""
    seen = []

    class Watching(Muon):
        def step(self, closure: Any = None) -> Any:
            seen.append([group["lr"] for group in self.param_groups])
            assert all(isinstance(rate, Tensor) for rate in seen[-1])
            seen[-1] = [float(rate) for rate in seen[-1]]
            return super().step(closure)

    network = small_first_stage()
    optimizer = Watching(network, lr=0.1, vector_lr=0.5)
    step = CapturedStep(
        lambda x, _: (network(x, (16, 16)).mixed().square().mean(), {}),
        optimizer, lambda: None, torch.device("cpu"), 3,
    )  # fmt: skip
    step(torch.rand(1, 3, 8, 8), None)
    for group in optimizer.param_groups:
        group["lr"] /= 2
    step(torch.rand(1, 3, 8, 8), None)
    assert seen == [pytest.approx([0.1, 0.05]), pytest.approx([0.05, 0.025])]
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.025]
    step.check()
    step(torch.full((1, 3, 8, 8), torch.nan), None)
    step(torch.rand(1, 3, 8, 8), None)
    with pytest.raises(ConfigError, match="became nan at step 5"):
        step.check()
