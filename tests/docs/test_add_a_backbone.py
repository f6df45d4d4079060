"""``docs/add-a-backbone.md``, done by a user who copies every block of it."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from tests.commands import run_command

PAGE = "add-a-backbone.md"


def test_every_block_of_the_page_is_known(blocks_of: Any) -> None:
    kinds = [block.kind for block in blocks_of(PAGE)]
    assert kinds == ["python", "yaml", "bash", "bash", "bash", "python", "toml"]


def test_the_class_is_short(blocks_of: Any) -> None:
    lines = [line for line in blocks_of(PAGE)[0].text.splitlines() if line.strip()]
    assert len(lines) <= 30


@pytest.fixture(scope="module")
def done(run_page: Any) -> tuple[Path, list[str]]:
    """The user's folder after the page, and what each block printed."""
    folder, printed = run_page(PAGE)
    return folder, printed


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
    with Image.open(folder / "photo-x4.png") as picture:
        assert picture.size == (256, 192)
    assert "PSNR" in printed[-2]
    assert "[1, 3, 150, 200]" in printed[-1]


def test_without_being_told_it_says_which_class_is_missing(done: tuple[Path, list[str]]) -> None:
    words = ("photo.png", "b.png", "--model", "outputs/tiny-2")
    err = run_command("upscale", *words, cwd=done[0], code=1).err
    assert not (done[0] / "b.png").exists()
    assert "--backbone tiny_net.TinyNet" in err


def test_its_training_is_resumed(done: tuple[Path, list[str]], blocks_of: Any) -> None:
    [_, second] = blocks_of(PAGE)[2].text.splitlines()
    words = [w for w in shlex.split(second)[3:] if "max_steps" not in w and "run.dir" not in w]
    more = ("trainer.max_steps=12", "hydra.run.dir=outputs/longer", "trainer.accelerator=cpu")
    from_there = ("init=outputs/tiny-1", "ckpt_path=outputs/tiny-2/checkpoints/last.ckpt")
    env = {"XDG_CACHE_HOME": str(done[0] / "cache")}
    run_command("train", *words, *more, *from_there, cwd=done[0], env=env, code=0)
    record = yaml.safe_load((done[0] / "outputs" / "longer" / "run.json").read_text())
    assert (record["stage"], record["steps"], record["backbone"]) == ("2", 12, "tiny")
