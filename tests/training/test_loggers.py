"""What loggers keep of a training, read back: an offline W&B run, and TensorBoard's events."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.commands import SMALL_TRAINING, run_command

import pcsr_lightning

Records = Callable[[Path], Iterator[Any]]
SETTINGS = (
    *SMALL_TRAINING,
    "data.batch_size=4",
    "data.val_limit=2",
    "trainer.max_steps=4",
    "trainer.log_every_n_steps=1",
)


def train(cwd: Path, *settings: str) -> None:
    env = {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    run_command("train", *SETTINGS, *settings, cwd=cwd, env=env, code=0)
    wandb.teardown()  # as at a process's end: the files of its runs are whole then


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wandb")
    train(folder, "stage=1", "logger=none", "hydra.run.dir=one")
    train(folder, "stage=2", "init=one", "logger=wandb", "hydra.run.dir=two")
    return folder / "two"


def test_all_of_a_training_is_in_its_run(run: Path, records: Records) -> None:
    [file] = run.glob("wandb/offline-run-*/*.wandb")
    found = list(records(file))
    kinds = {record.WhichOneof("record_type") for record in found}
    assert {"run", "history", "files", "artifact", "exit"} <= kinds  # it was finished, too

    [first, *_] = [r.run for r in found if r.WhichOneof("record_type") == "run"]
    assert first.run_group == "fsrcnn-m2"
    assert set(first.tags) == {"fsrcnn", "stage 2", "M = 2", "torch.optim.Adam"}
    config = {u.key or u.nested_key[0] for u in first.config.update}
    for record in found:
        if record.WhichOneof("record_type") == "config":
            config |= {u.key or u.nested_key[0] for u in record.config.update}
    assert any(key.startswith("backbone") for key in config)
    assert any(key.startswith("data") for key in config)

    history: dict[str, Any] = {}
    for record in found:
        if record.WhichOneof("record_type") == "history":
            for item in record.history.item:
                # a picture's or a table's entry is one of several parts
                key = item.key or item.nested_key[0]
                history[key] = json.loads(item.value_json)
    wanted = {
        "train/loss", "train/recon", "train/avg", "val/psnr", "val/share_0", "val/share_1",
        "val/pictures", "results",
    }  # fmt: skip
    assert wanted <= history.keys()
    assert any(key.startswith("lr-") for key in history)
    media = next(run.glob("wandb/offline-run-*/files/media"))
    shown = list(media.glob("images/val/pictures*.png"))
    assert len(shown) == 2
    with Image.open(shown[0]) as picture:
        width, height = picture.size
    assert width % 4 == 0  # enlarged, made, classes, truth
    assert width > height
    [table] = media.glob("table/results*.json")
    row = json.loads(table.read_text())
    assert dict(zip(row["columns"], row["data"][0], strict=True))["steps"] == 4

    [artifact] = [
        r.artifact
        for r in found
        if r.WhichOneof("record_type") == "artifact" and r.artifact.type == "model"
    ]
    assert artifact.name == "fsrcnn-m2-stage-2"
    assert {e.path for e in artifact.manifest.contents} == {"model.safetensors", "model.json"}


def test_tensorboard(tmp_path: Path) -> None:
    train(tmp_path, "stage=1", "logger=tensorboard", "hydra.run.dir=one")
    events = EventAccumulator(str(tmp_path / "one" / "tensorboard"))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert {"train/loss", "val/psnr"} <= set(tags)
    assert [e.step for e in events.Scalars("train/loss")] == [0, 1, 2, 3]


def test_wandb_is_not_imported_where_it_was_not_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # an import fails
    train(tmp_path, "stage=1", "logger=csv")
    for path in Path(pcsr_lightning.__file__).parent.rglob("*.py"):
        assert not re.search(r"^(import|from) wandb", path.read_text(), re.MULTILINE), path
