"""float32 is IEEE float32 in our calls, whatever the process has set, which is as before later."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from tests.small import small_original, small_pcsr
from torch import Tensor

from pcsr_lightning import upscale
from pcsr_lightning.arithmetic import float32_products
from pcsr_lightning.errors import ConfigError
from pcsr_lightning.inference import Execution, Session, execution, kernels
from pcsr_lightning.routing import RoutingConfig

SWITCHES = [
    ("generic", "all"), ("cuda", "all"), ("mkldnn", "all"),
    *((backend, op) for backend in ("cuda", "mkldnn") for op in ("matmul", "conv", "rnn")),
]  # fmt: skip
EXACT = {"cuda matmul": "ieee", "cuda conv": "ieee", "mkldnn matmul": "ieee", "mkldnn conv": "ieee"}


def own_values() -> dict[Any, str]:
    """Each switch's own value, not what it inherits."""
    found = {}
    for switch in SWITCHES:
        found[switch] = torch._C._get_fp32_precision_getter(*switch)
        torch._C._set_fp32_precision_setter(*switch, "none")
    for switch, value in found.items():
        torch._C._set_fp32_precision_setter(*switch, value)
    return found


def legacy() -> object:
    try:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError:
        return "mixed"


def in_effect() -> dict[str, str]:
    found = {f"{b} {o}": torch._C._get_fp32_precision_getter(b, o) for b, o in SWITCHES}
    return {name: found[name] for name in EXACT}


@pytest.fixture(autouse=True)
def switches_are_put_back() -> Iterator[None]:
    before, old = own_values(), legacy()
    yield
    assert isinstance(old, tuple)
    torch.set_float32_matmul_precision(old[0])
    torch.backends.cudnn.allow_tf32 = old[1]
    for switch, value in before.items():
        torch._C._set_fp32_precision_setter(*switch, value)


def nothing() -> None:
    pass


def old_functions() -> None:
    torch.set_float32_matmul_precision("medium")


def old_switches() -> None:
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = False


def everything() -> None:
    # What set_float32_matmul_precision once set, in any test of this process, would stay as it is.
    for switch in SWITCHES:
        torch._C._set_fp32_precision_setter(*switch, "none")
    torch.backends.fp32_precision = "tf32"


def single_ones() -> None:
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    torch.backends.cudnn.conv.fp32_precision = "ieee"


def inherited_and_exact() -> None:
    torch.backends.fp32_precision = "tf32"
    torch.backends.cuda.matmul.fp32_precision = "ieee"


WAYS = [nothing, old_functions, old_switches, everything, single_ones, inherited_and_exact]


def upscaled(precision: str) -> None:
    upscale(small_pcsr(), torch.rand(2, 3, 8, 8), 2, precision=precision)


def upscaled_in_strips(precision: str) -> None:
    upscale(small_pcsr(), torch.rand(1, 3, 8, 8), 2.5, budget=0.7, precision=precision, tile_rows=3)


def in_a_session(precision: str) -> None:
    session = Session(small_pcsr(), torch.rand(2, 3, 8, 8), 2, execution=Execution(precision))
    session.run(RoutingConfig(k=0.1))


def by_an_original(precision: str) -> None:
    upscale(small_original(), torch.rand(2, 3, 8, 8), 4, precision=precision)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, str], bool, object]]:
    """What is set where the network computes."""
    found: list[tuple[dict[str, str], bool, object]] = []

    def watched(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def look(*args: Any, **options: Any) -> Tensor:
            found.append((in_effect(), torch.is_autocast_enabled("cpu"), legacy()))
            return function(*args, **options)

        return look

    for owner, name in (
        (kernels.IntegerScale, "logits"),
        (kernels.IntegerScale, "residual"),
        (kernels.FractionalScale, "residual"),
        (kernels.MLPKernel, "__init__"),
        (torch.nn.Conv2d, "forward"),
    ):
        monkeypatch.setattr(owner, name, watched(getattr(owner, name)))
    return found


@pytest.mark.parametrize("run", [upscaled, upscaled_in_strips, in_a_session, by_an_original])
@pytest.mark.parametrize("way", WAYS)
def test_fp32_whatever_is_set(
    way: Callable[[], None], run: Callable[[str], None], seen: list[Any]
) -> None:
    run("fp32")  # what is made once for a model may compute before that
    del seen[:]
    way()
    before, old = own_values(), legacy()
    with torch.autocast("cpu", torch.bfloat16):
        run("fp32")
    assert seen
    for switches, autocast, meanwhile in seen:
        assert switches == EXACT
        assert not autocast
        # The old functions, which others may call meanwhile, do not raise if they did not before.
        assert meanwhile == ("mixed" if old == "mixed" else ("highest", False))
    assert own_values() == before
    assert legacy() == old


@pytest.mark.parametrize("run", [upscaled, in_a_session, by_an_original])
def test_tf32_is_a_choice(
    run: Callable[[str], None], seen: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "has_tf32", lambda _: True)
    before = own_values()
    run("tf32")
    assert all(found["cuda matmul"] == found["cuda conv"] == "tf32" for found, _, _ in seen)
    assert seen
    assert own_values() == before


def test_tf32_where_there_is_none() -> None:
    with pytest.raises(ConfigError, match=r"precision=tf32: this cpu has no TF32"):
        upscaled("tf32")


def test_put_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    everything()
    before = own_values()

    def fails(*_: object, **__: object) -> Tensor:
        raise ValueError("no")

    for name in ("logits", "residual"):
        monkeypatch.setattr(kernels.IntegerScale, name, fails)
        with pytest.raises(ValueError, match="no"):
            upscaled("fp32")
        assert own_values() == before


def test_nothing_is_set_while_rows_are_delivered() -> None:
    """A caller's own computations in a callback are as exact as it wants them."""
    everything()
    found = []
    upscale(small_pcsr(), torch.rand(1, 3, 8, 8), 2, progress=lambda _: found.append(in_effect()))
    assert set(found[0].values()) == {"tf32"}


def test_threads_share_what_they_agree_on() -> None:
    everything()
    before = own_values()
    inside, left = threading.Event(), threading.Event()
    found: list[dict[str, str]] = []

    def first() -> None:
        with float32_products("cpu"):
            inside.set()
            left.wait(10)
            found.append(in_effect())

    def other() -> None:
        with float32_products("cpu", tf32=True):
            found.append(in_effect())

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(10)
    with float32_products("cpu"):
        pass
    # Another who leaves does not put back what the first still needs.
    waiting = threading.Thread(target=other)
    waiting.start()
    left.set()
    thread.join(10)
    waiting.join(10)
    assert found[0] == EXACT
    assert found[1]["cuda matmul"] == "tf32"
    assert own_values() == before


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["fsrcnn-pcsr-x4", "carn-pcsr-multi"])
def test_classes_on_a_gpu(name: str) -> None:
    import pcsr_lightning
    from pcsr_lightning.data import SAMPLE_FOLDER
    from pcsr_lightning.images import bicubic, read_rgb8

    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    hr = read_rgb8(SAMPLE_FOLDER / "valid" / "chelsea.png")[None, :, :200, :240] / 255
    lr, model = bicubic(hr, (50, 60)).clamp(0, 1), pcsr_lightning.load(name)
    expected = upscale(model, lr, 4)
    everything()
    found = upscale(model.cuda(), lr.cuda(), 4)
    # IEEE float32 rounds to 24 bits, TF32 to 11.
    assert (found.image.cpu() - expected.image).abs().max() < 1e-4
    assert (found.assignment.cpu() != expected.assignment).float().mean() < 1e-3
    if execution.has_tf32("cuda"):
        rounded = upscale(model, lr.cuda(), 4, precision="tf32")
        difference = (rounded.image.cpu() - expected.image).abs().max()
        assert 1e-5 < difference < 0.05
