"""`data.root=$FOLDER` with an unset variable is not the current folder, in any command."""

import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from tests.commands import SMALL_TRAINING, run_command
from tests.small import write_textures

from pcsr_lightning import conf_dir, load
from pcsr_lightning.cli.evaluate import evaluate
from pcsr_lightning.cli.routing_group import register_routing
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.training.settings_check import check_settings

TRAIN = shlex.join(["train", "stage=1", *SMALL_TRAINING, "trainer.max_steps=1", "logger=none"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A current folder full of pictures."""
    return write_textures(tmp_path / "here", {f"{n}.png": (64, 64) for n in range(4)})


@pytest.mark.parametrize(
    ("command", "setting"),
    [
        (f"{TRAIN} data.root=", "data.root"),
        (f"{TRAIN} data.root=''", "data.root"),
        (f"{TRAIN} 'data.root=\"\"'", "data.root"),
        (f"{TRAIN} data.val_root=", "data.val_root"),
        (f"{TRAIN} data.cache_dir=", "data.cache_dir"),
        (f"{TRAIN} init=", "init"),
        (f"{TRAIN} ckpt_path=", "ckpt_path"),
        (f"{TRAIN} output=", "output"),
        (f"{TRAIN} hydra.run.dir=", "hydra.run.dir"),
        (f"{TRAIN} -m hydra.sweep.dir= seed=1,2", "hydra.sweep.dir"),
        (f"{TRAIN} +stage.teacher=", "stage.teacher"),
        (f"{TRAIN} experiment=", "experiment"),
        ("evaluate model=fsrcnn-pcsr-x4 data.root=", "data.root"),
        ("evaluate data.root=. model=", "model"),
        ("evaluate data.root=. output=", "output"),
        ("evaluate data.root=. hydra.run.dir=", "hydra.run.dir"),
        ("release fsrcnn-pcsr-x4 --train . -- data.val_root=", "data.val_root"),
    ],
)
def test_settings(command: str, setting: str, folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    done = run_command(*shlex.split(command), cwd=folder)
    assert (done.code, done.out) == (1, "")
    [line] = done.err.splitlines()
    start = f"error: {setting} is empty; perhaps a variable of the shell is not set: write "
    assert line.startswith(start)
    assert line.endswith(f"{setting}=VALUE, or leave it out")
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("command", "argument"),
    [
        ("upscale ''", "IN [OUT]"),
        ("upscale 0.png ''", "IN [OUT]"),
        ("upscale -- 0.png ''", "IN [OUT]"),
        ("upscale 0.png --out ''", "-o/--out"),
        ("upscale 0.png --out=", "-o/--out"),
        ("upscale 0.png --model ''", "--model"),
        ("upscale 0.png --class-map ''", "--class-map"),
        ("convert '' out", "IN"),
        ("convert in.pth ''", "OUT"),
        ("export '' out.onnx", "MODEL"),
        ("export fsrcnn-pcsr-x4 ''", "OUT.onnx"),
        ("export fsrcnn-pcsr-x4 out.onnx --check ''", "--check"),
        ("release '' --train .", "MODEL"),
        ("release m --train ''", "--train"),
        ("release m --train . --valid ''", "--valid"),
        ("release m --train . --test Set5 ''", "--test"),
        ("release m --train . --out ''", "--out"),
        ("figures --picture ''", "--picture"),
        ("figures --out ''", "--out"),
        ("demo --model ''", "--model"),
        ("app --model ''", "--model"),
        ("replay ''", "RUN"),
        ("replay run --out ''", "--out"),
    ],
)
def test_arguments(command: str, argument: str, folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    done = run_command(*shlex.split(command), cwd=folder)
    assert done.code == 2
    [error] = [line for line in done.err.splitlines() if "error" in line]
    assert f"argument {argument}: is empty; perhaps a variable of the shell is not set" in error
    assert sorted(folder.rglob("*")) == before


def test_an_empty_text_that_is_no_path(folder: Path) -> None:
    """`--suffix ''` adds nothing to the results' names."""
    words = ("0.png", "--out", "out/", "--suffix", "", "--model", "fsrcnn-pcsr-x4", "--quiet")
    run_command("upscale", *words, cwd=folder, code=0)
    assert (folder / "out" / "0.png").is_file()


def test_in_files_and_in_python(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(ConfigError, match="model is empty"):
        load("")
    register_routing()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        for key in ("init", "ckpt_path", "output"):
            cfg = compose("train", ["data=sample", "logger=none", f"{key}=' '"])
            OmegaConf.set_struct(cfg, False)
            cfg.callbacks = {}  # they ask for a run's folder
            with pytest.raises(ConfigError, match=f"{key} is empty"):
                check_settings(cfg)
        cfg = compose("evaluate", ["model=fsrcnn-pcsr-x4", "data.root=''"])
    with pytest.raises(ConfigError, match=r"data\.root is empty.*write data\.root=DIR"):
        evaluate(cfg, folder / "run")
