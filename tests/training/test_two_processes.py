"""Two real processes (DDP over gloo) compute the gradients that one does on the whole batch."""

import json
import math
import multiprocessing
import socket
from pathlib import Path

import pytest
import torch
from tests.commands import SMALL_TRAINING, run_command
from tests.small import write_textures
from torch import Tensor

KEEPER = '''
import lightning as L
import torch

class KeepGradients(L.Callback):
    """Writes what the optimizer is about to use."""

    def __init__(self, path):
        self.path = path

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if trainer.is_global_zero and trainer.global_step == 0:
            named = pl_module.network.named_parameters()
            torch.save({k: p.grad for k, p in named if p.grad is not None}, self.path)
'''
RANKS = '''
import lightning as L
import torch

class DeadUnits(L.Callback):
    """Switches units off before training, and writes what each rank ends with."""

    def __init__(self, folder):
        self.folder = folder

    def on_fit_start(self, trainer, pl_module):
        pl_module.network.upsampler(0).project.bias.data[:3] = -100.0

    def on_train_end(self, trainer, pl_module):
        mlp = pl_module.network.upsampler(0).state_dict()
        torch.save(mlp, f"{self.folder}/rank-{trainer.global_rank}.pt")
'''
METRICS = '''
import json
import lightning as L

class KeepMetrics(L.Callback):
    """Writes what each rank ends with, and how many pictures it saw."""

    def __init__(self, folder):
        self.folder, self.seen = folder, 0

    def on_validation_batch_end(self, *_):
        self.seen += 1

    def on_train_end(self, trainer, pl_module):
        found = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        name = f"metrics-{trainer.world_size}-{trainer.global_rank}.json"
        with open(f"{self.folder}/{name}", "w") as f:
            json.dump({"seen": self.seen, **found}, f)
'''
UNEVEN = '''
import json
import lightning as L
from lightning.pytorch.callbacks import timer

class Fake:
    now = 0.0

    def monotonic(self):
        return self.now

class Uneven(L.Callback):
    """The second process has a clock that runs twice as fast; each writes the rates it had."""

    def __init__(self, folder):
        timer.time, self.folder, self.rates = Fake(), folder, []

    def on_train_batch_start(self, trainer, *rest):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        timer.time.now += 0.25 * (1 + trainer.global_rank)

    def on_train_end(self, trainer, pl_module):
        with open(f"{self.folder}/rates-{trainer.global_rank}.json", "w") as f:
            json.dump(self.rates, f)
'''
SETTINGS = (
    *SMALL_TRAINING,
    "data.batch_size=16",
    "data.augment=false",  # drawn by each rank for itself
    "logger=none",
)
FORK = multiprocessing.get_context("fork")  # spares the imports


def train(cwd: Path, *settings: str, **env: str) -> None:
    (cwd / "keeper.py").write_text(KEEPER)
    (cwd / "ranks.py").write_text(RANKS)
    (cwd / "metrics.py").write_text(METRICS)
    (cwd / "uneven.py").write_text(UNEVEN)
    given = {word.partition("=")[0] for word in settings}
    others = [word for word in SETTINGS if word.partition("=")[0] not in given]
    run_command("train", *settings, *others, cwd=cwd, env=env, code=0)


def train_on_two(cwd: Path, *settings: str) -> None:
    """Both processes as Lightning's launcher starts them."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    # The group must come before what overrides it.
    words = ("trainer=ddp", "trainer.devices=2", *settings)
    places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": "0"}
    ranks = [
        FORK.Process(target=train, args=(cwd, *words), kwargs={**places, "LOCAL_RANK": rank})
        for rank in "01"
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(300)
    assert [process.exitcode for process in ranks] == [0, 0]


@pytest.fixture(scope="module")
def first_stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first")
    train(folder, "stage=1", "trainer.max_steps=1", "hydra.run.dir=one")
    return folder / "one"


@pytest.mark.parametrize(
    ("stage", "queries"), [("1", "64"), ("2", "64"), ("1", "per_pixel:2"), ("2", "per_pixel:2")]
)
def test_two_halves_make_the_whole(
    stage: str, queries: str, first_stage: Path, tmp_path: Path
) -> None:
    found: list[dict[str, Tensor]] = []
    for devices in (1, 2):
        words = [
            f"stage={stage}",
            f"stage.queries={queries}",
            "trainer.max_steps=1",
            f"hydra.run.dir=of-{devices}",
            "+callbacks.keeper._target_=keeper.KeepGradients",
            f"+callbacks.keeper.path={tmp_path}/gradients-{devices}.pt",
            *([f"init={first_stage}"] if stage == "2" else []),
        ]
        (train_on_two if devices == 2 else train)(tmp_path, *words)
        found.append(torch.load(tmp_path / f"gradients-{devices}.pt", weights_only=True))
        # One rank writes, and what it wrote is whole.
        run = tmp_path / f"of-{devices}"
        assert (run / "run.json").is_file()
        assert (run / "model.safetensors").is_file()
        assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    one, two = found
    assert one.keys() == two.keys()
    for name, gradient in one.items():
        error = float((gradient - two[name]).norm() / gradient.norm())
        assert error < 1e-5, f"{name}: {error:.1e}"
    assert any(float(g.abs().max()) > 1e-4 for g in one.values())
    if stage == "2":
        assert all(name.startswith(("classifier", "upsamplers.1")) for name in one)


def test_units_started_anew_are_the_same_on_both(tmp_path: Path) -> None:
    """Each rank judges by crops of its own; what is started anew must agree all the same."""
    train_on_two(
        tmp_path, "stage=1", "stage.reinitialize_dead_units=1", "trainer.max_steps=2",
        "hydra.run.dir=two", "+callbacks.ranks._target_=ranks.DeadUnits",
        f"+callbacks.ranks.folder={tmp_path}",
    )  # fmt: skip
    first, second = (torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert (first["project.bias"].abs() < 50).all()
    for name, weights in first.items():
        assert torch.equal(weights, second[name]), name


def test_by_the_clock_both_have_the_same_rates_and_end_after_the_same_step(tmp_path: Path) -> None:
    train_on_two(
        tmp_path, "stage=1", "trainer.max_time=00:00:04", "hydra.run.dir=two",
        "+callbacks.uneven._target_=uneven.Uneven", f"+callbacks.uneven.folder={tmp_path}",
    )  # fmt: skip
    first, second = (json.loads((tmp_path / f"rates-{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert len(first) == 8  # of half a second: the faster clock decides
    cosine = [1e-7 + (1e-3 - 1e-7) * (1 + math.cos(math.pi * n / 8)) / 2 for n in range(8)]
    assert first == pytest.approx(cosine, rel=1e-6)
    record = json.loads((tmp_path / "two" / "run.json").read_text())
    assert record["ended"] == "after trainer.max_time=00:00:04, 8 steps"


@pytest.mark.parametrize("sets", [{"": 3}, {"": 1}, {"a": 1, "b": 5}], ids=str)
def test_each_validation_picture_counts_once(
    sets: dict[str, int], first_stage: Path, tmp_path: Path
) -> None:
    """Where pictures do not divide by processes, Lightning repeats some; one may have none."""
    folders = {}
    for name, count in sets.items():
        sizes = {f"{n}.png": (40 + 16 * n, 96) for n in range(count)}
        folders[name] = write_textures(tmp_path / f"pictures{name}", sizes)
    if "" in sets:
        val_root = str(folders[""])
    else:
        val_root = "{" + ",".join(f"{name}:{folder}" for name, folder in folders.items()) + "}"
    found = {}
    for devices in (1, 2):
        words = [
            "stage=2", f"init={first_stage}", "trainer.max_steps=1", "optimizer.lr=2e-7",
            f"data.val_root={val_root}", "data.val_limit=null", f"hydra.run.dir=of-{devices}",
            "+callbacks.metrics._target_=metrics.KeepMetrics",
            f"+callbacks.metrics.folder={tmp_path}",
        ]  # fmt: skip
        (train_on_two if devices == 2 else train)(tmp_path, *words)
        for rank in range(devices):
            path = tmp_path / f"metrics-{devices}-{rank}.json"
            found[devices, rank] = json.loads(path.read_text())
        best = torch.load(tmp_path / f"of-{devices}/checkpoints/best.ckpt", weights_only=True)
        [score] = [
            float(state["best_model_score"])
            for state in best["callbacks"].values()
            if state.get("monitor") == "val/psnr"
        ]
        record = json.loads((tmp_path / f"of-{devices}/run.json").read_text())
        assert score == found[devices, 0]["val/psnr"]
        assert record["val_psnr"] == round(score, 4)
    one = found[1, 0]
    assert one.pop("seen") == sum(sets.values())
    own = [key for name in sets for key in ([f"val/{name}/psnr"] if name else [])]
    assert {"val/psnr", "val/share_0", "val/share_1", *own} <= one.keys()
    assert one["val/share_0"] + one["val/share_1"] == pytest.approx(1)
    for rank in (0, 1):
        two = found[2, rank]
        assert two.pop("seen") == sum(-(-count // 2) for count in sets.values())
        assert two == pytest.approx(one, abs=2e-4)
