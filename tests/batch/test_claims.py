"""Claims: one owner at a time, and none after its owner's death."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from pcsr_lightning.batch.claims import Claim, Unclaimed, claim_file
from pcsr_lightning.batch.outputs import Job
from pcsr_lightning.batch.run import remove_stale_files
from pcsr_lightning.errors import Terminated, hold_interrupts, interruptible

OWNER = """
import sys, time
from pathlib import Path
from pcsr_lightning.batch.claims import Claim
claim = Claim.take(Path(sys.argv[1]), "run")
print(type(claim).__name__, flush=True)
time.sleep(60)
"""

# Takes the claim again and again; inside, makes a file that must not be there and removes it.
RIVAL = """
import os, sys, time
from pathlib import Path
from pcsr_lightning.batch.claims import Claim
target, end = Path(sys.argv[1]), time.monotonic() + 1.5
owned = 0
while time.monotonic() < end:
    claim = Claim.take(target, "run")
    if isinstance(claim, Claim):
        with claim:
            os.close(os.open(f"{target}.owner", os.O_CREAT | os.O_EXCL))
            os.unlink(f"{target}.owner")
            owned += 1
print(owned)
"""


def take(target: Path, run: str = "run") -> Claim:
    claim = Claim.take(target, run)
    assert isinstance(claim, Claim)
    return claim


def test_one_owner(tmp_path: Path) -> None:
    target = tmp_path / "a.png"
    with take(target):
        assert Claim.take(target, "run") is Unclaimed.BUSY
        assert Claim.take(target, "other") is Unclaimed.BUSY
        remove_stale_files(Job(tmp_path / "in.png", target))
        assert claim_file(target).exists()
        with take(tmp_path / "b.png"):
            pass
    assert list(tmp_path.iterdir()) == []
    take(target).release()


def test_given_back_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), take(tmp_path / "a.png"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_killed_owner_blocks_nobody(tmp_path: Path) -> None:
    target = tmp_path / "a.png"
    owner = subprocess.Popen([sys.executable, "-c", OWNER, target], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"Claim\n"
    assert Claim.take(target, "run") is Unclaimed.BUSY
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert claim_file(target).exists()
    take(target).release()
    assert list(tmp_path.iterdir()) == []
    claim_file(target).touch()
    (tmp_path / ".a.png.1-abc.tmp").touch()
    remove_stale_files(Job(tmp_path / "in.png", target))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_removed_stops_nobody(tmp_path: Path) -> None:
    """A folder in a claim's place stands for whatever the system refuses."""
    target = tmp_path / "a.png"
    claim_file(target).mkdir()
    remove_stale_files(Job(tmp_path / "in.png", target))
    assert claim_file(target).is_dir()


def test_rivals_never_own_together(tmp_path: Path) -> None:
    """Taking, removing and making the file anew at the same moment is where such schemes fail."""
    target = tmp_path / "a.png"
    rivals = [
        subprocess.Popen(
            [sys.executable, "-c", RIVAL, target],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    told = [rival.communicate(timeout=60) for rival in rivals]
    assert [err for _, err in told] == [""] * 4
    owned = [int(out) for out, _ in told]
    assert sum(owned) > 300
    assert sorted(owned)[-2] > 0  # two of them at least have met
    assert list(tmp_path.iterdir()) == []


def test_failures_are_known_to_their_own_run_only(tmp_path: Path) -> None:
    target = tmp_path / "a.png"
    with take(target) as claim:
        claim.leave_failed()
    assert Claim.take(target, "run") is Unclaimed.FAILED
    with take(target, "next"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_long_names(tmp_path: Path) -> None:
    target = tmp_path / ("ä" * 125 + ".png")
    target.touch()  # as long as a name can be
    with take(target):
        assert Claim.take(target, "run") is Unclaimed.BUSY


def test_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert Claim.take(tmp_path / "a.png", "run") is Unclaimed.NO_LOCKS
    assert list(tmp_path.iterdir()) == []


def test_a_signal_while_taking_waits_until_the_claim_is_held(tmp_path: Path) -> None:
    """Whenever it comes, what was taken is given back."""
    target = tmp_path / "out.png"

    def work() -> None:
        with interruptible(), ExitStack() as held:
            with hold_interrupts():
                claim = Claim.take(target, "run")
                os.kill(os.getpid(), signal.SIGTERM)
                assert isinstance(claim, Claim)
                held.enter_context(claim)
                assert claim_file(target).exists()
            pytest.fail("the signal was lost")

    with pytest.raises(Terminated):
        work()
    assert not claim_file(target).exists()


def test_a_signal_on_its_way_is_raised_once() -> None:
    seen: list[str] = []

    def work() -> None:
        with interruptible():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                with hold_interrupts():
                    seen.append("cleared away")
                seen.append("to the end")

    with pytest.raises(Terminated):
        work()
    assert seen == ["cleared away", "to the end"]
