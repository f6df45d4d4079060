"""``docs/add-a-backbone.md``, done by a user who copies every block of it."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from PIL import Image

from pcsr_lightning import train
from pcsr_lightning.data.sample_pictures import SAMPLE_FOLDER
from pcsr_lightning.networks import BACKBONES
from pcsr_lightning.upscale import main as upscale_main

PAGE = Path(__file__).parents[1] / "docs" / "add-a-backbone.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_every_block_of_the_page_is_known() -> None:
    kinds = [kind for kind, _ in BLOCKS]
    assert kinds == ["python", "yaml", "bash", "bash", "bash", "python", "toml"]


def test_the_class_is_short() -> None:
    lines = [line for line in BLOCKS[0][1].splitlines() if line.strip()]
    assert len(lines) <= 30


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The user's folder after the page, and what each command and script printed."""
    folder = tmp_path_factory.mktemp("user")
    photo = Image.open(SAMPLE_FOLDER / "valid" / "chelsea.png").convert("RGB")
    photo.resize((64, 48)).save(folder / "photo.png")
    (folder / "photos").mkdir()
    photo.resize((96, 64)).save(folder / "photos" / "a.png")
    printed = []
    for kind, text in BLOCKS:
        named = re.match(r"# (\S+\.(?:py|yaml))\n", text)
        if named:
            path = folder / named[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            continue
        commands = []
        if kind == "bash":
            commands = [shlex.split(line) for line in text.splitlines()]
        elif kind == "python":
            commands = [["python", "-c", text]]
        for words in commands:
            assert words[0] == "python"
            run = python(folder, *words[1:])
            assert run.returncode == 0, f"{words}\n{run.stdout[-2000:]}{run.stderr[-2000:]}"
            printed.append(run.stdout)
    return folder, printed


def python(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command in the user's folder."""
    environment = {
        **os.environ,
        "XDG_CACHE_HOME": str(folder / "cache"),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_two_stages_are_trained(done: tuple[Path, list[str]]) -> None:
    folder, _ = done
    for number in (1, 2):
        run = folder / "outputs" / f"tiny-{number}"
        config = yaml.safe_load((run / ".hydra" / "config.yaml").read_text())
        assert config["backbone"]["_target_"] == "tiny_net.TinyNet"
        network = yaml.safe_load((run / "model.json").read_text())["network"]
        named = {"name": "tiny", "class": "tiny_net.TinyNet", "width": 16, "blocks": 2}
        assert network["backbone"] == named
        assert network["upsamplers"] == [[32, 32], [8]][:number]
    narrow = yaml.safe_load((folder / "outputs" / "narrow-1" / "model.json").read_text())
    assert narrow["network"]["backbone"]["width"] == 8


def test_the_commands_and_the_script_use_it(done: tuple[Path, list[str]]) -> None:
    folder, printed = done
    assert Image.open(folder / "photo-x4.png").size == (256, 192)
    assert "PSNR" in printed[-2]
    assert "[1, 3, 150, 200]" in printed[-1]


@pytest.fixture
def inside(done: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's folder as the current one; what is made known in it is forgotten after."""
    folder, _ = done
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    yield folder
    BACKBONES.pop("tiny", None)
    sys.modules.pop("tiny_net", None)


def test_without_being_told_it_says_which_class_is_missing(
    inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert upscale_main(["photo.png", "b.png", "--model", "outputs/tiny-2"]) != 0
    assert not (inside / "b.png").exists()
    assert "--backbone tiny_net.TinyNet" in capsys.readouterr().err
    assert "tiny_net" not in sys.modules


def test_its_training_is_resumed(inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [_, second] = BLOCKS[2][1].splitlines()
    words = [w for w in shlex.split(second)[3:] if "max_steps" not in w and "run.dir" not in w]
    more = ("trainer.max_steps=12", "hydra.run.dir=outputs/longer", "trainer.accelerator=cpu")
    from_there = ("init=outputs/tiny-1", "ckpt_path=outputs/tiny-2/checkpoints/last.ckpt")
    monkeypatch.setattr(sys, "argv", ["train.py", *words, *more, *from_there])
    train.main()
    record = yaml.safe_load((inside / "outputs" / "longer" / "run.json").read_text())
    assert (record["stage"], record["steps"], record["backbone"]) == ("2", 12, "tiny")
