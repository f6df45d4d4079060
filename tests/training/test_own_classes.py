"""A user's own loss, optimizer, schedule, stage and data, from a file outside the package."""

import csv
import functools
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.commands import SMALL_TRAINING, Done, run_command

from pcsr_lightning.training.losses import reconstruction

OWN = '''
import lightning as L
import torch
from torch.utils.data import DataLoader
from typing import NamedTuple

from pcsr_lightning.training import FirstStage, LaterStage


class Squares(torch.nn.Module):
    """Works on any shape."""

    def __init__(self, power: float = 2.0) -> None:
        super().__init__()
        self.power = power

    def forward(self, sr, hr):
        return (sr - hr).abs().pow(self.power).mean()


class Blurred(torch.nn.Module):
    """Works on pictures only."""

    def forward(self, sr, hr):
        return torch.nn.functional.avg_pool2d(sr - hr, 4).abs().mean() + 0 * sr.shape[3]


class Declared(Blurred):
    needs_pictures = True


class Rows(torch.nn.Module):
    def forward(self, sr, hr):
        return (sr - hr).abs().mean(dim=1)


class Slow(torch.optim.SGD):
    def __init__(self, params, lr: float, patience: int = 1) -> None:
        super().__init__(params, lr=lr)
        self.patience = patience


def halving(optimizer, every: int = 1, total_steps: int = -1):
    assert total_steps in (4, 10**6)  # of the run; a million while settings are checked
    return torch.optim.lr_scheduler.StepLR(optimizer, every, gamma=0.5)


class Brighter(FirstStage):
    def __init__(self, network, *, amount: float = 0.0, **options) -> None:
        super().__init__(network, **options)
        self.amount = amount

    def losses(self, batch):
        loss, parts = super().losses(batch)
        return loss, {**parts, "amount": loss.new_tensor(self.amount)}


class Calm(LaterStage):
    def __init__(self, network, *, factor: float = 1.0, **options) -> None:
        super().__init__(network, **options)
        self.w_avg *= factor


class Batch(NamedTuple):
    lr_B3hw: torch.Tensor
    hr_B3HW: torch.Tensor


class Picture(NamedTuple):
    lr: torch.Tensor
    hr: torch.Tensor
    name: str


def draw(number):
    hr = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(number))
    return torch.nn.functional.avg_pool2d(hr, 4), hr


class Noise(L.LightningDataModule):
    def __init__(self, length: int = 4) -> None:
        super().__init__()
        self.length = length

    def train_dataloader(self):
        return DataLoader([Batch(*draw(n)) for n in range(self.length)], batch_size=None)

    def val_dataloader(self):
        return DataLoader([Picture(*draw(99), "noise")], batch_size=None)
'''

Train = Callable[..., Done]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    (folder / "mine.py").write_text(OWN)
    return folder


@pytest.fixture
def train(folder: Path) -> Train:
    words = (*SMALL_TRAINING, "trainer.max_steps=4", "trainer.log_every_n_steps=1")
    env = {"XDG_CACHE_HOME": str(folder / "cache")}
    return functools.partial(run_command, "train", *words, cwd=folder, env=env)


def logged(run: Path, key: str) -> list[float]:
    [path] = run.glob("logs*/metrics.csv")
    with path.open() as file:
        return [float(row[key]) for row in csv.DictReader(file) if row.get(key)]


def test_a_weighted_sum(train: Train, folder: Path) -> None:
    done = train(
        "loss=sum", "loss.l1.weight=0.5", "+loss.mine={_target_: mine.Blurred, weight: 2}",
        "+loss.squares={_target_: mine.Squares, power: 3.0}", "stage.queries=null",
        "hydra.run.dir=sum",
    )  # fmt: skip
    assert done.code == 0, done.err
    run = folder / "sum"
    names = ("loss", "l1", "mine", "squares")
    total, *parts = (logged(run, f"train/{name}") for name in names)
    expected = [0.5 * a + 2 * b + c for a, b, c in zip(*parts, strict=True)]
    assert len(total) == 4
    assert total == pytest.approx(expected, rel=1e-5)
    later = train('stage="2"', "loss=sum", "init=sum", "hydra.run.dir=sum-2")
    assert later.code == 0, later.err
    w_recon, w_avg = (logged(folder / "sum-2", f"train/{name}") for name in ("recon", "avg"))
    found = [1000 * a + 3 * b for a, b in zip(w_recon, w_avg, strict=True)]
    assert logged(folder / "sum-2", "train/loss") == pytest.approx(found, rel=1e-5)
    assert logged(folder / "sum-2", "train/l1") == w_recon


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (("loss._target_=mine.Blurred",), r"drawn pixels, \(2, 3, 64\).*stage\.queries=null"),
        (("loss._target_=mine.Declared",), r"stage\.queries=64: this loss needs pictures"),
        (("loss=sum", "+loss.d={_target_: mine.Declared}"), r"stage\.queries=64: this loss needs"),
        (("loss._target_=mine.Rows",), r"shape \(2, 64\): expected a single number"),
        (("loss._target_=mine.Slow",), r"loss: .*(params|lr)"),
        (("loss._target_=mine.halving",), r"loss"),
        (
            ("loss=sum", "+loss.m={_target_: mine.Squares, pwoer: 2}"),
            r"did you mean loss\.m\.power",
        ),
        (("loss=sum", "+loss.m={_target_: mine.Squares, weight: x}"), r"loss\.m\.weight=x"),
        (("loss=sum", "+loss.avg={_target_: mine.Squares}"), r"loss\.avg: .*another"),
        (("loss=sum", "+loss.m=3"), r"loss\.m=3: expected a loss"),
        (("loss=sum", "~loss.l1"), r"loss is empty"),
        (("scheduler._target_=mine.halving", "+scheduler.interval=hour"), r"interval=hour"),
        (("scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau",), r"use mode=max"),
    ],
)
def test_mistakes_are_one_line(
    train: Train, settings: tuple[str, ...], says: str, folder: Path
) -> None:
    done = train(*settings, "hydra.run.dir=wrong")
    assert done.code == 1, done.err
    assert "Traceback" not in done.err
    [line] = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert re.search(says, line), line


def test_optimizer_schedule_stage_and_data(train: Train, folder: Path) -> None:
    done = train(
        "optimizer._target_=mine.Slow", "optimizer.lr=0.01", "+optimizer.patience=3",
        "scheduler._target_=mine.halving", "+scheduler.every=2",
        "stage._target_=mine.Brighter", "+stage.amount=0.25",
        "data._target_=mine.Noise", "+data.length=4", "hydra.run.dir=first",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert logged(folder / "first", "train/amount") == [0.25] * 4
    rates = logged(folder / "first", "lr-Slow")
    assert rates == pytest.approx([0.01, 0.01, 0.005, 0.005])
    assert json.loads((folder / "first" / "run.json").read_text())["val_psnr"] > 0
    done = train(
        'stage="2"', "stage._target_=mine.Calm", "+stage.factor=0.0", "init=first",
        "data._target_=mine.Noise", "hydra.run.dir=second",
    )  # fmt: skip
    assert done.code == 0, done.err
    recon, loss = (logged(folder / "second", f"train/{key}") for key in ("recon", "loss"))
    assert loss == pytest.approx([1000 * value for value in recon])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("AdamW", ("optimizer.weight_decay=0.1",)),
        ("SGD", ("+optimizer.momentum=0.9", "optimizer.weight_decay=0.1")),
        ("RMSprop", ()),
        ("LBFGS", ("+optimizer.max_iter=2", "optimizer.lr=0.1")),
    ],
)
def test_optimizers_of_torch(
    name: str, settings: tuple[str, ...], train: Train, folder: Path
) -> None:
    target = f"optimizer._target_=torch.optim.{name}"
    done = train(target, *settings, f"hydra.run.dir={name}", "trainer.max_steps=2")
    assert done.code == 0, done.err
    kept = torch.load(folder / name / "checkpoints" / "last.ckpt", weights_only=True)
    [group] = kept["optimizer_states"][0]["param_groups"]
    if "optimizer.weight_decay=0.1" in settings:
        assert group["weight_decay"] == 0.1


def test_what_lightning_refuses_is_one_line(train: Train) -> None:
    done = train(
        "optimizer._target_=torch.optim.LBFGS", "+trainer.gradient_clip_algorithm=value",
        "trainer.gradient_clip_val=1", "hydra.run.dir=x",
        "scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau",
        "+scheduler.mode=max", "+scheduler.monitor=val/beauty", "trainer.val_check_interval=2",
    )  # fmt: skip
    assert done.code == 1
    assert "Traceback" not in done.err
    assert "val/beauty" in done.err


def test_a_plateau_is_looked_for_after_each_validation(train: Train, folder: Path) -> None:
    done = train(
        "scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau", "+scheduler.mode=max",
        "+scheduler.patience=0", "+scheduler.threshold=1000", "optimizer.lr=0.001",
        "trainer.max_steps=8", "trainer.val_check_interval=2", "hydra.run.dir=plateau",
    )  # fmt: skip
    assert done.code == 0, done.err
    # The first validation is the best so far, from the second on each is a plateau.
    expected = [1e-3] * 4 + [1e-4] * 2 + [1e-5] * 2
    assert logged(folder / "plateau", "lr-Adam") == pytest.approx(expected)


def test_one_cycle_over_the_run(train: Train, folder: Path) -> None:
    done = train(
        "scheduler._target_=torch.optim.lr_scheduler.OneCycleLR", "+scheduler.max_lr=0.01",
        "+scheduler.total_steps=${trainer.max_steps}", "hydra.run.dir=cycle",
    )  # fmt: skip
    assert done.code == 0, done.err
    rates = logged(folder / "cycle", "lr-Adam")
    assert rates[0] == pytest.approx(0.01 / 25)
    assert max(rates) > 0.005 > 1e-6 > rates[-1]
    done = train(
        "scheduler._target_=torch.optim.lr_scheduler.OneCycleLR", "+scheduler.max_lr=0.01",
        "+scheduler.total_steps=${trainer.max_steps}", "hydra.run.dir=cycle-2",
        "ckpt_path=cycle/checkpoints/last.ckpt",
    )  # fmt: skip
    assert done.code == 0, done.err


def test_pictures_give_the_same_numbers_as_pixels() -> None:
    """A loss that got all pixels as (B, 3, Q) until now gets (B, 3, H, W)."""
    torch.manual_seed(0)
    base = torch.rand(3, 3, 24, 20).contiguous(memory_format=torch.channels_last)
    for sr_B3Q in (torch.rand(3, 3, 480), base.flatten(2)):
        grads, values = [], []
        hr_B3Q = torch.rand(3, 3, 480, generator=torch.Generator().manual_seed(1))
        for size in (None, (24, 20)):
            x = sr_B3Q.clone(memory_format=torch.preserve_format).requires_grad_()
            value, parts = reconstruction(torch.nn.L1Loss(), x, hr_B3Q, size)
            value.backward()
            values.append(value)
            grads.append(x.grad)
        assert torch.equal(*values)
        assert torch.equal(*grads)
        assert parts == {}
