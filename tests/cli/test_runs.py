"""Training runs that can be trusted: what is finished, what is built on, resumed, overwritten."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tests.commands import SMALL_TRAINING, Done, run_command, trainings_in_process

from pcsr_lightning.data import SAMPLE_FOLDER
from pcsr_lightning.weights import load

SMALL = (*SMALL_TRAINING, "backbone.upsamplers=[[8,8],[8]]", "logger=none")

Train = Callable[..., Done]


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """``train(*words, code=0)``: the command on small pictures, in a folder of its own."""
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache")}

    def run(*words: str, code: int = 0) -> Done:
        given = [*(w for w in words if w[0] == "-"), *SMALL, *(w for w in words if w[0] != "-")]
        return run_command("train", *given, cwd=tmp_path, env=env, code=code)

    return run


def record(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "run.json").read_text())
    assert isinstance(found, dict)
    return found


def error(done: Done) -> str:
    """The single line of an error."""
    assert "Traceback" not in done.out + done.err
    [line] = [line for line in done.err.splitlines() if line.startswith("error:")]
    return line


CALLBACKS = '''
import lightning as L
from lightning.pytorch.callbacks import EarlyStopping

class StopAtOnce(L.Callback):
    def on_train_batch_end(self, trainer, *rest):
        trainer.should_stop = trainer.global_step >= 2

class NeverBetter(EarlyStopping):
    """Enough at the first validation."""

    def __init__(self):
        super().__init__("val/psnr", mode="max", stopping_threshold=0.0)
'''
OUT_OF_TIME = [
    "+callbacks.timer._target_=lightning.pytorch.callbacks.Timer",
    "+callbacks.timer.duration='00:00:00:00'",
]


@pytest.mark.parametrize(
    ("words", "complete", "says"),
    [
        (["+trainer.fast_dev_run=true"], False, r"a trial run of 1 steps \(trainer.fast_dev_run"),
        (["+trainer.overfit_batches=1"], False, r"a trial run of 4 steps \(trainer.overfit_batch"),
        (["+trainer.limit_train_batches=2"], False, r"\(trainer.limit_train_batches=2\)"),
        (OUT_OF_TIME, False, r"stopped by a Timer at step \d of 4"),
        (["+trainer.max_time=00:00:30:00"], True, "after all of its 4 steps"),
        (["+callbacks.stop._target_=stops.StopAtOnce"], False, "by a callback at step 2 of 4"),
        (["+callbacks.stop._target_=stops.NeverBetter"], True, "by EarlyStopping at step 2 of 4"),
        ([], True, "after all of its 4 steps"),
    ],
)
def test_only_what_came_to_its_own_end_is_finished(
    words: list[str], complete: bool, says: str, train: Train, tmp_path: Path
) -> None:
    (tmp_path / "stops.py").write_text(CALLBACKS)
    run = ["hydra.run.dir=outputs/run", "trainer.max_steps=4", "trainer.val_check_interval=2"]
    done = train("stage=1", *run, *words)
    found = record(tmp_path / "outputs" / "run")
    assert found["complete"] == complete
    assert re.search(says, found["ended"]), found["ended"]
    told = "not a finished run, on which no stage builds: " + found["ended"]
    assert (told in done.out + done.err) != complete
    second = train("stage=2", "trainer.max_steps=1", code=0 if complete else 1)
    if not complete:
        assert f"outputs/run: it is not finished ({found['ended']})" in error(second)


def test_all_stages_as_a_trial_and_stopped_by_a_limit(train: Train, tmp_path: Path) -> None:
    words = ("stage=all", "trainer.max_steps=4")
    done = train(*words, "+trainer.fast_dev_run=true", "hydra.run.dir=trial")
    assert "nothing in trial counts as finished" in re.sub(r"/\S*/", "", done.out)
    assert not record(tmp_path / "trial" / "stage-2")["complete"]
    assert not (tmp_path / "trial" / "run.json").exists()
    limited = (*words, "hydra.run.dir=limited")
    line = error(train(*limited, *OUT_OF_TIME, code=1))
    assert re.search(r"stage 1: stopped by a Timer at step \d of 4; no stage is", line)
    assert not (tmp_path / "limited" / "stage-2").exists()
    train(*limited)  # and without the limit it goes on
    assert record(tmp_path / "limited")["complete"]
    # A trial's checkpoint is none to go on from.
    overfit = (*words, "hydra.run.dir=overfit")
    train(*overfit, "+trainer.overfit_batches=1")
    assert "begun with trainer.overfit_batches=1" in error(train(*overfit, code=1))


def test_a_stage_builds_on_the_run_with_its_seed_and_rates_are_told_apart(
    train: Train, tmp_path: Path
) -> None:
    steps = "trainer.max_steps=2"
    train("-m", "stage=1", "seed=0,1", steps, "hydra.sweep.dir=outputs/seeds")
    done = train("-m", "stage=2", "seed=0,1", steps, "hydra.sweep.dir=second")
    for seed in "01":
        first = tmp_path / "outputs" / "seeds" / seed / "model.safetensors"
        found = record(tmp_path / "second" / seed)
        assert found["init"]["path"] == str(first), done.out
        assert found["init"]["sha256"] == record(first.parent)["model"]
    line = error(train("stage=2", "seed=2", steps, code=1))
    assert "outputs/seeds/0: seed is 0, here 2" in line
    # M = 3 has the same first stage; other pictures and another scale have not.
    three = ("num_classes=3", "backbone.upsamplers=[[8,8],[8],[4]]")
    train("stage=2", *three, steps, "hydra.run.dir=three")
    assert record(tmp_path / "three")["init"]["path"].endswith("seeds/0/model.safetensors")
    line = error(train("stage=2", steps, "data.scale=2", code=1))
    assert "outputs/seeds/0: data.scale is 4, here 2" in line
    (tmp_path / "pictures").mkdir()
    for path in sorted((SAMPLE_FOLDER / "train").iterdir())[:5]:
        shutil.copy(path, tmp_path / "pictures")
    line = error(train("stage=2", steps, "data=folder", "data.root=pictures", code=1))
    assert "seeds/0: it was trained on other pictures" in line
    # the same ones elsewhere are the same
    shutil.copytree(SAMPLE_FOLDER / "train", tmp_path / "copies")
    copies = ("data=folder", "data.root=copies", f"data.val_root={SAMPLE_FOLDER / 'valid'}")
    train("stage=2", steps, *copies, "hydra.run.dir=copied")
    assert record(tmp_path / "copied")["init"]["path"].endswith("seeds/0/model.safetensors")
    # Another rate: two models agree.
    train("stage=1", steps, "optimizer.lr=5e-3", "hydra.run.dir=outputs/fast")
    line = error(train("stage=2", steps, code=1))
    assert "2 different models of stage 1 agree with this stage" in line
    for name, rate in (("seeds/0", "0.001"), ("fast", "0.005")):
        assert re.search(rf"outputs/{name} \([\d.]+ dB, optimizer.lr={rate}\)", line), line
    assert "init=best:outputs" in line
    done = train("stage=2", steps, "init=best:outputs", "hydra.run.dir=best")
    psnr = {
        str(path.parent): record(path.parent)["val_psnr"]
        for path in (tmp_path / "outputs").rglob("run.json")
    }
    taken = Path(record(tmp_path / "best")["init"]["path"]).parent
    assert psnr[str(taken)] == max(psnr.values())
    assert re.search(r"the best of 3 runs below outputs is outputs/\S+ \([\d.]+ dB\)", done.out)


def test_a_finished_run_is_not_overwritten(train: Train, tmp_path: Path) -> None:
    words = ("stage=1", "trainer.max_steps=2", "hydra.run.dir=run")
    train(*words)
    folder = tmp_path / "run"
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    for more in ((), ("trainer.max_steps=1",), ("stage=all",)):
        line = error(train(*words, *more, code=1))
        assert "hydra.run.dir=run holds a finished run (stage 1, 2 steps," in line
        assert "another hydra.run.dir" in line
        assert ("ckpt_path=run" in line) == (more != ("stage=all",))
    train("stage=1", "trainer.max_steps=1", "hydra.run.dir=other")
    line = error(train(*words, "ckpt_path=other", code=1))  # it would be lost all the same
    assert "hydra.run.dir=run holds a finished run" in line
    done = run_command(
        "evaluate", "model=fsrcnn-pcsr-x4", "data.root=.", "hydra.run.dir=run", cwd=tmp_path, code=1
    )
    assert "hydra.run.dir=run holds a finished run" in error(done)
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()} == before
    train(*words[:1], "hydra.run.dir=run", "trainer.max_steps=3", "ckpt_path=run")
    assert record(folder)["steps"] == 3


def test_an_unfinished_run_is_not_overwritten_and_a_requeued_job_goes_on(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("stage=1", "trainer.max_steps=4", "hydra.run.dir=run")
    keep = ("callbacks.last.every_n_train_steps=2",)
    train(*words, *keep)
    for name in ("run.json", "model.safetensors"):
        (tmp_path / "run" / name).unlink()
    line = error(train(*words, code=1))
    assert "hydra.run.dir=run holds an unfinished run: resume it" in line
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    train(*words)
    assert record(tmp_path / "run")["steps"] == 4


def test_results_of_sweeps_and_evaluations_are_not_overwritten(
    train: Train, tmp_path: Path
) -> None:
    words = ("-m", "stage=1", "seed=0,1", "trainer.max_steps=1", "hydra.sweep.dir=all")
    train(*words)
    assert "hydra.sweep.dir=all: all/0 holds a finished run" in error(train(*words, code=1))
    (tmp_path / "pics").mkdir()
    shutil.copy(SAMPLE_FOLDER / "valid" / "coffee.png", tmp_path / "pics")
    for kind, more in (("run", ["routing.k=0"]), ("sweep", ["-m", "routing.k=0,1"])):
        given = (*more, "model=fsrcnn-pcsr-x4", "data.root=pics", f"hydra.{kind}.dir={kind}")
        run_command("evaluate", *given, "threads=1", cwd=tmp_path, code=0)
        line = error(run_command("evaluate", *given, cwd=tmp_path, code=1))
        assert "holds results (metrics.json)" in line
        assert f"another hydra.{kind}.dir" in line


def test_a_changed_working_folder_is_refused(train: Train, tmp_path: Path) -> None:
    for more in (("hydra.run.dir=run",), ("-m", "seed=0,1", "hydra.sweep.dir=run")):
        line = error(train("stage=1", "hydra.job.chdir=true", *more, code=1))
        assert "hydra.job.chdir=true: files and folders in settings" in line
        assert not (tmp_path / "run").exists()


def test_resuming_with_other_settings(train: Train, tmp_path: Path) -> None:
    train("stage=1", "trainer.max_steps=4", "hydra.run.dir=run")
    more = ("stage=1", "trainer.max_steps=8", "ckpt_path=run")
    for setting, was in (
        ("optimizer.lr=0.1", "0.001"),
        ("optimizer.betas=[0.5,0.5]", "[0.9, 0.99]"),
        ("optimizer=muon", "torch.optim.Adam"),
    ):
        line = error(train(*more, setting, code=1))
        assert re.search(r"optimizer\.\S+=.* would have no effect: ckpt_path=run/", line), line
        assert f"={was}, which is restored from it" in line
    line = error(train(*more, "trainer.max_steps=3", code=1))
    assert "is at step 4, beyond trainer.max_steps=3" in line
    line = error(train(*more, "backbone.args={d:12,s:4,m:1}", code=1))
    assert "is of another network: backbone.args is" in line
    done = train(*more, "data.batch_size=1", "hydra.run.dir=longer")
    said = done.out + done.err
    # A cosine of four steps is at its lowest there; one of eight is half-way.
    assert "the learning rate jumps from 1e-07 to 0.0005 at step 4" in said
    assert "resumed at step 4 with other settings: " in said
    assert "trainer.max_steps=8 (was 4)" in said
    assert "data.batch_size=1 (was 2)" in said
    found = record(tmp_path / "longer")
    changed = {"data.batch_size": [2, 1], "trainer.max_steps": [4, 8]}
    assert found["changed"] == [{"step": 4, "settings": changed}]
    # A schedule that torch restores from the checkpoint
    step = ("scheduler._target_=torch.optim.lr_scheduler.StepLR", "+scheduler.step_size=1")
    train("stage=1", "trainer.max_steps=2", *step, "hydra.run.dir=steps")
    other = ("stage=1", "trainer.max_steps=3", step[0], "ckpt_path=steps")
    assert "scheduler.step_size=2 would have no effect" in error(
        train(*other, "+scheduler.step_size=2", code=1)
    )
    train(*other, step[1], "hydra.run.dir=more-steps")


def test_a_trapezoid_is_lengthened_before_it_falls_without_a_jump(
    train: Train, tmp_path: Path
) -> None:
    words = ("stage=1", "scheduler=trapezoid", "callbacks.last.every_n_train_steps=2")
    keep = ('callbacks.last.filename="at-{step}"', "callbacks.last.save_top_k=-1")
    train(*words, *keep, "trainer.max_steps=6", "hydra.run.dir=run")
    [early] = (tmp_path / "run").rglob("at-step=2.ckpt")
    done = train(*words, "trainer.max_steps=12", f"ckpt_path={early}", "hydra.run.dir=longer")
    assert "trainer.max_steps=12 (was 6)" in done.out + done.err
    assert "jumps" not in done.out + done.err


@pytest.mark.parametrize("size", ["8k", "20k", "100k"])  # for Hydra, for logs, for a checkpoint
def test_a_full_disk_is_one_line(size: str, train: Train, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(tmp_path / "disk")]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small file system")
    try:
        done = train(
            "stage=1", "trainer.max_steps=2", "hydra.run.dir=disk/run", "logger=csv", code=1
        )
        assert "No space left on device" in error(done)
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path / "disk")], check=True)


def replay(tmp_path: Path, *words: str, code: int, own_process: bool = False) -> Done:
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    with nullcontext() if own_process else trainings_in_process():
        return run_command("replay", *words, cwd=tmp_path, env=env, code=code)


def test_what_a_run_was_made_of_and_its_replay(train: Train, tmp_path: Path) -> None:
    shutil.copytree(SAMPLE_FOLDER / "train", tmp_path / "pictures")
    data = ("data=folder", "data.root=pictures", "data.val_count=2", "data.val_limit=null")
    train("stage=all", *data, "trainer.max_steps=3", "hydra.run.dir=run")
    found = record(tmp_path / "run" / "stage-2")
    made = found["provenance"]
    assert made["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    assert {"python", "lightning", "hydra-core", "numpy"} <= made["versions"].keys()
    assert made["device"].startswith("cpu ")
    for state in made["git"]:
        assert re.fullmatch(r"[0-9a-f]{40}", state["commit"])
    pictures = json.loads((tmp_path / "run" / "stage-2" / "pictures.json").read_text())
    names = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert pictures["train"].keys() | pictures["valid"].keys() == names
    assert (tmp_path / "run" / "stage-2" / ".hydra" / "config.yaml").is_file()

    done = replay(tmp_path, "run", "--out", "again", code=0)
    for stage in "12":
        assert f"run/stage-{stage}: the same weights (stage {stage}, 3 steps, SHA-256" in done.out
        ours, theirs = (
            load(tmp_path / n / f"stage-{stage}").state_dict() for n in ("run", "again")
        )
        assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    assert "again: is not empty" in replay(tmp_path, "run", "--out", "again", code=1).err
    own = replay(tmp_path, "run/stage-1", "--out", "own", code=0, own_process=True)
    assert "run/stage-1: the same weights" in own.out

    # Other weights: something else was there then.
    for change in ("torch", "seed"):
        folder = tmp_path / "run" / "stage-1"
        kept = {name: (folder / name).read_text() for name in ("run.json", ".hydra/config.yaml")}
        text = kept["run.json"].replace(f'"torch": "{made["versions"]["torch"]}"', '"torch": "1.0"')
        (folder / "run.json").write_text(text)
        config = kept[".hydra/config.yaml"].replace("seed: 0", "seed: 1", 1)
        (folder / ".hydra" / "config.yaml").write_text(config)
        if change == "seed":
            (folder / "run.json").write_text(kept["run.json"])
        done = replay(tmp_path, "run/stage-1", "--out", f"other-{change}", code=1)
        assert re.search(r"other weights \(stage 1, 3 steps\), by up to \d", done.err), done.err
        says = "torch was 1.0, is " if change == "torch" else "code, versions, pictures and device"
        assert says in done.err
        for name, content in kept.items():
            (folder / name).write_text(content)

    # A picture that was changed is named before anything is trained.
    changed = sorted(pictures["train"])[0]
    with Image.open(tmp_path / "pictures" / changed) as picture:
        turned = picture.transpose(Image.Transpose.ROTATE_180)
    turned.save(tmp_path / "pictures" / changed)
    done = replay(tmp_path, "run", "--out", "third", code=1)
    assert f"the pictures are not those of the run: {changed} (train) has changed" in done.err
    assert not (tmp_path / "third").exists()


def test_what_cannot_be_replayed(train: Train, tmp_path: Path) -> None:
    train("stage=1", "trainer.max_steps=2", "hydra.run.dir=run")
    train("stage=1", "trainer.max_steps=4", "ckpt_path=run", "hydra.run.dir=longer")
    assert "was resumed with other settings at step 2" in replay(tmp_path, "longer", code=1).err
    train("stage=1", *OUT_OF_TIME, "hydra.run.dir=short")
    assert "which cannot be repeated exactly" in replay(tmp_path, "short", code=1).err
    train("stage=1", "trainer.max_time=00:00:01", "hydra.run.dir=timed")
    assert (
        "by the clock (after trainer.max_time=00:00:01, " in replay(tmp_path, "timed", code=1).err
    )
    assert "run.json: missing; expected the folder" in replay(tmp_path, ".", code=1).err
    (tmp_path / "run" / "model.safetensors").write_bytes(b"else")
    assert "is not the file that run.json was" in replay(tmp_path, "run", code=1).err


def test_stages_are_shared_by_the_jobs_of_a_sweep(train: Train, tmp_path: Path) -> None:
    two = 'stages=[["stage=1"],["stage=2"]]'
    words = ("stage=all", "backbone.upsamplers=null", "trainer.max_steps=2")
    done = train("-m", *words, two, "num_classes=2,3", "seed=0,1", "hydra.sweep.dir=all")
    folder = tmp_path / "all"
    assert done.out.count("stage 1 is taken over from ") == 2
    for job, first in ((2, 0), (3, 1)):  # M = 3 with the seeds of M = 2
        taken = record(folder / str(job) / "stage-1")
        assert taken["taken_from"] == str(folder / str(first) / "stage-1")
        assert (taken["num_classes"], taken["seed"], taken["complete"]) == (3, first, True)
        files = [
            {p.relative_to(stage).as_posix() for p in stage.rglob("*") if p.is_file()}
            for stage in (folder / str(n) / "stage-1" for n in (first, job))
        ]
        assert files[0] == files[1]
        config = (folder / str(job) / "stage-1" / ".hydra" / "config.yaml").read_text()
        assert "num_classes: 3" in config
        assert record(folder / str(job))["steps"] == 2
        alone = ("hydra.run.dir=alone", "num_classes=3", f"seed={first}")
    train(*words, two, *alone)
    ours, theirs = (load(path).state_dict() for path in (folder / "3", tmp_path / "alone"))
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    # A weight that stage 1 does not know is shared too, a rate is not.
    for key, values, shared in (("stage.w_avg", "1,2", 1), ("optimizer.lr", "1e-3,2e-3", 0)):
        first = 'stages=[["stage=1"]]'
        done = train("-m", *words, first, f"{key}={values}", f"hydra.sweep.dir={key}")
        assert done.out.count("is taken over from") == shared


def test_the_stage_of_a_free_class_trains_the_classifier_alone(
    train: Train, tmp_path: Path
) -> None:
    free = ("backbone.upsamplers=[[8,8],[4],[]]", "num_classes=3", "trainer.max_steps=2")
    train("stage=all", *free, "hydra.run.dir=all")
    models = [load(tmp_path / "all" / f"stage-{n}").state_dict() for n in (2, 3)]
    changed = {
        name
        for name, value in models[1].items()
        if name not in models[0] or not torch.equal(models[0][name], value)
    }
    assert changed
    assert all(name.startswith("classifier.") for name in changed)
