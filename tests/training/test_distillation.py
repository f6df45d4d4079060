"""A first stage that learns what a larger model makes of its crops."""

from pathlib import Path

import pytest
import torch
from tests.training.test_stages import SMALL, Crops, changed, fit, made, snapshot

from pcsr_lightning.errors import ConfigError, ModelFileError
from pcsr_lightning.networks import PCSR
from pcsr_lightning.training import FirstStage, SquaredError
from pcsr_lightning.training.distillation import Teacher
from pcsr_lightning.training.initialization import stage_network
from pcsr_lightning.weights import save

SIZE = (32, 32)


def network(stage: str = "1", backbone: str = "fsrcnn") -> PCSR:
    found = stage_network(stage, backbone, 2, SMALL[backbone])
    assert isinstance(found, PCSR)
    return found


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_the_target_is_the_heavy_picture_and_the_rest_the_ground_truth(share: float) -> None:
    torch.manual_seed(0)
    larger = network("2", "carn").eval()
    lr, hr = Crops()[0]
    queries = torch.tensor([0, 33, 1023])
    with torch.no_grad():
        grid = larger.grid((8, 8), SIZE)
        base = torch.nn.functional.interpolate(lr, size=SIZE, mode="bilinear")
        heavy = base + larger.residual(larger.features(lr), grid, 0)
    expected = share * heavy.flatten(2) + (1 - share) * hr.flatten(2)
    teacher = Teacher(larger, share)
    target = teacher.target(lr, hr.flatten(2)[..., queries], SIZE, queries)
    torch.testing.assert_close(target, expected[..., queries])
    assert not target.requires_grad
    torch.testing.assert_close(teacher.target(lr, hr.flatten(2), SIZE), expected)


def test_what_the_teacher_already_says_costs_nothing() -> None:
    torch.manual_seed(0)
    student = network()
    teacher = network()
    teacher.load_state_dict(student.state_dict())
    stage = made(FirstStage, student, loss=SquaredError(), queries=50, teacher=Teacher(teacher))
    assert stage.losses(Crops()[0])[0].item() == 0


@pytest.mark.parametrize("taught", [True, False])
def test_the_teacher_stays_as_it_is_and_out_of_the_student(taught: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    larger = network("2", "carn")
    before = snapshot(larger)
    student = network()
    start = snapshot(student)
    plain = made(FirstStage, student)
    stage = made(FirstStage, student, teacher=Teacher(larger) if taught else None)
    assert stage.state_dict().keys() == plain.state_dict().keys()
    trainer = fit(stage, tmp_path)
    assert changed(student, start) == set(start) - {"mean"}
    assert not changed(larger, before)
    trained = sum(len(g["params"]) for g in trainer.optimizers[0].param_groups)
    assert trained == len(list(student.parameters()))


def test_what_can_be_no_teacher(tmp_path: Path) -> None:
    torch.manual_seed(0)
    original = stage_network("original", "fsrcnn", 2, SMALL["fsrcnn"])
    with pytest.raises(ConfigError, match="a teacher must be a PCSR model"):
        Teacher.load(str(save(original, tmp_path / "original", {})))
    with pytest.raises(ModelFileError, match="nowhere"):
        Teacher.load("nowhere")
    for share in (0.0, -1.0, 1.5, float("nan")):
        with pytest.raises(ConfigError, match=r"stage\.teacher_share"):
            Teacher(network(), share)
