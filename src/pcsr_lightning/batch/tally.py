"""How many pictures of a run were done, skipped, left, or failed."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Tally:
    """How many of what.

    Attributes:
        again: of ``done``, those that had been made with other settings before.
        skipped: outputs that were there before.
        unrecorded: of ``skipped``, those of which it is not known how they were made.
        elsewhere: made meanwhile by another process.
        failures: input and reason of each.
        stopped: why the run ended early.
        left: pictures not looked at because of that.
    """

    done: int = 0
    again: int = 0
    skipped: int = 0
    unrecorded: int = 0
    elsewhere: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    stopped: str | None = None
    left: int = 0

    def add(self, other: Tally) -> None:
        """What another process of the same run has done."""
        self.done += other.done
        self.again += other.again
        self.skipped += other.skipped
        self.unrecorded += other.unrecorded
        self.elsewhere += other.elsewhere
        self.failures += other.failures
        self.stopped = self.stopped or other.stopped
        self.left = min(self.left, other.left)

    def summary(self) -> str:
        """All counts in one line."""
        again = f" ({self.again} of them again, with other settings)" if self.again else ""
        parts = [f"{self.done} done{again}"]
        if self.skipped:
            parts.append(f"{self.skipped} skipped (they exist; --overwrite makes them again)")
        if self.elsewhere:
            parts.append(f"{self.elsewhere} done by another process meanwhile")
        parts.append(f"{len(self.failures)} failed")
        if self.left:
            parts.append(f"{self.left} left")
        return ", ".join(parts)
