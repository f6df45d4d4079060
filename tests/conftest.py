"""What all tests share: reference data outside the repository, and networks with random weights."""

import logging
import os
import signal
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pcsr_lightning.networks import PCSR, build_network, default_config
from pcsr_lightning.weights import load

MakeNetwork = Callable[..., PCSR]

# Before Triton is imported: on a machine without a GPU its kernels run in its interpreter.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# A shell starts its background jobs deaf to Ctrl-C, and what they start inherits that; the tests
# send it to what they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden data: $PCSR_SHARED, or `shared` beside the checkout.

    Without it a test is skipped, but never in CI, where a skip would pass for a success.
    """
    named = os.environ.get("PCSR_SHARED")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        reason = f"no reference data at {folder}; name its folder with PCSR_SHARED"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture(autouse=True)
def logging_is_put_back() -> Iterator[None]:
    """A command run within the tests' own process sets its handlers, on streams that then close."""
    root = logging.getLogger()
    before = root.handlers[:]
    yield
    for handler in root.handlers[:]:
        if handler not in before:
            root.removeHandler(handler)
            if isinstance(handler, logging.FileHandler):
                handler.close()


@pytest.fixture(scope="session")
def records() -> Callable[[Path], Iterator[Any]]:
    """Reads the messages of a ``.wandb`` file: LevelDB's log format, after a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    block, header = 32768, 7

    def read(path: Path) -> Iterator[Any]:
        data, at, message = path.read_bytes(), header, b""
        assert data[:4] == b":W&B"
        while at + header <= len(data):
            left = block - at % block
            if left < header:  # the rest of a block too short for a record
                at += left
                continue
            _, length, kind = struct.unpack("<IHB", data[at : at + header])
            message += data[at + header : at + header + length]
            at += header + length
            if kind in (1, 4):  # whole, or the last part
                record = wandb_internal_pb2.Record()
                record.ParseFromString(message)
                yield record
                message = b""

    return read


@pytest.fixture(scope="session")
def make_network() -> MakeNetwork:
    """``make_network(backbone, num_classes, seed)``: in evaluation mode, using all its classes."""

    def make(backbone: str = "fsrcnn", num_classes: int = 2, seed: int = 0) -> PCSR:
        torch.manual_seed(seed)
        model = build_network(default_config(backbone, num_classes))
        assert isinstance(model, PCSR)
        if model.classifier is not None:
            with torch.no_grad():
                # Logits that are large, that vary, and that favour no class on average.
                last = [m for m in model.classifier.modules() if isinstance(m, torch.nn.Linear)]
                for layer in last:
                    layer.weight.mul_(4)
                lr = torch.rand(1, 3, 16, 16)
                feat = model.eval().features(lr)
                logits = model.logits(feat, model.grid((16, 16), (40, 40)))
                biased = last[-1] if last[-1].bias is not None else model.classifier.project
                biased.bias.sub_(logits.mean(dim=(0, 2, 3)))
        return model.eval()

    return make


@pytest.fixture(scope="session")
def released() -> PCSR:
    """The smallest model that ships: FSRCNN-PCSR with two classes."""
    model = load("fsrcnn-pcsr-x4")
    assert isinstance(model, PCSR)
    return model


@pytest.fixture
def fresh_memory_is_nan() -> Iterator[None]:
    """So that no row can be right by the luck of finding zeros in fresh memory."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)
