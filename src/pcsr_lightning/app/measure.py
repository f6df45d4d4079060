"""Seconds and peak memory of a step of work."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Meter:
    """Measures what happens within it.

    Attributes:
        seconds: wall time.
        peak: bytes that the process held at most, beyond those it held before; ``None`` where the
            system does not tell (it does on Linux). Other work of the same process counts too.
        held: bytes that it held at the end beyond those; 0 where the system does not tell.

    Example:
        >>> with Meter() as meter:
        ...     work()
        >>> print(meter.seconds, meter.peak)
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.peak: int | None = None
        self.held = 0

    def __enter__(self) -> Meter:
        self._before = _start_peak()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._start
        if self._before is not None:
            self.peak = max(0, _resident("VmHWM") - self._before)
            self.held = max(0, _resident("VmRSS") - self._before)


def _start_peak() -> int | None:
    """Forgets the peak so far, and gives what is held now; ``None`` where that cannot be done."""
    try:
        # What is free already must not count as held before.
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        return None
    try:
        _RESET.write_text("5")
        return _resident("VmRSS")
    except (OSError, ValueError, KeyError):
        return None


def _resident(name: str) -> int:
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line)
    return int(lines[name].split()[0]) * 1024
