"""What is kept of visitors, and for how long."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from pcsr_lightning.app.loading import load_sample
from pcsr_lightning.app.session import ADAPTIVE, BY_K, Choices, Session, Sessions
from pcsr_lightning.app.work import enlarge
from pcsr_lightning.inference import RoutingConfig

MODEL = "fsrcnn-pcsr-x4"


def work_on(session: Session, stem: str = "rocket", scale: float = 1.0) -> None:
    session.show(load_sample(stem))
    ticket = (session.number, Choices(MODEL, scale))
    session.wanted = ticket
    enlarge(session, ticket, 10**7, lambda *_: None)


def test_choices_say_what_the_library_understands() -> None:
    assert Choices(MODEL, 4, 30).routing == RoutingConfig(budget=0.3)
    assert Choices(MODEL, 4, 100).routing == RoutingConfig(budget=1.0)
    assert Choices(MODEL, 4, 30, BY_K, -0.5).routing == RoutingConfig(k=-0.5)
    assert Choices(MODEL, 4, 30, ADAPTIVE, -0.5).routing == RoutingConfig("adaptive")
    nothing = Choices(MODEL, 4, 0).routing
    assert nothing.mode == "budget"
    assert nothing.value is not None
    assert 0 < nothing.value < 1e-3


def test_each_visitor_has_one_session(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path)
    assert sessions.of("a") is sessions.of("a")
    assert sessions.of("a") is not sessions.of("b")
    assert sessions.of("a").folder != sessions.of("b").folder
    assert sessions.of("a").folder.name != "a"
    assert len(sessions) == 2


def test_nothing_is_left_of_a_visitor_who_leaves(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path)
    session = sessions.of("a")
    work_on(session)
    session.new_file().write_bytes(b"x")
    number = session.number
    sessions.end("a")
    sessions.end("never came")
    assert list(tmp_path.iterdir()) == []
    assert session.loaded is session.rerouter is session.run is None
    assert session.number > number
    assert len(sessions) == 0


def test_the_idle_are_forgotten(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path, seconds=0.05)
    session = sessions.of("a")
    session.new_file().write_bytes(b"x")
    time.sleep(0.1)
    sessions.of("b")
    sessions.sweep()
    assert len(sessions) == 1
    assert not session.folder.exists()


def test_too_many_visitors(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path, sessions=2)
    first = sessions.of("a")
    first.new_file().write_bytes(b"x")
    sessions.of("b")
    sessions.of("a")
    sessions.of("c")
    assert len(sessions) == 2
    assert sessions.of("a") is first  # it was b that had been idle longest


def test_memory_is_bounded(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path, bytes=1)
    busy, idle, newest = (sessions.of(name) for name in "abc")
    for session in (busy, idle, newest):
        work_on(session)
        assert session.bytes > 1
    with busy.lock:
        sessions.sweep()
    assert (busy.bytes > 0, idle.bytes, newest.bytes > 0) == (True, 0, True)
    assert idle.loaded is not None  # its picture stays, and is enlarged anew when asked for
    sessions.sweep()
    assert busy.bytes == 0


def test_bytes_are_what_is_held(session: Session) -> None:
    assert session.bytes == 0
    ticket = (session.number, Choices(MODEL, 2))
    session.wanted = ticket
    enlarge(session, ticket, 10**7, lambda *_: None)
    assert session.rerouter is not None
    assert session.bytes == session.rerouter.bytes + 12 * 200 * 300
    session.show(load_sample("rocket"))
    assert session.bytes == 0


def test_views_are_replaced_one_turn_later(session: Session) -> None:
    paths = [session.new_file() for _ in range(3)]
    for path in paths:
        path.write_bytes(b"x")
        session.keep_view("after", path)
    assert [path.exists() for path in paths] == [False, True, True]
    session.forget_work()
    assert not any(path.exists() for path in paths)


def test_a_new_picture_waits_until_the_old_work_has_stopped(session: Session) -> None:
    number, shown = session.number, threading.Event()

    def bring() -> None:
        session.show(load_sample("chelsea"))
        shown.set()

    with session.lock:
        thread = threading.Thread(target=bring)
        thread.start()
        end = time.monotonic() + 30
        while session.number == number:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert session.wanted is None  # work under way sees it, and stops
        assert not shown.is_set()
    thread.join(30)
    assert session.loaded is not None
    assert session.loaded.name == "chelsea.png"


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_files_have_names_that_cannot_be_guessed(session: Session, suffix: str) -> None:
    names = {session.new_file(suffix).name for _ in range(20)}
    assert len(names) == 20
    assert all(len(name) > 20 and name.endswith(suffix) for name in names)
