"""``python -m pcsr_lightning.train``: whole commands on real picture files."""

import functools
import itertools
import json
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from tests.commands import Done, run_command, start

from pcsr_lightning import conf_dir
from pcsr_lightning.cli.train import check_multirun, quoted_stage
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.settings.overrides import renamed
from pcsr_lightning.weights import load, read_checkpoint

SMALL = "backbone.args={d:8,s:4,m:1}"
CPU = "trainer.accelerator=cpu"

Train = Callable[..., Done]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photographs' worth of texture: smooth noise, large enough for a few crops each."""
    folder = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        coarse = Image.fromarray(draw.integers(0, 256, (24, 28, 3), dtype=np.uint8))
        coarse.resize((224, 192), Image.Resampling.BICUBIC).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def train(tmp_path: Path, pictures: Path) -> Train:
    """``train(*settings, code=0)``: the command in this process, on these pictures."""
    common = (CPU, "threads=1", "data=folder", f"data.root={pictures}", "callbacks.progress=null")
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    return functools.partial(run_command, "train", *common, cwd=tmp_path, env=env, code=0)


def runs(folder: Path, stage: str) -> list[Path]:
    return sorted(p.parent for p in folder.glob(f"outputs/train/*/stage-{stage}/*/run.json"))


def test_three_stages_one_on_the_other(train: Train, tmp_path: Path) -> None:
    common = ("backbone=fsrcnn", "num_classes=3", SMALL, "trainer.max_steps=4", "stage.queries=64")
    models = []
    for stage in ("1", "2", "3"):
        assert "what this stage trains" in train(f"stage={stage}", *common).err
        [run] = runs(tmp_path, stage)
        record = json.loads((run / "run.json").read_text())
        assert (record["stage"], record["steps"], record["num_classes"]) == (stage, 4, 3)
        assert record["val_psnr"] > 5
        assert {p.name for p in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
        assert "train/loss" in (run / "logs" / "metrics.csv").read_text()
        models.append(load(run).state_dict())
        from_checkpoint = load(run / "checkpoints" / "last.ckpt").state_dict()
        assert all(torch.equal(v, from_checkpoint[k]) for k, v in models[-1].items())
    for earlier, later in itertools.pairwise(models):
        frozen = [k for k in earlier if not k.startswith("classifier")]
        assert frozen
        assert all(torch.equal(earlier[k], later[k]) for k in frozen)
    assert models[2]["classifier.project.weight"].shape[0] == 3


@pytest.mark.parametrize("queries", ["64", "per_pixel:2"])
def test_resuming_goes_on_as_if_uninterrupted(train: Train, tmp_path: Path, queries: str) -> None:
    whole = ("stage=1", SMALL, "trainer.max_steps=6", f"stage.queries={queries}", "logger=none")
    keep = ("every_n_train_steps=3", 'filename="mid_{step}"', "save_top_k=-1")
    train(*whole, "output=a", *(f"callbacks.last.{k}" for k in keep))
    [middle] = tmp_path.glob("a/**/mid_step=3.ckpt")
    train(*whole, "output=b", f"ckpt_path={middle}")
    weights = [
        load(next(tmp_path.glob(f"{out}/**/model.safetensors"))).state_dict() for out in "ab"
    ]
    assert all(torch.equal(v, weights[1][k]) for k, v in weights[0].items())


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        (("trainer=ddp", "trainer.devices=2"), True),
        (("trainer.devices=2",), True),
        (("stage=all", "trainer.devices=2"), True),
        (("trainer.num_nodes=2", "trainer=ddp"), True),
        (("trainer=ddp", "trainer.devices=2", "trainer.strategy=ddp_spawn"), False),
        (("trainer=ddp", "trainer.devices=1"), False),
        ((), False),
    ],
)
def test_a_multirun_on_several_devices(
    settings: tuple[str, ...], refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", list(settings))
    if not refused:
        check_multirun(cfg)
        return
    with pytest.raises(ConfigError, match=r"ddp_spawn.*torchrun"):
        check_multirun(cfg)
    for key in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(key, "0")
    for key in ("TORCHELASTIC_RUN_ID", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(key, "1")
    check_multirun(cfg)


def test_the_original(train: Train, tmp_path: Path) -> None:
    small_carn = ("backbone=carn", "backbone.args={nf:8,group:2}")
    train("stage=original", *small_carn, "trainer.max_steps=2", "logger=none")
    [run] = runs(tmp_path, "original")
    assert load(run).scale == 4


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (("stage=2", "backbone=carn"), r"train stage=1 backbone=carn"),
        (("stage=3",), r"num_classes=3"),
        (("stage=7",), r"stage"),
        (("stage=1", "backbone=vgg"), r"vgg"),
        (("stage=1", "trainer.max_step=3"), r"did you mean trainer\.max_steps\?"),
        (
            ("stage=1", "trainer.acumulate_grad_batches=3"),
            r"did you mean trainer\.accumulate_grad",
        ),
        (("stage=1", "trainer.max_time=3"), r"trainer\.max_time=3: expected"),
        (("stage=1", "+trainer.max_steps=3"), r"leave out the \+"),
        (("stage=1", "trainer.precision=32-ture"), r"trainer\.precision=32-ture.*32-true"),
        (("stage=1", "optimizer.vector_lr=0.5"), r"vector_lr.*only some choices of optimizer"),
        (
            ("stage=1", "+optimizer.colour=3"),
            r"optimizer\.colour: torch\.optim\.Adam takes no",
        ),
        (("stage=1", "optimizer=muon", "optimizer.vector_lr=2.0"), r"optimizer\.vector_lr=2\.0"),
        (("stage=1", "optimizer.betas=[1.5,0.9]"), r"optimizer.*beta"),
        (("stage=1", "scheduler.warmup=-1"), r"scheduler\.warmup=-1"),
        (("stage=1", "loss._target_=torch.nn.HubbleLoss"), r"loss\._target_=torch\.nn\.HubbleLoss"),
        (("stage=1", "data.downscale_factor=[1.0]"), r"did you mean data\.downscale_factors\?"),
        (("stage=1", "trainer.max_steps=0"), r"trainer\.max_steps=0"),
        (("stage=1", "+trainer.colour=3"), r"trainer\.colour"),
        (("stage=1", "stage.queries=per_pixle:2"), r"stage\.queries=per_pixle:2: must be a whole"),
        (("stage=2", "stage.queries=1.5"), r"stage\.queries=1\.5: expected a whole number or text"),
        (("stage=1", "stage.lr=fast"), r"optimizer\.lr=fast: expected a number"),
        (("stage=1", "data.batch_size=many"), r"data\.batch_size.*many"),
        (("stage=1", "data.batch_size=0"), r"data\.batch_size=0"),
        (("stage=original", "data.scale=2.5"), r"data\.scale=2\.5"),
        (("stage=1", "data.root=/nowhere/at/all"), r"/nowhere/at/all"),
        (("stage.recon=l3",), r"loss=l3: .*l1, l2"),
        (("stage.teacher=sage",), r"no model is called 'sage'"),
        (("stage.teacher=carn-x4",), r"stage\.teacher=carn-x4 is an original model"),
        (("stage.teacher=carn-pcsr-x4", "stage.teacher_share=2"), r"stage\.teacher_share=2"),
        (("stage=2", "init=/nowhere.ckpt"), r"/nowhere\.ckpt"),
        (("stage=1", "ckpt_path=/nowhere.ckpt"), r"/nowhere\.ckpt"),
        (("stage=1", "trainer.accelerator=abacus"), r"abacus"),
    ],
)
def test_mistakes_are_one_line_before_training(
    train: Train, settings: tuple[str, ...], says: str
) -> None:
    done = train(*settings, code=1)
    assert "Traceback" not in done.err
    [line] = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert re.search(says, line), line
    assert "what this stage trains" not in done.out + done.err


def test_a_checkpoint_of_another_backbone_is_refused(train: Train, tmp_path: Path) -> None:
    train("stage=1", SMALL, "trainer.max_steps=1")
    [run] = runs(tmp_path, "1")
    err = train("backbone=carn", f"ckpt_path={run}/checkpoints/last.ckpt", code=1).err
    assert "backbone=fsrcnn" in err
    assert "backbone=carn" in err


@pytest.mark.parametrize(
    ("argument", "quoted"),
    [
        ("stage=2", 'stage="2"'),
        ("stage=original", "stage=original"),
        ("stage=1,2", 'stage="1","2"'),
        ("stage=all", "stage=all"),
        ("stage=2,all", 'stage="2",all'),
        ('stage="2"', 'stage="2"'),
        ("stage.lr=2", "stage.lr=2"),
        ("seed=2", "seed=2"),
    ],
)
def test_stage_numbers_reach_hydra_as_names(argument: str, quoted: str) -> None:
    assert quoted_stage(argument) == quoted


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("stage.optimizer=muon", "optimizer=muon"),
        ("stage.lr=1e-3", "optimizer.lr=1e-3"),
        ("++stage.weight_decay=0.1", "++optimizer.weight_decay=0.1"),
        ("stage.schedule=trapezoid", "scheduler=trapezoid"),
        ("stage.recon=l2", "loss=l2"),
        ("stage.revive=1000", "stage.reinitialize_dead_units=1000"),
    ],
)
def test_old_words_keep_working(old: str, new: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert renamed(old) == new
    assert capsys.readouterr().err.splitlines() == [
        f"warning: {old.strip('+').split('=')[0]} is called {new.strip('+').split('=')[0]} now: "
        f"write {new}"
    ]
    assert renamed(new) == new
    assert capsys.readouterr().err == ""


def test_any_loss_optimizer_and_scheduler_by_target(train: Train, tmp_path: Path) -> None:
    words = (
        "stage=1", SMALL, "trainer.max_steps=2", "stage.queries=64", "logger=none",
        "loss._target_=torch.nn.HuberLoss", "+loss.delta=0.5",
        "optimizer._target_=torch.optim.SGD", "+optimizer.momentum=0.9", "optimizer.lr=1e-2",
        "scheduler._target_=torch.optim.lr_scheduler.StepLR", "+scheduler.step_size=1",
    )  # fmt: skip
    train(*words)
    [run] = runs(tmp_path, "1")
    kept = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    [group] = kept["optimizer_states"][0]["param_groups"]
    assert (group["momentum"], group["lr"]) == (0.9, pytest.approx(1e-4))
    assert "betas" not in group


def test_ctrl_c_leaves_a_checkpoint_to_resume_from(tmp_path: Path, pictures: Path) -> None:
    words = (
        CPU, "threads=1", "data=folder", f"data.root={pictures}", SMALL, "stage.queries=64",
        "trainer.max_steps=100000", "trainer.log_every_n_steps=1", "data.cache_dir=cache",
    )  # fmt: skip
    with start("pcsr_lightning.train", *words, cwd=tmp_path, stdout=None) as running:
        assert running.stderr is not None
        for line in running.stderr:
            if "trained" in line:  # the table of parts: the first step is about to begin
                break
        time.sleep(0.5)
        running.send_signal(signal.SIGINT)
        rest = running.stderr.read()
        assert running.wait(60) == 130, rest
    [checkpoint] = tmp_path.glob("outputs/**/last.ckpt")
    assert f"ckpt_path={checkpoint}" in rest
    facts, tensors = read_checkpoint(checkpoint)
    assert facts["stage"] == "1"
    assert tensors
    assert not list(tmp_path.glob("outputs/**/run.json"))  # not taken for a finished run
