"""The training benchmark: the plain loop trains the same thing, and the command runs.

The plain loss is written from the networks' parts alone, so each is a check of the other.
Legend: B crops of a batch, h w LR size, H W HR size.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from tests.commands import in_process
from tests.training.test_stages import made
from torch import Tensor

from pcsr_lightning.data import SRDataModule
from pcsr_lightning.data.batches import TrainBatch
from pcsr_lightning.data.sample_pictures import SAMPLE_FOLDER
from pcsr_lightning.errors import PCSRError
from pcsr_lightning.networks import PCSR
from pcsr_lightning.training import (
    FirstStage,
    FreezeEarlierStages,
    LaterStage,
    OriginalStage,
    SRStage,
)
from pcsr_lightning.training.initialization import initialize, stage_network

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
STAGES = [(b, s) for b in ("fsrcnn", "carn") for s in ("1", "2", "original")]


def script(name: str) -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module(name)


@pytest.fixture(scope="module")
def plain() -> Iterator[ModuleType]:
    """``benchmarks/plain_training.py``; the scripts there import each other by plain names."""
    yield from script("plain_training")


@pytest.fixture(scope="module")
def ways() -> Iterator[ModuleType]:
    """``benchmarks/_training_ways.py``."""
    yield from script("_training_ways")


@pytest.fixture(scope="module")
def training() -> Iterator[ModuleType]:
    """``benchmarks/training.py``."""
    yield from script("training")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SRDataModule:
    """The sample pictures as training data."""
    module = SRDataModule(
        SAMPLE_FOLDER / "train",
        SAMPLE_FOLDER / "valid",
        cache_dir=tmp_path_factory.mktemp("cache"),
    )
    module.prepare_data()
    module.setup()
    return module


@pytest.fixture(scope="module")
def batch(data: SRDataModule) -> TrainBatch:
    """Four real crops."""
    return data.pairs.train_batch(data.step_batches(1, batch_size=4)[0])


def build(backbone: str, stage: str) -> SRStage:
    """The same stage at each call, with batch norms that are not the identity."""
    torch.manual_seed(0)
    earlier = stage_network("1", backbone, 2) if stage == "2" else None
    assert earlier is None or isinstance(earlier, PCSR)
    network = stage_network(stage, backbone, 2)
    for norms in (network, earlier):
        for module in () if norms is None else norms.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
                assert module.running_var is not None
                torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    if earlier is not None:
        initialize(network, earlier)
    kinds = {"original": OriginalStage, "1": FirstStage, "2": LaterStage}
    return made(kinds[stage], network)


def gradients(stage: SRStage) -> dict[str, Tensor]:
    return {n: p.grad for n, p in stage.network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("backbone", "stage"), STAGES)
def test_same_loss_and_gradients(
    plain: ModuleType, batch: TrainBatch, backbone: str, stage: str
) -> None:
    ours, theirs = build(backbone, stage), build(backbone, stage)
    ours.trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    ours.train()
    FreezeEarlierStages().setup(ours.trainer, ours, "fit")
    plain.prepare(theirs)
    loss, _ = ours.losses(batch)  # type: ignore[arg-type]
    plain_loss = plain.plain_loss(theirs, batch)
    assert plain_loss.item() == pytest.approx(loss.item(), rel=1e-5)
    loss.backward()  # type: ignore[no-untyped-call]
    plain_loss.backward()
    mine, plains = gradients(ours), gradients(theirs)
    assert mine.keys() == plains.keys()
    trained = {id(p) for part in ours.trained_parts().values() for p in part.parameters()}
    assert len(mine) == len(trained)
    for name, gradient in mine.items():
        # Rounding alone moves a ReLU near 0 now and then.
        difference = (plains[name] - gradient).norm() / gradient.norm().clamp_min(1e-12)
        assert difference < 2e-3, name


def test_plain_loss_weighs_both_of_its_terms(plain: ModuleType, batch: TrainBatch) -> None:
    stage = build("fsrcnn", "2")
    assert isinstance(stage, LaterStage)
    plain.prepare(stage)
    whole = plain.plain_loss(stage, batch).item()
    stage.w_avg = 0.0
    recon = plain.plain_loss(stage, batch).item()
    assert whole > recon + 1e-4
    stage.w_recon = 500.0
    assert plain.plain_loss(stage, batch).item() == pytest.approx(recon / 2)


def test_plain_crops_are_the_librarys(
    plain: ModuleType, data: SRDataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain.write_crops(tmp_path, data, 2)
    files = plain.PlainCrops(tmp_path)
    assert len(files) == 2 * plain.BATCH
    # No flip and no transposition: the crop as it lies in the picture.
    monkeypatch.setattr("random.random", lambda: 0.9)
    number = plain.BATCH + 3  # the second step's fourth
    crops = data.step_batches(2)
    planner = crops.planner
    picture, top, left = (int(v) for v in planner.index.locate(planner.crop_numbers(1)[3]))
    pixels_HW3 = crops.cache.pixels(crops.numbers[picture])[top : top + 128, left : left + 128]
    lr_3hw, hr_3HW = files[number]
    assert np.array_equal((hr_3HW * 255).round().byte().movedim(0, -1).numpy(), pixels_HW3)
    # The middle of LR does not see the crop's border: any antialiased bicubic gives the same.
    whole = Image.fromarray(np.ascontiguousarray(pixels_HW3))
    pillow_3hw = torch.from_numpy(
        np.asarray(whole.resize((32, 32), Image.Resampling.BICUBIC)).copy()
    ).movedim(-1, 0)
    difference = (lr_3hw * 255 - pillow_3hw).abs()[:, 4:-4, 4:-4]
    assert difference.max() <= 1.01


def test_multiply_adds_of_a_step(ways: ModuleType) -> None:
    # The published counts: FSRCNN-PCSR's backbone 9,936 per LR pixel, heavy 13,282, light 750 and
    # classifier 104 per query.
    lr, hr = 16 * 32 * 32, 16 * 128 * 128
    first, later = build("fsrcnn", "1"), build("fsrcnn", "2")
    assert ways.gmacs(first, None, hoisted=False) * 1e9 == pytest.approx(
        3 * (lr * 9_936 + hr * 13_282), rel=1e-2
    )
    assert ways.gmacs(later, None, hoisted=False) * 1e9 == pytest.approx(
        lr * 9_936 + hr * (13_282 + 3 * 750 + 3 * 104), rel=1e-2
    )
    # Drawing an eighth of the queries and hoisting: the projection per LR pixel, 48 x 58.
    assert ways.gmacs(first, 2048, hoisted=True) * 1e9 == pytest.approx(
        3 * (lr * (9_936 + 48 * 58) + hr / 8 * (13_282 - 52 * 58)), rel=1e-2
    )


@pytest.mark.slow
def test_quick_run(training: ModuleType, tmp_path: Path) -> None:
    words = ("--quick", "--only", "fsrcnn", "--stages", "2", "--threads", "1", "--out", "found")
    (tmp_path / "shared").mkdir()
    places = {"PCSR_SHARED": str(tmp_path / "shared"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = in_process(lambda: training.main(words), tmp_path, places)
    assert done.code == 0, done.err
    assert (tmp_path / "found/training.md").read_text() == done.out
    for number in (1, 2, 3):
        assert f"## Table {number}" in done.out
    facts = json.loads((tmp_path / "found/training.json").read_text())
    rows = {row["way"]: row for row in facts["rows"]}
    assert list(rows) == ["plain", "ours", "ours, fp32, all pixels"]
    plain, ours = rows["plain"], rows["ours"]
    # The same start for all, and every way has learned from there.
    assert len({row["loss_at_start"] for row in rows.values()}) == 1
    assert all(row["loss"] < row["loss_at_start"] for row in rows.values())
    assert ours["loss"] == pytest.approx(plain["loss"], rel=0.05)
    assert ours["gmacs"] < plain["gmacs"] / 4
    for row in rows.values():
        assert len(row["seconds"]) == 1
        # A step's parts are its whole time (medians of two steps, so only about).
        assert sum(row["parts"].values()) == pytest.approx(row["seconds"][0], rel=0.5)


def test_unknown_stage(training: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        training.main(["--stages", "7"])
    assert "must be some of 1,2,original, not '7'" in capsys.readouterr().err


def test_no_pictures(
    training: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere, out = str(tmp_path / "nowhere"), str(tmp_path / "found")
    assert training.main(["--quick", "--data", nowhere, "--out", out]) == 1
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.slow
def test_a_way_that_fails_is_an_error(
    training: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "worker.py").write_text("raise SystemExit('no backbone is called nothing')")
    monkeypatch.setattr(training, "__file__", str(tmp_path / "worker.py"))
    worker = training.Worker({"way": "plain"})
    with pytest.raises(PCSRError, match="plain ended and said: no backbone is called nothing"):
        worker.answer()
    worker.close()


def test_without_a_gpu(training: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    assert training.main(["--device", "cuda"]) == 1
    assert capsys.readouterr().err == (
        "error: --device cuda: there is no CUDA device here; leave it out for the CPU\n"
    )


def test_the_gpus_tables(training: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU, where captured steps run without a graph."""
    cuda = importlib.import_module("_training_cuda")
    for name, value in (("SAME", 4), ("BATCH", 2), ("CASES", (("fsrcnn", 2),)), ("WARM_UP", 0)):
        monkeypatch.setattr(cuda, name, value)
    roots = (SAMPLE_FOLDER / "train", SAMPLE_FOLDER / "valid")
    text = cuda.report(roots, ("fsrcnn",), ("1",), 2, "cpu")
    assert "| fsrcnn, stage 1 | 2 |" in text
    found = cuda.same_weights("fsrcnn", "1", roots, "cpu")
    assert found["moved by"] > 1e-4
    assert 0 < found["captured - plain"] < 1e-5
    assert found["resumed - uninterrupted"] == 0


@pytest.mark.gpu
def test_captured_steps_on_a_gpu(training: ModuleType) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    cuda = importlib.import_module("_training_cuda")
    roots = (SAMPLE_FOLDER / "train", SAMPLE_FOLDER / "valid")
    found = cuda.same_weights("fsrcnn", "1", roots, "cuda")
    # TF32 and another order of sums.
    assert found["captured - plain"] < 0.05 * found["moved by"]
    assert found["resumed - uninterrupted"] < 0.05 * found["moved by"]
