"""A time is kept as far as it can be, by what the machine was measured to take."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from tests.commands import run_command
from tests.released_models import PHOTO as PHOTO_MODEL
from tests.released_models import release_photo_model
from tests.small import small_original, small_pcsr, write_textures
from torch import Tensor

import pcsr_lightning
from pcsr_lightning import upscale
from pcsr_lightning.batch import time_left
from pcsr_lightning.data import SAMPLE_FOLDER
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.inference import (
    Execution,
    Session,
    UpscaleResult,
    measuring,
    time_budget,
    time_model,
)
from pcsr_lightning.inference.upscaling import upscale_by
from pcsr_lightning.networks import PCSR, build_network, default_config
from pcsr_lightning.routing import RoutingConfig
from pcsr_lightning.streaming import numba_runtime
from pcsr_lightning.weights import save

LR = (12, 10)
TIMES = {"overhead": 0.5, "backbone": 0.01, "classifier": 0.001, "classes_M": (0.004, 0.001)}
PIXELS = 16 * math.prod(LR)
FIXED = 0.5 + math.prod(LR) * 0.01 + PIXELS * 0.001
FLOOR, CEILING = FIXED + PIXELS * 0.001, FIXED + PIXELS * 0.004
PHOTO = SAMPLE_FOLDER / "valid" / "coffee.png"


class Machine(SimpleNamespace):
    """An invented machine: what it takes, and how often it was measured. Its clock stands still."""

    measured = 0

    def measure(self, *_: object) -> dict[str, Any]:
        self.measured += 1
        return dict(TIMES)

    def forget(self) -> None:
        """As a new process: what is not in the cache's files is not known."""
        time_model._KNOWN.clear()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    made = Machine()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(time_model, "_KNOWN", {})
    monkeypatch.setattr(measuring, "measure", made.measure)
    monkeypatch.setattr(time_budget, "clock", lambda: 0.0)
    return made


@pytest.fixture
def lr() -> Tensor:
    torch.manual_seed(1)
    return torch.rand(1, 3, *LR)


def predicted(result: UpscaleResult) -> float:
    assert result.timing is not None
    return result.timing.predicted


@pytest.mark.usefixtures("machine")
def test_as_much_as_fits(lr: Tensor) -> None:
    model, before = small_pcsr(), -1.0
    for asked in (FLOOR + 0.3, (FLOOR + CEILING) / 2, CEILING - 0.3):
        result = upscale(model, lr, time_budget=asked)
        share = result.shares[0]
        assert predicted(result) == pytest.approx(FLOOR + share * (CEILING - FLOOR))
        # Less than the upgrade of one LR pixel is left over.
        assert 0 <= asked - predicted(result) < 16 * 0.003 + 1e-6
        assert share > before
        before = share
        in_strips = upscale(model, lr, time_budget=asked, tile_rows=5)
        assert torch.equal(in_strips.assignment, result.assignment)


@pytest.mark.usefixtures("machine")
def test_features_that_are_not_kept_are_paid_for_twice(lr: Tensor) -> None:
    asked = (FLOOR + CEILING) / 2
    kept, again = (upscale(small_pcsr(), lr, time_budget=asked, max_memory=m) for m in (None, 1))
    assert predicted(again) == pytest.approx(predicted(kept), abs=0.1)
    missing = (kept.shares[0] - again.shares[0]) * (CEILING - FLOOR)
    assert missing == pytest.approx(math.prod(LR) * 0.01, abs=0.1)


@pytest.mark.usefixtures("machine")
def test_one_class_takes_one_pass(lr: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TIMES, "classes_M", (0.004,))
    monkeypatch.setitem(TIMES, "classifier", 0.0)
    model = build_network(default_config("fsrcnn", 1) | {"upsamplers": [[8]]})
    assert isinstance(model, PCSR)
    expected = 0.5 + math.prod(LR) * 0.01 + PIXELS * 0.004
    result = upscale(model.eval(), lr, time_budget=1, max_memory=1)
    assert predicted(result) == pytest.approx(expected)
    assert "the least this model can do" in str(result.timing)


@pytest.mark.usefixtures("machine")
def test_counted_scores_keep_it_too(lr: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pcsr_lightning.routing.scores.SCORE_BYTES", 0)
    asked = (FLOOR + CEILING) / 2
    assert 0 <= asked - predicted(upscale(small_pcsr(), lr, time_budget=asked)) < 0.06


@pytest.mark.usefixtures("machine")
def test_the_ends(lr: Tensor) -> None:
    short = upscale(small_pcsr(), lr, time_budget=0.1)
    assert short.shares == (0.0, 1.0)
    assert predicted(short) == pytest.approx(FLOOR)
    said = rf"asked 0\.100 s, the least this model can do is {FLOOR:.1f} s here, took [\d.]+ s"
    assert re.fullmatch(said, str(short.timing))
    plenty = upscale(small_pcsr(), lr, time_budget=100)
    assert plenty.shares == (1.0, 0.0)
    assert str(plenty.timing).startswith(f"asked 100.0 s, predicted {CEILING:.1f} s, took ")
    assert upscale(small_pcsr(), lr).timing is None


def test_pictures_of_a_batch_share_it(lr: Tensor, machine: Machine) -> None:
    both = upscale(small_pcsr(), torch.cat([lr, lr.flip(3)]), time_budget=2 * (FLOOR + 1))
    assert machine.measured == 1
    assert 0 <= 2 * (FLOOR + 1) - predicted(both) < 2 * 0.06


def test_a_session_gives_the_same_classes(lr: Tensor, machine: Machine) -> None:
    model, routing = small_pcsr(), RoutingConfig(seconds=FLOOR + 1)
    expected = upscale(model, lr, routing=routing)
    assert torch.equal(Session(model, lr).run(routing).assignment, expected.assignment)
    assert machine.measured == 1


def test_three_classes(lr: Tensor, monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
    monkeypatch.setitem(TIMES, "classes_M", (0.004, 0.002, 0.001))
    config = default_config("fsrcnn", 3) | {"upsamplers": [[8, 8], [6], [4]]}
    config["backbone"] = {"name": "fsrcnn", "d": 8, "s": 4, "m": 1}
    model = build_network(config)
    assert isinstance(model, PCSR)
    result = upscale(model.eval(), lr, time_budget=FLOOR + 1)
    assert -1e-6 <= FLOOR + 1 - predicted(result) < 0.06
    assert machine.measured == 1


@pytest.mark.usefixtures("machine")
def test_what_excludes_it(lr: Tensor, tmp_path: Path) -> None:
    for other in ({"k": 0.5}, {"budget": 0.5}, {"adaptive": True}, {"fixed_class": 0}):
        with pytest.raises(ConfigError, match="exclude each other"):
            upscale(small_pcsr(), lr, time_budget=1, **other)  # type: ignore[arg-type]
    for value in (0, -1, math.inf, "5"):
        with pytest.raises(ConfigError, match="seconds must be a number of seconds above 0"):
            upscale(small_pcsr(), lr, time_budget=value)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="an original model has one class and one cost"):
        upscale(small_original(), lr, time_budget=1)
    for option in (("--k", 1), ("--budget", "50%"), ("--adaptive",)):
        done = run_command("upscale", PHOTO, tmp_path / "a.png", "--seconds", 5, *option, code=2)
        assert "not allowed with argument" in done.err


# What is kept


def test_measured_once(lr: Tensor, machine: Machine) -> None:
    model = small_pcsr()
    for _ in range(2):
        upscale(model, lr, time_budget=1)
        machine.forget()
    assert machine.measured == 1
    for scale, measured in ((4, 1), (2, 2), (2.5, 3), (2.6, 3), (3.5, 4), ((4, 4), 4), (4.0, 4)):
        upscale(model, lr, scale, time_budget=1)
        assert machine.measured == measured, scale
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        upscale(model, lr, time_budget=1)
    finally:
        torch.set_num_threads(threads)
    assert machine.measured == 5
    upscale(small_pcsr("carn"), lr, time_budget=1)
    assert machine.measured == 6


def test_measured_with_kernels_and_without(
    lr: Tensor, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numba_runtime, "_SLEEPS", True)  # they run with several threads, too
    model, without = small_pcsr("carn"), Execution(planar=False)
    for measured, execution in ((1, Execution()), (2, without), (2, Execution()), (2, without)):
        upscale_by(model, lr, RoutingConfig(seconds=1), execution)
        assert machine.measured == measured
    assert {each.precision for each in time_model.kept_times()} == {"fp32", "fp32, numba"}


@pytest.mark.parametrize("content", [b"", b"{", b"[{}]", b"[1]", b'[{"classes_M": 1}]', b"\xff"])
def test_a_damaged_file_is_measured_again(lr: Tensor, machine: Machine, content: bytes) -> None:
    model = small_pcsr()
    upscale(model, lr, time_budget=1)
    (file,) = time_model.cache_folder().glob("*.json")
    file.write_bytes(content)
    machine.forget()
    upscale(model, lr, time_budget=1)
    assert machine.measured == 2
    machine.forget()
    upscale(model, lr, time_budget=1)
    assert machine.measured == 2


def test_a_cache_that_cannot_be_written(
    lr: Tensor, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for scale in (4, 2, 4, 2):
        assert upscale(small_pcsr(), lr, scale, time_budget=100).shares[0] == 1
    assert machine.measured == 2


@pytest.fixture
def take(monkeypatch: pytest.MonkeyPatch, lr: Tensor) -> Callable[[float], float]:
    """Upscales on a machine that takes so many seconds; gives what was predicted."""

    def run(seconds: float) -> float:
        at = iter((0.0, seconds))
        monkeypatch.setattr(time_budget, "clock", lambda: next(at))
        result = upscale(small_pcsr(), lr, time_budget=100)
        assert result.timing is not None
        assert result.timing.took == seconds
        return result.timing.predicted

    return run


def test_a_machine_that_becomes_slower(take: Callable[[float], float], machine: Machine) -> None:
    assert take(1.2 * CEILING) == pytest.approx(CEILING)
    for _ in range(2):
        take(1.2 * CEILING)
    machine.forget()  # it was written down
    assert take(CEILING) == pytest.approx(1.2 * CEILING)
    assert machine.measured == 1


@pytest.mark.usefixtures("machine")
def test_a_single_picture_says_nothing(take: Callable[[float], float]) -> None:
    assert all(take(seconds * CEILING) == pytest.approx(CEILING) for seconds in (1, 9, 1, 1, 0.2))


def test_measured_again_when_it_has_drifted(
    take: Callable[[float], float], machine: Machine
) -> None:
    for _ in range(3):
        take(2 * CEILING)
    assert machine.measured == 1
    assert take(CEILING) == pytest.approx(CEILING)
    assert machine.measured == 2


# How it is measured


@pytest.mark.parametrize("classes", [1, 2, 3])
@pytest.mark.parametrize("overhead", [0.004, 0.0])
def test_a_linear_machine_is_found_out(
    classes: int, overhead: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = (5e-6, 3e-6, 1e-6)[-classes:]
    model = SimpleNamespace(mean=torch.zeros(3), num_classes=classes)

    def run(_: object, image: Tensor, scale: Any, mix: list[float], *__: object) -> Any:
        lr, hr = image[0, 0].numel(), math.prod(measuring._size(image, scale))
        per_pixel = 5e-7 + sum(p * c for p, c in zip(mix, costs, strict=True))
        return overhead + 2e-6 * lr + hr * per_pixel, tuple(mix)

    monkeypatch.setattr(measuring, "_run", run)
    monkeypatch.setattr(measuring, "_parts", lambda *_: (2e-6, 5e-7))
    found = measuring.measure(model, (4, 3), time_budget.Execution())  # type: ignore[arg-type]
    assert found["overhead"] == pytest.approx(overhead, abs=1e-9)
    assert found["classes_M"] == pytest.approx(costs)


@pytest.mark.parametrize("backbone", ["fsrcnn", "carn"])
def test_measured_for_once(backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is invented but the size; of the times only that they are some."""
    monkeypatch.setattr(measuring, "LR_PIXELS", {"cpu": 5000})
    monkeypatch.setattr(measuring, "TIMES", 1)
    seen, run = [], measuring._run

    def watched(*args: Any) -> Any:
        seen.append((args[3], run(*args)))
        return seen[-1][1]

    monkeypatch.setattr(measuring, "_run", watched)
    found = measuring.measure(small_pcsr(backbone), (2.5, 2.5), time_budget.Execution())
    assert found["backbone"] > 0
    assert found["overhead"] >= 0
    assert found["classes_M"][0] >= found["classes_M"][1] >= 0
    for wanted, (took, shares) in seen[2:]:
        assert took > 0
        assert shares == pytest.approx(wanted, abs=0.15)


@pytest.mark.slow
def test_a_real_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loosely: the machine may be busy."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model, image = pcsr_lightning.load("fsrcnn-pcsr-x4"), torch.rand(1, 3, 200, 300)
    ends = [upscale(model, image, time_budget=asked).timing for asked in (1e-3, 100)]
    asked = sum(each.predicted for each in ends if each) / 2
    timing = upscale(model, image, time_budget=asked).timing
    assert timing is not None
    assert asked * 0.95 < timing.predicted <= asked
    assert 0.5 < timing.took / timing.predicted < 2


# Commands


def test_the_whole_command_is_timed(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading and writing included."""
    pixel, writing, (h, w) = 1e-5, 2e-5, (100, 150)
    monkeypatch.setattr(time_left, "_KNOWN", {(".png", None): [writing] * 3})
    for name, value in (("overhead", 0.0), ("backbone", 0.0), ("classifier", 0.0)):
        monkeypatch.setitem(TIMES, name, value)
    monkeypatch.setitem(TIMES, "classes_M", (2 * pixel, pixel))
    lr = tmp_path / "lr.png"
    Image.open(PHOTO).resize((w, h)).save(lr)
    words = (lr, tmp_path / "out.png", "--model", "fsrcnn-pcsr-x4", "--overwrite", "--seconds")

    def run(asked: float) -> dict[str, Any]:
        return json.loads(
            run_command("upscale", *words, asked, "--json", code=0).out.splitlines()[0]
        )

    pixels = 16 * h * w
    found = run(10 * pixels * pixel)
    assert found["note"].startswith(f"asked {10 * pixels * pixel:.1f} s, predicted 9")
    assert found["shares"][0] == 1
    # Reading took some of it, too.
    found = run(pixels * (1.5 * pixel + writing))
    assert 0 < found["shares"][0] < 0.5
    done = run_command("upscale", *words, 1e-3, code=0)
    assert "asked 0.001 s, the least this model can do is " in done.out
    assert machine.measured == 1


@pytest.mark.usefixtures("machine")
def test_a_small_result_says_nothing_of_how_fast_files_are_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file, size = (".png", None), (48, 40)
    monkeypatch.setattr(time_left, "_KNOWN", {file: [1e-7]})
    clock = time_left.PictureClock(
        0.0, RoutingConfig(seconds=9), small_pcsr(), time_budget.Execution(), LR, size, file, 1
    )
    for closing, known in ((0.01, [1e-7]), (1.0, [1e-7, 1 / math.prod(size)])):
        clock.finish([], 0.0, closing)
        assert time_left._KNOWN[file] == known


def test_measured_for_the_model_that_is_chosen(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release_photo_model(tmp_path / "models", monkeypatch)
    seen = []

    def measure(model: PCSR, *_: object) -> dict[str, Any]:
        seen.append(model.backbone.name)
        return machine.measure()

    monkeypatch.setattr(measuring, "measure", measure)
    photo, out = tmp_path / "low.jpg", tmp_path / "out.png"
    Image.open(PHOTO).resize((60, 40)).save(photo, quality=30)
    done = run_command("upscale", photo, out, "--seconds", 1000, "--json", code=0)
    found = json.loads(done.out.splitlines()[0])
    assert found["model"] == PHOTO_MODEL
    assert found["note"].startswith("asked 1000.0 s, predicted ")
    assert seen == ["fsrcnn"]


def test_devices(machine: Machine) -> None:
    first = run_command("devices", code=0).out
    assert first.startswith("cpu ")
    assert "no times are kept yet" in first
    words = ("--measure", "fsrcnn-pcsr-x4", "--scale", 2)
    assert "fsrcnn, 2 classes, x2, fp32, " in run_command("devices", *words, code=0).out
    run_command("devices", *words, code=0)
    assert machine.measured == 2
    done = run_command("devices", code=0)
    assert done.out.count("fsrcnn, 2 classes, x2, fp32") == 1
    assert "classifier 1000, classes heavy to light 4000 / 1000, and 500 ms a picture" in done.out
    done = run_command("devices", "--measure", "carn-x4", code=1)
    assert "an original model has one cost" in done.err


def test_evaluated(machine: Machine, tmp_path: Path) -> None:
    write_textures(tmp_path / "set", {"a.png": (32, 32)})
    save(small_pcsr(), tmp_path / "m.safetensors")
    words = ("model=m.safetensors", "data.root=set", "device=cpu", "output=out")
    run_command("evaluate", *words, "routing.seconds=0.01", cwd=tmp_path, code=0)
    assert machine.measured == 1
