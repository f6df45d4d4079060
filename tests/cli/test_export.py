"""The command that writes ONNX files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import pcsr_lightning
from pcsr_lightning import images, weights
from pcsr_lightning.cli.export import check, main
from pcsr_lightning.data.sample_pictures import SAMPLE_FOLDER
from pcsr_lightning.errors import PCSRError
from pcsr_lightning.export.onnx_export import onnx_bytes
from pcsr_lightning.images import Picture
from pcsr_lightning.networks import build_network, default_config


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A small photograph."""
    rgb = images.read(SAMPLE_FOLDER / "valid" / "coffee.png").rgb[:, 200:240, 250:301]
    images.write(Picture(rgb), tmp_path / "small.png")
    return tmp_path / "small.png"


@pytest.mark.slow
def test_command(small: Path) -> None:
    target = small.with_name("pcsr.onnx")
    command = [sys.executable, "-m", "pcsr_lightning.export", "fsrcnn-pcsr-x4", str(target)]
    done = subprocess.run(
        [*command, "--scale", "3", "--check", str(small)], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{target}: fsrcnn pcsr, 2 classes, x3, ")
    assert "onnxruntime agrees: 100.0000% of the classes are equal" in done.stdout
    assert done.stdout.count("\n") == 1
    image = images.read(small).rgb[None]
    session = onnxruntime.InferenceSession(target)
    feed = {"image": image.numpy(), "k": np.array(0.5, np.float32)}
    enlarged, _ = session.run(None, feed)
    expected = pcsr_lightning.upscale(pcsr_lightning.load("fsrcnn-pcsr-x4"), image, 3, k=0.5)
    torch.testing.assert_close(torch.from_numpy(enlarged), expected.image, atol=1e-5, rtol=0)
    assert session.get_modelmeta().custom_metadata_map["pcsr_lightning.name"] == "fsrcnn-pcsr-x4"
    assert sorted(p.name for p in small.parent.iterdir()) == ["pcsr.onnx", "small.png"]


@pytest.mark.slow
def test_original_takes_its_own_scale(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    config = default_config("carn", original=True) | {"scale": 2}
    model = weights.save(build_network(config), small.with_name("mine"))
    assert main([str(model), str(small.with_name("x.onnx")), "--check", str(small)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "carn original, x2" in out
    assert main([str(model), str(small.with_name("y.onnx")), "--scale", "4"]) == 1
    assert "made for scale 2 only, not 4" in capsys.readouterr().err
    assert not small.with_name("y.onnx").exists()


@pytest.mark.slow
def test_check_sees_another_model(small: Path) -> None:
    model = pcsr_lightning.load("fsrcnn-pcsr-x4")
    data = onnx_bytes(model)
    assert "onnxruntime agrees" in check(data, model, small, 4, "softmax", True)
    with pytest.raises(PCSRError, match=r"disagree on .*Nothing was written"):
        check(data, model, small, 4, "softmax", False)
    with torch.no_grad():
        model.get_parameter("upsamplers.1.tail.5.bias").add_(0.001)
    with pytest.raises(PCSRError, match=r"disagree on .*Nothing was written"):
        check(data, model, small, 4, "softmax", True)


def test_errors_are_one_line(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = small.parent
    (folder / "old.onnx").write_text("precious")

    def refused(*argv: str | Path) -> str:
        assert main([str(a) for a in argv]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        return err

    released = "fsrcnn-pcsr-x4"
    assert "no model is called 'none'" in refused("none", folder / "x.onnx")
    assert "the name must end in .onnx" in refused(released, folder / "x.pth")
    assert "does not exist; make it" in refused(released, folder / "no" / "x.onnx")
    assert "is a folder" in refused(released, folder)
    assert "exists already" in refused(released, folder / "old.onnx")
    assert "no such file" in refused(released, folder / "x.onnx", "--check", folder / "no.png")
    assert "is a folder, not a" in refused(released, folder / "x.onnx", "--check", folder)
    assert "one integer scale" in refused(released, folder / "x.onnx", "--scale", "17")
    assert sorted(p.name for p in folder.iterdir()) == ["old.onnx", "small.png"]
    assert (folder / "old.onnx").read_text() == "precious"


def test_missing_package_is_one_line(
    small: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert main(["fsrcnn-pcsr-x4", str(small.with_name("x.onnx"))]) == 1
    _, err = capsys.readouterr()
    assert err == (
        "error: ONNX files need the package onnxscript, which is not installed; "
        "in the checkout: pip install -e '.[onnx]'\n"
    )


def test_wrong_usage_is_2_and_answers_at_once() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "pcsr_lightning.export"]
    for argv, code, stream in (([], 2, "stderr"), (["--help"], 0, "stdout")):
        done = subprocess.run([*command, *argv], capture_output=True, text=True)
        assert done.returncode == code
        assert "usage: python -m pcsr_lightning.export" in getattr(done, stream)
        assert " torch" not in done.stderr
        assert " onnx" not in done.stderr
