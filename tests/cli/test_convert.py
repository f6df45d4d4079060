"""The command that turns a checkpoint into this library's model files."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import pcsr_lightning
from pcsr_lightning.cli.convert import main
from pcsr_lightning.networks import build_network, default_config


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A published original FSRCNN, written out by its names."""
    torch.manual_seed(0)
    model = build_network(default_config("fsrcnn", original=True))
    names = {
        "backbone.head": "head_conv",
        "backbone.shrink": "body_conv.0",
        **{f"backbone.mapping.{i}": f"body_conv.{i + 1}" for i in range(5)},
        "backbone.expand": "body_conv.6",
        "tail": "tail_conv",
    }
    state = {}
    for ours, value in model.state_dict().items():
        for prefix, theirs in names.items():
            if ours.startswith(prefix + "."):
                state[theirs + ours.removeprefix(prefix)] = value
    content = {"name": "fsrcnn", "args": {"upscale": 4, "d": 56}, "sd": state}
    torch.save({"model": content}, tmp_path / "fsrcnn-x4.pth")
    return tmp_path / "fsrcnn-x4.pth"


@pytest.mark.parametrize("name", ["mine", "mine.safetensors", "mine.v1"])
def test_converted_is_what_was_loaded(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    target = checkpoint.with_name(name)
    assert main([str(checkpoint), str(target)]) == 0
    written = checkpoint.with_name(name.removesuffix(".safetensors") + ".safetensors")
    assert f"{written} and {written.stem}.json: fsrcnn original, 24,515" in capsys.readouterr().out
    before, after = pcsr_lightning.load(checkpoint), pcsr_lightning.load(written)
    assert after.config() == before.config()
    state = after.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in before.state_dict().items())


def test_errors_are_one_line(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = checkpoint.parent
    torch.save({"state_dict": {}}, folder / "foreign.pth")

    def refused(*argv: str | Path) -> str:
        assert main([str(a) for a in argv]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        return err

    assert "'model' with 'name', 'args' and 'sd' is missing" in refused(
        folder / "foreign.pth", folder / "x"
    )
    assert "no such file" in refused(folder / "none.pth", folder / "x")
    assert "does not exist; make it" in refused(checkpoint, folder / "no" / "x")
    assert "is a folder" in refused(checkpoint, folder)
    assert sorted(p.name for p in folder.iterdir()) == ["foreign.pth", "fsrcnn-x4.pth"]


def test_files_are_replaced_only_when_told(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = checkpoint.with_name("x")
    target.with_suffix(".json").write_text("precious")
    assert main([str(checkpoint), str(target)]) == 1
    assert "exists already" in capsys.readouterr().err
    assert target.with_suffix(".json").read_text() == "precious"
    assert main([str(checkpoint), str(target), "--force"]) == 0
    pcsr_lightning.load(target.with_suffix(".safetensors"))


def test_links_and_names_that_begin_with_a_dash(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkpoint.parent)
    checkpoint.rename("-in.pth")
    Path("-out.safetensors").symlink_to("real.safetensors")
    assert main(["--", "-in.pth", "-out"]) == 0
    assert Path("-out.safetensors").is_symlink()
    assert Path("real.safetensors").is_file()
    pcsr_lightning.load("-out.safetensors")


def test_wrong_usage_is_2() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pcsr_lightning.convert"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "usage: python -m pcsr_lightning.convert" in done.stderr
