"""Work ahead and behind keeps order, passes errors on and ends its threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from selfhvd_tta.video.background import Background, ahead


def threads() -> set[str]:
    return {t.name for t in threading.enumerate() if t.name.startswith(("decode ahead", "encode"))}


def test_ahead_keeps_order_and_limits_itself() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for i in range(50):
            made.append(i)
            yield i

    taken = []
    for i in ahead(items(), depth=3):
        taken.append(i)
        time.sleep(0.001)
        assert len(made) <= len(taken) + 4
    assert taken == list(range(50))
    assert not threads()


def test_ahead_passes_errors_on_in_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise KeyError("three")

    taken = []
    with pytest.raises(KeyError, match="three"):
        taken += ahead(items())
    source = ahead(items())
    assert [next(source), next(source)] == [1, 2]
    with pytest.raises(KeyError):
        next(source)
    assert not threads()


def test_ahead_ends_when_dropped() -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            i = 0
            while True:
                i += 1
                yield i
        finally:
            closed.set()

    source = ahead(items())
    assert next(source) == 1
    del source
    assert closed.wait(5)
    assert not threads()


def test_background_keeps_order() -> None:
    done: list[int] = []
    worker = Background(depth=2)
    for i in range(30):
        worker.run(lambda i=i: done.append(i))  # type: ignore[misc]
    worker.finish()
    assert done == list(range(30))
    assert not threads()


def test_background_raises_with_a_later_call() -> None:
    def fail() -> None:
        raise OSError("full")

    worker = Background(depth=2)
    worker.run(fail)

    def keep_on() -> None:
        for _ in range(9):
            worker.run(lambda: None)

    with pytest.raises(OSError, match="full"):
        keep_on()
    worker.abandon()
    worker = Background()
    worker.run(fail)
    with pytest.raises(OSError, match="full"):
        worker.finish()
    assert not threads()


def test_background_abandons_what_waits() -> None:
    done: list[int] = []
    gate = threading.Event()
    worker = Background(depth=9)
    worker.run(lambda: done.append(int(gate.wait(5))))
    for _ in range(5):
        worker.run(lambda: done.append(9))
    threading.Timer(0.05, gate.set).start()
    worker.abandon()
    assert done == [1]
    assert not threads()
