"""What the browser tests share."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Page

MODEL = "fsrcnn-pcsr-x4"
MAX_PIXELS = 1_500_000
PATIENCE = 120_000  # milliseconds; the machine may have other work


@dataclass
class Served:
    """A running page.

    Attributes:
        url: where it is.
        folder: where it keeps its files.
    """

    url: str
    folder: Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def open_page(page: Page, served: Served) -> None:
    page.goto(served.url)
    page.get_by_role("button", name="Coffee").wait_for()


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.2)
