"""What all tests share: reference data that lies outside the repository."""

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

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
