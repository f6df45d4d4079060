"""The release command: whole, resumable, and the same however often it was killed."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file
from tests.commands import run_command, start, trainings_in_process

from pcsr_lightning import conf_dir
from pcsr_lightning.cli.release import main
from pcsr_lightning.data import SAMPLE_FOLDER
from pcsr_lightning.errors import ConfigError, TrainingError
from pcsr_lightning.networks import PCSR, build_network, default_config
from pcsr_lightning.release.card import describe_validation
from pcsr_lightning.release.experiment import GPU, list_experiments, train_experiment
from pcsr_lightning.release.make_release import Sources, write_release
from pcsr_lightning.training.callbacks.clock import parse_time, time_used
from pcsr_lightning.training.settings_check import check_settings
from pcsr_lightning.training.stage_configs import listed_stages, stage_name, stage_overrides
from pcsr_lightning.weights import find_model, load

EXPERIMENT = """# @package _global_
defaults:
  - override /backbone: fsrcnn
  - override /optimizer: muon
backbone: {args: {d: 12, s: 8, m: 1}, upsamplers: [[8, 8], [8]]}
data: {batch_size: 2, lr_crop: 8}
optimizer: {lr: 1.0e-3}
stage: {queries: 64}
trainer: {log_every_n_steps: 20}
stages:
  - [stage=1, trainer.max_steps=80]
  - [stage=1, trainer.max_steps=80, stage.teacher=fsrcnn-pcsr-x4]
  - [stage=2, trainer.max_steps=120]
"""
WORDS = [
    "trainer.val_check_interval=40",
    "callbacks.last.every_n_train_steps=10",
    "data.val_limit=1",
    "threads=1",
    "data.downscale_factors=[1.0]",
]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("experiment") / "tiny.yaml"
    path.write_text(EXPERIMENT)
    return path


def words(experiment: Path, out: Path) -> list[str]:
    return [
        str(experiment), "--train", str(SAMPLE_FOLDER / "train"),
        "--valid", str(SAMPLE_FOLDER / "valid"), "--test", str(SAMPLE_FOLDER / "valid"),
        "--out", str(out), "--allow-unsound", "--", *WORDS,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    with trainings_in_process():
        done = run_command("release", *words(experiment, out), code=0)
    assert done.out.split()[0] == str(out / "tiny" / "tiny.safetensors")
    return out / "tiny"


def test_what_a_release_holds(undisturbed: Path) -> None:
    model = load(undisturbed / "tiny.safetensors")
    assert isinstance(model, PCSR)
    assert model.num_classes == 2
    facts = json.loads((undisturbed / "tiny.json").read_text())
    assert facts["steps"] == {"tiny/1": 80, "tiny/1-part-2": 80, "tiny/2": 120}
    assert facts["scales"] == [4]
    assert facts["golden"]["psnr"] > 20
    card = (undisturbed / "tiny.md").read_text()
    for word in ("# tiny", "Trained on", "Limits", "seed 0", "k = 0", "all", "after 80", "GMACs"):
        assert word.lower() in card.lower(), word
    assert "pcsr_lightning.release" in card
    assert "| white text on black |" in card
    rows = json.loads((undisturbed / "measured.json").read_text())["measured"]
    assert {r["k"] for r in rows} == {2.0, 1.0, 0.5, 0.25, 0.0, -0.1, -0.25, -0.5, None}
    assert (undisturbed / "valid-x4.png").stat().st_size > 5_000


def test_a_model_that_cleans(tmp_path: Path) -> None:
    """It may smooth what looks like noise, its card says so, and x1 is not measured."""
    torch.manual_seed(0)
    model = build_network({**default_config("fsrcnn", num_classes=2), "denoise": True}).eval()
    metadata = {"scales": [1, 2]}
    write_release(model, tmp_path / "cleaner", metadata, "made", Sources(None))
    card = " ".join((tmp_path / "cleaner" / "cleaner.md").read_text().split())
    assert "Made for photographs with noise" in card
    assert "| noise | " in card
    assert "only features are limited" in card
    measured = json.loads((tmp_path / "cleaner" / "measured.json").read_text())
    assert {row["scale"] for row in measured["robustness"]} == {2}


@pytest.mark.slow
def test_killed_again_and_again_it_ends_in_the_same_weights(
    experiment: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """SIGKILL to the command and its training at random moments, at least three times."""
    draw, kills = random.Random(0), 0
    said = (tmp_path / "said.txt").open("w")
    for _ in range(12):
        process = start(
            "pcsr_lightning.release", *words(experiment, tmp_path), stdout=subprocess.DEVNULL,
            stderr=said, start_new_session=True,
        )  # fmt: skip
        if kills < 3:
            await_checkpoint(tmp_path, process)
            time.sleep(draw.uniform(0, 0.1))
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
        if process.wait() == 0:
            break
    said.close()
    assert kills == 3
    assert process.returncode == 0
    # To start anew each time would end in the same weights too.
    assert (tmp_path / "said.txt").read_text().count("resumes: ") >= 2
    ours, theirs = (
        load_file(folder / "tiny.safetensors") for folder in (tmp_path / "tiny", undisturbed)
    )
    assert all((ours[k] == theirs[k]).all() for k in theirs)
    # One curve tells what was validated before and after the kills, but for a validation that was
    # itself killed between its checkpoint and its result.
    ours_at, theirs_at = (
        {stage: dict(map(tuple, curve)) for stage, curve in validation(folder).items()}
        for folder in (tmp_path / "tiny", undisturbed)
    )
    assert ours_at["1"].items() <= theirs_at["1"].items()
    assert ours_at["2"].items() <= theirs_at["2"].items()
    assert len(ours_at["1"]) >= len(theirs_at["1"]) - 2
    assert ours_at["2"][120] == theirs_at["2"][120]


def validation(folder: Path) -> dict[str, list[list[float]]]:
    found: dict[str, list[list[float]]] = json.loads((folder / "measured.json").read_text())[
        "validation"
    ]
    return found


def await_checkpoint(out: Path, process: subprocess.Popen[str]) -> None:
    """Returns when the training has saved once more, or ended."""
    before, end = newest(out), time.monotonic() + 120
    while newest(out) == before and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.02)


def newest(out: Path) -> int:
    return max((path.stat().st_mtime_ns for path in out.rglob("last.ckpt")), default=0)


def composed(*words: str) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", list(words))
        OmegaConf.set_struct(cfg, False)
        cfg.callbacks, cfg.logger = {}, {}  # they ask for a run's folder
    return cfg


def test_every_released_model_has_a_recipe_for_a_gpu() -> None:
    assert list_experiments(GPU) == list_experiments()


@pytest.mark.parametrize("name", list_experiments(GPU))
def test_a_recipe_for_a_gpu_lasts_nine_minutes(name: str) -> None:
    alone = [f"experiment=release/{GPU}/{name}"]
    stages = listed_stages(composed(*alone))
    seconds = 0.0
    for own in stages:
        cfg = composed(*stage_overrides(alone, own))
        check_settings(cfg)
        duration = parse_time(cfg.trainer.max_time)
        assert duration is not None
        seconds += duration.total_seconds()
        assert (cfg.trainer.accelerator, cfg.trainer.precision) == ("gpu", "bf16-mixed")
        assert (cfg.data.batch_size, cfg.stage.get("queries")) == (256, "per_pixel:2")
    assert seconds == 540
    last = listed_stages(composed(f"experiment=release/{name}"))[-1]
    assert stage_name(stages[-1]) == stage_name(last)  # the same model


@pytest.mark.parametrize("name", list_experiments())
def test_every_stage_of_an_experiment_can_be_trained(name: str) -> None:
    alone = [f"experiment=release/{name}"]
    stages = listed_stages(composed(*alone))
    for own in stages:
        cfg = composed(*stage_overrides(alone, own))
        check_settings(cfg)
        assert cfg.stage.name == stage_name(own)
        assert cfg.optimizer._target_ == "pcsr_lightning.training.optim.Muon"
    last = stage_name(stages[-1])
    classes = "pcsr" in name or "photo" in name
    assert last == (str(cfg.num_classes) if classes else "original")


def test_a_card_says_what_was_set(undisturbed: Path) -> None:
    card = (undisturbed / "tiny.md").read_text()
    for label, word in (
        ("1", "trainer.max_steps=80"),
        ("1-part-2", "stage.teacher=fsrcnn-pcsr-x4"),
        ("2", "trainer.max_steps=120"),
    ):
        [line] = [line for line in card.splitlines() if line.startswith(f"- stage {label}: ")]
        assert word in line
        assert "optimizer._target_=pcsr_lightning.training.optim.Muon" in line
        assert "data.root" not in line


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("- a\n")
    (tmp_path / "key.yaml").write_text("stages: [[stage=1]]\nlr: 3\n")
    for name, word in [
        ("nothing-of-the-kind", "fsrcnn-pcsr-x4"),
        (str(tmp_path / "list.yaml"), "mapping"),
        (str(tmp_path / "key.yaml"), "begins with the line .*_global_"),
    ]:
        with pytest.raises(ConfigError, match=word):
            train_experiment(name, [], tmp_path)


def test_without_a_gpu_its_recipe_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in (CUDAAccelerator, MPSAccelerator):
        monkeypatch.setattr(kind, "is_available", lambda: False)
    train = ["--train", SAMPLE_FOLDER / "train", "--out", tmp_path]
    done = run_command("release", "carn-pcsr-x4", "--on", "gpu", *train, code=1)
    [line] = done.err.splitlines()
    assert line.startswith("error: --on gpu: PyTorch finds no GPU here; without --on gpu (ON=gpu)")
    own = tmp_path / "own.yaml"
    own.write_text(EXPERIMENT)
    done = run_command("release", own, "--on", "gpu", *train, code=1)
    assert "own has no recipe for a GPU" in done.err
    assert not list(tmp_path.glob("own/*"))


@pytest.mark.slow
def test_killed_in_a_recipe_by_the_clock_it_goes_on_with_the_time_left(tmp_path: Path) -> None:
    given = [
        "fsrcnn-pcsr-x4", "--on", "gpu", "--train", SAMPLE_FOLDER / "train", "--out", tmp_path,
        "--allow-unsound", "--", "trainer=cpu", "trainer.precision=32-true",
        "trainer.max_time=00:00:04", "backbone.args={d:8,s:4,m:1}",
        "backbone.upsamplers=[[8,8],[8]]", "data.batch_size=2", "data.lr_crop=8", *WORDS[2:],
        "callbacks.last.train_time_interval.seconds=1",
    ]  # fmt: skip
    process = start(
        "pcsr_lightning.release", *given, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    await_checkpoint(tmp_path, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    stage = tmp_path / "fsrcnn-pcsr-x4" / "stage-1"
    kept = torch.load(stage / "checkpoints" / "last.ckpt", weights_only=True)
    done = run_command("release", *given, code=0)
    assert "stage 1 resumes: " in done.err
    assert "other settings" not in done.err
    last = torch.load(stage / "checkpoints" / "last.ckpt", weights_only=True)
    assert 0 < time_used(kept) < 4 <= time_used(last) < 6
    assert last["global_step"] > kept["global_step"]
    card = (tmp_path / "fsrcnn-pcsr-x4" / "fsrcnn-pcsr-x4.md").read_text()
    assert "trainer.max_time=00:00:04" in card
    assert "--on gpu" in card


@pytest.mark.parametrize(("code", "error"), [(1, TrainingError), (130, KeyboardInterrupt)])
def test_a_failing_stage_is_told(
    code: int,
    error: type[BaseException],
    experiment: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "pcsr_lightning.release.experiment.train_in_own_process"
    monkeypatch.setattr(name, lambda arguments: code)
    said = "tiny: the training ended with exit code 1" if code == 1 else ""
    with pytest.raises(error, match=said):
        train_experiment(str(experiment), [], tmp_path)


def test_wrong_folders_are_told_before_training(experiment: Path, tmp_path: Path) -> None:
    wrong = words(experiment, tmp_path)
    wrong[wrong.index("--test") + 1] = "nowhere"
    done = run_command("release", *wrong)
    assert done.code == 1
    assert done.err.strip() == "error: nowhere: no such folder; name a folder of pictures"
    assert not list(tmp_path.iterdir())


def test_a_learning_curve_in_words() -> None:
    assert describe_validation([]) == "no validation was logged"
    long = [(n * 10, 20 + n / 10) for n in range(1, 31)]
    words = describe_validation(long)
    assert words.count("dB after") == 8
    assert words.endswith("23.00 dB after 300")


def test_an_unsound_model_is_not_released_and_a_finished_one_not_trained_again(
    experiment: Path, undisturbed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A few steps give little more than bilinear enlargement, whose text is off by 83 of 255."""
    given = words(experiment, undisturbed.parent)
    assert main(given) == 1
    assert f"{undisturbed} holds a finished release: give another --out" in capsys.readouterr().err
    measured = undisturbed / "measured.json"
    content = measured.read_bytes()
    measured.unlink()  # as after an interruption
    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*") if path.is_file()}
    assert undisturbed / "stage-2" / "run.json" in before
    given.remove("--allow-unsound")
    assert main(given) == 1
    said = capsys.readouterr().err
    assert "resumes" not in said
    assert said.splitlines()[-1].startswith(
        "error: tiny is not sound on pictures unlike photographs: white text on"
    )
    after = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*") if path.is_file()}
    assert after == before
    measured.write_bytes(content)


def test_a_model_that_was_trained_in_another_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    how = tmp_path / "how.md"
    how.write_text("On another machine, in **13 seconds**.\n")
    words = ["mine", "--weights", str(find_model("fsrcnn-pcsr-x4")), "--made", str(how)]
    assert main([*words, "--test", str(SAMPLE_FOLDER / "valid"), "--out", str(tmp_path)]) == 0
    card = (tmp_path / "mine" / "mine.md").read_text()
    assert "## Schedule\n\nOn another machine, in **13 seconds**.\n\n## Measured" in card
    facts = json.loads((tmp_path / "mine" / "mine.json").read_text())
    assert (facts["stage"], facts["backbone"], facts["scales"]) == ("2", "fsrcnn", [4.0])
    assert load(tmp_path / "mine" / "mine.safetensors").config() == facts["network"]
    capsys.readouterr()
    assert main([*words, "--out", str(tmp_path)]) == 1
    assert "mine holds a finished release: give another --out" in capsys.readouterr().err
    assert main([*words[:-1], str(tmp_path / "nowhere.md"), "--out", str(tmp_path / "b")]) == 1
    assert "nowhere.md: no such file" in capsys.readouterr().err
    for scales in (["0.5"], ["4", "2"], ["1", "2", "3"]):
        assert main([*words, "--scales", *scales]) == 1
        said = capsys.readouterr().err
        assert f"--scales {' '.join(scales)}: expected one scale, or two rising ones" in said
    for wrong in (["mine"], words[:3], [*words, "--train", "x"]):
        with pytest.raises(SystemExit):
            main(wrong)
        assert "expected either --train DIR, or --weights FILE" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*words, "--on", "gpu"])
    assert "with --weights nothing is trained" in capsys.readouterr().err
