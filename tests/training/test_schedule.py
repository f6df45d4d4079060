"""The learning rate over a run, and Muon's steps against an exact singular value decomposition."""

import copy
import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR

from pcsr_lightning import conf_dir
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.settings.instantiation import configured
from pcsr_lightning.training import Muon, cosine, trapezoid
from pcsr_lightning.training.optim import make_optimizer
from pcsr_lightning.training.optim.muon import orthogonal

Scheduler = Callable[[torch.optim.Optimizer], LambdaLR]


def rates(scheduler: Scheduler, steps: int, lr: float = 1e-3) -> list[float]:
    """What the scheduler really sets, step by step."""
    optimizer = torch.optim.Adam(nn.Linear(2, 2).parameters(), lr)
    schedule = scheduler(optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_the_papers_schedule_is_torchs_cosine() -> None:
    torchs = partial(CosineAnnealingLR, T_max=50, eta_min=1e-7)
    expected = rates(torchs, 50)  # type: ignore[arg-type]
    assert rates(partial(cosine, steps=50), 50) == pytest.approx(expected, rel=1e-9)


def test_a_trapezoid() -> None:
    found = rates(partial(trapezoid, steps=100, lr_min=0.0, warmup=9, decay=0.4), 100)
    assert found[:9] == pytest.approx([1e-4 * (n + 1) for n in range(9)])
    assert found[9:61] == pytest.approx([1e-3] * 52)
    assert found[60:] == pytest.approx([1e-3 * (100 - n) / 40 for n in range(60, 100)])


def test_a_trapezoid_is_the_same_before_its_descent_however_long_the_run() -> None:
    short, long = (rates(partial(trapezoid, steps=n, warmup=5), 40) for n in (40, 400))
    assert short[:20] == long[:20]
    assert short[30] < long[30]


def test_a_resumed_schedule_has_its_own_steps() -> None:
    """And not those of the run whose checkpoint it goes on from."""
    optimizers = [torch.optim.Adam(nn.Linear(2, 2).parameters(), 1e-3) for _ in range(2)]
    short, long = (trapezoid(o, steps=n) for o, n in zip(optimizers, (40, 400), strict=True))
    long.load_state_dict(short.state_dict())
    for _ in range(39):
        optimizers[1].step()
        long.step()
    assert optimizers[1].param_groups[0]["lr"] == 1e-3


@pytest.mark.parametrize(
    ("scheduler", "wrong", "says"),
    [
        (cosine, {"warmup": -1}, r"scheduler\.warmup=-1"),
        (cosine, {"steps": 0}, r"scheduler\.steps=0"),
        (cosine, {"lr_min": 1e-2}, r"scheduler\.lr_min=0\.01"),
        (trapezoid, {"decay": 0.0}, r"scheduler\.decay=0\.0"),
    ],
)
def test_impossible_schedules(scheduler: Scheduler, wrong: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        rates(partial(scheduler, **{"steps": 10, **wrong}), 1)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"vector_lr": 0.0}, r"optimizer\.vector_lr=0\.0"),
        ({"weight_decay": -0.1}, r"optimizer\.weight_decay=-0\.1"),
        ({"weight_decay": math.nan}, r"optimizer\.weight_decay=nan"),
        ({"lr": -1.0}, r"learning rate"),
    ],
)
def test_what_muon_refuses(wrong: dict, says: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=says):
        Muon(Small(), **{"lr": 1e-3, **wrong})


@settings(deadline=None)
@given(
    rows=st.integers(8, 40), columns=st.integers(8, 40), seed=st.integers(0, 99),
    size=st.sampled_from([1e-6, 1.0, 1e4]),
)  # fmt: skip
def test_orthogonal_is_near_the_polar_factor(
    rows: int, columns: int, seed: int, size: float
) -> None:
    torch.manual_seed(seed)
    matrix = size * torch.randn(rows, columns, dtype=torch.float64)
    u, singular, vh = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonal(matrix[None])[0]
    values = u.mT @ found @ vh.mT  # diagonal, whatever the singular values became
    assert torch.allclose(values, torch.diag(values.diag()), atol=1e-9)
    large = singular > 0.02 * singular.norm()
    assert ((values.diag()[large] > 0.6) & (values.diag()[large] < 1.3)).all()


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 32, 3, groups=2)
        self.depthwise = nn.Conv2d(16, 16, 3, groups=16)
        self.linear = nn.Linear(32, 16)
        self.last = nn.Linear(16, 3)
        self.frozen = nn.Linear(16, 16).requires_grad_(False)


def test_a_step_of_muon() -> None:
    torch.manual_seed(0)
    net = Small()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    for p in net.parameters():
        p.grad = torch.randn_like(p) if p.requires_grad else None
    grads = {k: p.grad.clone() for k, p in net.named_parameters() if p.grad is not None}
    Muon(net, 0.01).step()
    moved = {k: v - before[k] for k, v in net.state_dict().items()}
    assert not moved["frozen.weight"].any()
    # The first step of momentum .95 with Nesterov looks along the gradient itself.
    groups = grads["conv.weight"].reshape(2, 16, 72)
    for n, part in enumerate(moved["conv.weight"].reshape(2, 16, 72)):
        alone = orthogonal(groups[n : n + 1])[0]
        assert torch.allclose(part, -0.01 * 0.2 * math.sqrt(72) * alone, atol=1e-6)
    # Adam's first step is lr times the gradient's sign.
    for name in ("conv.bias", "depthwise.weight", "last.weight"):
        assert torch.allclose(moved[name], -0.01 * grads[name].sign(), atol=1e-4)


def test_vectors_may_have_a_lower_rate() -> None:
    optimizer = Muon(Small(), 1e-2, vector_lr=0.1)
    scheduler = trapezoid(optimizer, steps=10)
    expected = rates(partial(trapezoid, steps=10), 10, lr=1e-2)
    for lr in expected:
        matrices, vectors = (group["lr"] for group in optimizer.param_groups)
        assert matrices == pytest.approx(lr)
        assert vectors == pytest.approx(0.1 * lr)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("optimizer", ["muon", "adam"])
def test_weight_decay_is_decoupled(optimizer: str) -> None:
    """It takes the same share of a matrix whatever the gradient; Muon's vectors are left alone."""
    torch.manual_seed(0)
    plain = Small()
    decayed = copy.deepcopy(plain)
    before = {k: v.clone() for k, v in plain.named_parameters()}
    for net, weight_decay in ((plain, 0.0), (decayed, 0.5)):
        torch.manual_seed(1)
        for p in net.parameters():
            p.grad = torch.randn_like(p) if p.requires_grad else None
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            cfg = compose("train", [f"optimizer={optimizer}"])
        cfg.optimizer.lr, cfg.optimizer.weight_decay = 0.1, weight_decay
        make_optimizer(configured(cfg.optimizer, "optimizer"), net).step()
    for name, p in decayed.named_parameters():
        matrix = name in ("conv.weight", "linear.weight")
        touched = p.requires_grad and (matrix or optimizer == "adam")
        expected = dict(plain.named_parameters())[name] - 0.05 * touched * before[name]
        assert torch.allclose(p, expected, atol=1e-6), name


def test_muon_goes_on_from_its_state() -> None:
    def steps(net: Small, muon: Muon, numbers: range) -> None:
        for n in numbers:
            torch.manual_seed(n)
            for p in net.parameters():
                p.grad = torch.randn_like(p)
            muon.step()

    torch.manual_seed(0)
    whole, stopped = Small(), Small()
    stopped.load_state_dict(whole.state_dict())
    steps(whole, Muon(whole, 0.01), range(6))
    first = Muon(stopped, 0.01)
    steps(stopped, first, range(3))
    second = Muon(stopped, 0.01)
    second.load_state_dict(first.state_dict())
    steps(stopped, second, range(3, 6))
    for a, b in zip(whole.parameters(), stopped.parameters(), strict=True):
        assert torch.equal(a, b)
