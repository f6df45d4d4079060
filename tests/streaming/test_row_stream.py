"""A network fed a few rows at a time gives what it gives on the whole picture.

Legend: h w picture, r rows, D channels of the result.
"""

from __future__ import annotations

import contextlib
import doctest
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.streaming.nets import Net
from torch import Tensor, nn
from torch.nn import functional as F

from pcsr_lightning import streaming
from pcsr_lightning.inference.features import StreamedRows, feature_rows
from pcsr_lightning.networks import build_backbone
from pcsr_lightning.streaming import RowStream, plan_rows, stream
from pcsr_lightning.streaming.steps import Pointwise

pytestmark = pytest.mark.usefixtures("fresh_memory_is_nan")
Make = Callable[[], nn.Module]


def conv(channels: int, out: int, kernel: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(channels, out, kernel, padding=kernel // 2, **options)


def shaken(module: nn.Module, seed: int = 0) -> nn.Module:
    """Biases and statistics that are not zero: zeros outside of the picture must be seen to be."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            if name.endswith(("bias", "mean")):
                value.uniform_(-0.5, 0.5)
            elif name.endswith("running_var"):
                value.uniform_(0.5, 2)
    return module.eval()


def _lags(m: Any, x: Tensor) -> Tensor:
    """``a`` is read at once, two rows later, and three rows later."""
    a = torch.sigmoid(m.first(x))
    b = m.second(a)
    c = F.gelu(m.third(b))
    return m.last(a * 0.5 + c) + b - a


def _nested(m: Any, x: Tensor) -> Tensor:
    a, b = m.a(x), m.b(x).relu()
    inner = torch.cat([a, b], 1)
    return m.mix(torch.cat((x, torch.concat([inner, m.c(inner)], dim=1), a), dim=1))


def _earlier_reader(m: Any, x: Tensor) -> Tensor:
    """The value is changed in place after its only other reader."""
    y = m.a(x)
    z = m.b(y)
    y += z
    return F.relu(y, inplace=True)


HAND_MADE: dict[str, Make] = {
    "nested concatenations": lambda: Net(
        _nested, a=conv(3, 4), b=conv(3, 5, 5), c=conv(9, 2), mix=conv(18, 6, 1)
    ),
    "concatenation kept": lambda: Net(lambda m, x: torch.cat([m.a(x), x], 1), a=conv(3, 4)),
    "concatenation into 3x3": lambda: Net(
        lambda m, x: m.b(torch.cat([m.a(x), x, x], dim=1)), a=conv(3, 4), b=conv(10, 3)
    ),
    "sum of two": lambda: Net(lambda m, x: m.a(x) + m.b(x), a=conv(3, 4), b=conv(3, 4, 5)),
    "sum of two 1x1": lambda: Net(
        lambda m, x: m.a(m.c(x)) + m.b(x), a=conv(4, 5, 1), b=conv(3, 5, 1), c=conv(3, 4)
    ),
    "1x1, skip, relu": lambda: Net(
        lambda m, x: F.relu(m.b(F.relu_(m.a(x))) + m.a(x)), a=conv(3, 6), b=conv(6, 6, 1)
    ),
    "added to itself": lambda: Net(
        lambda m, x: (lambda y: m.b(y + y))(m.a(x)), a=conv(3, 6, 1), b=conv(6, 6)
    ),
    "prelu": lambda: nn.Sequential(conv(3, 5), nn.PReLU(5, 0.3), conv(5, 5, 1), nn.PReLU(5, 0.1)),
    "activations": lambda: nn.Sequential(
        conv(3, 4),
        nn.ELU(),
        nn.GELU(),
        conv(4, 4, 1),
        nn.SiLU(),
        nn.Tanh(),
        nn.Hardswish(),
        conv(4, 4),
        nn.Identity(),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Dropout(0.5),
        nn.Sigmoid(),
    ),
    "batch norm": lambda: nn.Sequential(
        conv(3, 4, bias=False), nn.BatchNorm2d(4), nn.ReLU(True), conv(4, 4, 1), nn.BatchNorm2d(4)
    ),
    "5x5 and 7x7": lambda: nn.Sequential(conv(3, 4, 5), conv(4, 3, 7), conv(3, 2, 1)),
    "oblong kernels": lambda: nn.Sequential(
        nn.Conv2d(3, 4, (5, 1), padding=(2, 0)), nn.Conv2d(4, 3, (1, 3), padding="same")
    ),
    "grouped": lambda: nn.Sequential(
        conv(3, 6, groups=3), nn.ReLU(), conv(6, 4, groups=2), conv(4, 8, 1, groups=4)
    ),
    "several lags": lambda: Net(
        _lags, first=conv(3, 4), second=conv(4, 4, 5), third=conv(4, 4), last=conv(4, 4, 1)
    ),
    "one value, kernels of three sizes": lambda: Net(
        lambda m, x: m.a(x) + m.b(x) * m.c(x), a=conv(3, 4, 7), b=conv(3, 4), c=conv(3, 4, 1)
    ),
    "changed in place, read before": lambda: Net(_earlier_reader, a=conv(3, 4), b=conv(4, 4)),
    "shuffle, then convolution": lambda: nn.Sequential(
        conv(3, 8), nn.PixelShuffle(2), nn.ReLU(True), conv(2, 9), nn.PixelShuffle(3), conv(1, 2, 5)
    ),
    "shuffle of the picture's channels": lambda: nn.Sequential(
        conv(3, 4, 1), nn.PixelShuffle(2), conv(1, 3)
    ),
    "transposed": lambda: nn.Sequential(
        conv(3, 4), nn.ConvTranspose2d(4, 3, 4, stride=2, padding=1), nn.PReLU(3), conv(3, 2)
    ),
    "transposed, as FSRCNN's": lambda: nn.Sequential(
        nn.ConvTranspose2d(3, 2, 9, stride=4, padding=3, output_padding=1)
    ),
    "transposed without overlap": lambda: nn.Sequential(
        conv(3, 4), nn.ConvTranspose2d(4, 4, 3, stride=3, groups=2)
    ),
    "constants": lambda: Net(
        lambda m, x: (
            0.3 * m.a(x) * torch.arange(1.0, 5)[:, None, None] - 1 + m.a.bias[:, None, None]
        ),
        a=conv(3, 4),
    ),
    "the picture itself is read late": lambda: Net(
        lambda m, x: m.b(m.a(x)) + x, a=conv(3, 4, 5), b=conv(4, 3, 5)
    ),
}

SMALL = {
    "fsrcnn": {"d": 8, "s": 4, "m": 2},
    "carn": {"nf": 8, "group": 4},
    "srresnet": {"nf": 8, "blocks": 2},
}


def backbone(name: str) -> nn.Module:
    return build_backbone(name, **SMALL[name])


def original(name: str, scale: int = 4) -> nn.Module:
    body = build_backbone(name, **SMALL[name])
    return nn.Sequential(body, body.make_tail(scale))


NETWORKS: dict[str, Make] = {name: lambda name=name: backbone(name) for name in SMALL}
NETWORKS |= {f"original {name}": lambda name=name: original(name) for name in SMALL}
NETWORKS |= {f"original {name} x2": lambda name=name: original(name, 2) for name in SMALL}

CUTS = st.lists(st.integers(1, 12), min_size=1, max_size=6)
BRIEF = settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def assert_same(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    error, largest = float((found - expected).abs().max()), float(expected.abs().max())
    assert error <= 1e-5 * largest


def pushed(module: nn.Module, x_1Chw: Tensor, heights: list[int]) -> Tensor:
    """Through a stream in pieces of these heights, over and over: ``(1, D, H, W)``."""
    plan = plan_rows(module, torch.float32, x_1Chw.shape[1])
    x_hwC = x_1Chw[0].permute(1, 2, 0)
    stream, top, turn, out = RowStream(plan, x_hwC.shape[1], heights[0]), 0, 0, []
    while top < len(x_hwC):
        bottom = min(len(x_hwC), top + heights[turn % len(heights)])
        for rows_rwD in stream.push(x_hwC[top:bottom], last=bottom == len(x_hwC)):
            out.append(rows_rwD.clone())
        top, turn = bottom, turn + 1
    return torch.cat(out).permute(2, 0, 1)[None]


def strips(source: StreamedRows, rows: int, start: int = 0) -> Tensor:
    """All strips from row ``start`` on, put together: ``(1, D, H, W)``."""
    at, out = start * source.plan.upscale_factor, []
    for top, feat_1rwD in source.strips(rows, start):
        assert top == at
        at += feat_1rwD.shape[1]
        out.append(feat_1rwD.clone())
    return torch.cat(out, dim=1).permute(0, 3, 1, 2)


@pytest.mark.parametrize("name", [*HAND_MADE, *NETWORKS])
@BRIEF
@example(h=1, w=1, heights=[1])
@example(h=2, w=5, heights=[1])
@example(h=40, w=3, heights=[1])
@given(h=st.integers(1, 40), w=st.integers(1, 40), heights=CUTS)
def test_equals_the_whole_picture(name: str, h: int, w: int, heights: list[int]) -> None:
    module = shaken((HAND_MADE | NETWORKS)[name]())
    x = torch.rand(1, 3, h, w) - 0.5
    with torch.no_grad():
        assert_same(pushed(module, x, heights), module(x.clone()))


@pytest.mark.parametrize(
    "name", [n for n in HAND_MADE | NETWORKS if re.match("shuf|trans|orig", n)]
)
def test_upscaling_in_smaller_blocks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = shaken((HAND_MADE | NETWORKS)[name]()), torch.rand(1, 3, 33, 5) - 0.5
    monkeypatch.setattr(stream, "BLOCK_VALUES", 1)
    with torch.no_grad():
        assert_same(pushed(module, x, [8, 3]), module(x))
        memory = stream.stream_values(plan_rows(module), 5, 8)
        monkeypatch.setattr(stream, "BLOCK_VALUES", 2**20)
        assert memory < stream.stream_values(plan_rows(module), 5, 8)


@pytest.mark.parametrize("name", [*NETWORKS, "several lags", "shuffle, then convolution"])
@BRIEF
@given(h=st.integers(2, 40), start=st.floats(0, 1), rows=st.integers(1, 9))
def test_begun_in_the_middle(name: str, h: int, start: float, rows: int) -> None:
    module, first = shaken((HAND_MADE | NETWORKS)[name]()), round(start * (h - 1))
    x = torch.rand(1, 3, h, 7) - 0.5
    with torch.no_grad():
        plan = plan_rows(module, torch.float32)
        rest = strips(StreamedRows(plan, x, torch.float32), rows, first)
        assert_same(rest, module(x)[:, :, first * plan.upscale_factor :])


@pytest.mark.parametrize("name", [*NETWORKS, "transposed", "oblong kernels", "5x5 and 7x7"])
def test_the_halo_is_exact(name: str) -> None:
    """Rows further away change nothing, and it is not needlessly far."""
    module = shaken((HAND_MADE | NETWORKS)[name]())
    plan = plan_rows(module, torch.float32)
    h, at = 2 * plan.halo + 9, plan.halo + 4
    x = torch.rand(1, 3, h, 9).double().requires_grad_()
    g = plan.upscale_factor
    module.double()(x)[:, :, at * g : (at + 1) * g].square().sum().backward()
    touched = x.grad.abs().sum(dim=(0, 1, 3)).nonzero()
    far = int(max(at - touched.min(), touched.max() - at))
    assert far <= plan.halo <= far + 3


@pytest.mark.parametrize("in_channels", [1, 4])
def test_other_numbers_of_input_channels(in_channels: int) -> None:
    module = shaken(nn.Sequential(conv(in_channels, 5), nn.ReLU(), conv(5, 2, 5)))
    x = torch.rand(1, in_channels, 20, 7) - 0.5
    with torch.no_grad():
        assert_same(pushed(module, x, [3, 1]), module(x))


def test_the_example_of_the_package_runs() -> None:
    found = doctest.testmod(streaming, extraglobs=vars(streaming))
    assert (found.failed, found.attempted > 5) == (0, True)


def test_a_concatenation_before_a_1x1_is_never_made() -> None:
    plan = plan_rows(backbone("carn").eval(), torch.float32)
    assert not any(isinstance(step, Pointwise) for step in plan.steps)


@pytest.mark.parametrize("name", ["original carn", "several lags", "transposed"])
def test_memory_does_not_grow_with_the_height(name: str) -> None:
    module = shaken((HAND_MADE | NETWORKS)[name]())
    plan = plan_rows(module, torch.float32)

    def held(h: int) -> int:
        stream = RowStream(plan, 4, 3)
        for top in range(0, h, 3):
            for rows_rwD in stream.push(torch.rand(3, 4, 3), last=top + 3 >= h):
                assert len(rows_rwD) <= 3 * plan.upscale_factor
        windows = [v.window for v in stream._values.values() if v.window is not None]
        return sum(window._memory.numel() for window in windows)

    assert held(300) == held(60)


# Changes to the weights


def replace_twice(part: nn.Module) -> None:
    """What ``.bfloat16().float()`` does; the second may land where the first was."""
    part.bfloat16()
    part.float()


def set_state(part: nn.Module) -> None:
    part.load_state_dict({n: v * 1.5 + 0.1 for n, v in part.state_dict().items()})


def on_data(change: Callable[[Tensor], Any]) -> Callable[[nn.Module], None]:
    def apply(part: nn.Module) -> None:
        for weight in part.parameters():
            change(weight.data)

    return apply


def replace_data(part: nn.Module) -> None:
    for weight in part.parameters():
        weight.data = weight.data * 1.25


def one_step(part: nn.Module) -> None:
    loss = part(torch.rand(1, 3, 5, 5)).square().sum()
    loss.backward()
    torch.optim.Adam(part.parameters(), lr=0.05).step()


def statistics(part: nn.Module) -> None:
    for norm in part.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean += 1


CHANGES: dict[str, Callable[[nn.Module], None]] = {
    "load_state_dict": set_state,
    "optimiser": one_step,
    "data replaced": replace_data,
    "data replaced twice": replace_twice,
    "in place, under no_grad": lambda part: [w.mul_(1.5) for w in part.parameters()] and None,
    "in place, through .data": on_data(lambda data: data.mul_(1.5)),
    "running statistics": statistics,
    "another layer": lambda part: part.entry.register_parameter("bias", None),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_weights_are_noticed(change: str) -> None:
    module, x = shaken(backbone("carn")), torch.rand(1, 3, 9, 8) - 0.5

    def fast() -> Tensor:
        with torch.inference_mode():
            source = feature_rows(module, 19, x, torch.float32)
            assert isinstance(source, StreamedRows)
            return strips(source, 4)

    before = fast()
    assert_same(before, module(x).detach())
    with torch.set_grad_enabled(change == "optimiser"):
        CHANGES[change](module)
    assert not torch.allclose(module(x), before, atol=1e-4)
    assert_same(fast(), module(x).detach())


def test_a_plan_is_made_once_for_unchanged_weights() -> None:
    module, x = shaken(backbone("fsrcnn")), torch.rand(1, 3, 9, 8)
    sources = [feature_rows(module, 4, x, torch.float32) for _ in range(2)]
    assert isinstance(sources[0], StreamedRows)
    assert isinstance(sources[1], StreamedRows)
    assert sources[0].plan is sources[1].plan


def test_another_thread_runs_networks_while_one_is_traced() -> None:
    """torch.fx patches how modules are called in the whole process."""
    picture, found = torch.rand(1, 3, 8, 8), []

    def run(net: Net, x: Tensor) -> Tensor:
        thread = threading.Thread(target=lambda: found.append(net.layer(picture)))
        thread.start()
        thread.join()
        return net.layer(x)

    net = Net(run, layer=conv(3, 4)).eval()
    with torch.no_grad():
        expected = net.layer(picture)
    plan_rows(net)
    assert len(found) == 2  # in the trace, and when the plan is compared with the network
    assert all(torch.equal(result, expected) for result in found)


def test_two_threads_trace_at_once() -> None:
    inside, call = threading.Barrier(2), nn.Module.__call__

    def run(net: Net, x: Tensor) -> Tensor:
        with contextlib.suppress(threading.BrokenBarrierError):
            inside.wait(timeout=0.2)  # both get here if nothing keeps them apart
        return net.layer(x)

    nets = [Net(run, layer=conv(3, 4)).eval() for _ in range(2)]
    threads = [threading.Thread(target=plan_rows, args=(net,)) for net in nets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert nn.Module.__call__ is call
    assert inside.broken
