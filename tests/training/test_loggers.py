"""What loggers keep of a training, read back: W&B (offline), TensorBoard, MLflow and CSV."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
import yaml
from mlflow import MlflowClient
from omegaconf import OmegaConf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.commands import SMALL_TRAINING, run_command

import pcsr_lightning
from pcsr_lightning.errors import ConfigError

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
    assert same_settings(wandb_config(found), run)

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


def wandb_config(found: list[Any]) -> dict[str, Any]:
    """The config of a run in W&B's records, without W&B's own."""
    config: dict[str, Any] = {}
    for record in found:
        kind = record.WhichOneof("record_type")
        updates = {"run": record.run.config.update, "config": record.config.update}.get(kind, ())
        for item in updates:
            config[item.key or item.nested_key[0]] = json.loads(item.value_json)
    return {key: value for key, value in config.items() if not key.startswith("_")}


def settings_of(run: Path) -> dict[str, Any]:
    """The composed config of a run, in plain values."""
    cfg = OmegaConf.load(run / ".hydra" / "config.yaml")
    text = OmegaConf.to_yaml(cfg).replace("${hydra:runtime.output_dir}", str(run))
    plain = OmegaConf.to_container(OmegaConf.create(text), resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def same_settings(kept: dict[str, Any], run: Path) -> bool:
    expected = settings_of(run)
    assert kept.keys() == expected.keys()
    for key, value in expected.items():
        assert kept[key] == value, key
    assert expected["optimizer"]["lr"] == 1e-3
    assert expected["stage"]["name"] in "12"
    return True


def flat(value: Any, above: str = "") -> dict[str, str]:
    """A config as those loggers keep it that know texts alone: ``optimizer/lr``."""
    if not isinstance(value, dict) or (not value and above):
        return {above: str(value)}
    return {k: v for key in value for k, v in flat(value[key], f"{above}/{key}".strip("/")).items()}


def test_the_whole_config_is_beside_the_csv_file(run: Path) -> None:
    """W&B was chosen; the CSV logger is always there as well."""
    kept = yaml.safe_load((run / "logs" / "hparams.yaml").read_text())
    assert same_settings(kept, run)
    assert "val/gmacs" in (run / "logs" / "metrics.csv").read_text().splitlines()[0]


def test_checkpoints_keep_their_own_parameters(run: Path) -> None:
    kept = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["hyper_parameters"]
    assert (kept["stage"], kept["backbone"], kept["num_classes"]) == ("2", "fsrcnn", 2)
    assert kept["network"]


def test_a_resumed_training_goes_on_in_its_wandb_run(
    run: Path, tmp_path: Path, records: Records
) -> None:
    """In the same folder, and in another one."""
    kept = (run / "wandb.id").read_text().strip()
    again = ("stage=2", "init=one", "logger=wandb", f"ckpt_path={run}/checkpoints/last.ckpt")
    train(run.parent, *again, "hydra.run.dir=three", "trainer.max_steps=6")
    assert (run.parent / "three" / "wandb.id").read_text().strip() == kept
    [file] = (run.parent / "three").glob("wandb/offline-run-*/*.wandb")
    [first, *_] = [r.run for r in records(file) if r.WhichOneof("record_type") == "run"]
    assert first.run_id == kept
    train(run.parent, "stage=1", "logger=wandb", "hydra.run.dir=other")
    assert (run.parent / "other" / "wandb.id").read_text().strip() != kept


def test_a_training_that_fails_is_failed_in_wandb(tmp_path: Path, records: Records) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    words = (*SETTINGS, "logger=wandb", "hydra.run.dir=bad", "callbacks.mine._target_=failing.Late")
    env = {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    done = run_command("train", *words, cwd=tmp_path, env=env, code=1)
    wandb.teardown()
    assert done.err.splitlines()[-1] == (
        "error: callbacks.mine: ZeroDivisionError: of my own "
        "(in failing.py, on_train_batch_end; debug=true shows all)"
    )
    [file] = tmp_path.glob("bad/wandb/offline-run-*/*.wandb")
    [code] = [r.exit.exit_code for r in records(file) if r.WhichOneof("record_type") == "exit"]
    assert code == 1


FAILING = """
import lightning as L
from lightning.pytorch.loggers import CSVLogger

class Early(L.Callback):
    def __init__(self, value=0):
        raise KeyError("nothing")

class Late(L.Callback):
    def on_train_batch_end(self, *args):
        raise ZeroDivisionError("of my own")

class Logger(CSVLogger):
    def log_metrics(self, metrics, step=None):
        raise OSError("the server is asleep")
"""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ("callbacks.mine._target_=failing.Early",),
            "callbacks.mine: cannot be used as set: KeyError: 'nothing'",
        ),
        (
            ("logger.mine._target_=failing.Logger", "logger.mine.save_dir=x"),
            "logger.mine: OSError: the server is asleep (in failing.py, log_metrics; "
            "debug=true shows all)",
        ),
        (
            (
                "callbacks.swa._target_=lightning.pytorch.callbacks.StochasticWeightAveraging",
                "callbacks.swa.swa_lrs=1e-3",
            ),
            "callbacks.swa: MisconfigurationException: SWA with `swa_epoch_start` as a float",
        ),
        (("callbacks.best.monitor=val/psnrr",), "callbacks.best: MisconfigurationException: "),
        (("logger.wandb=3", "logger=wandb"), "logger.wandb=3: "),
        (("logger._target_=lightning.pytorch.loggers.CSVLogger",), "logger.own"),
        (("logger._target_=nowhere.Logger",), "logger.own._target_=nowhere.Logger: "),
        (("data._target_=failing.Data",), "data._target_=failing.Data: "),
    ],
)
def test_what_fails_in_an_object_of_the_settings_is_one_line(
    words: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    done = run_command("train", *SETTINGS, "logger=csv", *words, cwd=tmp_path, code=1)
    assert "Traceback" not in done.err
    assert done.err.splitlines()[-1].startswith(f"error: {says}")


def test_with_debug_a_bug_shows_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    words = ("callbacks.mine._target_=failing.Late", "debug=true")
    with pytest.raises(ConfigError) as failed:
        run_command("train", *SETTINGS, *words, cwd=tmp_path)
    assert isinstance(failed.value.__cause__, ZeroDivisionError)


def test_wandb_without_a_key_is_one_line(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "WANDB_API_KEY": "", "WANDB_MODE": "online", "NETRC": "no"}
    words = (*SETTINGS, "logger=wandb", "hydra.run.dir=one")
    done = run_command("train", *words, cwd=tmp_path, env=env, code=1)
    [line] = [line for line in done.err.splitlines() if "error" in line.lower()]
    assert line.startswith("error: logger.wandb: ")
    assert line.endswith("; logger.wandb.offline=true needs no network")
    assert "Traceback" not in done.err


def test_several_loggers(tmp_path: Path) -> None:
    """Each has the whole config, the curves, and the pictures, if it takes some."""
    words = ("logger=[csv,tensorboard,mlflow]", "stage=1", "hydra.run.dir=one")
    train(tmp_path, *words, "callbacks.report.files=true")
    run = tmp_path / "one"
    assert same_settings(yaml.safe_load((run / "logs" / "hparams.yaml").read_text()), run)
    assert len(list((run / "logs" / "pictures").glob("*_4.png"))) == 2

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert {"train/loss", "val/psnr", "val/gmacs"} <= set(events.Tags()["scalars"])
    assert [e.step for e in events.Scalars("train/loss")] == [0, 1, 2, 3]
    shown = [tag for tag in events.Tags()["images"] if tag.startswith("val/pictures/")]
    assert len(shown) == 2
    assert same_settings(yaml.safe_load((run / "tensorboard" / "hparams.yaml").read_text()), run)

    client = MlflowClient(f"sqlite:///{tmp_path}/outputs/mlflow.db")
    [experiment] = [e for e in client.search_experiments() if e.name == "pcsr_lightning"]
    [kept] = client.search_runs([experiment.experiment_id])
    assert kept.info.status == "FINISHED"
    assert {"train/loss", "val/psnr", "val/gmacs"} <= kept.data.metrics.keys()
    assert kept.data.params == {k: v[:250] for k, v in flat(settings_of(run)).items()}
    assert len(list((tmp_path / "outputs" / "mlflow").rglob("val_pictures*.png"))) == 2


def test_wandb_is_not_imported_where_it_was_not_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # an import fails
    train(tmp_path, "stage=1", "logger=csv")
    for path in Path(pcsr_lightning.__file__).parent.rglob("*.py"):
        assert not re.search(r"^(import|from) wandb", path.read_text(), re.MULTILINE), path
