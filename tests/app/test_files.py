"""Files made in the background, and the command line that makes the same ones."""

from __future__ import annotations

import shlex
import zipfile
from pathlib import Path

import pytest
import torch
from tests.commands import run_command

import pcsr_lightning
from pcsr_lightning.app.choices import AUTOMATIC, BY_K, Choices
from pcsr_lightning.app.files import FileJob, command_line
from pcsr_lightning.app.visitors import Sent, Visitor
from pcsr_lightning.app.work import Stopped
from pcsr_lightning.errors import PCSRError
from pcsr_lightning.images import Picture, read, write

CHOICES = Choices("fsrcnn-pcsr-x4", 3.0, way=AUTOMATIC)


def send(folder: Path, *names: str) -> list[Sent]:
    folder.mkdir(exist_ok=True)
    sent = []
    for i, name in enumerate(names):
        path = folder / f"{i}.png"
        write(Picture(torch.rand(3, 20, 30)), path)
        sent.append(Sent(name, path, (20, 30)))
    return sent


def made(visitor: Visitor, sent: list[Sent], format: str = "PNG", quality: int = 90) -> FileJob:
    visitor.job = FileJob(sent, CHOICES, format, quality)
    visitor.job.work(visitor, 10**7, lambda *_: None)
    return visitor.job


def test_one_picture_is_the_librarys(tmp_path: Path) -> None:
    visitor = Visitor(tmp_path / "visitor")
    [sent] = send(tmp_path / "visitor", "holiday.jpg")
    job = made(visitor, [sent])
    assert job.result is not None
    assert job.result.name == "holiday_x3.png"
    model = pcsr_lightning.load(CHOICES.model)
    rgb = read(sent.path).rgb[None]
    expected = pcsr_lightning.upscale(model, rgb, 3, adaptive=True, bits=8)
    assert torch.equal((read(job.result).rgb * 255).round().int(), expected.image[0].int())


def test_several_are_a_zip_and_failures_are_named(tmp_path: Path) -> None:
    visitor = Visitor(tmp_path / "visitor")
    sent = send(tmp_path / "visitor", "a.png", "b.png", "a.jpg")
    sent[1].path.write_bytes(b"words")
    job = made(visitor, sent, "JPEG", 50)
    assert job.result is not None
    with zipfile.ZipFile(job.result) as archive:
        assert archive.namelist() == ["a_x3_1.jpg", "a_x3_3.jpg"]
        archive.extractall(tmp_path / "out")
    assert read(tmp_path / "out" / "a_x3_1.jpg").rgb.shape == (3, 60, 90)
    [said] = job.failed
    assert said.startswith("b.png: ")
    assert str(tmp_path) not in said
    assert [path.name for path in job.result.parent.iterdir()] == [job.result.name]


def test_a_cancelled_job_leaves_nothing(tmp_path: Path) -> None:
    visitor = Visitor(tmp_path / "visitor")
    sent = send(tmp_path / "visitor", "a.png", "b.png")
    visitor.job = job = FileJob(sent, CHOICES, "PNG", 90)
    before = set((tmp_path / "visitor").iterdir())

    def report(part: float, _: str) -> None:
        if part > 0.5:
            visitor.job = None

    with pytest.raises(Stopped):
        job.work(visitor, 10**7, report)
    assert set((tmp_path / "visitor").iterdir()) == before


def test_nothing_but_failures_and_results_that_are_too_large(tmp_path: Path) -> None:
    visitor = Visitor(tmp_path / "visitor")
    sent = send(tmp_path / "visitor", "a.png")
    visitor.job = FileJob(sent, CHOICES, "PNG", 90)
    with pytest.raises(PCSRError, match=r"at most 5,399: scale 2\.9 would do"):
        visitor.job.work(visitor, 60 * 90 - 1, lambda *_: None)
    assert list((tmp_path / "visitor").iterdir()) == [sent[0].path]


@pytest.mark.parametrize("names", [["my photo.png"], ["a.png", "b.png"]])
def test_the_command_line_works(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        write(Picture(torch.rand(3, 8, 9)), tmp_path / name)
    line = command_line(names, Choices("fsrcnn-pcsr-x4", 2.0, way=BY_K, k=-0.5), "JPEG", 80)
    python, flag, module, *words = shlex.split(line)
    assert (python, flag, module) == ("python", "-m", "pcsr_lightning.upscale")
    done = run_command("upscale", *words, cwd=tmp_path)
    assert done.code == 0, done.err
    results = list(tmp_path.rglob("*.jpg"))
    assert [read(p).rgb.shape for p in results] == [(3, 16, 18)] * len(names)
