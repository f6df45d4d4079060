"""Training by epochs: how long one is, when it validates, schedules, and exact resuming."""

import re
import signal
from functools import partial
from pathlib import Path

import lightning as L
import pytest
import torch
from tests.commands import SMALL_TRAINING
from tests.small import small_first_stage, write_textures
from tests.training.test_stopping import SENDER, Run, logged, sent, train_here

from pcsr_lightning.data import SRDataModule
from pcsr_lightning.training import FirstStage, cosine

STEPS = 5
"""Of an epoch: nine crops, two a step."""
WORDS = (
    *SMALL_TRAINING, "backbone.upsamplers=[[8,8],[8]]", "trainer.max_steps=-1",
    "trainer.log_every_n_steps=1", "data=folder", "data.root=pictures", "data.val_root=valid",
    "data.stride=32", "data.min_rest=32", "data.cache_dir=cache",
    "data.val_limit=null", "callbacks.last.every_n_train_steps=1000",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("epochs")
    (folder / "sender.py").write_text(SENDER)
    write_textures(folder / "pictures", {"a.png": (96, 96)})
    write_textures(folder / "valid", {"b.png": (64, 48), "c.png": (48, 64)})
    return folder


@pytest.fixture
def train(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return train_here(folder, monkeypatch, WORDS)


def steps_of(run: Path, key: str) -> list[int]:
    return [int(step) for step, _ in logged(run, "step", key)]


def test_an_epoch_is_one_pass_and_ends_in_a_validation(train: Run, folder: Path) -> None:
    assert train("three", "trainer.max_epochs=3") == 0
    run = folder / "three"
    assert steps_of(run, "train/loss") == list(range(3 * STEPS))
    assert [int(e) for e, _ in logged(run, "epoch", "train/loss")] == [0] * 5 + [1] * 5 + [2] * 5
    assert steps_of(run, "val/psnr") == [4, 9, 14]
    kept = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["global_step"] == 15
    rates = [float(rate) for _, rate in logged(run, "step", "lr-Adam")]
    assert rates[0] == 1e-3
    assert rates[-1] < 2e-5  # the cosine has come down at the end of the last epoch


@pytest.mark.parametrize(
    ("settings", "validated"),
    [
        (("trainer.val_check_interval=0.4",), [1, 3, 6, 8, 9]),
        (("trainer.check_val_every_n_epoch=2",), [9]),
        (("trainer.val_check_interval=3",), [2, 5, 8, 9]),
        (("trainer.val_check_interval=1000",), [9]),
        (("trainer.max_steps=7", "trainer.max_epochs=null"), [6]),
        (
            ("trainer.max_steps=8", "trainer.max_epochs=null", "trainer.val_check_interval=3"),
            [2, 5, 7],
        ),
        (
            ("trainer.max_steps=8", "trainer.max_epochs=null", "trainer.val_check_interval=0.5"),
            [3, 7],
        ),
    ],
)
def test_when_it_validates(
    settings: tuple[str, ...], validated: list[int], train: Run, folder: Path
) -> None:
    name = "-".join(settings).replace("trainer.", "").replace("=", "")
    assert train(name, "trainer.max_epochs=2", *settings) == 0
    assert steps_of(folder / name, "val/psnr") == validated


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
@pytest.mark.parametrize("scheduler", ["cosine", "trapezoid"])
def test_schedules_end_with_the_last_epoch(
    optimizer: str, scheduler: str, train: Run, folder: Path
) -> None:
    words = [f"optimizer={optimizer}", f"scheduler={scheduler}"]
    by_epochs, by_steps = f"{optimizer}-{scheduler}", f"{optimizer}-{scheduler}-steps"
    assert train(by_epochs, *words, "trainer.max_epochs=2") == 0
    assert train(by_steps, *words, "trainer.max_steps=10") == 0
    model = "model.safetensors"
    assert (folder / by_epochs / model).read_bytes() == (folder / by_steps / model).read_bytes()


@pytest.mark.parametrize(
    ("name", "hook", "step", "stops_at"),
    [
        ("in-epoch", "on_before_backward", 6, 7),
        ("end-of-epoch", "on_before_backward", 4, 5),
        ("amid-validation", "on_validation_batch_start", 5, 5),
        ("between-pictures", "on_validation_batch_end", 5, 5),
        ("begin-of-epoch", "on_before_backward", 5, 6),
        ("last-step", "on_before_backward", 14, 15),
        ("last-validation", "on_validation_batch_start", 15, 15),
    ],
)
def test_a_stopped_run_resumes_exactly(
    name: str, hook: str, step: int, stops_at: int, train: Run, folder: Path
) -> None:
    epochs = "trainer.max_epochs=3"
    if not (folder / "whole").exists():
        assert train("whole", epochs) == 0
    assert train(name, epochs, *sent(hook, step, signal.SIGTERM)) == 143
    run = folder / name
    last = run / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == stops_at
    assert train(name, epochs, f"ckpt_path={last}") == 0
    assert logged(run, "step", "val/psnr") == logged(folder / "whole", "step", "val/psnr")
    # What the stopped step had to log is not kept.
    missing = {*logged(folder / "whole", "step", "train/loss")} - {
        *logged(run, "step", "train/loss")
    }
    assert {int(step) for step, _ in missing} <= {stops_at - 1}
    assert (run / "model.safetensors").read_bytes() == (
        folder / "whole" / "model.safetensors"
    ).read_bytes()
    assert (run / "checkpoints" / "best.ckpt").is_file()


@pytest.mark.parametrize("every", [3, 5])
def test_a_killed_run_resumes_exactly_from_its_last_checkpoint(
    every: int, train: Run, folder: Path
) -> None:
    """What ModelCheckpoint writes after a step is all that a killed process leaves."""
    words = ("trainer.max_epochs=3", f"callbacks.last.every_n_train_steps={every}")
    keep = ("callbacks.last.save_top_k=-1", 'callbacks.last.filename="at_{step}"')
    name = f"kept-{every}"
    assert train(name, *words, *keep) == 0
    checkpoints = sorted((folder / name / "checkpoints").glob("at_*.ckpt"))
    assert len(checkpoints) == 15 // every
    for number, path in enumerate(checkpoints):
        again = f"{name}-{number}"
        assert train(again, *words, f"ckpt_path={path}") == 0
        a, b = (folder / run / "model.safetensors" for run in (name, again))
        assert a.read_bytes() == b.read_bytes()
        at = torch.load(path, weights_only=True)["global_step"]
        assert steps_of(folder / again, "val/psnr") == [n for n in (4, 9, 14) if n >= at - 1]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (("trainer.max_epochs=2", "trainer.max_steps=9"), "exclude each other.*max_steps=-1"),
        ((), r"max_epochs=N"),
        (("trainer.max_epochs=0",), r"max_epochs=0"),
        (("trainer.max_epochs=2", "trainer.val_check_interval=1.5"), r"share of an epoch"),
        (("trainer.max_epochs=2", "trainer.val_check_interval=0"), r"val_check_interval=0"),
    ],
)
def test_lengths_that_cannot_be(
    settings: tuple[str, ...], says: str, train: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train("wrong", *settings) == 1
    err = capfd.readouterr().err
    assert "Traceback" not in err
    assert re.search(says, err), err


def test_max_epochs_of_lightning_itself(folder: Path) -> None:
    """A trainer made in Python: epochs count passes over the crops there too."""
    data = SRDataModule(
        folder / "pictures", folder / "valid", batch_size=2, lr_crop=8, stride=32, min_rest=32,
        downscale_factors=[1.0], cache_dir=folder / "cache",
    )  # fmt: skip
    stage = FirstStage(
        small_first_stage(), optimizer=partial(torch.optim.Adam, lr=1e-3), scheduler=cosine
    )
    trainer = L.Trainer(
        max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    trainer.fit(stage, datamodule=data)
    assert trainer.global_step == 2 * STEPS
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-7)
