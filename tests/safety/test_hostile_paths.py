"""Models that are no files, and hostile ones of all kinds through the commands."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tests.commands import run_command
from tests.safety.hostile import (
    HEADERS,
    LARGE,
    PAYLOADS,
    SECONDS,
    TARGETS,
    refused,
)

from pcsr_lightning.cli.upscale import main as upscale
from pcsr_lightning.errors import ModelFileError
from pcsr_lightning.weights import load, load_model_file, read_checkpoint

pytestmark = pytest.mark.usefixtures("nothing_happens")


# Paths that are no files


def test_paths_that_are_no_files(file: Path) -> None:
    for suffix in (".safetensors", ".ckpt", ".pth"):
        pipe, loop, folder, empty = (f"{what}{suffix}" for what in ("pipe", "loop", "dir", "empty"))
        os.mkfifo(pipe)
        refused(pipe, "pipe, socket or device")
        refused(Path(pipe), "pipe, socket or device", load_model_file)
        Path(loop).symlink_to(loop)
        refused(loop, "symbolic links")
        refused(Path(loop), "symbolic links", load_model_file)
        Path(folder).mkdir()
        refused(folder, "a folder without")
        refused(Path(folder), "folder", load_model_file)
        Path(empty).touch()
        if suffix == ".safetensors":
            Path("empty.json").write_bytes(file.with_suffix(".json").read_bytes())
        refused(empty, "cannot be read as")
        refused(f"missing{suffix}", "no such file")
    refused("/dev/zero", "pipe, socket or device")
    refused("~there-is-no-such-user/m.pth", "home directory")
    refused("x" * 300, "too long")
    with pytest.raises(ModelFileError, match="null byte"):
        load("a\0b")
    with pytest.raises(ModelFileError, match="pipe, socket or device"):
        read_checkpoint(Path("pipe.ckpt"))


def test_a_config_that_never_ends(file: Path) -> None:
    beside = file.with_suffix(".json")
    beside.unlink()
    os.mkfifo(beside)
    with pytest.raises(ModelFileError, match="pipe, socket or device"):
        load(file)
    for target in ("/dev/zero", beside.name):
        beside.unlink()
        beside.symlink_to(target)
        with pytest.raises(ModelFileError, match=r"pipe, socket or device|symbolic links"):
            load(file)
    beside.unlink()
    with beside.open("wb") as sparse:
        sparse.truncate(2**40)
    with pytest.raises(ModelFileError, match="too large for an architecture"):
        load(file)
    beside.unlink()
    beside.touch()
    with pytest.raises(ModelFileError, match="cannot be read as JSON"):
        load(file)


# Through the commands


def hostile(file: Path, content: dict[str, Any]) -> dict[str, Path]:
    """One of each kind."""
    made = {name: Path(f"{name}.ckpt") for name in ("pickle", "target", "large", "pipe", "loop")}
    torch.save(content | {"callbacks": PAYLOADS["os.system"]()}, made["pickle"])
    facts, network = content["hyper_parameters"], content["hyper_parameters"]["network"]
    for name, backbone in (("target", TARGETS[0]), ("large", LARGE["channels"]["backbone"])):
        changed = facts | {"network": network | {"backbone": backbone}}
        torch.save(content | {"hyper_parameters": changed}, made[name])
    os.mkfifo(made["pipe"])
    made["loop"].symlink_to(made["loop"])
    made["published"] = Path("published.pth")
    torch.save({"model": PAYLOADS["eval"]()}, made["published"])
    made["header"] = file
    file.write_bytes(HEADERS["2^40"])
    return made


def test_upscale_with_hostile_models(
    file: Path, content: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (4, 4)).save("in.png")
    for path in hostile(file, content).values():
        start = time.monotonic()
        assert upscale(["in.png", "out.png", "--model", str(path)]) == 1
        told = capsys.readouterr()
        assert told.out == ""
        [line] = told.err.splitlines()
        assert line.startswith("error: ")
        assert path.name in line
        assert time.monotonic() - start < SECONDS
        assert not Path("out.png").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("evaluate", "data.root=.", "model={}"),
        ("train", "data=folder", "data.root=.", "trainer.accelerator=cpu", "stage=2", "init={}"),
        ("train", "data=folder", "data.root=.", "trainer.accelerator=cpu", "ckpt_path={}"),
    ],
    ids=lambda words: words[0] + words[-1],
)
def test_commands_with_hostile_models(words: tuple[str, ...], content: dict[str, Any]) -> None:
    Image.new("RGB", (96, 96)).save("in.png")
    torch.save(content | {"callbacks": PAYLOADS["os.system"]()}, "pickle.ckpt")
    given = [word.format("pickle.ckpt") for word in words[1:]]
    done = run_command(words[0], "threads=1", *given, code=1)
    assert "Traceback" not in done.err
    last = done.err.splitlines()[-1]
    assert last.startswith("error: ")
    assert "pickle.ckpt: holds objects other than weights" in last
