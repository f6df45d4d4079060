"""What is kept of visitors, and for how long."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from pcsr_lightning.app.choices import AUTOMATIC, BY_K, Choices
from pcsr_lightning.app.loading import load_sample
from pcsr_lightning.app.visitors import Sent, Visitor, Visitors
from pcsr_lightning.app.work import upscale
from pcsr_lightning.inference import RoutingConfig

MODEL = "fsrcnn-pcsr-x4"


def work_on(visitor: Visitor, stem: str = "rocket", scale: float = 1.0) -> None:
    visitor.show(load_sample(stem))
    ticket = (visitor.number, Choices(MODEL, scale))
    visitor.wanted = ticket
    upscale(visitor, ticket, 10**7, lambda *_: None)


def test_choices_say_what_the_library_understands() -> None:
    assert Choices(MODEL, 4, 30).routing == RoutingConfig(budget=0.3)
    assert Choices(MODEL, 4, 100).routing == RoutingConfig(budget=1.0)
    assert Choices(MODEL, 4, 30, BY_K, -0.5).routing == RoutingConfig(k=-0.5)
    assert Choices(MODEL, 4, 30, AUTOMATIC, -0.5).routing == RoutingConfig("adaptive")
    nothing = Choices(MODEL, 4, 0).routing
    assert nothing.mode == "budget"
    assert nothing.value is not None
    assert 0 < nothing.value < 1e-3


def test_each_visitor_has_one_session(tmp_path: Path) -> None:
    visitors = Visitors(tmp_path)
    assert visitors.of("a") is visitors.of("a")
    assert visitors.of("a") is not visitors.of("b")
    assert visitors.of("a").folder != visitors.of("b").folder
    assert visitors.of("a").folder.name != "a"
    assert len(visitors) == 2


def test_nothing_is_left_of_a_visitor_who_leaves(tmp_path: Path) -> None:
    visitors = Visitors(tmp_path)
    visitor = visitors.of("a")
    work_on(visitor)
    visitor.new_file().write_bytes(b"x")
    number = visitor.number
    visitors.end("a")
    visitors.end("never came")
    assert list(tmp_path.iterdir()) == []
    assert visitor.loaded is visitor.session is visitor.run is None
    assert visitor.number > number
    assert len(visitors) == 0


def test_the_idle_are_forgotten(tmp_path: Path) -> None:
    visitors = Visitors(tmp_path, seconds=0.05)
    visitor = visitors.of("a")
    visitor.new_file().write_bytes(b"x")
    time.sleep(0.1)
    visitors.of("b")
    visitors.sweep()
    assert len(visitors) == 1
    assert not visitor.folder.exists()


def test_too_many_visitors(tmp_path: Path) -> None:
    visitors = Visitors(tmp_path, visitors=2)
    first = visitors.of("a")
    first.new_file().write_bytes(b"x")
    visitors.of("b")
    visitors.of("a")
    visitors.of("c")
    assert len(visitors) == 2
    assert visitors.of("a") is first  # it was b that had been idle longest


def test_memory_is_bounded(tmp_path: Path) -> None:
    visitors = Visitors(tmp_path, bytes=1)
    busy, idle, newest = (visitors.of(name) for name in "abc")
    for visitor in (busy, idle, newest):
        work_on(visitor)
        assert visitor.bytes > 1
    with busy.lock:
        visitors.sweep()
    assert (busy.bytes > 0, idle.bytes, newest.bytes > 0) == (True, 0, True)
    assert idle.loaded is not None  # its picture stays, and is enlarged anew when asked for
    visitors.sweep()
    assert busy.bytes == 0


def test_bytes_are_what_is_held(visitor: Visitor) -> None:
    assert visitor.bytes == 0
    ticket = (visitor.number, Choices(MODEL, 2))
    visitor.wanted = ticket
    upscale(visitor, ticket, 10**7, lambda *_: None)
    assert visitor.session is not None
    assert visitor.bytes == visitor.session.bytes + 12 * 200 * 300
    visitor.show(load_sample("rocket"))
    assert visitor.bytes == 0


def test_views_are_replaced_one_turn_later(visitor: Visitor) -> None:
    paths = [visitor.new_file() for _ in range(3)]
    for path in paths:
        path.write_bytes(b"x")
        visitor.keep_view("after", path)
    assert [path.exists() for path in paths] == [False, True, True]
    visitor.forget_work()
    assert not any(path.exists() for path in paths)


def test_a_new_picture_waits_until_the_old_work_has_stopped(visitor: Visitor) -> None:
    number, shown = visitor.number, threading.Event()

    def bring() -> None:
        visitor.show(load_sample("chelsea"))
        shown.set()

    with visitor.lock:
        thread = threading.Thread(target=bring)
        thread.start()
        end = time.monotonic() + 30
        while visitor.number == number:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert visitor.wanted is None  # work under way sees it, and stops
        assert not shown.is_set()
    thread.join(30)
    assert visitor.loaded is not None
    assert visitor.loaded.name == "chelsea.png"


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_files_have_names_that_cannot_be_guessed(visitor: Visitor, suffix: str) -> None:
    names = {visitor.new_file(suffix).name for _ in range(20)}
    assert len(names) == 20
    assert all(len(name) > 20 and name.endswith(suffix) for name in names)


def test_of_two_pictures_the_one_that_was_brought_later_stays(
    visitor: Visitor, tmp_path: Path
) -> None:
    """However long the other one was read."""
    slow, file = visitor.bring(), tmp_path / "slow.png"
    file.write_bytes(b"x")
    assert visitor.show(load_sample("rocket"))
    assert not visitor.show(load_sample("chelsea"), [Sent("slow.png", file)], slow)
    assert visitor.loaded is not None
    assert visitor.loaded.name == "rocket.jpg"
    assert visitor.sent == []
    assert not file.exists()


def test_of_two_requests_the_one_that_was_made_later_stays(visitor: Visitor) -> None:
    newer, older = Choices(MODEL, 4, 80), Choices(MODEL, 4, 70)
    assert visitor.want(2.0, newer)
    assert not visitor.want(1.0, older)
    assert visitor.wanted == (visitor.number, newer)
    assert not visitor.want(3.0, newer)
    assert visitor.want(4.0, older)


def test_what_is_wanted_is_of_the_newest_picture(visitor: Visitor) -> None:
    """Also while work on the old one stops."""
    ready = threading.Event()

    def bring() -> None:
        visitor.show(load_sample("chelsea"))
        ready.set()

    with visitor.lock:
        thread = threading.Thread(target=bring)
        thread.start()
        end = time.monotonic() + 30
        while visitor.number == visitor.loaded_number:
            assert time.monotonic() < end
            time.sleep(0.01)
        visitor.look((0.0, 0.0))  # in the old one
        visitor.want(1.0, Choices(MODEL, 4, 70))
    thread.join(30)
    assert ready.is_set()
    assert visitor.wanted == (visitor.loaded_number, Choices(MODEL, 4, 70))
