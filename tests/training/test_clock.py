"""Training by the clock, most of it with a clock that only the test's steps move."""

import csv
import json
import math
import re
from datetime import timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.callbacks import timer
from tests.commands import start
from tests.small import small_first_stage
from tests.training.test_schedule import rates
from tests.training.test_stopping import (
    SENDER,
    WORDS,
    Run,
    logged,
    same,
    sent,
    train_here,
    validations,
)

from pcsr_lightning.data import SRDataModule
from pcsr_lightning.data.sample_pictures import SAMPLE_FOLDER
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.training import FirstStage, cosine, trapezoid
from pcsr_lightning.training.callbacks.clock import Clock, parse_time
from pcsr_lightning.training.optim.factories import make_schedule

TICK = '''
import lightning as L
from lightning.pytorch.callbacks import timer

class Tick(L.Callback):
    """A step takes a quarter of a second, a validation a whole one."""

    def on_train_batch_start(self, trainer, *rest):
        timer.time.now += 0.25

    def on_validation_start(self, trainer, *rest):
        timer.time.now += 1.0

class BarTotals(L.Callback):
    totals = []

    def on_train_batch_end(self, trainer, *rest):
        if trainer.global_step > 1:
            self.totals.append(trainer.progress_bar_callback.train_progress_bar.total)
'''
BY_CLOCK = (
    *(word for word in WORDS if not word.startswith("trainer.max_steps")),
    "+callbacks.tick._target_=ticking.Tick",
)
TORCHS = "torch.optim.lr_scheduler"
FIVE_S = "trainer.max_time=00:00:05"  # twenty steps, or sixteen and the validation of step 10


class Clocks(SimpleNamespace):
    """In place of the module ``time``."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    fake = Clocks()
    monkeypatch.setattr(timer, "time", fake)
    return fake


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clock")
    (folder / "sender.py").write_text(SENDER)
    (folder / "ticking.py").write_text(TICK)
    return folder


@pytest.fixture
def train(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return train_here(folder, monkeypatch, BY_CLOCK)


@pytest.fixture
def whole(train: Run, folder: Path) -> Path:
    if not (folder / "whole").exists():
        assert train("whole", FIVE_S) == 0
    return folder / "whole"


def record(run: Path) -> dict[str, Any]:
    found = json.loads((run / "run.json").read_text())
    assert isinstance(found, dict)
    return found


def learning_rates(run: Path) -> dict[int, float]:
    return {int(step): float(rate) for step, rate in logged(run, "step", "lr-Adam")}


def of_cosine(share: float, lr: float = 1e-3, lr_min: float = 1e-7) -> float:
    return lr_min + (lr - lr_min) * (1 + math.cos(math.pi * share)) / 2


def test_a_run_lasts_its_time_and_the_rate_falls_over_it(whole: Path) -> None:
    found = record(whole)
    assert (found["steps"], found["complete"]) == (16, True)
    assert found["ended"] == "after trainer.max_time=00:00:05, 16 steps"
    assert found["settings"]["trainer.max_time"] == "00:00:05"
    assert [int(step) for step, _ in validations(whole)] == [9, 15]
    used = [0.25 * n + (n > 10) for n in range(16)]  # when the rate of a step was set
    expected = {n: of_cosine(seconds / 5) for n, seconds in enumerate(used)}
    assert learning_rates(whole) == pytest.approx(expected, rel=1e-6)
    kept = torch.load(whole / "checkpoints" / "last.ckpt", weights_only=True)
    [group] = kept["optimizer_states"][0]["param_groups"]
    assert group["lr"] == pytest.approx(1e-7)  # all the way down


@pytest.mark.parametrize(
    ("name", "hook", "step"),
    [
        ("in-step", "on_before_backward", 6),
        ("before-validation", "on_before_backward", 9),
        ("amid-validation", "on_validation_batch_start", 10),
        ("last-step", "on_before_backward", 15),
        ("last-validation", "on_validation_batch_start", 16),
    ],
)
def test_resumed_it_goes_on_with_the_time_that_was_used(
    name: str, hook: str, step: int, train: Run, whole: Path, folder: Path, clock: Clocks
) -> None:
    assert train(name, FIVE_S, *sent(hook, step)) == 143
    run = folder / name
    assert not (run / "run.json").exists()
    clock.now += 1000  # between the two
    assert train(name, FIVE_S, f"ckpt_path={run}/checkpoints/last.ckpt") == 0
    log = (run / "train.log").read_text()
    assert "jumps" not in log
    assert "other settings" not in log
    assert record(run)["complete"]
    if name == "amid-validation":  # begun twice, it took a second more
        assert record(run)["steps"] < 16
        return
    assert record(run)["steps"] == 16
    expected = learning_rates(whole)
    assert {n: expected[n] for n in learning_rates(run)} == learning_rates(run)
    assert same(run, whole)
    assert validations(run) == validations(whole)


def test_six_seconds_of_a_real_clock(folder: Path) -> None:
    words = [word for word in BY_CLOCK if "callbacks." not in word]
    more = ["trainer.max_time=00:00:06", "trainer.val_check_interval=null", "hydra.run.dir=six"]
    with start("pcsr_lightning.train", *words, *more, cwd=folder) as process:
        said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    run = folder / "six"
    assert record(run)["ended"] == f"after trainer.max_time=00:00:06, {record(run)['steps']} steps"
    kept = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert 6 <= kept["callbacks"]["Timer"]["time_elapsed"]["train"] < 8
    rates = learning_rates(run)
    assert len(rates) == record(run)["steps"]
    assert all(a >= b for a, b in pairwise(rates.values()))
    assert rates[0] == 1e-3
    assert min(rates.values()) < 1e-4
    assert int(validations(run)[-1][0]) == record(run)["steps"] - 1


def test_more_time_and_too_little(
    train: Run, whole: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train("longer", "trainer.max_time=00:00:10", f"ckpt_path={whole}") == 0
    said = capfd.readouterr().err + (folder / "longer" / "train.log").read_text()
    assert "trainer.max_time=00:00:10 (was 00:00:05)" in said
    assert re.search(r"the learning rate jumps from 1e-07 to 0\.000\d+ at step 16", said), said
    assert record(folder / "longer")["complete"]
    found = learning_rates(folder / "longer")
    # The validation of step 16 was outside of the first run's checkpoint of its time.
    assert found[17] == pytest.approx(of_cosine((5 + 1 + 0.25) / 10), rel=1e-6)
    assert train("less", "trainer.max_time=00:00:02", f"ckpt_path={whole}") == 1
    says = r"was trained for \d s, beyond trainer\.max_time=00:00:02: name more"
    assert re.search(says, capfd.readouterr().err)


def test_the_steps_are_a_further_limit(train: Run, folder: Path) -> None:
    assert train("steps", FIVE_S, "trainer.max_steps=8") == 0
    found = record(folder / "steps")
    assert (found["steps"], found["ended"]) == (8, "after all of its 8 steps")
    expected = {n: of_cosine(n / 8) for n in range(8)}  # further than n / 20
    assert learning_rates(folder / "steps") == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "words", "steps", "validated"),
    [
        ("no-steps", ["trainer.max_steps=-1"], 16, [9, 15]),
        ("no-steps-trapezoid", ["trainer.max_steps=-1", "scheduler=trapezoid"], 16, [9, 15]),
        ("rare", ["trainer.val_check_interval=1000"], 20, [19]),
        (
            "epochs",
            ["trainer.max_steps=-1", "trainer.max_epochs=50", "trainer.val_check_interval=null",
             "trainer.check_val_every_n_epoch=50"],
            20, [19],
        ),
        (
            "accumulated",
            ["trainer.accumulate_grad_batches=3", "trainer.val_check_interval=100"],
            7, [6],
        ),
        ("own-length", ["scheduler.steps=100", "trainer.val_check_interval=100"], 20, [19]),
        (
            "plateau",
            [f"scheduler._target_={TORCHS}.ReduceLROnPlateau", "+scheduler.mode=max"],
            16, [9, 15],
        ),
    ],
)  # fmt: skip
def test_where_it_ends(
    name: str, words: list[str], steps: int, validated: list[int], train: Run, folder: Path
) -> None:
    assert train(name, FIVE_S, *words) == 0
    found = record(folder / name)
    assert (found["steps"], found["complete"]) == (steps, True), found["ended"]
    assert [int(step) for step, _ in validations(folder / name)] == validated


def test_jobs_of_a_sweep_have_a_table(train: Run, folder: Path) -> None:
    more = ["seed=0,1", "hydra.sweep.dir=sweep", "trainer.val_check_interval=100"]
    assert train("sweep", "-m", FIVE_S, *more) == 0
    with (folder / "sweep" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["seed"], row["steps"]) for row in rows] == [("0", "20"), ("1", "20")]


def test_the_bar_shows_the_time_left_as_steps(train: Run, folder: Path) -> None:
    words = [w for w in BY_CLOCK if w != "callbacks.progress=null"]
    with pytest.MonkeyPatch.context() as patch:
        seen = train_here(folder, patch, words)
        more = ["trainer.val_check_interval=100", "+callbacks.totals._target_=ticking.BarTotals"]
        assert seen("bar", FIVE_S, *more) == 0
        import ticking  # type: ignore[import-not-found]

        assert ticking.BarTotals.totals == [20] * 19


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["trainer.max_time=9min"], r"max_time=9min: expected a time above zero as \[DD:\]HH"),
        (["trainer.max_time=540"], r"max_time=540: expected"),
        (["trainer.max_time=00:00:00"], r"max_time=00:00:00: expected a time above zero"),
        (["trainer.max_time={minuets:9}"], r"expected a time above zero"),
        (
            [FIVE_S, f"scheduler._target_={TORCHS}.CosineAnnealingLR", "+scheduler.T_max=-1"],
            r"counts steps \(T_max\).*scheduler=cosine or scheduler=trapezoid, or trainer.max_st",
        ),
        (
            [FIVE_S, f"scheduler._target_={TORCHS}.OneCycleLR",
             "+scheduler.max_lr=1e-3", "+scheduler.total_steps=${trainer.max_steps}"],
            r"counts steps \(total_steps\)",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be(
    words: list[str], says: str, train: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    assert train("wrong", *words) == 1
    [line] = capfd.readouterr().err.splitlines()
    assert re.search(says, line), line


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (None, None),
        ("00:09:00", 540),
        ("00:00:09:00", 540),
        ("1:00:00", 3600),
        ("01:02:03:04", 93784),
        ({"minutes": 9}, 540),
        ({"hours": 0.5}, 1800),
    ],
)
def test_ways_to_write_a_time(written: object, seconds: float | None) -> None:
    found = parse_time(written)
    assert (found and found.total_seconds()) == seconds


@given(
    value=st.one_of(
        st.text(), st.integers(), st.floats(), st.lists(st.text()), st.booleans(),
        st.dictionaries(st.sampled_from(["minutes", "m", ""]), st.floats() | st.text()),
    )
)  # fmt: skip
def test_any_other_value_is_refused(value: object) -> None:
    try:
        found = parse_time(value)
    except ConfigError:
        return
    assert found is not None
    assert found.total_seconds() > 0


@settings(deadline=None, max_examples=50)
@given(
    ticks=st.lists(st.floats(0, 3, width=16), min_size=1, max_size=30),
    resumed=st.sets(st.integers(0, 29)),
)
def test_the_share_that_is_done_rises_from_zero_to_one(
    ticks: list[float], resumed: set[int]
) -> None:
    """Whatever the steps take, and however often the run is resumed."""
    trainer: Any = SimpleNamespace(world_size=1, should_stop=False, accumulate_grad_batches=1)
    trainer.is_last_batch = False
    fake = timer.time
    duration = timedelta(seconds=10)
    run, used, shares = Clock(duration), 0.0, list[float]()
    run.on_train_start(trainer, None)  # type: ignore[arg-type]
    for n, tick in enumerate(ticks):
        if n in resumed:
            kept, run = run.state_dict(), Clock(duration)
            fake.now += 77.0  # type: ignore[attr-defined]
            run.load_state_dict(kept)
            run.on_train_start(trainer, None)  # type: ignore[arg-type]
        fake.now += tick  # type: ignore[attr-defined]
        used += tick
        shares.append(run.share(trainer))
        assert shares[-1] == pytest.approx(min(1.0, used / 10))
        run.on_train_batch_end(trainer, None, None, None, n)  # type: ignore[arg-type]
        assert run.time_is_up == trainer.should_stop == (shares[-1] >= 1)
        if run.time_is_up:
            break
    assert all(0 <= a <= b <= 1 for a, b in pairwise(shares)) or len(shares) == 1


@given(
    shares=st.lists(st.floats(0, 1), min_size=2, max_size=40),
    steps=st.sampled_from([-1, 5, 20, 10**6]),
    warmup=st.integers(0, 3),
    lr_min=st.sampled_from([0.0, 1e-7, 1e-4]),
)
def test_rates_follow_what_is_further_time_or_steps(
    shares: list[float], steps: int, warmup: int, lr_min: float
) -> None:
    times = [0.0, *sorted(shares), 1.0, 1.0]
    left = iter(times)
    made = partial(cosine, steps=steps, lr_min=lr_min, warmup=warmup, done=lambda: next(left))
    found = rates(made, len(times) - 1)
    for n, (share, rate) in enumerate(zip(times, found, strict=False)):
        further = min(1.0, share if steps == -1 else max(share, n / steps))
        rising = (n + 1) / (warmup + 1) if n < warmup else 1.0
        expected = min(rising * 1e-3, of_cosine(further, lr_min=lr_min))
        assert rate == pytest.approx(expected, rel=1e-6, abs=1e-12)
    assert found[-1] == pytest.approx(min(lr_min, found[-2]), rel=1e-9, abs=1e-12)


def test_a_trapezoid_by_the_clock() -> None:
    left = iter([0.0, 0.3, 0.6, 0.8, 0.9, 1.0, 1.0])
    found = rates(partial(trapezoid, done=lambda: next(left), decay=0.4, lr_min=0.0), 6)
    assert found == pytest.approx([1e-3, 1e-3, 1e-3, 5e-4, 2.5e-4, 0.0])


def test_a_trainer_of_ones_own_gets_the_clock_as_a_callback(tmp_path: Path, clock: Clocks) -> None:
    found: list[float] = []

    class Watch(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, *rest: Any) -> None:
            found.append(float(trainer.optimizers[0].param_groups[0]["lr"]))
            clock.now += 0.25

    data = SRDataModule(
        SAMPLE_FOLDER / "train", SAMPLE_FOLDER / "valid", batch_size=2, lr_crop=8,
        downscale_factors=[1.0], cache_dir=tmp_path / "cache",
    )  # fmt: skip
    trainer = L.Trainer(
        logger=False, enable_checkpointing=False, enable_progress_bar=False,
        callbacks=[Watch(), Clock(timedelta(seconds=2))], enable_model_summary=False,
        accelerator="cpu", limit_val_batches=0,
    )  # fmt: skip
    made = partial(torch.optim.Adam, lr=1e-3)
    trainer.fit(FirstStage(small_first_stage(), optimizer=made, scheduler=cosine), data)
    assert trainer.global_step == 8
    assert found == pytest.approx([of_cosine(n / 8) for n in range(8)], rel=1e-6)


def test_a_schedule_of_ones_own_gets_the_share(clock: Clocks) -> None:
    def halving(optimizer: torch.optim.Optimizer, done: Any = None) -> Any:
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 0.5 ** (4 * done()))

    own = Clock(timedelta(seconds=8))
    trainer: Any = SimpleNamespace(callbacks=[own], world_size=1, max_steps=-1)
    own.on_train_start(trainer, None)  # type: ignore[arg-type]
    clock.now += 2
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], 1.0)
    make_schedule(halving, optimizer, trainer)
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_all_stages_by_the_clock(train: Run, folder: Path) -> None:
    """Stopped in its second stage, the job goes on there; the rest of the time is left for it."""
    words = [
        f"stages=[['stage=1','{FIVE_S}'],['stage=2','trainer.max_time=00:00:02']]", "stage=all",
        "trainer.val_check_interval=100",
    ]  # fmt: skip
    of_second = "pl_module.hparams.stage == '2' and trainer.global_step =="
    code = SENDER.replace("trainer.global_step ==", of_second)
    (folder / "second_sender.py").write_text(code)
    stop = [w.replace("=sender.", "=second_sender.") for w in sent("on_before_backward", 3)]
    assert train("all", *words, *stop) == 143
    assert record(folder / "all" / "stage-1")["steps"] == 20
    assert not (folder / "all" / "stage-2" / "run.json").exists()
    assert train("all", *words) == 0
    assert record(folder / "all" / "stage-2")["steps"] == 8
    assert sorted(learning_rates(folder / "all" / "stage-2")) == list(range(8))
    assert (folder / "all" / "stage-1" / "train.log").read_text().count("- trained 20 steps") == 1
    assert record(folder / "all")["complete"]
    other = [words[0].replace("00:00:05", "00:00:06"), *words[1:]]
    assert train("all", *other) == 1  # the clock decides what comes out
