"""The page takes the model by the picture, says which and why; visitors may choose another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.released_models import PHOTO, release_photo_model

from pcsr_lightning.app import server, texts, work
from pcsr_lightning.app.choices import AUTOMATIC, BY_BUDGET, Choices
from pcsr_lightning.app.files import FileJob, command_line
from pcsr_lightning.app.loading import load_upload
from pcsr_lightning.app.visitors import Sent, Visitor
from pcsr_lightning.images import Picture, read, write
from pcsr_lightning.weights import DEFAULT_MODEL


@pytest.fixture(autouse=True)
def released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release_photo_model(tmp_path / "models", monkeypatch)


def ask(visitor: Visitor, **changes: object) -> work.Run:
    chosen = {"model": AUTOMATIC, "scale": 2.0, "way": BY_BUDGET, **changes}
    visitor.wanted = (visitor.number, Choices(**chosen))  # type: ignore[arg-type]
    return work.upscale(visitor, visitor.wanted, 10**7, lambda *_: None)


def sent(folder: Path, name: str, quality: int) -> Sent:
    folder.mkdir(exist_ok=True)
    slope = torch.linspace(0.2, 0.8, 40).expand(3, 32, -1)
    write(Picture(slope), folder / name, quality=quality)
    return Sent(name, folder / name, (32, 40))


def test_a_picture_takes_its_model(tmp_path: Path) -> None:
    visitor = Visitor(tmp_path / "visitor")
    one = sent(tmp_path / "visitor", "low.jpg", 60)
    visitor.show(load_upload(one.path, one.name, 10**6), [one])
    run = ask(visitor)
    assert run.choices.model == PHOTO
    line = f"{PHOTO}: JPEG of quality 60"
    assert line in texts.picture_line(visitor)
    assert ask(visitor, compute=60.0).reused
    # Chosen by name: nothing is said, and the work on the photo model's is gone.
    assert ask(visitor, model=PHOTO, compute=60.0).reused
    assert line not in texts.picture_line(visitor)
    assert not ask(visitor, model=DEFAULT_MODEL).reused
    again = sent(tmp_path / "visitor", "high.jpg", 98)
    visitor.show(load_upload(again.path, again.name, 10**6), [again])
    assert ask(visitor).choices.model == DEFAULT_MODEL
    assert f"{DEFAULT_MODEL}: JPEG of quality 98, little noise" in texts.picture_line(visitor)
    assert ask(visitor, scale=1.0).choices.model == PHOTO


def test_each_file_takes_its_model(tmp_path: Path) -> None:
    visitor = Visitor(tmp_path / "visitor")
    results = []
    for model in (AUTOMATIC, PHOTO, DEFAULT_MODEL):
        one = sent(tmp_path / "visitor", "low.jpg", 60)
        visitor.job = FileJob([one], Choices(model, 2.0), "PNG", 90)
        visitor.job.work(visitor, 10**7, lambda *_: None)
        assert visitor.job.result is not None
        results.append(read(visitor.job.result).rgb)
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_the_command_line_leaves_the_choice_too() -> None:
    assert "--model" not in command_line(["a.png"], Choices(AUTOMATIC, 2.0), "PNG", 90)
    assert f"--model {PHOTO}" in command_line(["a.png"], Choices(PHOTO, 2.0), "PNG", 90)


def test_automatic_is_offered_first_and_chosen_unless_a_model_was_named(tmp_path: Path) -> None:
    labels, model = server.offered_models(None)
    assert next(iter(labels)) == model == AUTOMATIC
    assert labels[AUTOMATIC] == f"{AUTOMATIC}: {DEFAULT_MODEL} or {PHOTO}, by the picture"
    labels, model = server.offered_models(PHOTO)
    assert (next(iter(labels)), model) == (AUTOMATIC, PHOTO)
    about = tmp_path / "models" / f"{PHOTO}.json"
    about.write_text(about.read_text("utf-8").replace("photo_of", "other"), "utf-8")
    labels, model = server.offered_models(None)
    assert AUTOMATIC not in labels
    assert model == DEFAULT_MODEL
    labels, model = server.offered_models("mine.safetensors")
    assert next(iter(labels)) == model == "mine.safetensors"
