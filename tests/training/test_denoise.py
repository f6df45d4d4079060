"""Training with a strength: targets, both stages at scale 1, and what it cannot do."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from tests.small import small_first_stage, write_textures

from pcsr_lightning import conf_dir, load
from pcsr_lightning.data import TrainBatch
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.networks import PCSR, add_bias_shifts, bilinear_upsample, has_bias_shifts
from pcsr_lightning.training import FirstStage
from pcsr_lightning.training.initialization import warm_start
from pcsr_lightning.training.train_stage import train


def batch() -> TrainBatch:
    torch.manual_seed(0)
    clean = torch.rand(2, 3, 8, 8)
    lr = clean + 0.1 * torch.randn_like(clean)
    return TrainBatch(lr, torch.rand(2, 3, 20, 20), clean_lr_B3hw=clean)


def adjustable() -> PCSR:
    network = small_first_stage()
    add_bias_shifts(network)
    return network


def test_what_is_learned_lies_between_clean_and_degraded(monkeypatch: pytest.MonkeyPatch) -> None:
    stage, crops = FirstStage(adjustable()), batch()
    assert crops.clean_lr_B3hw is not None
    added = bilinear_upsample(crops.lr_B3hw - crops.clean_lr_B3hw, (20, 20)).flatten(2)
    for strength in (0.0, 0.3, 1.0):
        monkeypatch.setattr(stage, "strength", lambda s=strength: s)
        _, target = stage.query(crops, None)
        torch.testing.assert_close(target, crops.hr_B3HW.flatten(2) + (1 - strength) * added)
        some = torch.tensor([3, 7, 399])
        torch.testing.assert_close(stage.query(crops, some)[1], target[:, :, some])


def test_strengths_are_drawn_by_seed_and_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(seed: int, **options: float) -> list[float]:
        stage, strengths = FirstStage(adjustable(), seed=seed, **options), []
        for step in range(300):
            monkeypatch.setattr(FirstStage, "global_step", step)
            strengths.append(stage.strength())
        return strengths

    first = drawn(0)
    assert first == drawn(0) != drawn(1)
    assert 0.6 < first.count(1.0) / 300 < 0.74
    assert min(first) < 0.1
    assert set(drawn(0, full_strength=1.0)) == {1.0}
    with pytest.raises(ConfigError, match=r"stage\.full_strength=2: must be a share"):
        FirstStage(adjustable(), full_strength=2)


def test_batches_have_to_say_what_is_clean() -> None:
    crops = batch()._replace(clean_lr_B3hw=None)
    with pytest.raises(ConfigError, match=r"denoise=true: .*data/degradation=photo"):
        FirstStage(adjustable()).query(crops, None)
    FirstStage(small_first_stage()).query(crops, None)


def test_a_model_without_a_strength_gets_one() -> None:
    earlier, network = small_first_stage(), adjustable()
    with torch.no_grad():
        for p in network.parameters():
            p.zero_()
    warm_start(earlier, network)
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(network(x, (16, 16)).mixed(), earlier(x, (16, 16)).mixed())
    with pytest.raises(ConfigError, match="denoise"):
        warm_start(network, small_first_stage())


def test_both_stages_at_scale_one(tmp_path: Path) -> None:
    sizes = {f"{n}.png": (96, 96) for n in range(3)}
    pictures = write_textures(tmp_path / "pictures", sizes)
    common = [
        "denoise=true", f"data.root={pictures}", "data=folder", "data/degradation=photo",
        "data.scale=[1,2]", "data.val_scale=1", "data.lr_crop=16", "data.val_count=1",
        f"output={tmp_path}", "trainer.max_steps=8", "trainer.accelerator=cpu", "logger=none",
        "callbacks.progress=null", "optimizer.lr=0.01", "stage.full_strength=0.3",
    ]  # fmt: skip
    with initialize_config_dir(str(conf_dir()), version_base=None):
        one = train(compose("train", [*common, "stage='1'"]), tmp_path / "1")
        two = compose("train", [*common, "stage='2'", f"init={tmp_path / '1'}"])
        plain = compose("train", [*common, "stage='2'", f"init={tmp_path / '1'}", "denoise=false"])
        assert one["val/psnr"] > 5
        train(two, tmp_path / "2")
        with pytest.raises(ConfigError, match="does not fit this stage"):
            train(plain, tmp_path / "3")
    first, second = load(tmp_path / "1"), load(tmp_path / "2")
    assert has_bias_shifts(second)
    shifts = {n: p for n, p in second.state_dict().items() if n.endswith("bias_shift")}
    for name, shift in shifts.items():
        frozen = name in first.state_dict()
        assert float(shift.abs().max()) > 0, name
        assert not frozen or torch.equal(shift, first.state_dict()[name])
    x = torch.rand(1, 3, 8, 8)
    images = [load(tmp_path / "2", denoise=s)(x, (8, 8)).mixed() for s in (0.0, 1.0)]
    assert not torch.equal(*images)
